"""The engine under virtual time: RULES.md, as seen from outside."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from broadcast import virtual_time
from broadcast.model import (
    AfterCrash,
    Answer,
    BadContent,
    Conversation,
    ConversationState,
    DeliveryState,
    Faulty,
    Holds,
    Never,
    OutsideHours,
    Policies,
    PresenceState,
    Schedule,
    Sent,
    StopAccount,
    Throttled,
    Unknown,
    WhenUnknown,
    Window,
)
from broadcast.ports import Content
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


# --- what the platform answers ------------------------------------------------------------------------


def alone(answers: list[Answer], *, first: datetime | None = None, policies: Policies | None = None) -> World:
    """Ann, present, in one working day, and what her sends are answered."""
    world = World(paris(8), schedule=friday(), policies=policies, pins={"ann": [first or paris(15)]})
    world.presence = None
    world.channel.answers = {"ann": answers}
    return world


def test_throttled_wait_is_exact() -> None:
    """A 429 with a wait is tried again after exactly that wait, on the same rung."""
    world = alone([Throttled(timedelta(seconds=5), Holds.ACCOUNT)])
    world.run()
    assert world.channel.sends == [("ann", paris(15)), ("ann", paris(15, 0, 5))]
    assert [(a.rung, a.outcome) for a in world.attempts("ann")] == [("first", "throttled"), ("first", "sent")]
    assert (world.delivery("ann").attempts, world.delivery("ann").sends) == (1, 2)


def test_throttled_account_holds_everybody() -> None:
    """A 429 that holds the account keeps everybody waiting for as long."""
    world = World(paris(8), ("ann", "bob"), schedule=friday(), pins={"ann": [paris(15)], "bob": [paris(15, 0, 1)]})
    world.presence = None
    world.channel.answers = {"ann": [Throttled(timedelta(seconds=30), Holds.ACCOUNT)]}
    world.run()
    assert [at for who, at in world.channel.sends if who == "bob"] == [paris(15, 0, 30)]


def test_throttled_conversation_holds_one() -> None:
    """A 429 that holds a conversation keeps nobody else waiting."""
    world = World(paris(8), ("ann", "bob"), schedule=friday(), pins={"ann": [paris(15)], "bob": [paris(15, 0, 1)]})
    world.presence = None
    world.channel.answers = {"ann": [Throttled(timedelta(seconds=30), Holds.CONVERSATION)]}
    world.run()
    assert world.channel.sends == [("ann", paris(15)), ("bob", paris(15, 0, 1)), ("ann", paris(15, 0, 30))]


def test_throttled_without_wait_is_never_spent() -> None:
    """429 without a wait backs off as often as it takes: it is not counted as a failure."""
    world = alone([Throttled(None, Holds.CONVERSATION)] * 9)
    world.run()
    assert world.delivery("ann").state is DeliveryState.SENT
    assert world.delivery("ann").sends == 10


def test_errors_spend_five_sends() -> None:
    """Five sends that failed are the end: `retries_spent`."""
    world = alone([Faulty("500")] * 9)
    world.run()
    assert (world.delivery("ann").state, world.delivery("ann").reason) == ("failed", "retries_spent")
    assert len(world.channel.sends) == 5


def test_error_back_off_is_drawn() -> None:
    """Retries wait uniformly drawn times within 1, 2, 4 and 8 seconds, the same for the same seed."""
    runs = [alone([Faulty("500")] * 4) for _ in range(2)]
    for world in runs:
        world.run()
    times = [at for _, at in runs[0].channel.sends]
    gaps = [(b - a).total_seconds() for a, b in pairwise(times)]
    assert all(gap <= most for gap, most in zip(gaps, (1, 2, 4, 8), strict=True))
    assert runs[0].channel.sends == runs[1].channel.sends


def test_time_out_resends_and_says_so() -> None:
    """A time-out is sent again by default, and the delivery is listed as possibly doubled."""
    world = alone([Unknown("timeout")])
    world.run()
    assert world.delivery("ann").state is DeliveryState.SENT
    assert world.delivery("ann").possibly_doubled


def test_time_out_held() -> None:
    """With `after_crash: hold` a time-out leaves the delivery uncertain, and nothing is sent again."""
    world = alone([Unknown("timeout")], policies=Policies(after_crash=AfterCrash.HOLD))
    world.run()
    assert world.delivery("ann").state is DeliveryState.UNCERTAIN
    assert len(world.channel.sends) == 1


def test_refused() -> None:
    """Somebody who blocked the bot fails at once, and their conversation is marked."""
    world = alone([Never(ConversationState.BLOCKED, "blocked")])
    world.run()
    assert (world.delivery("ann").state, world.delivery("ann").reason) == ("failed", "refused")
    [conversation] = asyncio.run(world.store.conversations_of("ann"))
    assert conversation.state is ConversationState.BLOCKED


def test_bad_content() -> None:
    """A fault of the content fails the delivery and leaves the conversation alone."""
    world = alone([BadContent("too long")])
    world.run()
    assert (world.delivery("ann").state, world.delivery("ann").reason) == ("failed", "content")
    [conversation] = asyncio.run(world.store.conversations_of("ann"))
    assert conversation.state is ConversationState.REACHABLE


def test_account_stopped() -> None:
    """A revoked token fails nobody: the broadcast pauses with the reason, and goes on once resumed."""
    world = alone([StopAccount("401")])
    world.at(paris(16), lambda: world.broadcasts.resume("brd_1"))
    world.run()
    assert world.channel.sends == [("ann", paris(15)), ("ann", paris(16))]
    assert world.delivery("ann").state is DeliveryState.SENT


def test_account_stopped_reason() -> None:
    """While the account is stopped its broadcast says `account_disconnected`."""
    world = alone([StopAccount("401")])
    world.run(until=paris(16))
    broadcast = asyncio.run(world.store.broadcast("brd_1"))
    assert broadcast
    assert (broadcast.status, broadcast.reason) == ("paused", "account_disconnected")
    assert world.delivery("ann").state is DeliveryState.PLANNED


def test_outage_spends_no_tries() -> None:
    """Five failures in a row on different people are an outage: the account probes, and nobody fails for it."""
    people = [f"p{n:02}" for n in range(20)]
    world = World(paris(8), people, schedule=friday(), pins={who: [paris(15)] for who in people})
    world.presence = None
    down_until = paris(15, 20)

    async def send(to: Conversation, content: Content) -> Answer:
        world.channel.sends.append((to.recipient, world.clock.now()))
        return Faulty("503") if world.clock.now() < down_until else Sent(str(len(world.channel.sends)))

    world.channel.send = send  # type: ignore[method-assign]  # a platform that is down for a while
    world.run()
    assert {d.state for d in world.deliveries()} == {DeliveryState.SENT}
    assert len([at for _, at in world.channel.sends if at < down_until]) < 40


# --- late ---------------------------------------------------------------------------------------------


def test_retry_after_closing_waits_for_the_next_day() -> None:
    """A retry that would fall after closing time waits for the next working time, and keeps its rung."""
    world = alone([Throttled(timedelta(minutes=30), Holds.CONVERSATION)], first=paris(17, 45))
    world.broadcast = replace(world.broadcast, schedule=friday(2))
    world.run()
    assert world.channel.sends[1] == ("ann", paris(9, day=date(2026, 3, 30)))
    assert world.delivery("ann").rung == "first"


def test_retry_without_time_left() -> None:
    """A retry for which no working time is left failed: `window_closed`."""
    world = alone([Throttled(timedelta(minutes=30), Holds.CONVERSATION)], first=paris(17, 45))
    world.run()
    assert (world.delivery("ann").state, world.delivery("ann").reason) == ("failed", "window_closed")


def test_never_tried_for_want_of_time() -> None:
    """What was due but never tried because a hold ran into the end is unscheduled: `no_time`."""
    world = World(
        paris(8), ("ann", "bob"), schedule=friday(), pins={"ann": [paris(17, 50)], "bob": [paris(17, 55)]}
    )
    world.presence = None
    world.channel.answers = {"ann": [Throttled(timedelta(minutes=30), Holds.ACCOUNT)]}
    world.run()
    assert (world.delivery("bob").state, world.delivery("bob").reason) == ("unscheduled", "no_time")


def test_outside_hours_may_be_dropped() -> None:
    """With `outside_hours: drop` what misses its hours is dropped instead of held to the next day."""
    policies = Policies(outside_hours=OutsideHours.DROP)
    world = alone([Throttled(timedelta(minutes=30), Holds.CONVERSATION)], first=paris(17, 45), policies=policies)
    world.broadcast = replace(world.broadcast, schedule=friday(2))
    world.run()
    assert world.delivery("ann").reason == "window_closed"


# --- people and operators -----------------------------------------------------------------------------


def test_unsubscribed_in_the_middle() -> None:
    """Nobody is written to at or after the moment they unsubscribed: `skipped` at that moment."""
    world = World(paris(8), schedule=friday(), pins={"ann": [paris(15)]})
    world.presence = None
    world.at(paris(14, 59), lambda: world.store.set_unsubscribed("ann", world.clock.now()))
    world.run()
    assert world.channel.sends == []
    assert (world.delivery("ann").reason, world.delivery("ann").ended_at) == ("unsubscribed", paris(14, 59))


def test_stop() -> None:
    """After a stop nothing is sent, and the rest is cancelled."""
    people = [f"p{n:02}" for n in range(50)]
    world = World(paris(8), people, schedule=friday())
    world.presence = None
    world.at(paris(15), lambda: world.broadcasts.stop("brd_1"))
    world.run()
    assert all(at < paris(15) for _, at in world.channel.sends)
    states = Counter(d.state for d in world.deliveries())
    assert states == {
        DeliveryState.SENT: len(world.channel.sends),
        DeliveryState.CANCELLED: 50 - states[DeliveryState.SENT],
    }


def test_pause_and_resume() -> None:
    """While paused nothing goes out; after the resume everybody still gets it."""
    people = [f"p{n:02}" for n in range(50)]
    world = World(paris(8), people, schedule=friday())
    world.presence = None
    world.at(paris(10), lambda: world.broadcasts.pause("brd_1"))
    world.at(paris(15), lambda: world.broadcasts.resume("brd_1"))
    world.run()
    assert not [at for _, at in world.channel.sends if paris(10) <= at < paris(15)]
    assert {d.state for d in world.deliveries()} == {DeliveryState.SENT}


# --- presence -----------------------------------------------------------------------------------------


def present(people: list[str], **settings: Any) -> World:
    world = World(paris(8), people, **settings)
    assert world.presence
    world.presence.default = PresenceState.AVAILABLE
    world.presence.prefetch = True
    return world


def test_immediate_presence_calls() -> None:
    """An immediate broadcast to N people takes N / 650 calls on presence."""
    people = [f"p{n:04}" for n in range(3_000)]
    world = present(people, schedule=Schedule(immediate=True, timezone="Europe/Paris", hours=SPLIT))
    assert world.presence
    world.run()
    assert len(world.channel.sends) == 3_000
    assert len(world.presence.calls) == 5


def test_spread_presence_calls() -> None:
    """A spread broadcast asks for presence at most once a minute."""
    people = [f"p{n:04}" for n in range(2_000)]
    world = present(people, schedule=friday())
    assert world.presence
    world.run()
    times = [at for at, _ in world.presence.calls]
    assert min(b - a for a, b in pairwise(times)) >= timedelta(seconds=59)


def test_presence_failure_waits() -> None:
    """A provider that fails uses no rung: the attempt waits until it answers."""
    world = present(["ann"], schedule=friday(), pins={"ann": [paris(15)]})
    assert world.presence
    world.presence.fails = 3
    world.run()
    assert world.delivery("ann").state is DeliveryState.SENT
    assert world.delivery("ann").attempts == 1


def test_presence_is_fresh() -> None:
    """An answer on presence is used up to and including 60 s, an older one is asked again."""
    people = [f"p{n:03}" for n in range(200)]
    world = present(people, schedule=Schedule(immediate=True, timezone="Europe/Paris", hours=SPLIT), rate=1)
    assert world.presence
    world.run()
    asked = {who: [at for at, ids in world.presence.calls if who in ids] for who in people}
    for who, at in world.channel.sends:
        assert min(at - then for then in asked[who] if then <= at) <= timedelta(seconds=60)


def test_retry_that_ends_absent_skips_passed_rungs() -> None:
    """After a retry that ends absent, rungs not later than it are skipped."""
    world = World(paris(8), schedule=friday(), pins={"ann": [paris(14, 27)]})
    assert world.presence
    world.presence.steps = {
        "ann": [(paris(14), PresenceState.AVAILABLE), (paris(14, 28), PresenceState.AWAY)],
    }
    world.channel.answers = {"ann": [Throttled(timedelta(minutes=13), Holds.CONVERSATION)]}
    world.run()
    assert [(a.rung, a.at) for a in world.attempts("ann")] == [
        ("first", paris(14, 27)),
        ("first", paris(14, 40)),
        ("slot", paris(15)),
    ]


# --- crashes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after_crash", "state", "doubled"), [("resend", "sent", True), ("hold", "uncertain", False)]
)
def test_crash_in_flight(after_crash: str, state: str, doubled: bool) -> None:
    """What a crash left in flight follows `after_crash`: sent again and listed, or held as uncertain."""
    policies = Policies(after_crash=AfterCrash(after_crash))
    world = World(paris(8), schedule=friday(), policies=policies, pins={"ann": [paris(15)]})
    world.presence = None
    world.channel.takes = timedelta(hours=1)

    async def crash_and_restart() -> None:
        await world.prepare()
        first = asyncio.create_task(world.drive(paris(17)))
        await world.clock.sleep_until(paris(15, 1))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        world.channel.takes = timedelta()
        await world.drive(paris(17))

    virtual_time.run(world.clock, crash_and_restart)
    assert (world.delivery("ann").state, world.delivery("ann").possibly_doubled) == (state, doubled)
