"""Values as they are kept: documents for what is read whole, whole microseconds for instants.

Shared by every store that writes to a disk, so that a record of one can be carried to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from broadcast.model import Broadcast, Campaign
from storage.errors import Undecodable

T = TypeVar("T")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def micros(instant: datetime) -> int:
    """Microseconds since 1970, exactly. A naive instant is a ``TypeError``."""
    since = instant - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def micros_or_none(instant: datetime | None) -> int | None:
    return None if instant is None else micros(instant)


def instant(value: int) -> datetime:
    return EPOCH + timedelta(0, 0, value)


def instant_or_none(value: int | None) -> datetime | None:
    return None if value is None else EPOCH + timedelta(0, 0, value)


def json_text(value: Any) -> str:
    """JSON values as they are kept. Raises ``TypeError`` for anything else, before anything is written."""
    return orjson.dumps(value, option=_STRICT).decode()


def json_copy(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The same JSON values, sharing nothing with their giver; ``TypeError`` as `json_text`."""
    copied: dict[str, Any] = orjson.loads(json_text(dict(mapping)))
    return copied


class Document(Generic[T]):
    """One type of the domain as a JSON document and back."""

    def __init__(self, type: type[T]) -> None:
        self._name = type.__name__.lower()
        self._adapter = TypeAdapter(type)

    def encode(self, value: T) -> str:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()

    def decode(self, id: str, text: str) -> T:
        """Raises `Undecodable` with the id, for a document that this version does not understand."""
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            raise undecodable(self._name, id) from error


def undecodable(kind: str, id: object) -> Undecodable:
    return Undecodable(f"the stored {kind} {id} cannot be read; restore it from a backup, or delete it")


def _plain(value: object) -> object:
    """What orjson does not know of the domain's values."""
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be kept")


CAMPAIGN = Document(Campaign)
BROADCAST = Document(Broadcast)
