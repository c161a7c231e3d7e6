"""A second process on the same database: ``python -m tests.storage.another_process PATH TASK``."""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from broadcast.ports import Store
from storage.sqlite import SqliteStore
from tests.storage.builders import NOW, broadcast, delivery


async def claim(store: Store) -> None:
    """Notes a hundred inbound keys, and prints those it was first with."""
    for number in range(100):
        if await store.first_time("viber/x", f"k{number}", NOW):
            print(number, flush=True)  # noqa: T201 - what the parent reads


async def write(store: Store) -> None:
    """Plans deliveries for ever, eight at a time, and prints each once it is acknowledged."""
    numbers = count()

    async def plan() -> None:
        for number in numbers:
            one = delivery(f"n{number}", position=number)
            await store.plan([one])
            print(one.id, flush=True)  # noqa: T201 - what the parent reads

    await asyncio.gather(*(plan() for _ in range(8)))


async def steer(store: Store) -> None:
    """One control write."""
    await store.save_broadcast(broadcast("brd_other"), expected=None)


TASKS = {"claim": claim, "write": write, "steer": steer}


async def main(path: Path, task: str) -> None:
    store = await SqliteStore.open(path)
    try:
        await TASKS[task](store)
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
