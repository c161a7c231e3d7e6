"""What every part of the SQLite store stands on."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

import orjson

from storage.sqlite.lanes import ReadLane, Unit, WriteLane
from storage.waiters import Waiters

T = TypeVar("T")


class Base:
    """Three lanes: one writes, one reads what the engine and the webhooks wait for, one reads lists and exports,
    which may take long. `wall` is the clock that leases expire by: seconds, the same for every process."""

    def __init__(self, path: Path, *, wall: Callable[[], float]) -> None:
        loop = asyncio.get_running_loop()
        self._wall = wall
        self._waiters = Waiters()
        self._writer = WriteLane(path, "writer", loop, on_control=self._waiters.wake)
        self._reader = ReadLane(path, "reader", loop)
        self._lister = ReadLane(path, "lister", loop)

    async def _write(self, run: Callable[[Unit], T]) -> T:
        """Answers once what `run` wrote is on the disk; where it raises, nothing of it is."""
        return await self._writer.call(run)

    async def _read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        return await self._reader.call(run)

    async def _list(self, run: Callable[[sqlite3.Connection], T]) -> T:
        return await self._lister.call(run)


def ids(values: Iterable[str]) -> str:
    """A parameter for ``IN (SELECT value FROM json_each(?))``."""
    return orjson.dumps([str(value) for value in values]).decode()


def words(values: Collection[str]) -> str | None:
    """The same for a filter, where none at all is no filter."""
    return ids(sorted(values)) if values else None


def one(row: Any, read: Callable[[Any], T]) -> T | None:
    """What `fetchone` found, read."""
    return None if row is None else read(row)
