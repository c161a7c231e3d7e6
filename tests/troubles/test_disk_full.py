"""The disk is full in the middle of a broadcast."""

from __future__ import annotations

import asyncio

from broadcast.model import DeliveryState
from sandbox.server import Sandbox
from storage.sqlite import SqliteStore
from tests.troubles.disks import SmallDisk
from tests.troubles.stage import PEOPLE, Logged, Stage, until, waits


async def test_a_full_disk_delays_and_doubles_nothing(sandbox: Sandbox, disk: SmallDisk, logged: Logged) -> None:
    """Nothing goes out but what has its intent written; once there is room everybody gets their one message."""
    store = await SqliteStore.open(disk.path)
    stage = Stage(sandbox, store)
    try:
        await stage.launch()
        async with stage.driven() as engine:
            await stage.arrive(PEOPLE // 4)
            await disk.fill(store)
            await waits(logged, engine, disk.says)
            stood = stage.arrived
            rows = await stage.rows()
            await waits(logged, engine, disk.says)
            assert stage.arrived == stood < PEOPLE
            begun = {who for who, row in rows.items() if row.state is not DeliveryState.PLANNED}
            assert {who for who, copies in stage.copies().items() if copies} <= begun
            await disk.free(store)
            await stage.completed()
            await until(lambda: engine.status.trouble is None, "the trouble is over, and still told of")
        await stage.assert_each_got_one()
    finally:
        await stage.channel.close()
        await store.close()
        await asyncio.sleep(0)
