"""Another worker takes the account in the middle of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from broadcast.errors import LeaseLost
from broadcast.model import DeliveryState
from broadcast.ports import Store
from sandbox.server import Sandbox
from storage.mongo import MongoStore
from storage.sqlite import SqliteStore
from tests import mongod
from tests.storage.builders import Wall
from tests.troubles.stage import PATIENCE, PEOPLE, Stage, until

Opener = Callable[[Wall], Awaitable[Store]]


@pytest.fixture(params=["sqlite", "mongo"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the test's database as one more process would, with a clock for leases of its own."""
    async with AsyncExitStack() as stack:
        url = None
        if request.param == "mongo":
            url = stack.enter_context(mongod.databases(request.config).one())

        async def open_one(wall: Wall) -> Store:
            store: Store
            if url is None:
                store = await SqliteStore.open(tmp_path / "clarion.db", wall=wall)
            else:
                store = await MongoStore.open(url, wall=wall)
            stack.push_async_callback(store.close)
            return store

        yield open_one


@pytest.mark.slow
async def test_who_lost_the_lease_stops_at_once_and_records_nothing(sandbox: Sandbox, opened: Opener) -> None:
    """Not even what it had begun: from the takeover on the account is as the new owner finds it. Who takes over
    sends to all that are left, and lists those of whom nobody can know whether they had got it."""
    quick = Wall()
    old, new = await opened(Wall()), await opened(quick)
    stage = Stage(sandbox, old)
    try:
        await stage.launch()
        losing = stage.engine(await stage.lease(seconds=30))
        running = asyncio.create_task(losing.run())
        await stage.arrive(PEOPLE // 4)
        quick.move(31)
        taken = await stage.lease("worker-2", 600, new)
        found = await stage.rows(new)
        await asyncio.wait({running}, timeout=PATIENCE)
        assert isinstance(running.exception(), LeaseLost)
        assert await stage.rows(new) == found
        begun = {who for who, row in found.items() if row.state is not DeliveryState.PLANNED}
        assert {who for who, copies in stage.copies().items() if copies} <= begun
        assert len(begun) < PEOPLE

        taking = stage.engine(taken, store=new)
        driving = asyncio.create_task(taking.run())
        await stage.completed(new)
        taking.stop()
        await driving
        rows = await stage.rows(new)
        in_doubt = {who for who, row in found.items() if row.state is DeliveryState.SENDING}
        assert {row.state for row in rows.values()} == {DeliveryState.SENT}
        assert {who for who, row in rows.items() if row.possibly_doubled} == in_doubt
        assert {who for who, copies in stage.copies().items() if copies > 1} <= in_doubt
        assert min(stage.copies().values()) == 1
    finally:
        await stage.channel.close()


@pytest.mark.slow
async def test_who_slept_through_its_lease_goes_on_if_nobody_took_it(sandbox: Sandbox, opened: Opener) -> None:
    """A process that stood still, on a machine that did: the fence is its own still, and nobody gets two."""
    wall = Wall()
    store = await opened(wall)
    stage = Stage(sandbox, store)
    try:
        await stage.launch()
        lease = await stage.lease(seconds=30)
        engine = stage.engine(lease)
        running = asyncio.create_task(engine.run())
        for part in (1, 2, 3):
            await stage.arrive(PEOPLE * part // 4)
            wall.move(31)
        await stage.completed()
        engine.stop()
        await until(running.done, "the engine does not stop")
        await running
        await stage.assert_each_got_one()
    finally:
        await stage.channel.close()
