"""What the ledger costs a delivery on MongoDB: ``python -m bench.bench_store_mongo [--sizes 10000,100000]``.

The same way through due, intend and record as `bench_store`, on a replica set of one that is started in memory, or
on the server at MONGODB_URI. Beside the elapsed time stand the processor times of this process and of the server:
on a busy machine they say more than the clock. Every batch is confirmed by a majority and in the journal before the
next one begins.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient

from bench.bench_store import ACCOUNT, Timer, fill, row, send
from storage.mongo import MongoStore
from tests.mongod import Databases, ReplicaSet, find_mongod

_STEPS = ("people", "plan", "due", "intend", "record", "intend+record", "own CPU", "server CPU")
_SENDS = 5_000
_SIZE = ("--wiredTigerCacheSizeGB", "1", "--oplogSize", "256")


@contextmanager
def server() -> Iterator[Databases]:
    if uri := os.environ.get("MONGODB_URI"):
        yield Databases(uri)
        return
    program = find_mongod()
    if program is None:
        raise SystemExit("no mongod to measure: see tests/mongod.py for where it is looked for")
    replicas = ReplicaSet(program, options=_SIZE)
    try:
        yield Databases(replicas.url(""))
    finally:
        replicas.stop()


async def measure(url: str, size: int, batches: list[int]) -> None:
    store = await MongoStore.open(url)
    try:
        filled = Timer()
        await fill(store, size, filled)
        lease = await store.acquire_lease(ACCOUNT, "bench", 3_600)
        assert lease is not None
        for batch in batches:
            timer = Timer()
            sends = min(size // len(batches), _SENDS) // batch * batch
            computed, served = time.process_time(), server_seconds(url)
            await send(store, lease, batch=batch, sends=sends, timer=timer)
            computed, served = time.process_time() - computed, server_seconds(url) - served
            cost = {step: seconds / size for step, seconds in filled.seconds.items()}
            cost |= {step: seconds / sends for step, seconds in timer.seconds.items()}
            cost["intend+record"] = cost["intend"] + cost["record"]
            cost |= {"own CPU": computed / sends, "server CPU": served / sends}
            cells = [f"{cost[step] * 1e6:.0f}" for step in _STEPS]
            print(row(f"{size:,}", batch, *cells, f"{1 / cost['intend+record']:,.0f}"), flush=True)
    finally:
        await store.close()


def server_seconds(url: str) -> float:
    """What the server has computed since it started."""
    with MongoClient[dict[str, Any]](url) as client:
        used = client.admin.command("serverStatus")["extra_info"]
    return float(used["user_time_us"] + used["system_time_us"]) / 1e6


def stored(url: str) -> str:
    with MongoClient[dict[str, Any]](url) as client:
        stats = client.get_default_database().command("collStats", "deliveries")
    size = (stats["storageSize"] + stats["totalIndexSize"]) / max(stats["count"], 1)
    return f"  {size:.0f} bytes a delivery on disk, indexes included"


def main(sizes: list[int], batches: list[int]) -> None:
    print(row("deliveries", "batch", *(f"{step}, µs" for step in _STEPS), "a second"))
    print(row(*(["---:"] * (3 + len(_STEPS)))))
    with server() as databases:
        for size in sizes:
            with databases.one() as url:
                asyncio.run(measure(url, size, batches))
                print(stored(url), flush=True)
        databases.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000", help="deliveries stored (default: %(default)s)")
    parser.add_argument("--batches", default="64,500", help="deliveries in one call (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    main([int(n) for n in given.sizes.split(",")], [int(n) for n in given.batches.split(",")])
