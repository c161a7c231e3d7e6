"""What every channel makes of one request from its platform: the answer for the platform, and what it said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broadcast.model import Receipt
from broadcast.ports import Inbound

#: A callback may be this many bytes long. The host refuses more before it reads on; a channel refuses what
#: reaches it all the same.
BODY_LIMIT = 1024 * 1024


def header(headers: Mapping[str, str], name: str) -> str:
    """A header by its name, whose case does not matter; empty where there is none."""
    given = headers.get(name)  # the host's mapping knows no case either: found at once
    if given is not None:
        return given
    wanted = name.lower()
    return next((value for one, value in headers.items() if one.lower() == wanted), "")


@dataclass(frozen=True, slots=True)
class Received:
    """How the platform is answered (`status`, `body`, `content_type`), and what there is to act on.

    `refused` is ``None`` for a request that proved to be the platform's; otherwise the reason why it was turned
    away, one of a few fixed words that can be counted and logged. A refused request brings nothing to act on.
    """

    status: int = 200
    body: bytes | None = None
    content_type: str = "application/json"
    inbound: tuple[Inbound, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    refused: str | None = None
