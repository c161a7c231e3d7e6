"""What is old goes by itself: one of many hosts removes it, and a host does so only where it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from bot.app import Host
from bot.clock import RealClock
from bot.leases import Terms, Turn
from bot.retention import LEASE, Sweeper
from bot.settings import load
from broadcast.errors import StoreUnavailable
from broadcast.model import BroadcastStatus, DeliveryState, Reason
from broadcast.ports import DeliveryFilter, Store
from broadcast.retention import BATCH, Retention
from storage.memory import MemoryStore
from storage.sqlite import SqliteStore
from tests.storage.builders import NOW, broadcast, delivery, launch

OLD = datetime.now(UTC) - timedelta(days=30)
TERMS = Terms(lease=1.0, renew=0.2, ask_again=0.02)
PEOPLE = BATCH + 1


async def fill(store: Store) -> None:
    """A broadcast that ended long ago, with more deliveries than go at once."""
    await store.save_broadcast(broadcast(status=BroadcastStatus.COMPLETED, finished_at=OLD), expected=None)
    skipped = delivery("ann", state=DeliveryState.SKIPPED, reason=Reason.NO_CONVERSATION)
    await store.plan([replace(skipped, id=f"dlv_{number}", position=number) for number in range(PEOPLE)])


async def left(store: Store) -> int:
    return len([row async for row in store.all_deliveries(DeliveryFilter("brd_1"))])


def sweeper(store: Store, *, again: float = 60.0, breath: float = 0.0) -> Sweeper:
    retention = Retention(store, RealClock(), after=timedelta(days=7))
    return Sweeper(retention, again=again, breath=breath)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def is_done(store: Store) -> bool:
    found = await store.broadcast("brd_1")
    return found is not None and found.removal_done


async def test_of_many_hosts_one_removes() -> None:
    """The others stand by; where it dies in the middle, the next one goes on."""
    store = MemoryStore()
    await fill(store)
    turns = [
        Turn(store, LEASE, f"host {n}", sweeper(store, breath=9.0 * (n == 0)).run, terms=TERMS) for n in range(3)
    ]
    hosts = [asyncio.create_task(turn.run()) for turn in turns]

    async def begun() -> bool:
        return await left(store) == PEOPLE - BATCH

    await until(begun)
    assert [turn.standing for turn in turns] == ["holding", "standing_by", "standing_by"]
    hosts[0].cancel()
    await until(lambda: is_done(store))
    assert await left(store) == 0
    for host in hosts:
        host.cancel()
    await asyncio.gather(*hosts, return_exceptions=True)


async def test_what_was_removed_is_told_once() -> None:
    """One line for a broadcast, with how many deliveries it had."""
    store = MemoryStore()
    await fill(store)
    await store.first_time("teams/hr", "k", OLD)
    with structlog.testing.capture_logs() as lines:
        running = asyncio.create_task(sweeper(store).run(None))  # type: ignore[arg-type]  # no lease is looked at
        await until(lambda: is_done(store))
        await asyncio.sleep(0.01)
        running.cancel()
    told = [(line["action"], line.get("broadcast"), line.get("deliveries"), line.get("keys")) for line in lines]
    assert told == [("broadcast_folded", "brd_1", PEOPLE, None), ("keys_forgotten", None, None, 1)]


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), ValueError("a fault of ours")])
async def test_a_sweep_that_failed_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the trouble was, and without ending the host."""
    store, remove = MemoryStore(), MemoryStore.remove_deliveries
    await fill(store)
    troubles = [error, error]

    async def troubled(self: MemoryStore, broadcast: str, limit: int) -> int:
        if troubles:
            raise troubles.pop()
        return await remove(self, broadcast, limit)

    monkeypatch.setattr(MemoryStore, "remove_deliveries", troubled)
    with structlog.testing.capture_logs() as lines:
        running = asyncio.create_task(sweeper(store, again=0.0).run(None))  # type: ignore[arg-type]  # as above
        await until(lambda: is_done(store))
        running.cancel()
    assert [line["action"] for line in lines][:2] == ["retention_failed", "retention_failed"]
    assert await left(store) == 0


@pytest.mark.parametrize("days", ["", "0", "29"])
async def test_a_host_removes_only_where_it_is_told_to(days: str, tmp_path: Path) -> None:
    """Without an age nobody sweeps: the turn is free."""
    path = tmp_path / "clarion.db"
    store = await SqliteStore.open(path)
    await fill(store)
    environ = {"CLARION_STORE": f"sqlite:///{path}", "CLARION_PORT": "0", "CLARION_RETENTION_DAYS": days}
    async with Host(load(environ=environ), engine=False).running() as host:
        if days == "29":
            await until(lambda: is_done(store))
        await host.store.ping()  # whoever asked for the turn did so before
        assert (await store.acquire_lease(LEASE, "nobody", 1.0) is None) == (days == "29")
    assert await left(store) == (0 if days == "29" else PEOPLE)
    await store.close()


async def test_a_host_folds_what_an_account_left_that_is_gone(tmp_path: Path) -> None:
    """Taken out of the settings in the middle of a send: no engine of this host is ever to settle it."""
    path = tmp_path / "clarion.db"
    store = await SqliteStore.open(path)
    lease, [ann] = await launch(store, "ann")
    assert await store.intend(lease, [replace(ann, sends=1, rung_at=NOW)], NOW) == [ann.id]
    await store.release_lease(lease)
    stopped = broadcast(status=BroadcastStatus.STOPPED, finished_at=OLD)
    await store.save_broadcast(stopped, expected=BroadcastStatus.RUNNING)
    environ = {"CLARION_STORE": f"sqlite:///{path}", "CLARION_PORT": "0", "CLARION_RETENTION_DAYS": "29"}
    async with Host(load(environ=environ)).running():
        await until(lambda: is_done(store))
    assert await left(store) == 0
    assert (await store.tally("brd_1"))["state/teams/uncertain"] == 1
    await store.close()
