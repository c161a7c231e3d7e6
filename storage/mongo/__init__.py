"""The Store on MongoDB: many hosts, many workers, one replica set.

What a call wrote is confirmed by a majority, and in the journal, when it returns; a primary that dies afterwards
takes nothing of it along. Whatever the port calls one transaction is one. They are kept from meeting: each counts
in documents of its own (`Unit`), an account's batches follow one another (`Ledger`), and what must not happen at
once writes the same document, so that MongoDB itself lets only one of the two through.

    intend   the lease with what is claimed, then who may not be written to, then what is counted where only so
             many may begin (`counting`), then the deliveries still planned
    record   the lease, then each delivery with its line, what is planned again (`edges`), and what the answer told
             of its conversation
    last     the counters, then the control version; then the commit

No change of a delivery's state writes an index, which would cost more than all the rest. What is due is looked for
from an edge on (`edges`), what is in flight is told by the lease (`claiming`).

A host that dies in the middle leaves a transaction open. Whoever takes over its account, or finds it in the way,
ends it; without the right to, MongoDB does after a minute.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Self

from broadcast.ports import Store
from storage.mongo.campaigns import Campaigns
from storage.mongo.connection import LANES
from storage.mongo.erasure import Erasure
from storage.mongo.inbox import Inbox
from storage.mongo.leases import Tokens
from storage.mongo.ledger import Ledger
from storage.mongo.people import People
from storage.mongo.presence import Presence
from storage.mongo.retention import Retention
from storage.mongo.schema import opened

_PLACES = 32  # processes that count without ever meeting; more do so now and then


class MongoStore(People, Erasure, Campaigns, Ledger, Inbox, Tokens, Presence, Retention, Store):
    """The whole port on one database of a replica set, shared with any number of processes and hosts. Belongs to
    the loop that opened it."""

    @classmethod
    async def open(cls, url: str, *, wall: Callable[[], float] | None = None) -> Self:
        """Creates or migrates the database first. Raises `CannotOpen`, in one line with the mend, if it cannot be
        used. `wall` stands in for the server's own clock, by which leases expire."""
        place = secrets.randbelow(_PLACES) * LANES
        return cls(await opened(url, slots=range(place, place + LANES)), wall=wall)

    async def ping(self) -> None:
        touch = {"$currentDate": {"at": True}}  # what changes nothing is not written
        await self._read(lambda db: db.update("meta", {"_id": "ping"}, touch, upsert=True))

    async def close(self) -> None:
        """Finishes what was begun, then lets go of the connection."""
        await self._end()
