"""The threads that talk to SQLite. Each has a connection of its own; the loop hands over whole functions, so that
a call costs one hop however many statements it takes.

Writes that wait together are committed together: one transaction, a savepoint each, answered after the commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from broadcast.errors import StoreUnavailable
from broadcast.tally import Delta
from storage.sqlite.batches import Rows
from storage.sqlite.connection import connect, meaning

T = TypeVar("T")

#: Writes what several calls ask, in order, and answers each.
Together = Callable[["Unit", Sequence[Any]], Sequence[Any]]

_GROUP = 64  # writes in one transaction; to so many none are added
#: Turns of the loop that a call waits for others of its kind. A request is read in one turn, becomes a task in the
#: next and calls in a third: what comes together is handed over together. Were the thread woken for the first ones,
#: it and the loop, which reads the others, would take the interpreter from each other with every statement, and
#: both take half as long again.
_TURNS = 6

_TALLY = Rows(
    "INSERT INTO tally (broadcast, path, count) VALUES",
    3,
    "ON CONFLICT (broadcast, path) DO UPDATE SET count = count + excluded.count",
)


class Unit:
    """One write on its way: the connection, and what is written once at its end."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.control_raised = False
        self._counts: dict[tuple[str, str], int] = defaultdict(int)

    def count(self, broadcast: str, deltas: Iterable[Delta], times: int = 1) -> None:
        for path, delta in deltas:
            self._counts[broadcast, path] += delta * times

    def counted(self, broadcast: str) -> Mapping[str, int]:
        """What it adds to the counters of the broadcast so far."""
        return {path: delta for (of, path), delta in self._counts.items() if of == broadcast}

    def raise_control(self) -> None:
        self.control_raised = True

    def finish(self) -> None:
        if self._counts:
            _TALLY.run(self.db, [(*place, delta) for place, delta in self._counts.items() if delta])
        if self.control_raised:
            self.db.execute("UPDATE control SET version = version + 1")


@dataclass(slots=True)
class _Job:
    """One call: what to run, whom to answer, and what came of it."""

    run: Callable[[Any], Any]
    future: asyncio.Future[Any]
    together: Together | None = None
    asked: Any = None
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        if self.future.done():  # the caller was cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Lane:
    """A thread with a connection, fed by a queue."""

    def __init__(self, path: Path, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._jobs: SimpleQueue[list[_Job]] = SimpleQueue()  # none at all: the end
        self._given: list[_Job] = []
        self._gathered: list[_Job] = []
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"clarion-{name}", daemon=True)
        self._thread.start()

    async def call(self, run: Callable[[Any], T]) -> T:
        """What `run` answers, run in the lane's thread. A caller that is cancelled does not undo it."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._hand_over(_Job(run, future))
        return await future

    def _hand_over(self, job: _Job) -> None:
        """With all that this turn of the loop brings: woken for the first one alone, the thread would only quarrel
        with the loop over the interpreter."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if not self._given:
            self._loop.call_soon(self._flush)
        self._given.append(job)

    def _gather(self, job: _Job) -> None:
        """The same, with all that the next turns bring."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if not self._gathered:
            self._loop.call_soon(self._wait, _TURNS)
        self._gathered.append(job)

    def _wait(self, turns: int) -> None:
        if turns and len(self._gathered) < _GROUP:
            self._loop.call_soon(self._wait, turns - 1)
        else:
            self._flush()

    def _flush(self) -> None:
        given, self._given, self._gathered = [*self._given, *self._gathered], [], []
        for begin in range(0, len(given), _GROUP):
            self._jobs.put(given[begin : begin + _GROUP])

    async def close(self) -> None:
        """Finishes what was handed over, then ends the thread and its connection."""
        if not self._closed:
            self._closed = True
            self._flush()
            self._jobs.put([])
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        try:
            db = connect(self._path)
        except sqlite3.Error as error:
            self._refuse(meaning(error))
            return
        try:
            while jobs := self._next():
                self._serve(db, jobs)
        finally:
            db.close()

    def _next(self) -> list[_Job]:
        """The next jobs and those that wait behind them; nothing when the lane is to end."""
        jobs = self._jobs.get()
        with suppress(Empty):
            while jobs and len(jobs) < _GROUP:
                more = self._jobs.get_nowait()
                if not more:
                    self._jobs.put(more)
                    break
                jobs += more
        return jobs

    def _serve(self, db: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
        """Runs the jobs and answers them."""
        raise NotImplementedError

    def _answer(self, jobs: Sequence[_Job]) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(_settle, jobs)

    def _refuse(self, error: Exception) -> None:
        while jobs := self._jobs.get():
            for job in jobs:
                job.error = error
            self._answer(jobs)


class ReadLane(_Lane):
    """Each job sees one state of the database, from its first statement to its last."""

    def _serve(self, db: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            try:
                db.execute("BEGIN")
                job.result = job.run(db)
            except Exception as error:  # noqa: BLE001 - handed to the caller, who awaits it
                job.error = _told(error)
            finally:
                _roll_back(db)
            self._answer([job])


@dataclass(slots=True)
class _Group:
    """What one transaction made of its jobs."""

    control_raised: bool = False


class WriteLane(_Lane):
    """Runs what waits together in one transaction; a job that fails is undone alone."""

    def __init__(
        self, path: Path, name: str, loop: asyncio.AbstractEventLoop, *, on_control: Callable[[], None]
    ) -> None:
        self._on_control = on_control
        super().__init__(path, name, loop)

    async def call_together(self, write: Together, asked: Any) -> Any:
        """What `write` answers to this call, made with those of the same kind that wait beside it: a burst of
        callbacks costs as many statements as one. A call at fault fails alone."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._gather(_Job(lambda unit: write(unit, [asked])[0], future, write, asked))
        return await future

    def _serve(self, db: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
        group = _Group()
        try:
            db.execute("BEGIN IMMEDIATE")
            if len(jobs) == 1:
                _run(db, jobs[0], group)  # where it fails, there is nothing to keep: no savepoint
            else:
                for batch in _alike(jobs):
                    if len(batch) == 1 or not _write_together(db, batch, group):
                        for job in batch:
                            _write(db, job, group)
            db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - handed to the callers, who await it
            told = _told(error)
            for job in jobs:
                job.error = job.error or told
        finally:
            _roll_back(db)
        self._answer(jobs)
        if group.control_raised:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._on_control)


