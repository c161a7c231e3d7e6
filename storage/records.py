"""A whole store as records of the domain: what is carried from one store into another, kind by kind.

Leases are not among them: who drives an account is about processes, and their fences belong to one database. Nor is
the control version, which only counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson
from pydantic import TypeAdapter

from broadcast.model import Attempt, Broadcast, Campaign, Conversation, Delivery, Event, Receipt, Recipient
from broadcast.ports import ApiToken, PresenceCount
from storage.codec import Document

Record = Any

PAGE = 500  # records carried at once
_SUMS = 2**128


@dataclass(frozen=True, slots=True)
class NamedList:
    """A list of recipients."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Story:
    """A delivery with everything that happened to it, each in its order."""

    delivery: Delivery
    attempts: tuple[Attempt, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter of a broadcast."""

    broadcast: str
    path: str
    count: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The key of something that came in."""

    account: str
    key: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Remembered:
    """An answer of the endpoint, kept for who asks again; its bytes as base64."""

    key: str
    fingerprint: str
    answer: str
    at: datetime


#: Every kind, in the order in which it is carried: receipts find their conversations, and a broadcast that comes
#: before its campaign is no launch of it.
_TYPES: Mapping[str, type[Any]] = {
    "lists": NamedList,
    "recipients": Recipient,
    "conversations": Conversation,
    "broadcasts": Broadcast,
    "campaigns": Campaign,
    "deliveries": Story,
    "tally": Counter,
    "waiting": Receipt,
    "inbound": Seen,
    "presence": PresenceCount,
    "tokens": ApiToken,
    "answers": Remembered,
}
KINDS: Mapping[str, Document[Any]] = {kind: Document(type) for kind, type in _TYPES.items()}


def vocabulary() -> list[str]:
    """Every field that a record of this version may have, so that an older version knows what it would drop."""
    found: set[str] = set()
    for kind, type in _TYPES.items():
        schema = TypeAdapter(type).json_schema()
        described = {kind: schema, **schema.get("$defs", {})}
        found |= {f"{name}.{field}" for name, one in described.items() for field in one.get("properties", ())}
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that drives something in the store right now."""

    account: str
    owner: str


class Source(Protocol):
    """A store, or a file of one, to be read as a whole. `name` shows no secrets."""

    name: str

    async def holders(self) -> list[Holder]:
        """Whoever holds a lease that has not run out."""

    async def count(self, kind: str) -> int:
        """How many records there are, as good as it can be told without reading them."""

    def read(self, kind: str) -> AsyncIterator[Sequence[Record]]:
        """All records of the kind, in pages; asked for in the order of `KINDS`. Raises `Undecodable`, naming the
        record."""

    async def close(self) -> None:
        """Lets go; what was begun and not finished is left unusable."""


class Target(Source, Protocol):
    """The same to be filled, and read again for comparison before it is finished."""

    async def is_empty(self) -> bool:
        """Whether there is nothing that filling it could harm; what an unfinished copy left counts as nothing."""

    async def begin(self, origin: str) -> None:
        """Makes ready to be filled. Until `finish` nothing but a second copy can use what is there."""

    async def write(self, kind: str, records: Sequence[Record]) -> None:
        """Adds them; in the order of `KINDS`."""

    async def finish(self) -> None:
        """From now on it is a store like any other, and on the disk."""


@dataclass(slots=True)
class Sum:
    """Count and checksum of a kind, whatever order its records come in."""

    count: int = 0
    checksum: int = 0

    def add(self, canonical: bytes) -> None:
        self.count += 1
        digest = hashlib.blake2b(canonical, digest_size=16).digest()
        self.checksum = (self.checksum + int.from_bytes(digest, "big")) % _SUMS

    @property
    def shown(self) -> str:
        return f"{self.checksum:032x}"[:16]


def parts(kind: str, record: Record) -> Iterator[tuple[str, bytes]]:
    """What a record adds to the sums: a delivery, its attempts and its events count by themselves, in order."""
    whole = orjson.loads(KINDS[kind].encode(record))
    if kind != "deliveries":
        yield kind, _canonical(whole)
        return
    yield kind, _canonical(whole["delivery"])
    for part in ("attempts", "events"):
        for place, one in enumerate(whole[part]):
            yield part, _canonical([place, one])


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


async def summed(whole: Source, step: Callable[[], None]) -> dict[str, Sum]:
    """Reads everything; a sum for each kind, attempts and events apart from their deliveries. `step` hears of every
    kind that is read."""
    sums: dict[str, Sum] = {}
    for kind in KINDS:
        sums[kind] = Sum()
        if kind == "deliveries":
            sums |= {"attempts": Sum(), "events": Sum()}
        async for page in whole.read(kind):
            for record in page:
                for part, canonical in parts(kind, record):
                    sums[part].add(canonical)
        step()
    return sums
