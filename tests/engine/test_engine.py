"""The engine under virtual time: RULES.md, as seen from outside."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from broadcast.model import (
    DeliveryState,
    Policies,
    PresenceState,
    Schedule,
    WhenUnknown,
    Window,
)
from tests.engine.world import World

PARIS = ZoneInfo("Europe/Paris")
SPLIT = {day: (Window(9 * 60, 12 * 60), Window(14 * 60, 18 * 60)) for day in range(5)}
FRIDAY = date(2026, 3, 27)


def paris(hour: int, minute: int = 0, second: int = 0, day: date = FRIDAY) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=PARIS).astimezone(UTC)


def friday(days: int = 1) -> Schedule:
    return Schedule(start=FRIDAY, working_days=days, timezone="Europe/Paris", hours=SPLIT)


@pytest.mark.parametrize(
    ("first", "attempts"),
    [
        ("14:27", "14:27 14:37 15:00"),
        ("14:50", "14:50 15:00 16:00"),
        ("14:55", "14:55 15:05 16:00"),
        ("11:52", "11:52 14:00"),
        ("11:45", "11:45 11:55 14:00"),
        ("17:45", "17:45 17:55"),
        ("17:55", "17:55"),
        ("09:00", "09:00 09:10 10:00"),
    ],
)
def test_worked_examples(first: str, attempts: str) -> None:
    """Absent throughout one working day, a person is tried at the moments RULES.md works out."""
    hour, minute = map(int, first.split(":"))
    world = World(paris(8), schedule=friday(), pins={"ann": [paris(hour, minute)]})
    world.run()
    tried = " ".join(f"{a.at.astimezone(PARIS):%H:%M}" for a in world.attempts("ann"))
    assert tried == attempts
    assert world.delivery("ann").state is DeliveryState.UNSCHEDULED


def test_becomes_available() -> None:
    """Somebody available at the third rung gets the message then."""
    world = World(paris(8), schedule=friday(), pins={"ann": [paris(14, 27)]})
    assert world.presence
    world.presence.steps = {"ann": [(paris(15), PresenceState.AVAILABLE)]}
    world.run()
    assert world.channel.sends == [("ann", paris(15))]
    assert world.delivery("ann").state is DeliveryState.SENT
    assert world.delivery("ann").attempts == 3


def test_rate() -> None:
    """Sends of an account are never closer than 1/rate."""
    people = [f"p{n:03}" for n in range(100)]
    world = World(paris(8), people, schedule=Schedule(immediate=True, timezone="Europe/Paris", hours=SPLIT), rate=5)
    world.presence = None
    world.run()
    times = [at for _, at in world.channel.sends]
    assert len(times) == 100
    assert min(b - a for a, b in pairwise(times)) >= timedelta(seconds=0.2)


def test_unknown_waits() -> None:
    """With `when_unknown: wait` an unknown presence counts as absent."""
    policies = Policies(when_unknown=WhenUnknown.WAIT)
    world = World(paris(8), schedule=friday(), policies=policies)
    assert world.presence
    world.presence.default = PresenceState.UNKNOWN
    world.run()
    assert world.channel.sends == []
