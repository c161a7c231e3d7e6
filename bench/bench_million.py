"""One broadcast of a million on SQLite, from the launch to the last outcome.

    python -m bench million [--deliveries 1000000]

The platform is a stand-in in the same process that accepts every message at once: what is measured is Clarion, not
a platform's pace. People are made first, page by page, by a process of its own. Then another one launches the
broadcast as the host does, plans it and drives the engine with its default options until the last outcome is
recorded; its peak of resident memory is the kernel's own figure (VmHWM). At the end the file is measured with its
write-ahead log written back, and the report is asked for, ten times over.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import figures, world
from bench.figures import Figures
from bench.world import UNBOUND
from bot.memory import settle
from broadcast import report
from broadcast.model import Answer, ChannelName, Conversation, DeliveryState, Sent
from broadcast.ports import Content, Features, Store
from storage.open import open_store

MEMORY, REPORT = 300, 1.0
_KEY, _BROADCAST = "telegram/bench", "brd_million"
_PAGE = 10_000
#: Seconds between two looks at how far it is; on a terminal, and in plain lines.
_LOOK, _LINE = 1.0, 15.0
_PLANNING, _SENDING = "planned", "sent"


class StandIn:
    """A platform that accepts everything at once."""

    account = _KEY
    name = ChannelName.TELEGRAM
    features = Features(
        reports_delivered=False, reports_read=False, rate=UNBOUND, conversation_limits=(), text_limit=4096
    )

    def __init__(self) -> None:
        self._number = 0

    async def send(self, to: Conversation, content: Content) -> Answer:
        del to, content
        self._number += 1
        await asyncio.sleep(0)  # as any exchange, it lets others go on
        return Sent(str(self._number))

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Filled:
    seconds: float


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far it is. `stage` is what is being done."""

    stage: str
    number: int


@dataclass(frozen=True, slots=True)
class Finished:
    """`memory` in MiB, `report` in seconds; the peak while planning beside that of all."""

    planning: float
    sending: float
    cpu: float
    memory: float
    planning_memory: float
    report: float
    states: Mapping[DeliveryState, int]


# --- in processes of their own ------------------------------------------------------------------------


def _fill(pipe: Connection, url: str, deliveries: int) -> None:
    async def main() -> None:
        began = time.perf_counter()
        store = await open_store(url)
        try:
            people = (str(1_000_000 + number) for number in range(deliveries))
            done = 0
            while page := list(islice(people, _PAGE)):
                await world.fill(store, _KEY, page)
                done += len(page)
                pipe.send(Progressed("people", done))
        finally:
            await store.close()
        pipe.send(Filled(time.perf_counter() - began))

    _on_loop(main)


def _broadcast(pipe: Connection, url: str) -> None:
    async def main() -> None:
        store = await open_store(url)
        telling = asyncio.create_task(_tell(pipe, store))
        try:
            pipe.send(await _to_the_end(store))
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling
            await store.close()

    _on_loop(main)


async def _to_the_end(store: Store) -> Finished:
    channel = StandIn()
    settle()
    used, began = world.cpu(), time.perf_counter()
    await world.launch(store, world.at_once(_BROADCAST, _KEY), [world.account(channel)])
    planned, planning_memory = time.perf_counter(), world.peak_memory()
    await world.drive(store, channel, UNBOUND, _BROADCAST)
    ended, used = time.perf_counter(), world.cpu() - used
    memory = world.peak_memory()
    seconds = statistics.median([await world.reported(store, _BROADCAST) for _ in range(10)])
    states = report.deliveries(await store.tally(_BROADCAST))
    return Finished(planned - began, ended - planned, used, memory, planning_memory, seconds, states)


async def _tell(pipe: Connection, store: Store) -> None:
    while True:
        await asyncio.sleep(_LOOK)
        states = report.deliveries(await store.tally(_BROADCAST))
        found = await store.broadcast(_BROADCAST)
        if found is None or found.planned is None:
            pipe.send(Progressed(_PLANNING, sum(states.values())))
        else:
            pipe.send(Progressed(_SENDING, states[DeliveryState.SENT]))


def _on_loop(main: Callable[[], object]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())  # type: ignore[arg-type]  # the coroutine functions above, each in its own process


# --- in this one --------------------------------------------------------------------------------------

Show = Callable[[Progressed], None]


