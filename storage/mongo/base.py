"""What every part of the MongoDB store stands on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from pymongo.errors import PyMongoError

from storage.mongo.connection import Access, Connection, Unit, as_date
from storage.mongo.meaning import told
from storage.mongo.together import Together
from storage.waiters import Waiters

T = TypeVar("T")
R = TypeVar("R")


class Base:
    """Reads, single writes and transactions on one database. `wall` is the clock that leases expire by, in seconds:
    ``None`` is the server's own, the same for every process, and the only one that service uses."""

    def __init__(self, connection: Connection, *, wall: Callable[[], float] | None) -> None:
        self._connection = connection
        self._wall = wall
        self._waiters = Waiters()
        self._writes: set[asyncio.Task[Any]] = set()
        self._shared: list[Together[Any, Any]] = []
        self._watcher: asyncio.Task[None] | None = None
        self._told_at_once = False  # whether the watcher hears of other processes' control writes

    async def _write(self, run: Callable[[Unit], Awaitable[T]]) -> T:
        """Answers once what `run` wrote is confirmed by a majority; where it raises, nothing of it is written.
        `run` may be called several times. Whoever stops waiting does not stop the write."""
        return await self._finish(self._transact(run))

    async def _transact(self, run: Callable[[Unit], Awaitable[T]]) -> T:
        with told():
            answer, controls = await self._connection.transact(run)
        if controls:
            self._waiters.wake()
        return answer

    def _together(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]], name: str) -> Together[T, R]:
        shared = Together(write, name)
        self._shared.append(shared)
        return shared

    async def _finish(self, write: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(write, name="mongo write")
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_let_go)
            raise

    async def _read(self, run: Callable[[Access], Awaitable[T]]) -> T:
        """Reads, or makes a single write that needs no transaction."""
        with told():
            return await self._connection.read(run)

    def _now(self) -> str | datetime:
        """What leases are compared with, as an expression."""
        return "$$NOW" if self._wall is None else as_date(self._wall())

    # --- control ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """From the first waiter on, hears of the control writes of other processes."""
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._listen(), name="mongo control watch")

    async def _listen(self) -> None:
        while True:
            with suppress(PyMongoError):  # a stream that ends, or is not allowed: waiters look by themselves
                async with self._connection.changes("control") as stream:
                    self._told_at_once = True
                    self._waiters.wake()
                    async for _ in stream:
                        self._waiters.wake()
            self._told_at_once = False
            await asyncio.sleep(_LISTEN_AGAIN)

    async def _end(self) -> None:
        """Finishes what was begun, then lets go of the connection."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await asyncio.gather(*(shared.finish() for shared in self._shared))
        await asyncio.gather(*self._writes, return_exceptions=True)
        await self._connection.close()


_LISTEN_AGAIN = 2.0  # seconds


def _let_go(task: asyncio.Task[Any]) -> None:
    """Nobody waits for it any more: what it raised has been seen."""
    if not task.cancelled():
        task.exception()


def among(values: Iterable[str]) -> dict[str, list[str]]:
    return {"$in": [str(value) for value in values]}


def words(**filters: Collection[str]) -> dict[str, Any]:
    """A filter by name, where no word at all is no filter."""
    return {name: among(sorted(values)) for name, values in filters.items() if values}


def containing(field: str, folded: str) -> dict[str, Any]:
    """Those whose folded text has `folded` in it, whatever signs that consists of."""
    if not folded:
        return {}
    return {"$expr": {"$gte": [{"$indexOfCP": [f"${field}", {"$literal": folded}]}, 0]}}
