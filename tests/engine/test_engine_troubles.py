"""The engine where several things happen at once: opt-outs and stops in flight, a slow store, long queues."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from broadcast.errors import StoreUnavailable
from broadcast.message import Rendering
from broadcast.model import (
    Answer,
    Conversation,
    ConversationState,
    Faulty,
    Holds,
    PresenceState,
    Schedule,
    Throttled,
    Window,
)
from broadcast.ports import Content, Lease, Result
from storage.memory import MemoryStore
from tests.engine.world import World

PARIS = ZoneInfo("Europe/Paris")
FRIDAY = Schedule(
    start=date(2026, 3, 27),
    timezone="Europe/Paris",
    hours={day: (Window(9 * 60, 12 * 60), Window(14 * 60, 18 * 60)) for day in range(5)},
)


def paris(hour: int, minute: int = 0, second: float = 0) -> datetime:
    whole = datetime(2026, 3, 27, hour, minute, tzinfo=PARIS).astimezone(UTC)
    return whole + timedelta(seconds=second)


def world_of(*people: str, pins: dict[str, Sequence[datetime]] | None = None, rate: float = 50) -> World:
    world = World(paris(8), people, schedule=FRIDAY, pins=pins or {who: [paris(15)] for who in people}, rate=rate)
    world.presence = None
    return world


def during_the_first_send(world: World, answer: Answer, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """While the first send is in flight something else happens; then it is answered."""
    plainly = world.channel.send

    async def send(to: Conversation, content: Content) -> Answer:
        first = not world.channel.sends
        sent = await plainly(to, content)
        if not first:
            return sent
        await meanwhile()
        return answer

    world.channel.send = send  # type: ignore[method-assign]  # a platform during which something happens


class SlowStore(MemoryStore):
    """The next intent takes as long as it is told, or fails so often."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._clock = world.clock
        self.takes: list[timedelta] = []
        self.fails = 0
        self.recorded: list[Result] = []

    async def record(self, lease: Lease, results: Sequence[Result]) -> list[str]:
        self.recorded.extend(results)
        return await super().record(lease, results)

    async def intend(self, *asked: Any, **named: Any) -> list[str]:
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("busy")
        granted = await super().intend(*asked, **named)
        if self.takes:
            await self._clock.sleep_until(self._clock.now() + self.takes.pop(0))
        return granted


def with_slow_store(world: World) -> SlowStore:
    store = world.store = SlowStore(world)
    world.broadcasts = type(world.broadcasts)(store, world.clock)
    return store


# --- what happens while a send is in flight -----------------------------------------------------------


@pytest.mark.parametrize("answer", [Faulty("503"), Throttled(timedelta(seconds=5), Holds.ACCOUNT)])
def test_unsubscribed_in_flight(answer: Answer) -> None:
    """Somebody who unsubscribes while their send is in flight is not tried again: `skipped`."""
    world = world_of("ann")
    during_the_first_send(world, answer, lambda: world.store.set_unsubscribed("ann", world.clock.now()))
    world.run()
    assert len(world.channel.sends) == 1
    assert (world.delivery("ann").state, world.delivery("ann").reason) == ("skipped", "unsubscribed")
    assert world.delivery("ann").ended_at == paris(15)


def test_stopped_in_flight() -> None:
    """After a stop a send that comes back with an error is not tried again: `cancelled`."""
    world = world_of("ann")
    during_the_first_send(world, Faulty("503"), lambda: world.broadcasts.stop("brd_1"))
    world.run(until=paris(16))
    assert len(world.channel.sends) == 1
    assert (world.delivery("ann").state, world.delivery("ann").reason) == ("cancelled", "stopped")


def test_blocked_in_flight() -> None:
    """A conversation that is shut while a send is in flight is not written to again: `skipped`."""
    world = world_of("ann")
    during_the_first_send(
        world,
        Faulty("503"),
        lambda: world.store.mark_conversation("cnv_ann", ConversationState.BLOCKED, world.clock.now()),
    )
    world.run()
    assert (world.delivery("ann").state, world.delivery("ann").reason) == ("skipped", "blocked")


def test_paused_in_flight() -> None:
    """What comes back during a pause is tried again after the resume."""
    world = world_of("ann")
    during_the_first_send(world, Faulty("503"), lambda: world.broadcasts.pause("brd_1"))
    world.at(paris(16), lambda: world.broadcasts.resume("brd_1"))
    world.run()
    assert [at for _, at in world.channel.sends] == [paris(15), paris(16)]


# --- waits --------------------------------------------------------------------------------------------


def test_throttled_account_without_a_wait_holds_for_the_same_back_off() -> None:
    """A 429 without a wait holds the whole account for the back-off of the delivery it answered."""
    world = world_of("ann", "bob", pins={"ann": [paris(15)], "bob": [paris(15, 0, 0.02)]})
    world.channel.answers = {"ann": [Throttled(None, Holds.ACCOUNT)] * 4}
    world.run()
    times = {who: [at for name, at in world.channel.sends if name == who] for who in ("ann", "bob")}
    assert times["bob"][0] >= times["ann"][0]
    assert not [at for at in times["bob"] if times["ann"][0] < at < times["ann"][0] + timedelta(milliseconds=20)]
    assert times["ann"][1] - times["bob"][0] == timedelta(milliseconds=20)


