"""What presence was like: counts over everybody."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from broadcast import history
from broadcast.errors import StoreUnavailable
from broadcast.model import (
    ChannelName,
    Delivery,
    DeliveryState,
    Outcome,
    Policies,
    PresenceState,
    Rung,
    Schedule,
    Window,
)
from broadcast.ports import PresenceCount
from tests.engine.world import World
from tests.storage.builders import attempt, delivery

MONDAY = datetime(2026, 4, 13, 9, tzinfo=UTC)
TEAMS, AVAILABLE, AWAY = ChannelName.TEAMS, PresenceState.AVAILABLE, PresenceState.AWAY


@pytest.mark.parametrize(
    ("at", "hour"),
    [
        (datetime(2026, 4, 13, tzinfo=UTC), 0),
        (datetime(2026, 4, 13, 9, 59, 59, tzinfo=UTC), 9),
        (datetime(2026, 4, 19, 23, 59, tzinfo=UTC), history.HOURS - 1),
    ],
)
def test_a_week_has_168_hours(at: datetime, hour: int) -> None:
    """From Monday midnight in UTC to the last hour of Sunday."""
    assert history.hour_of_week(at) == hour


def test_shares_are_those_counted() -> None:
    """Of an hour in which enough was answered; each channel and hour by itself."""
    seen = history.of([PresenceCount(TEAMS, 9, AVAILABLE, 30), PresenceCount(TEAMS, 9, AWAY, 10)])
    assert seen.shares(TEAMS, 9) == {AVAILABLE: 0.75, AWAY: 0.25}
    assert seen.knows(TEAMS, 9)
    assert not seen.knows(TEAMS, 10)
    assert not seen.knows(ChannelName.VIBER, 9)


def test_too_few_answers_are_no_history() -> None:
    """With one less than enough the stated default holds, with enough what was counted."""
    few = history.of([PresenceCount(TEAMS, 9, AWAY, history.ENOUGH - 1)])
    assert few.shares(TEAMS, 9) == history.DEFAULTS[TEAMS]
    enough = history.of([PresenceCount(TEAMS, 9, AWAY, history.ENOUGH)])
    assert enough.shares(TEAMS, 9) == {AWAY: 1.0}


@pytest.mark.parametrize("channel", ChannelName)
def test_defaults_are_shares(channel: ChannelName) -> None:
    """Each channel has some, and they add up to one."""
    assert sum(history.DEFAULTS[channel].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "new_rung", "counts"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"rung": Rung.AGAIN}, True, False),
        ({"round": 2}, True, False),
    ],
)
def test_a_delivery_counts_with_its_very_first_attempt(
    changes: dict[str, object], new_rung: bool, counts: bool
) -> None:
    """Not with a retry of it, a later rung or a later round."""
    one: Delivery = replace(delivery("ann"), **changes)  # type: ignore[arg-type]  # as the table has them
    assert history.is_first(attempt(one, Outcome.ABSENT), new_rung=new_rung) is counts


def test_counts_wait_a_minute() -> None:
    """From the first of them on; once taken, they are gone, and the next minute begins with the next answer."""
    minutes = history.Minutes(TEAMS)
    assert not minutes.are_over(MONDAY)
    minutes.count(AWAY, MONDAY)
    assert not minutes.are_over(MONDAY + history.EVERY - timedelta(seconds=1))
    assert minutes.are_over(MONDAY + history.EVERY)
    assert minutes.take() == [PresenceCount(TEAMS, 9, AWAY, 1)]
    assert minutes.take() == []
    assert not minutes.are_over(MONDAY + history.EVERY)


def test_counts_name_nobody() -> None:
    """What is kept has room for a channel, an hour, a state and a number only."""
    assert [field.name for field in fields(PresenceCount)] == ["channel", "hour", "state", "count"]


def _world(policies: Policies | None = None) -> World:
    """Ann is away and tried three times, ben is there at once."""
    hours = {0: (Window(9 * 60, 12 * 60),)}
    pins = {"ann": [MONDAY + timedelta(minutes=5)], "ben": [MONDAY + timedelta(minutes=65)]}
    world = World(MONDAY, ["ann", "ben"], schedule=Schedule(hours=hours), policies=policies, pins=pins)
    assert world.presence is not None
    world.presence.default = AWAY
    world.presence.steps = {"ben": [(MONDAY, AVAILABLE)]}
    return world


def _played(policies: Policies | None = None) -> World:
    world = _world(policies)
    world.run()
    return world


def test_the_engine_counts_each_delivery_once() -> None:
    """However often it was tried; the counts are in the store when the engine has stopped."""
    world = _played()
    assert len(world.attempts("ann")) == 3
    assert asyncio.run(world.store.presence_seen()) == [
        PresenceCount(TEAMS, 9, AWAY, 1),
        PresenceCount(TEAMS, 10, AVAILABLE, 1),
    ]


def test_nobody_asked_is_nothing_counted() -> None:
    """A broadcast to whoever, present or not, asks nobody and teaches nothing."""
    world = _played(policies=Policies(presence=dict.fromkeys(ChannelName)))
    assert asyncio.run(world.store.presence_seen()) == []


def test_a_store_that_fails_costs_counts_and_no_send() -> None:
    """What could not be kept is dropped; the broadcast goes on as if nothing was."""
    world = _world()

    async def fails(counts: object) -> None:
        raise StoreUnavailable("disk full")

    world.store.add_presence = fails  # type: ignore[method-assign]  # this one method of this one store
    world.run()
    assert world.delivery("ben").state is DeliveryState.SENT
    assert asyncio.run(world.store.presence_seen()) == []
