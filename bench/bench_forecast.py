"""How long a forecast takes: ``python -m bench.bench_forecast [--people 1000,5000]``.

For each number of people: preparing (the audience and its load, on SQLite), one run, and a whole forecast of five
runs in a process of its own, with how long the loop it was asked on stood still meanwhile. Half of the people are
absent at any moment, over three working days and three rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from bot import rehearse
from bot.chance import SystemChance
from bot.forecast import Forecasts
from broadcast import rehearsal
from broadcast.campaigns import Campaigns, Draft
from broadcast.forecast import SEEDS, Preparing
from broadcast.model import ChannelName, Conversation, Message, Recipient, Schedule, conversation_id
from broadcast.ports import Account, Features
from broadcast.virtual_time import VirtualClock
from storage.memory import MemoryStore
from storage.sqlite import SqliteStore

SUNDAY = datetime(2026, 3, 29, 12, tzinfo=UTC)
SCHEDULE = Schedule(start=date(2026, 3, 30), working_days=3, timezone="Europe/Paris")
FEATURES = Features(reports_delivered=False, reports_read=True, rate=30, conversation_limits=(), text_limit=4096)
ACCOUNT = Account("teams/hr", ChannelName.TEAMS, FEATURES, 30.0)
_PAGE = 5_000


async def fill(store: SqliteStore, people: int) -> None:
    for begin in range(0, people, _PAGE):
        names = [f"p{number:06}" for number in range(begin, min(begin + _PAGE, people))]
        await store.save_recipients([Recipient(f"rcp_{name}") for name in names])
        await store.save_conversations(
            [
                Conversation(
                    conversation_id(ACCOUNT.key, name), ACCOUNT.key, ACCOUNT.channel, f"rcp_{name}", user_id=name
                )
                for name in names
            ]
        )


async def stood_still(stop: asyncio.Event) -> float:
    """The longest that the loop kept somebody waiting who wanted to go on after 5 ms."""
    longest = 0.0
    while not stop.is_set():
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - began - 0.005)
    return longest


async def measure(people: int, folder: Path) -> Sequence[float]:
    """Seconds to prepare, of one run, of a forecast; the longest stall in milliseconds."""
    store = await SqliteStore.open(folder / f"{people}.db")
    await fill(store, people)
    clock, accounts = VirtualClock(SUNDAY), {ACCOUNT.key: ACCOUNT}
    campaigns = Campaigns(store, clock, SystemChance(), accounts)
    campaign = await campaigns.create(Draft("Bench", Message("Hello"), schedule=SCHEDULE))
    preparing = Preparing(store, clock, campaigns, accounts, accounts)
    began = time.perf_counter()
    prepared = await preparing.prepare(campaign)
    ready = time.perf_counter() - began
    began = time.perf_counter()
    await asyncio.to_thread(rehearsal.play, prepared.stage, 1, MemoryStore())
    one = time.perf_counter() - began
    stop = asyncio.Event()
    watch = asyncio.create_task(stood_still(stop))
    began = time.perf_counter()
    await Forecasts(preparing, clock, rehearse=rehearse.elsewhere).of(campaign)
    whole = time.perf_counter() - began
    stop.set()
    stall = await watch
    await store.close()
    return ready, one, whole, stall * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a forecast.")
    parser.add_argument("--people", default="1000,5000", help="numbers of recipients")
    told = parser.parse_args()
    print(f"{'people':>8} {'prepare s':>10} {'one run s':>10} {f'{SEEDS} runs s':>9} {'loop stood still ms':>20}")
    with tempfile.TemporaryDirectory() as folder:
        for people in map(int, told.people.split(",")):
            ready, one, whole, stall = asyncio.run(measure(people, Path(folder)))
            print(f"{people:>8} {ready:>10.2f} {one:>10.2f} {whole:>9.1f} {stall:>20.0f}")


if __name__ == "__main__":
    main()
