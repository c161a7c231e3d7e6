"""How long a broadcast takes to play ahead of time: ``python -m bench.bench_simulate [--people 20000,100000]``.

Plays scenarios over five working days in which everybody is absent half of the time, for each number of rounds, and
prints time, peak memory and lines. Each runs in a process of its own, so that the peak is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from bot import simulate
from broadcast.model import ChannelName, Policies, PresenceState, Schedule, WhenUnknown
from broadcast.simulation import Person, Scenario

HOUR = timedelta(hours=1)
MONDAY = datetime(2026, 4, 13, tzinfo=UTC)
#: What was asked for: so many people within so many seconds.
TARGET = (100_000, 60.0)


def steps(number: int) -> Iterator[tuple[datetime, PresenceState]]:
    """Available every other half hour, from a moment of their own."""
    begins = MONDAY + timedelta(seconds=number * 37 % 3600)
    states = (PresenceState.AVAILABLE, PresenceState.AWAY)
    return ((begins + half * HOUR / 2, states[half % 2]) for half in range(5 * 48))


def scenario(people: int, rounds: int) -> Scenario:
    shared = [tuple(steps(number)) for number in range(100)]
    allowed = frozenset({PresenceState.AVAILABLE})
    return Scenario(
        seed=7,
        schedule=Schedule(start=date(2026, 4, 13), working_days=5, timezone="Europe/Paris"),
        policies=Policies(
            presence=dict.fromkeys(ChannelName, allowed), when_unknown=WhenUnknown.WAIT, rounds=rounds
        ),
        rates={ChannelName.TEAMS: 50.0},
        people=[
            Person(f"p{number:06}", ChannelName.TEAMS, presence=shared[number % len(shared)])
            for number in range(people)
        ],
    )


def measure(people: int, rounds: int) -> tuple[float, float, float, int]:
    """Seconds, those of them on the processor (the rest is what others took), peak MiB, lines."""
    told = scenario(people, rounds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines"
        began, worked = time.perf_counter(), time.process_time()
        with path.open("w") as out:
            simulate.write(told, out)
        seconds, busy = time.perf_counter() - began, time.process_time() - worked
        with path.open() as written:
            lines = sum(1 for _ in written)
    return seconds, busy, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of clarion simulate.")
    parser.add_argument("--people", default="20000,100000", help="numbers of recipients")
    parser.add_argument("--rounds", default="1,3", help="numbers of rounds")
    told = parser.parse_args()
    print(f"{'people':>8} {'rounds':>6} {'lines':>8} {'seconds':>8} {'busy s':>7} {'us/line':>8} {'peak MiB':>9}")
    context = multiprocessing.get_context("spawn")
    for people in map(int, told.people.split(",")):
        for rounds in map(int, told.rounds.split(",")):
            with context.Pool(1) as pool:
                seconds, busy, peak, lines = pool.apply(measure, (people, rounds))
            each = busy / lines * 1e6
            print(f"{people:>8} {rounds:>6} {lines:>8} {seconds:>8.1f} {busy:>7.1f} {each:>8.1f} {peak:>9.0f}")
    print(f"target: {TARGET[0]} people in under {TARGET[1]:.0f} s")


if __name__ == "__main__":
    main()
