"""One question for many who ask, and none again within the minute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from broadcast.errors import PresenceUnavailable
from broadcast.model import PresenceState
from broadcast.ports import PresenceProvider
from presence.cache import Shared

AWAY, BUSY = PresenceState.AWAY, PresenceState.BUSY


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2026, 3, 27, 14, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    async def sleep_until(self, instant: datetime) -> None:
        self.at = instant

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        return event.is_set()


class Provider:
    """Answers when `let` is set; knows nothing of ids in `silent`."""

    batch = 650
    prefetch = True

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.let = asyncio.Event()
        self.let.set()
        self.state = AWAY
        self.silent: set[str] = set()
        self.fails: PresenceUnavailable | None = None

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, PresenceState]:
        self.asked.append(list(user_ids))
        await self.let.wait()
        if self.fails is not None:
            raise self.fails
        return {id: self.state for id in user_ids if id not in self.silent}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
async def shared(provider: Provider, clock: Clock) -> AsyncIterator[Shared]:
    wrapped = Shared(provider, clock)
    yield wrapped
    await wrapped.close()


async def test_it_is_a_provider(shared: Shared) -> None:
    port: PresenceProvider = shared
    assert (port.batch, port.prefetch) == (650, True)


async def test_not_again_within_the_minute(shared: Shared, provider: Provider, clock: Clock) -> None:
    """Sixty seconds old is usable, a moment more is not."""
    assert await shared.states(["ann", "ben"]) == {"ann": AWAY, "ben": AWAY}
    provider.state = BUSY
    clock.at += timedelta(seconds=60)
    assert await shared.states(["ben", "cat"]) == {"ben": AWAY, "cat": BUSY}
    clock.at += timedelta(microseconds=1)
    assert await shared.states(["ben", "cat"]) == {"ben": BUSY, "cat": BUSY}
    assert provider.asked == [["ann", "ben"], ["cat"], ["ben"]]


async def test_an_answer_is_as_old_as_its_question(shared: Shared, provider: Provider, clock: Clock) -> None:
    provider.let.clear()
    asking = asyncio.create_task(shared.states(["ann"]))
    await asyncio.sleep(0)
    clock.at += timedelta(seconds=61)
    provider.let.set()
    assert await asking == {"ann": AWAY}
    provider.state = BUSY
    assert await shared.states(["ann"]) == {"ann": BUSY}


async def test_calls_that_end_out_of_order(shared: Shared, provider: Provider, clock: Clock) -> None:
    """What was asked first and answered last goes stale in its own time."""
    provider.let.clear()
    slow = asyncio.create_task(shared.states(["ann"]))
    await asyncio.sleep(0.01)
    clock.at += timedelta(seconds=30)
    held, provider.let = provider.let, asyncio.Event()
    provider.let.set()
    assert await shared.states(["ben"]) == {"ben": AWAY}
    held.set()
    await slow
    clock.at += timedelta(seconds=31)
    provider.state = BUSY
    assert await shared.states(["ann", "ben"]) == {"ann": BUSY, "ben": AWAY}


async def test_many_share_the_call_in_flight(shared: Shared, provider: Provider) -> None:
    provider.let.clear()
    asking = [asyncio.create_task(shared.states([id, "ann"])) for id in ("ben", "cat", "ben")]
    await asyncio.sleep(0.01)
    provider.let.set()
    answers = await asyncio.gather(*asking)
    assert answers == [{"ben": AWAY, "ann": AWAY}, {"cat": AWAY, "ann": AWAY}, {"ben": AWAY, "ann": AWAY}]
    assert provider.asked == [["ben", "ann"], ["cat"]]


async def test_who_stops_waiting_stops_nobody_else(shared: Shared, provider: Provider) -> None:
    provider.let.clear()
    first, second = (asyncio.create_task(shared.states(["ann"])) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    provider.let.set()
    assert await second == {"ann": AWAY}
    assert provider.asked == [["ann"]]


async def test_a_failure_is_told_to_all_and_not_kept(shared: Shared, provider: Provider) -> None:
    provider.fails = PresenceUnavailable("down", wait=timedelta(seconds=3))
    told = await asyncio.gather(*(shared.states(["ann"]) for _ in range(2)), return_exceptions=True)
    assert told == [provider.fails] * 2
    provider.fails = None
    assert await shared.states(["ann"]) == {"ann": AWAY}
    assert len(provider.asked) == 2


async def test_what_could_not_be_told_is_asked_again(shared: Shared, provider: Provider) -> None:
    """An id left out stays out, and is not held for a minute."""
    provider.silent = {"ann"}
    assert await shared.states(["ann", "ben"]) == {"ben": AWAY}
    provider.silent = set()
    assert await shared.states(["ann", "ben"]) == {"ann": AWAY, "ben": AWAY}
    assert provider.asked == [["ann", "ben"], ["ann"]]


async def test_nobody(shared: Shared, provider: Provider) -> None:
    assert await shared.states([]) == {}
    assert provider.asked == []


async def test_closing_ends_what_is_under_way(shared: Shared, provider: Provider) -> None:
    provider.let.clear()
    asking = asyncio.create_task(shared.states(["ann"]))
    await asyncio.sleep(0.01)
    await shared.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
