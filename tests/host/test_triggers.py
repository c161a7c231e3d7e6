"""Broadcasts start when they are due: the real scheduler on short schedules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from bot.chance import SystemChance
from bot.clock import HostClock, RealClock, ScaledClock
from bot.leases import Terms, Turn
from bot.triggers import LEASE, Triggers
from broadcast.campaigns import ALWAYS, Broadcasts, Campaigns, Draft
from broadcast.errors import StoreUnavailable
from broadcast.launching import Launching
from broadcast.model import Broadcast, BroadcastStatus, ChannelName, Policies, Schedule, move_broadcast
from storage.memory import MemoryStore
from tests.host.stage import MESSAGE, Recorder, accounts, add_ann

EPOCH = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)

TERMS = Terms(lease=1.0, renew=0.2, ask_again=0.05)


class House:
    """A store with one person, and hosts that knock."""

    def __init__(self, clock: HostClock) -> None:
        self.store = MemoryStore()
        self.clock = clock
        self.usable = accounts(Recorder()).usable
        self.campaigns = Campaigns(self.store, clock, SystemChance(), self.usable)
        self.hosts: list[asyncio.Task[None]] = []

    def open(self, *, safety: float = 60.0) -> None:
        triggers = Triggers(
            self.store,
            self.campaigns,
            Launching(self.store, self.clock, self.usable),
            self.clock,
            safety=safety,
        )
        owner = f"host {len(self.hosts)}"
        self.hosts.append(asyncio.create_task(Turn(self.store, LEASE, owner, triggers.run, terms=TERMS).run()))

    async def close(self) -> None:
        for host in self.hosts:
            host.cancel()
            with suppress(asyncio.CancelledError):
                await host

    async def launch(self, *, ahead: timedelta = timedelta(0)) -> Broadcast:
        start = (self.clock.now() + ahead).replace(tzinfo=None) if ahead else None
        schedule = Schedule(immediate=not ahead, start=start, hours=ALWAYS)
        policies = Policies(presence=dict.fromkeys(ChannelName))
        campaign = await self.campaigns.create(Draft("Soon", MESSAGE, schedule=schedule, policies=policies))
        return await self.campaigns.launch(campaign.id, by="test")

    async def status(self, id: str) -> BroadcastStatus:
        return (await Broadcasts(self.store, self.clock).get(id)).status

    async def until(self, id: str, status: BroadcastStatus) -> datetime:
        async with asyncio.timeout(10):
            while await self.status(id) is not status:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
        return self.clock.now()


@pytest.fixture(params=["real", "scaled"])
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    made = House(RealClock() if request.param == "real" else ScaledClock(EPOCH, 600))
    await add_ann(made.store)
    yield made
    await made.close()


async def test_what_is_launched_to_start_at_once_does(house: House) -> None:
    """Within a second, without waiting for the safety knock."""
    house.open()
    await asyncio.sleep(0.05)
    broadcast = await house.launch()
    async with asyncio.timeout(1):
        await house.until(broadcast.id, BroadcastStatus.RUNNING)


async def test_what_was_launched_before_the_host_starts(house: House) -> None:
    """Jobs are rebuilt from storage."""
    broadcast = await house.launch()
    house.open()
    await house.until(broadcast.id, BroadcastStatus.RUNNING)


async def test_a_scheduled_start_comes_at_its_instant(house: House) -> None:
    """Not before it, and soon after, by the clock that runs the broadcasts."""
    speed = getattr(house.clock, "speed", 1)
    house.open()
    broadcast = await house.launch(ahead=timedelta(seconds=0.7) * speed)
    started = await house.until(broadcast.id, BroadcastStatus.RUNNING)
    assert timedelta(0) <= started - broadcast.starts_at < timedelta(seconds=0.5) * speed


async def test_what_was_stopped_does_not_start(house: House) -> None:
    """Storage is the truth: a job only knocks."""
    speed = getattr(house.clock, "speed", 1)
    house.open()
    broadcast = await house.launch(ahead=timedelta(seconds=0.4) * speed)
    await asyncio.sleep(0.1)
    await Broadcasts(house.store, house.clock).stop(broadcast.id)
    await asyncio.sleep(0.6)
    assert await house.status(broadcast.id) is BroadcastStatus.STOPPED


async def test_several_hosts_start_it_once(house: House) -> None:
    """Nobody is planned twice."""
    for _ in range(3):
        house.open()
    broadcast = await house.launch()
    await house.until(broadcast.id, BroadcastStatus.RUNNING)
    assert sum((await house.store.tally(broadcast.id)).values()) == 1


async def test_a_plan_that_a_crash_cut_short_is_finished(house: House) -> None:
    """Whoever knocks next takes it up first."""
    broadcast = await house.launch()
    claimed = move_broadcast(broadcast, BroadcastStatus.INITIALIZING)
    await house.store.save_broadcast(claimed, expected=BroadcastStatus.SCHEDULED)
    house.open()
    await house.until(broadcast.id, BroadcastStatus.RUNNING)


async def test_a_store_that_stumbles_is_asked_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The safety knock starts what a failing knock did not."""
    broadcasts = house.store.broadcasts
    failing: list[int] = []

    async def fail_once(**named: object) -> object:
        if named.get("statuses") == [BroadcastStatus.SCHEDULED] and len(failing) < 2:
            failing.append(1)
            raise StoreUnavailable("busy")
        return await broadcasts(**named)  # type: ignore[arg-type]  # passed on as they came

    broadcast = await house.launch()
    monkeypatch.setattr(house.store, "broadcasts", fail_once)
    house.open(safety=0.1)
    await house.until(broadcast.id, BroadcastStatus.RUNNING)
