"""Whether workers get in each other's way: two on two accounts, against one on one, on one MongoDB.

    python -m bench workers [--seconds 10] [--rounds 2]

First one worker sends without a pace worth the name: the processor time that a message takes of it and of the
database tells what one core could do. Then each account is rated at a third of that, so that the machine has room
for what is shared (the database, the simulated platform), and one worker on one account and two workers on two are
measured in turn, each a process of its own with its own engine and its own connection to the database. Nothing
shared gets in the way if two send twice as much, at the same CPU time a message; the server's stands beside it.

SQLite is not for that: a file is written by one process at a time, and one process drives all its accounts.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import uvloop

from bench import figures, world
from bench.figures import Figures
from bench.world import UNBOUND, Run
from bot.memory import settle
from storage.open import open_store

#: The share of what one core can do that an account is rated at.
SHARE = 1 / 3
WHAT_RATE = (
    "two workers on two accounts, each rated at a third of what one core can do, against one on one: messages"
)
WHAT_CPU = "the same: CPU time a message of the workers"
LEAST, APART = 1.95, 0.10
_MOST = 20_000  # people on one account: so much for what one core can do in the time of a round


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker does."""

    store: str
    platform: str
    account: str
    broadcast: str
    chats: Sequence[str]
    rate: float


@dataclass(frozen=True, slots=True)
class Done:
    """When one worker began and ended, on the clock that all processes share, and its CPU time."""

    began: float
    ended: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Round(Run):
    """What some workers did together. `server` is the database's CPU time."""

    server: float


def _work(pipe: Connection, task: Task) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_worked(pipe, task))


async def _worked(pipe: Connection, task: Task) -> None:
    store = await open_store(task.store)
    channel = world.telegram(task.platform, task.account, task.rate)
    try:
        settle()
        pipe.send(None)
        await asyncio.to_thread(pipe.recv)  # the others are ready too
        used, began = world.cpu(), time.monotonic()
        await world.drive(store, channel, task.rate, task.broadcast)
        done = Done(began, time.monotonic(), world.cpu() - used)
        assert await world.sent(store, task.broadcast) == len(task.chats)
        pipe.send(done)
    finally:
        await channel.close()
        await store.close()


async def _launched(tasks: Sequence[Task]) -> None:
    """One after the other, by one who knows all accounts, as a host does."""
    store = await open_store(tasks[0].store)
    channels = [world.telegram(task.platform, task.account, task.rate) for task in tasks]
    try:
        for task in tasks:
            await world.fill(store, task.account, task.chats)
            accounts = [world.account(channel, task.rate) for channel in channels]
            await world.launch(store, world.at_once(task.broadcast, task.account), accounts)
    finally:
        for channel in channels:
            await channel.close()
        await store.close()


def together(tasks: Sequence[Task]) -> Round:
    """All at once, each in its own process."""
    asyncio.run(_launched(tasks))
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pipes = []
        for task in tasks:
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, task))
            process.start()
            there.close()  # so that a worker that dies is noticed
            stack.callback(_end, process)
            pipes.append(here)
        for pipe in pipes:
            pipe.recv()
        served = world.server_seconds(tasks[0].store)
        for pipe in pipes:
            pipe.send(None)
        done: list[Done] = [pipe.recv() for pipe in pipes]
        served = world.server_seconds(tasks[0].store) - served
    seconds = max(one.ended for one in done) - min(one.began for one in done)
    return Round(sum(len(task.chats) for task in tasks), seconds, sum(one.cpu for one in done), served)


def _end(process: BaseProcess) -> None:
    process.join(10)
    if process.is_alive():
        process.terminate()


@dataclass(slots=True)
class Found:
    """What one core can do, in messages a second, and the rounds of one worker and of two."""

    core: float
    one: list[Round]
    two: list[Round]

    @property
    def kept(self) -> float:
        """How much of its pace one worker alone came to: less than all of it is nobody else's doing."""
        return statistics.median(each.rate for each in self.one) / (self.core * SHARE)


def measure(seconds: float, rounds: int) -> Found:
    with world.mongodb() as databases, world.sandbox(2 * _MOST) as (platform, chats):

        def play(workers: int, messages: int, rate: float) -> Round:
            with databases.one() as url:
                return together(
                    [
                        Task(
                            url,
                            platform,
                            f"telegram/{number}",
                            f"brd_{number}",
                            chats[number * messages : (number + 1) * messages],
                            rate,
                        )
                        for number in range(workers)
                    ]
                )

        probe = play(1, 500, UNBOUND)
        alone = play(1, min(int(probe.rate * seconds), _MOST), UNBOUND)
        core = alone.messages / (alone.cpu + alone.server)
        rate = core * SHARE
        messages = min(int(rate * seconds), _MOST)
        found = Found(core, [], [])
        for _ in range(rounds):
            found.one.append(play(1, messages, rate))
            found.two.append(play(2, messages, rate))
    return found


def tell(found: Found, given: Figures) -> None:
    rate = statistics.median(two.rate / one.rate for one, two in zip(found.one, found.two, strict=True))
    cost = statistics.median(two.micros / one.micros for one, two in zip(found.one, found.two, strict=True))
    given.add(
        WHAT_RATE,
        f"{rate:.2f} times as many; one alone kept {found.kept:.0%} of its pace",
        f"{LEAST} times",
        held=rate >= LEAST,
    )
    given.add(WHAT_CPU, f"{cost - 1:+.0%}", f"within {APART:.0%}", held=cost <= 1 + APART)


def show(found: Found) -> None:
    print(f"one core can do {found.core:,.0f} messages/s; each account is rated at a third of it")
    print(f"one worker alone kept {found.kept:.0%} of that pace")
    print(f"{'workers':>8} {'messages':>9} {'messages/s':>11} {'CPU a message, µs':>18} {'of MongoDB, µs':>15}")
    for workers, rounds in ((1, found.one), (2, found.two)):
        for each in rounds:
            server = each.server / each.messages * 1e6
            print(f"{workers:>8} {each.messages:>9} {each.rate:>11,.0f} {each.micros:>18.0f} {server:>15.0f}")


def main() -> int:
    arguments = figures.parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=10, help="of each sending (default: %(default)s)")
    arguments.add_argument("--rounds", type=int, default=2, help="(default: %(default)s)")
    chosen = arguments.parse_args()
    given = Figures()
    with given.row(WHAT_RATE, f"{LEAST} times"):
        found = measure(chosen.seconds, chosen.rounds)
        show(found)
        tell(found, given)
    return given.close(chosen.rows)


if __name__ == "__main__":
    sys.exit(main())
