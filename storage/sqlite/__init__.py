"""The Store on SQLite: one file, one writer, the embedded default."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from broadcast.ports import Store
from storage.sqlite.campaigns import Campaigns
from storage.sqlite.connection import prepare
from storage.sqlite.erasure import Erasure
from storage.sqlite.inbox import Inbox
from storage.sqlite.leases import Leases, Tokens
from storage.sqlite.ledger import Ledger
from storage.sqlite.people import People
from storage.sqlite.presence import Presence
from storage.sqlite.retention import Retention


class SqliteStore(People, Erasure, Campaigns, Ledger, Inbox, Leases, Tokens, Presence, Retention, Store):
    """The whole port on one database file, shared safely with other processes of the same machine. Belongs to
    the loop that opened it. Every write is on the disk when it returns."""

    @classmethod
    async def open(cls, path: Path, *, wall: Callable[[], float] = time.time) -> Self:
        """Creates or migrates the file first. Raises `CannotOpen` with the mend if it cannot be used."""
        await asyncio.to_thread(prepare, path)
        return cls(path, wall=wall)

    async def ping(self) -> None:
        """Writes what was not there before: SQLite leaves out a write that changes nothing, also on a full disk."""
        touch = "INSERT OR REPLACE INTO leases (account, owner, fence, expires) VALUES ('ping', NULL, 0, ?)"
        await self._write(lambda unit: unit.db.execute(touch, (self._wall(),)))
        await self.control_version()

    async def close(self) -> None:
        """Finishes what was handed over, then lets go of the file."""
        await self._reader.close()
        await self._lister.close()
        await self._writer.close()
