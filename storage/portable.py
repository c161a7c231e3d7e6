"""Carrying a whole store into another one, or into a file and back.

    source: read, kind by kind  ->  target: begin, write, finish

Nothing but a copy can use the target until its sums were compared with the source's and agreed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from broadcast.errors import Conflict
from storage.errors import CannotOpen
from storage.mongo.whole import MongoWhole, refuse_unfinished
from storage.mongo.whole import version as mongo_version
from storage.open import sqlite_path
from storage.records import KINDS, Holder, Record, Source, Sum, Target, summed
from storage.sqlite import backup
from storage.sqlite.whole import SqliteWhole

Progress = Callable[[str, int, int], None]  # kind, records so far, records in all


# --- addresses ----------------------------------------------------------------------------------------


async def source(url: str) -> Source:
    """The store at the address, to be read. Raises `CannotOpen`."""
    path = sqlite_path(url)
    if path is not None:
        return await SqliteWhole.source(path)
    if not await mongo_version(url):
        raise CannotOpen("there is no database of Clarion at the source; check the address")
    await refuse_unfinished(url)
    return await MongoWhole.open(url)


async def target(url: str) -> Target:
    """The store at the address, to be filled. Raises `CannotOpen`."""
    path = sqlite_path(url)
    return await MongoWhole.open(url) if path is None else SqliteWhole.target(path)


async def version(url: str) -> int:
    """The schema of the store at the address before anything is changed; 0 where there is none."""
    path = sqlite_path(url)
    return await mongo_version(url) if path is None else backup.version(path)


# --- carrying -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compared:
    """What was read again, on both sides, after everything was carried."""

    kind: str
    source: Sum
    target: Sum

    @property
    def agrees(self) -> bool:
        return self.source == self.target


async def refuse_held(whole: Source) -> None:
    """Raises `Conflict` while a process works on the store, naming it and the mend."""
    refuse_held_by(whole.name, await whole.holders())


def refuse_held_by(name: str, held: Sequence[Holder]) -> None:
    """The same for those who were found."""
    if held:
        what = ", ".join(f"{one.account} by {one.owner}" for one in held)
        raise Conflict(f"{name}: is in use ({what}); stop clarion serve and every worker, wait 10 s, and try again")


def unseen(*_: object) -> None:
    """For whom nobody watches."""


async def carry(origin: Source, goal: Target, progress: Progress = unseen) -> list[Compared]:
    """Everything from one to the other, then compares both. Where all agree the target is finished; otherwise, and
    whenever this is interrupted, it stays unusable. Raises `Conflict` for a store in use or a target with
    something in it."""
    await refuse_held(origin)
    await refuse_held(goal)
    if not await goal.is_empty():
        raise Conflict(f"{goal.name}: is not empty; name a new database, or remove this one first")
    await goal.begin(origin.name)
    for kind in KINDS:
        done, total = 0, await origin.count(kind)
        progress(kind, done, total)
        async for page in origin.read(kind):
            await goal.write(kind, page)
            done += len(page)
            progress(kind, done, max(done, total))
    return await _finished(origin, goal, progress)


async def _finished(origin: Source, goal: Target, progress: Progress) -> list[Compared]:
    steps = count(1)

    def step() -> None:
        progress("compared", next(steps), 2 * len(KINDS))

    mine, theirs = await summed(origin, step), await summed(goal, step)
    compared = [Compared(kind, mine[kind], theirs[kind]) for kind in mine]
    if all(one.agrees for one in compared):
        await refuse_held(origin)
        await goal.finish()
    return compared


class Changed:
    """A source of which one kind of record is changed on the way."""

    def __init__(self, whole: Source, kind: str, change: Callable[[Any], Any]) -> None:
        self.name = whole.name
        self._whole = whole
        self._kind = kind
        self._change = change

    async def holders(self) -> list[Holder]:
        return await self._whole.holders()

    async def count(self, kind: str) -> int:
        return await self._whole.count(kind)

    async def read(self, kind: str) -> AsyncIterator[Sequence[Record]]:
        async for page in self._whole.read(kind):
            yield [self._change(record) for record in page] if kind == self._kind else page

    async def close(self) -> None:
        await self._whole.close()
