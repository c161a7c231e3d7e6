"""Every store that Clarion has, each to be held to the same port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broadcast.ports import Store
from storage.memory import MemoryStore
from storage.sqlite import SqliteStore
from tests.storage.builders import Wall


@pytest.fixture
def wall() -> Wall:
    """What leases expire by."""
    return Wall()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, wall: Wall) -> AsyncIterator[Store]:
    opened: Store
    if request.param == "memory":
        opened = MemoryStore(wall=wall)
    else:
        opened = await SqliteStore.open(tmp_path / "clarion.db", wall=wall)
    yield opened
    await opened.close()