def _run(db: sqlite3.Connection, job: _Job, group: _Group) -> None:
    unit = Unit(db)
    job.result = job.run(unit)
    unit.finish()
    group.control_raised = group.control_raised or unit.control_raised


def _write(db: sqlite3.Connection, job: _Job, group: _Group) -> None:
    """Raises only what ends the whole transaction."""
    db.execute("SAVEPOINT job")
    try:
        _run(db, job, group)
    except Exception as error:
        job.error = _told(error)
        if not db.in_transaction:  # SQLite gave the transaction up: disk full, I/O error
            raise
        db.execute("ROLLBACK TO job")
    db.execute("RELEASE job")


def _alike(jobs: Sequence[_Job]) -> Iterable[list[_Job]]:
    """Those of one kind together, in the place of the first; the others alone. All wait at once, so none of them
    may count on coming before another."""
    batches: dict[object, list[_Job]] = {}
    for job in jobs:
        batches.setdefault(job.together or job.future, []).append(job)
    return batches.values()


def _write_together(db: sqlite3.Connection, batch: Sequence[_Job], group: _Group) -> bool:
    """False where one of them is at fault, and nothing is written. Raises only what ends the whole transaction."""
    together = batch[0].together
    if together is None:
        return False
    unit = Unit(db)
    db.execute("SAVEPOINT batch")
    try:
        results = together(unit, [job.asked for job in batch])
        unit.finish()
    except Exception:
        if not db.in_transaction:
            raise
        db.execute("ROLLBACK TO batch")
        db.execute("RELEASE batch")
        return False
    db.execute("RELEASE batch")
    for job, result in zip(batch, results, strict=True):
        job.result = result
    group.control_raised = group.control_raised or unit.control_raised
    return True


def _told(error: Exception) -> Exception:
    if not isinstance(error, sqlite3.Error):
        return error
    told = meaning(error)
    if told is not error:
        told.__cause__ = error
    return told


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")


def _settle(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.settle()
