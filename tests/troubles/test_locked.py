"""Another process holds the lock on the database, for longer than anybody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.leases import Standing
from sandbox.server import Sandbox
from storage.sqlite import SqliteStore
from tests.troubles.locks import LOCKED, locked
from tests.troubles.stage import KEY, PEOPLE, Logged, Stage, said, until, waits


@pytest.fixture
async def stage(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr("storage.sqlite.connection._BUSY_SECONDS", 0.1)
    store = await SqliteStore.open(tmp_path / "clarion.db")
    stage = Stage(sandbox, store)
    yield stage
    await stage.channel.close()
    await store.close()


async def test_a_lock_delays_and_doubles_nothing(stage: Stage, tmp_path: Path, logged: Logged) -> None:
    """Nothing goes out while nothing can be written; then everybody gets their one message."""
    await stage.launch()
    async with stage.driven() as engine:
        await stage.arrive(PEOPLE // 4)
        async with locked(tmp_path / "clarion.db"):
            await waits(logged, engine, LOCKED)
            stood = stage.arrived
            await waits(logged, engine, LOCKED)
            assert stage.arrived == stood < PEOPLE
        await stage.completed()
        await until(lambda: engine.status.trouble is None, "the trouble is over, and still told of")
    assert said(logged, "store_available")
    assert not said(logged, "store_slow")
    await stage.assert_each_got_one()


async def test_a_lock_that_outlasts_the_lease_doubles_nothing(stage: Stage, tmp_path: Path, logged: Logged) -> None:
    """Nobody else could take the account either: what was in flight is recorded once it can be, not sent again."""
    await stage.launch()
    worker = stage.worker("worker-1")
    worker.start()
    try:
        await stage.arrive(PEOPLE // 4)
        async with locked(tmp_path / "clarion.db"):
            await until(lambda: KEY in worker.statuses and worker.statuses[KEY].trouble, "no trouble is told of")
            began = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() > began + 3.0, "time stands still")
            assert LOCKED in str(worker.statuses[KEY].trouble)
        await stage.completed()
        await stage.assert_each_got_one()
        assert said(logged, "recovered") == []
        assert worker.standings[KEY] is Standing.HOLDING
    finally:
        await worker.stop()
