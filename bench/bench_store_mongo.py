"""What the ledger costs a delivery on MongoDB: ``python -m bench.bench_store_mongo [--sizes 10000,100000]``.

The same way through due, intend and record as `bench_store`, on a replica set of one that is started in memory, or
on the server at MONGODB_URI. Beside the elapsed time stand the processor times of this process and of the server:
on a busy machine they say more than the clock. Every batch is confirmed by a majority and in the journal before the
next one begins.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

from pymongo import MongoClient

from bench import figures, world
from bench.bench_store import ACCOUNT, CLAIM, WITHIN, Claims, Timer, costs, fill, row, send, sends_of
from bench.figures import Figures
from bench.world import server_seconds
from storage.mongo import MongoStore

_STEPS = ("people", "plan", "due", "intend", "record", "claim", "intend+record", "own CPU", "server CPU")


async def measure(url: str, size: int, batches: Sequence[int], claims: Claims) -> None:
    store = await MongoStore.open(url)
    try:
        filled = Timer()
        await fill(store, size, filled)
        lease = await store.acquire_lease(ACCOUNT, "bench", 3_600)
        assert lease is not None
        for batch in batches:
            timer = Timer()
            sends = sends_of(size, batches, batch)
            computed, served = time.process_time(), server_seconds(url)
            await send(store, lease, batch=batch, sends=sends, timer=timer)
            computed, served = time.process_time() - computed, server_seconds(url) - served
            cost = costs(filled, timer, size, batch)
            cost |= {"own CPU": computed / sends, "server CPU": served / sends}
            cells = [f"{cost[step] * 1e6:.0f}" for step in _STEPS]
            print(row(f"{size:,}", batch, *cells, f"{1 / cost['intend+record']:,.0f}"), flush=True)
            if batch == CLAIM:
                claims.seconds[size] = cost["claim"] * batch
        claims.report = await world.reported(store, "brd_1")
    finally:
        await store.close()


def stored(url: str) -> str:
    with MongoClient[dict[str, Any]](url) as client:
        client.admin.command("fsync")
        stats = client.get_default_database().command("collStats", "deliveries")
    size = (stats["storageSize"] + stats["totalIndexSize"]) / max(stats["count"], 1)
    return f"  {size:.0f} bytes a delivery on disk, indexes included"


def play(sizes: Sequence[int], batches: Sequence[int]) -> Claims:
    claims = Claims()
    with world.mongodb() as databases:
        print(row("deliveries", "batch", *(f"{step}, µs" for step in _STEPS), "a second"))
        print(row(*(["---:"] * (3 + len(_STEPS)))))
        for size in sizes:
            with databases.one() as url:
                asyncio.run(measure(url, size, batches, claims))
                print(stored(url), flush=True)
    print(f"report of {sizes[-1]:,} in {claims.report * 1e3:.1f} ms")
    return claims


def main() -> int:
    arguments = figures.parser(__doc__)
    arguments.add_argument(
        "--sizes", default="10000,100000,1000000", help="deliveries stored (default: %(default)s)"
    )
    arguments.add_argument("--batches", default="64,500", help="deliveries in one call (default: %(default)s)")
    chosen = arguments.parse_args()
    given = Figures()
    with given.row(f"claim of {CLAIM} due on MongoDB", f"within {WITHIN:.0f} times"):
        play(figures.sizes(chosen.sizes), figures.sizes(chosen.batches)).tell("MongoDB", given)
    return given.close(chosen.rows)


if __name__ == "__main__":
    sys.exit(main())
