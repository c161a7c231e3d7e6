"""A process whose database is away as it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from bot.app import Host
from bot.settings import load
from broadcast.errors import StoreUnavailable
from tests import mongod

NOBODY = "mongodb://127.0.0.1:1/clarion?serverSelectionTimeoutMS=50"


@pytest.fixture
def replicas() -> Iterator[mongod.ReplicaSet]:
    started = mongod.ReplicaSet(mongod.program())
    yield started
    started.stop()


async def until(lines: list[str], word: str) -> None:
    async with asyncio.timeout(30):
        while not any(word in line for line in lines):  # noqa: ASYNC110 - what is said has no event
            await asyncio.sleep(0.02)


async def entered(host: Host) -> None:
    """Started and ended."""
    async with host.running():
        await host.store.ping()


@pytest.mark.slow
async def test_a_worker_that_starts_before_its_database_waits_for_it(replicas: mongod.ReplicaSet) -> None:
    """It says so once, and goes on by itself as soon as the database is there."""
    [only] = replicas.members
    only.kill()
    lines: list[str] = []
    address = replicas.url("clarion", "&serverSelectionTimeoutMS=200")
    environ = {"CLARION_STORE": address, "CLARION_SECRET": "secret-of-this-test"}
    host = Host(load(environ=environ), web=False, say=lines.append)
    starting = asyncio.create_task(entered(host))
    await until(lines, "waiting for it")
    only.start()
    async with asyncio.timeout(60):
        await starting
    assert len([line for line in lines if "waiting for it" in line]) == 1


async def test_who_waits_for_a_database_can_be_stopped() -> None:
    """SIGTERM need not wait for a database that never comes; the end names it, and the mend."""
    stopping, lines = asyncio.Event(), list[str]()
    host = Host(load(environ={"CLARION_STORE": NOBODY}), web=False, say=lines.append, stopping=stopping)
    starting = asyncio.create_task(entered(host))
    await until(lines, "waiting for it")
    stopping.set()
    with pytest.raises(StoreUnavailable, match="no primary answers; check the address"):
        async with asyncio.timeout(10):
            await starting
