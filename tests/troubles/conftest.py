"""What every trouble begins with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sandbox.server import Sandbox
from tests.troubles.disks import SmallDisk, small_disks
from tests.troubles.stage import Logged, platform


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with platform() as served:
        yield served


@pytest.fixture
def logged() -> Iterator[Logged]:
    """What was logged so far."""
    with capture_logs() as events:
        yield events


@pytest.fixture(params=small_disks())
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """A place that can be filled up, and emptied again."""
    kind: type[SmallDisk] = request.param
    with kind.at(tmp_path) as disk:
        yield disk
