"""The clocks of a running host."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from bot.clock import HostClock, RealClock, ScaledClock

EPOCH = datetime(2026, 6, 1, 7, 0, tzinfo=UTC)


class Seconds:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_the_real_clock_is_aware_and_in_utc() -> None:
    """Instants are aware and in UTC."""
    assert RealClock().now().utcoffset() == timedelta(0)


def test_a_scaled_clock_runs_so_many_times_faster() -> None:
    """Ten real seconds at speed 360 are an hour."""
    seconds = Seconds()
    clock = ScaledClock(EPOCH, 360, monotonic=seconds)
    seconds.at += 10
    assert clock.now() == EPOCH + timedelta(hours=1)


def test_a_scaled_clock_says_how_far_ahead_an_instant_is_in_real_time() -> None:
    """What only knows real time can be told when an instant comes."""
    clock = ScaledClock(EPOCH, 60, monotonic=Seconds())
    assert clock.real_seconds(EPOCH + timedelta(minutes=5)) == 5.0
    assert clock.real_seconds(EPOCH - timedelta(minutes=5)) == -5.0


@pytest.mark.parametrize(("epoch", "speed"), [(EPOCH, 0.0), (EPOCH, -1.0), (EPOCH.replace(tzinfo=None), 1.0)])
def test_a_scaled_clock_refuses_nonsense(epoch: datetime, speed: float) -> None:
    """Time runs forward, from an instant that has a zone."""
    with pytest.raises(ValueError, match=r"speed|time zone"):
        ScaledClock(epoch, speed)


@pytest.fixture(params=[RealClock(), ScaledClock(EPOCH, 50)], ids=["real", "scaled"])
def clock(request: pytest.FixtureRequest) -> HostClock:
    found: HostClock = request.param
    return found


async def test_sleeping_ends_at_the_instant_and_not_before(clock: HostClock) -> None:
    """Whoever slept until an instant finds that it has come."""
    instant = clock.now() + timedelta(milliseconds=30)
    await clock.sleep_until(instant)
    assert clock.now() >= instant


async def test_sleeping_until_the_past_lets_others_run(clock: HostClock) -> None:
    """A past instant returns at the next turn of the loop."""
    ran = asyncio.Event()
    asyncio.get_running_loop().call_soon(ran.set)
    await clock.sleep_until(clock.now() - timedelta(days=1))
    assert ran.is_set()


async def test_waiting_ends_with_the_event(clock: HostClock) -> None:
    """An event ends a wait that would last for days."""
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)
    began = time.monotonic()
    assert await clock.wait(event, clock.now() + timedelta(days=365_000))
    assert time.monotonic() - began < 1


async def test_waiting_ends_with_the_instant(clock: HostClock) -> None:
    """Without the event it ends at the instant, and says so."""
    until = clock.now() + timedelta(milliseconds=30)
    assert not await clock.wait(asyncio.Event(), until)
    assert clock.now() >= until


async def test_a_set_event_is_noticed_at_once(clock: HostClock) -> None:
    """Also where the instant is past."""
    event = asyncio.Event()
    event.set()
    assert await clock.wait(event, clock.now() - timedelta(days=1))


async def test_waiting_leaves_the_processor_alone(clock: HostClock) -> None:
    """A wait is no loop: it takes next to no processor time."""
    before = time.process_time()
    await clock.wait(asyncio.Event(), clock.now() + timedelta(seconds=0.2 * getattr(clock, "speed", 1)))
    assert time.process_time() - before < 0.05
