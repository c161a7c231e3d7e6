"""What the ledger costs a delivery: ``python -m bench.bench_store [--sizes 10000,100000] [--store memory:]``.

Fills a store in a temporary folder, then takes deliveries through due, intend and record as the engine does, and
prints microseconds of elapsed time a delivery, each the median of its calls. With SQLite every batch is on the disk
before the next one begins. A claim is what the engine does before it may send: finding what is due, with its people
and conversations, and writing the intent; with ever more deliveries stored it should cost the same. At last the
report of the largest broadcast is asked for.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from bench import figures
from bench.figures import Figures
from bench.world import accepted, peak_memory, reported
from broadcast.launching import PAGE
from broadcast.model import (
    Audience,
    Broadcast,
    BroadcastStatus,
    ChannelName,
    Conversation,
    Delivery,
    Message,
    Policies,
    Recipient,
    Schedule,
)
from broadcast.ports import Lease, Store
from storage.open import open_store

T = TypeVar("T")

START = datetime(2026, 3, 27, 8, tzinfo=UTC)
ACCOUNT = "teams/default"
_MESSAGE = "1692206589131"


class Timer:
    """Seconds spent by step, call by call."""

    def __init__(self) -> None:
        self.calls: dict[str, list[float]] = defaultdict(list)

    async def time(self, step: str, awaited: Awaitable[T]) -> T:
        began = time.perf_counter()
        try:
            return await awaited
        finally:
            self.calls[step].append(time.perf_counter() - began)

    def total(self, step: str) -> float:
        return sum(self.calls[step])

    def each(self, step: str) -> float:
        """The median of its calls: one of them may meet what the machine does besides."""
        return statistics.median(self.calls[step])


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
    for start in range(0, size, PAGE):
        yield range(start, min(size, start + PAGE))


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
        results = [accepted(due.delivery, at, _MESSAGE) for due in found]
        written = await timer.time("record", store.record(lease, results))
        assert len(written) == batch


STEPS = ("people", "plan", "due", "intend", "record", "claim", "intend+record")
WITHIN, REPORT = 2.0, 1.0
#: Deliveries in one claim of the table.
CLAIM = 500
#: How many claims the median is of, at most.
_CLAIMS = 10


@dataclass(slots=True)
class Claims:
    """Seconds of a claim of `CLAIM`, by how many deliveries are stored, and of the report of the largest."""

    seconds: dict[int, float] = field(default_factory=dict)
    report: float = 0.0

    def tell(self, store: str, given: Figures) -> None:
        sizes = sorted(self.seconds)
        if not sizes:
            return
        ratio = max(self.seconds.values()) / min(self.seconds.values())
        given.add(
            f"claim of {CLAIM} due on {store} with {', '.join(f'{size:,}' for size in sizes)} deliveries stored",
            f"{', '.join(f'{self.seconds[size] * 1e3:.0f}' for size in sizes)} ms: within {ratio:.1f} times",
            f"within {WITHIN:.0f} times",
            held=ratio <= WITHIN,
        )
        given.add(
            f"report of a broadcast of {sizes[-1]:,} on {store}",
            f"{self.report * 1e3:.1f} ms",
            f"under {REPORT:.0f} s",
            held=self.report < REPORT,
        )


def costs(filled: Timer, timer: Timer, size: int, batch: int) -> dict[str, float]:
    """Seconds a delivery, by step."""
    cost = {step: filled.total(step) / size for step in ("people", "plan")}
    cost |= {step: timer.each(step) / batch for step in ("due", "intend", "record")}
    cost["claim"] = cost["due"] + cost["intend"]
    cost["intend+record"] = cost["intend"] + cost["record"]
    return cost


def sends_of(size: int, batches: Sequence[int], batch: int) -> int:
    """So many that every batch size has its share of what is stored."""
    return min(size // len(batches) // batch, _CLAIMS) * batch


async def measure(url: str, size: int, batches: Sequence[int], claims: Claims) -> None:
    store = await open_store(url)
    try:
        filled = Timer()
        await fill(store, size, filled)
        lease = await store.acquire_lease(ACCOUNT, "bench", 3_600)
        assert lease is not None
        for batch in batches:
            timer = Timer()
            await send(store, lease, batch=batch, sends=sends_of(size, batches, batch), timer=timer)
            cost = costs(filled, timer, size, batch)
            print(row(f"{size:,}", batch, *(f"{cost[step] * 1e6:.1f}" for step in STEPS)), flush=True)
            if batch == CLAIM:
                claims.seconds[size] = cost["claim"] * batch
        claims.report = await reported(store, "brd_1")
    finally:
        await store.close()


def row(*cells: object) -> str:
    return "| " + " | ".join(f"{cell!s:>13}" for cell in cells) + " |"


async def play(sizes: Sequence[int], batches: Sequence[int], url: str) -> Claims:
    claims = Claims()
    print(row("deliveries", "batch", *(f"{step}, µs" for step in STEPS)))
    print(row(*(["---:"] * (2 + len(STEPS)))))
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.db"
            await measure(url.format(path=path), size, batches, claims)
            stored = path.stat().st_size if path.exists() else 0
        print(f"  {stored / size:.0f} bytes a delivery on disk, people included" if stored else "")
    print(f"report of {sizes[-1]:,} in {claims.report * 1e3:.1f} ms")
    print(f"peak resident memory {peak_memory():.0f} MB")
    return claims


def main() -> int:
    arguments = figures.parser(__doc__)
    arguments.add_argument(
        "--sizes", default="10000,100000,1000000", help="deliveries stored (default: %(default)s)"
    )
    arguments.add_argument("--batches", default="100,500", help="deliveries in one call (default: %(default)s)")
    arguments.add_argument(
        "--store", default="sqlite:///{path}", help="address of the store (default: %(default)s)"
    )
    chosen = arguments.parse_args()
    given = Figures()
    claims = asyncio.run(play(figures.sizes(chosen.sizes), figures.sizes(chosen.batches), chosen.store))
    claims.tell("SQLite" if chosen.store.startswith("sqlite") else chosen.store, given)
    return given.close(chosen.rows)


if __name__ == "__main__":
    sys.exit(main())
