"""Every store that Clarion has, each to be held to the same port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from broadcast.ports import Store
from storage.memory import MemoryStore
from storage.mongo import MongoStore
from storage.sqlite import SqliteStore
from tests import mongod
from tests.storage.builders import Wall


@pytest.fixture
def wall() -> Wall:
    """What leases expire by."""
    return Wall()


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, wall: Wall) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        opened: Store
        if request.param == "memory":
            opened = MemoryStore(wall=wall)
        elif request.param == "sqlite":
            opened = await SqliteStore.open(tmp_path / "clarion.db", wall=wall)
        else:
            url = stack.enter_context(mongod.databases(request.config).one())
            opened = await MongoStore.open(url, wall=wall)
        stack.push_async_callback(opened.close)
        yield opened