def test_what_is_due_first_goes_first_from_a_long_queue() -> None:
    """More retries than fit into memory never go ahead of what was due before them."""
    people = [f"p{n:04}" for n in range(3_000)]
    world = world_of(*people, rate=100)
    world.channel.answers = {who: [Throttled(timedelta(seconds=1), Holds.CONVERSATION)] for who in people}
    world.run()
    assert [who for who, _ in world.channel.sends] == people * 2


# --- a store that takes its time ----------------------------------------------------------------------


def test_an_intent_written_too_late_is_not_sent() -> None:
    """Where writing the intent lasted past closing time nothing goes out, and the attempt was none."""
    world = world_of("ann", pins={"ann": [paris(11, 59, 50)]})
    with_slow_store(world).takes = [timedelta(seconds=20)]
    world.run()
    assert world.channel.sends == [("ann", paris(14))]
    assert (world.delivery("ann").attempts, world.delivery("ann").sends) == (1, 1)


def test_presence_that_went_stale_while_writing_is_asked_again() -> None:
    """An answer on presence older than 60 s when the intent is written is asked again."""
    world = World(paris(8), ["ann"], schedule=FRIDAY, pins={"ann": [paris(15)]})
    assert world.presence
    world.presence.steps = {"ann": [(paris(8), PresenceState.AVAILABLE)]}
    with_slow_store(world).takes = [timedelta(seconds=61)]
    world.run()
    assert [at for at, _ in world.presence.calls] == [paris(15), paris(15, 1, 1)]
    assert world.channel.sends == [("ann", paris(15, 1, 1))]


def test_the_rate_is_kept_while_the_store_stutters() -> None:
    """Sends are at least 1/rate apart however unevenly their intents are written."""
    people = [f"p{n:02}" for n in range(20)]
    world = world_of(*people, rate=10)
    with_slow_store(world).takes = [timedelta(milliseconds=90 * (n % 2)) for n in range(40)]
    world.run()
    times = [at for _, at in world.channel.sends]
    assert min(b - a for a, b in pairwise(times)) >= timedelta(milliseconds=100) - timedelta(milliseconds=20)


def test_time_that_was_not_used_is_not_made_up_for() -> None:
    """After a long silence two people due together go one interval apart, and each is asked at their turn."""
    world = World(
        paris(8), ["ann", "bob"], schedule=FRIDAY, pins={w: [paris(15)] for w in ("ann", "bob")}, rate=0.01
    )
    assert world.presence
    world.presence.default = PresenceState.AVAILABLE
    world.run()
    assert world.channel.sends == [("ann", paris(15)), ("bob", paris(15, 1, 40))]
    assert [at for at, who in world.presence.calls if "bob" in who][-1] == paris(15, 1, 40)


def test_a_store_that_cannot_write_delays_and_loses_nothing() -> None:
    """Nothing goes out while intents cannot be written; everything does afterwards."""
    world = world_of("ann")
    with_slow_store(world).fails = 5
    world.run()
    assert world.channel.sends == [("ann", paris(15, 0, 5))]


def test_a_result_is_written_before_it_is_loaded_again() -> None:
    """Many rungs within one window: each attempt is made once."""
    world = World(paris(8), ["ann"], schedule=FRIDAY, pins={"ann": [paris(15)]})
    recorded = with_slow_store(world).recorded
    world.run()
    named = [(line.attempt.round, line.attempt.rung) for line in recorded if line.attempt]
    assert len(named) == len(set(named)) == 3


def test_presence_that_fails_for_many_never_spins() -> None:
    """More people wait for a failing provider than memory takes: the engine sleeps until the next try."""
    people = [f"p{n:02}" for n in range(40)]
    world = World(paris(8), people, schedule=FRIDAY, pins={who: [paris(15)] for who in people})
    assert world.presence
    world.presence.default, world.presence.fails = PresenceState.AVAILABLE, 30
    world.options = replace(world.options, load=20)
    world.run()
    assert {delivery.state for delivery in world.deliveries()} == {"sent"}


# --- faults of ours -----------------------------------------------------------------------------------


def test_a_message_that_cannot_be_filled_is_at_fault_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, so nothing may be doubled: `failed`, `content`."""

    def broken(*_: object) -> Content:
        raise KeyError("name")

    monkeypatch.setattr(Rendering, "content", broken)
    world = world_of("ann")
    world.run()
    assert (world.delivery("ann").state, world.delivery("ann").reason) == ("failed", "content")
    assert not world.delivery("ann").possibly_doubled


def test_a_channel_that_raises_leaves_it_open() -> None:
    """Nobody knows whether it went out: sent again, and listed so."""
    world = world_of("ann")
    calls = 0

    async def fails_once() -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("broken")

    during_the_first_send(world, Faulty("never reached"), fails_once)
    world.run()
    assert (calls, world.delivery("ann").state, world.delivery("ann").possibly_doubled) == (1, "sent", True)
