"""What the ledger costs a delivery: ``python -m bench.bench_store [--sizes 10000,100000] [--store memory:]``.

Fills a store in a temporary folder, then takes deliveries through due, intend and record as the engine does, and
prints microseconds of elapsed time a delivery. With SQLite every batch is on the disk before the next one begins.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from broadcast.model import (
    Attempt,
    Audience,
    Broadcast,
    BroadcastStatus,
    ChannelName,
    Conversation,
    Delivery,
    DeliveryState,
    Message,
    Outcome,
    Policies,
    Recipient,
    Rung,
    Schedule,
)
from broadcast.ports import Due, Lease, Result, Store
from storage.open import open_store

T = TypeVar("T")

START = datetime(2026, 3, 27, 8, tzinfo=UTC)
ACCOUNT = "teams/default"
PLAN_BATCH = 10_000


class Timer:
    """Seconds spent by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    async def time(self, step: str, awaited: Awaitable[T]) -> T:
        began = time.perf_counter()
        try:
            return await awaited
        finally:
            self.seconds[step] += time.perf_counter() - began


def running(id: str) -> Broadcast:
    return Broadcast(
        id=id,
        campaign="cmp_1",
        name="Benefits week",
        message=Message("Hello"),
        audience=Audience(),
        schedule=Schedule(),
        policies=Policies(),
        seed=7,
        launched_at=START,
        launched_by="tok_ops",
        starts_at=START,
        status=BroadcastStatus.RUNNING,
    )


def delivery(number: int) -> Delivery:
    """Planned for a moment, and under an id, that have nothing to do with its place."""
    token = blake2b(number.to_bytes(8, "big"), digest_size=10).hexdigest()
    return Delivery(
        id=f"dlv_{token}",
        broadcast="brd_1",
        recipient=f"rcp_{number:08}",
        position=number,
        channel=ChannelName.TEAMS,
        account=ACCOUNT,
        conversation=f"cnv_{number:08}",
        due_at=START + timedelta(seconds=int(token[:6], 16) % 100_000),
    )


def chunks(size: int) -> Iterator[range]:
    for start in range(0, size, PLAN_BATCH):
        yield range(start, min(size, start + PLAN_BATCH))


async def fill(store: Store, size: int, timer: Timer) -> None:
    await store.save_broadcast(running("brd_1"), expected=None)
    reference = {"conversation": {"id": "a:1K5d"}, "serviceUrl": "https://smba.example/emea/", "tenant": "2c3d"}
    for numbers in chunks(size):
        people = [
            Recipient(f"rcp_{n:08}", email=f"p{n}@example.com", first_name="Ann", last_name="Ash") for n in numbers
        ]
        places = [
            Conversation(f"cnv_{n:08}", ACCOUNT, ChannelName.TEAMS, f"rcp_{n:08}", f"user-{n}", reference)
            for n in numbers
        ]
        planned = [delivery(n) for n in numbers]
        await timer.time("people", store.save_recipients(people))
        await timer.time("people", store.save_conversations(places))
        await timer.time("plan", store.plan(planned))


async def send(store: Store, lease: Lease, *, batch: int, sends: int, timer: Timer) -> None:
    """Takes `sends` deliveries from planned to sent, `batch` at a time."""
    at = START + timedelta(days=2)
    for _ in range(sends // batch):
        found = await timer.time("due", store.due(ACCOUNT, broadcast="brd_1", until=at, after=None, limit=batch))
        wanted = [replace(due.delivery, sends=1, rung_at=at) for due in found]
        granted = await timer.time("intend", store.intend(lease, wanted, at))
        assert len(granted) == batch
        written = await timer.time("record", store.record(lease, [outcome(due, at) for due in found]))
        assert len(written) == batch


def outcome(due: Due, at: datetime) -> Result:
    sent = replace(
        due.delivery,
        state=DeliveryState.SENT,
        attempts=1,
        sends=1,
        rung_at=at,
        attempted_at=at,
        ended_at=at,
        sent_at=at,
        platform_message_id="1692206589131",
    )
    line = Attempt(sent.id, at, sent.round, Rung.FIRST, Outcome.SENT)
    return Result(DeliveryState.SENDING, sent, line, new_rung=True)


async def measure(url: str, size: int, batch: int) -> str:
    timer = Timer()
    store = await open_store(url)
    try:
        await fill(store, size, timer)
        lease = await store.acquire_lease(ACCOUNT, "bench", 3_600)
        assert lease is not None
        sends = min(size, 5_000) // batch * batch
        await send(store, lease, batch=batch, sends=sends, timer=timer)
    finally:
        await store.close()
    cost = {
        step: seconds / (size if step in {"people", "plan"} else sends) for step, seconds in timer.seconds.items()
    }
    cost["intend+record"] = cost["intend"] + cost["record"]
    return row(f"{size:,}", batch, *(f"{cost[step] * 1e6:.1f}" for step in STEPS))


STEPS = ("people", "plan", "due", "intend", "record", "intend+record")


def row(*cells: object) -> str:
    return "| " + " | ".join(f"{cell!s:>13}" for cell in cells) + " |"


async def main(sizes: list[int], batches: list[int], url: str) -> None:
    print(row("deliveries", "batch", *(f"{step}, µs" for step in STEPS)))
    print(row(*(["---:"] * (2 + len(STEPS)))))
    for size in sizes:
        for batch in batches:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "bench.db"
                print(await measure(url.format(path=path), size, batch), flush=True)
                stored = path.stat().st_size if path.exists() else 0
        print(f"  {stored / size:.0f} bytes a delivery on disk, people included" if stored else "")
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="deliveries stored (default: %(default)s)")
    parser.add_argument("--batches", default="100,500", help="deliveries in one call (default: %(default)s)")
    parser.add_argument("--store", default="sqlite:///{path}", help="address of the store (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    asyncio.run(
        main([int(n) for n in given.sizes.split(",")], [int(n) for n in given.batches.split(",")], given.store)
    )