@contextmanager
def shown(deliveries: int) -> Iterator[Show]:
    """A bar on a terminal, a line from time to time elsewhere."""
    console = Console()
    if not console.is_terminal:
        yield _lines(deliveries)
        return
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = {stage: progress.add_task(stage, total=deliveries, start=False) for stage in _STAGES}

        def show(one: Progressed) -> None:
            for stage in _STAGES[: _STAGES.index(one.stage)]:
                progress.update(bars[stage], completed=deliveries)
            if not progress.tasks[bars[one.stage]].started:
                progress.start_task(bars[one.stage])
            progress.update(bars[one.stage], completed=one.number)

        yield show


_STAGES = ("people", _PLANNING, _SENDING)


def _lines(deliveries: int) -> Show:
    began = said = time.perf_counter()

    def show(one: Progressed) -> None:
        nonlocal said
        if (now := time.perf_counter()) - said >= _LINE:
            said = now
            print(f"{now - began:5.0f} s: {one.stage} {one.number:,} of {deliveries:,}", flush=True)

    return show


def apart(target: Callable[..., None], arguments: Sequence[object], show: Show) -> object:
    """What a process of its own comes to; its progress is shown."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, *arguments))
    process.start()
    there.close()  # so that a process that dies is noticed
    try:
        while isinstance(told := here.recv(), Progressed):
            show(told)
        return told
    finally:
        process.join(30)
        if process.is_alive():
            process.terminate()


def on_disk(path: Path) -> int:
    """Bytes of the file, its write-ahead log written back first."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))


@dataclass(frozen=True, slots=True)
class Found:
    deliveries: int
    filling: float
    people: int
    total: int
    finished: Finished

    @property
    def seconds(self) -> float:
        return self.finished.planning + self.finished.sending


def measure(deliveries: int) -> Found:
    with tempfile.TemporaryDirectory() as folder, shown(deliveries) as show:
        path = Path(folder) / "bench.db"
        url = f"sqlite:///{path}"
        filled = apart(_fill, (url, deliveries), show)
        assert isinstance(filled, Filled)
        people = on_disk(path)
        finished = apart(_broadcast, (url,), show)
        assert isinstance(finished, Finished)
        return Found(deliveries, filled.seconds, people, on_disk(path), finished)


def show_found(found: Found) -> None:
    number, last = found.deliveries, found.finished
    each = (found.total - found.people) / number
    print(f"{number:,} people made in {found.filling:.0f} s: {found.people / number:.0f} bytes each on disk")
    print(
        f"planned in {last.planning:.0f} s, {last.planning / number * 1e6:.0f} µs each; "
        f"peak {last.planning_memory:.0f} MiB"
    )
    print(f"sent in {last.sending:.0f} s, {number / last.sending:,.0f} a second")
    print(
        f"from launch to last outcome {found.seconds / 60:.1f} minutes, CPU {last.cpu / number * 1e6:.0f} µs each"
    )
    print(f"peak of resident memory {last.memory:.0f} MiB")
    print(
        f"on disk {each:.0f} bytes a delivery, {found.total / number:.0f} with its person; "
        f"{found.total / 2**20:.0f} MiB"
    )
    print(f"report in {last.report * 1e3:.1f} ms")


def tell(found: Found, given: Figures) -> None:
    last, number = found.finished, found.deliveries
    each = (found.total - found.people) / number
    done = last.states[DeliveryState.SENT] == number
    given.add(
        f"one broadcast of {number:,} on SQLite, from launch to last outcome",
        f"{found.seconds / 60:.1f} minutes, {number / last.sending:,.0f} sent a second, "
        f"{last.memory:.0f} MiB resident at most, {each:.0f} bytes a delivery on disk",
        f"finishes, under {MEMORY} MiB",
        held=done and last.memory < MEMORY,
    )
    given.add(
        f"report of a broadcast of {number:,} on SQLite",
        f"{last.report * 1e3:.1f} ms",
        f"under {REPORT:.0f} s",
        held=last.report < REPORT,
    )


def main() -> int:
    arguments = figures.parser(__doc__)
    arguments.add_argument("--deliveries", type=int, default=1_000_000, help="(default: %(default)s)")
    chosen = arguments.parse_args()
    given = Figures()
    found = measure(chosen.deliveries)
    show_found(found)
    tell(found, given)
    return given.close(chosen.rows)


if __name__ == "__main__":
    sys.exit(main())
