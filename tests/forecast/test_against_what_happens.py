"""What is foretold, held against what then happens to as many people of the same presence under other seeds."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from broadcast.model import (
    Answer,
    ChannelName,
    Conversation,
    DeliveryState,
    Policies,
    PresenceState,
    Schedule,
    Sent,
    WhenUnknown,
)
from broadcast.ports import Content
from broadcast.rollcall import AtHand
from tests.engine.world import ScriptedChannel, World
from tests.forecast.foretold import done, foretold, names, office

PEOPLE = 5_000
MONDAY = datetime(2026, 3, 30, tzinfo=UTC)
THREE_DAYS = Schedule(start=date(2026, 3, 30), working_days=3, timezone="Europe/Paris")
AVAILABLE = frozenset({PresenceState.AVAILABLE})


class People(AtHand):
    """People as they might be: what each does lasts 25 minutes on average, to the second as chance has it, and then
    they do what others do, of whom fewer are available in the afternoon. No line of it is the forecast's."""

    def __init__(self, now: Callable[[], datetime], seed: int) -> None:
        self._now = now
        self._chance = random.Random(seed)  # noqa: S311 - a test's
        self._until: dict[str, tuple[float, float]] = {}

    def state(self, user_id: str) -> PresenceState:
        at = self._now()
        until, mood = self._until.get(user_id, (0.0, 0.0))
        if until < at.timestamp():  # a spell that ends at any moment alike goes on from now as if it began now
            until, mood = at.timestamp() + self._chance.expovariate(1 / 1500), self._chance.random()
            self._until[user_id] = until, mood
        return PresenceState.AVAILABLE if mood < (0.45 if at.hour < 12 else 0.25) else PresenceState.AWAY


class Accepting(ScriptedChannel):
    """Takes everything and remembers nothing."""

    async def send(self, to: Conversation, content: Content) -> Answer:
        return Sent("1")


def happened(seed: int, *, rounds: int) -> World:
    """A broadcast to these people, driven to its end by the engine."""
    policies = Policies(
        presence=dict.fromkeys(ChannelName, AVAILABLE), when_unknown=WhenUnknown.WAIT, rounds=rounds
    )
    world = World(MONDAY, names(PEOPLE), schedule=THREE_DAYS, policies=policies, rate=30)
    world.broadcast = replace(world.broadcast, seed=seed)
    world.channel = Accepting(world.clock)
    world.presence = People(world.clock.now, seed)  # type: ignore[assignment]  # a provider of another kind
    world.run()
    return world


@pytest.mark.slow
def test_what_is_foretold_is_what_happens() -> None:
    """Having seen what presence was like in one broadcast, of another one the end is foretold within 5 % of its
    length, and whom it reaches within 2 points."""
    seen = done(happened(101, rounds=1).store.presence_seen())
    one = office(PEOPLE)
    one.clock.move(MONDAY - one.clock.now())
    done(one.store.add_presence(seen))
    told = foretold(one, schedule=THREE_DAYS, policies=Policies(rounds=2))
    assert not [line for line in told.warnings if "assumed" in line]

    world = happened(102, rounds=2)
    broadcast = done(world.store.broadcast(world.broadcast.id))
    assert broadcast is not None
    assert broadcast.finished_at is not None
    reached = sum(one.state is DeliveryState.SENT for one in world.deliveries()) / PEOPLE
    took = broadcast.finished_at - MONDAY
    assert abs(told.finish.expected - broadcast.finished_at) < 0.05 * took
    assert abs(told.reached.expected / PEOPLE - reached) < 0.02
    assert 0.6 < reached < 0.95
    assert took > timedelta(days=1)
