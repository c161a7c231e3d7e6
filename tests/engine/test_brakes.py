"""The engine obeys the brakes, under virtual time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from broadcast.campaigns import AT_ONCE
from broadcast.model import (
    BadContent,
    BroadcastReason,
    BroadcastStatus,
    Canary,
    ChannelName,
    DeliveryState,
    Faulty,
    Holds,
    Policies,
    PresencePolicy,
    Throttled,
)
from tests.engine.world import World

NOON = datetime(2026, 3, 27, 12, tzinfo=UTC)
ANYBODY: PresencePolicy = dict.fromkeys(ChannelName)
LATER = NOON + timedelta(hours=1)


def world(people: int, *, canary: Canary | None = None, rate: float = 10) -> World:
    names = [f"p{place:03}" for place in range(people)]
    return World(NOON, names, schedule=AT_ONCE, policies=Policies(presence=ANYBODY, canary=canary), rate=rate)


def broadcast(made: World) -> tuple[BroadcastStatus, BroadcastReason | None, str | None]:
    stored = made.read(lambda: made.broadcasts.get("brd_1"))
    return stored.status, stored.reason, stored.reason_detail  # type: ignore[attr-defined]  # a broadcast


def test_too_many_failures_pause_it() -> None:
    """At the fifteenth, but for what was on its way; the others wait, and the figures are told."""
    made = world(100)
    made.channel.answers = {who: [BadContent("400")] for who in made.people}
    made.run(LATER)
    status, reason, detail = broadcast(made)
    assert (status, reason) == (BroadcastStatus.PAUSED, BroadcastReason.FAILURE_RATE)
    assert detail is not None
    assert detail.startswith("15 of the last 15 sends failed")
    assert 15 <= len(made.channel.sends) <= 16


def test_resuming_it_counts_anew() -> None:
    """The next fifteen pause it again."""
    made = world(100)
    made.channel.answers = {who: [BadContent("400")] for who in made.people}
    made.at(NOON + timedelta(minutes=5), lambda: made.broadcasts.resume("brd_1"))
    made.run(LATER)
    assert broadcast(made)[:2] == (BroadcastStatus.PAUSED, BroadcastReason.FAILURE_RATE)
    assert 30 <= len(made.channel.sends) <= 32


def test_throttling_and_outages_pause_nothing() -> None:
    """A platform that is overrun or down is waited for."""
    made = world(60)
    wait = Throttled(timedelta(seconds=1), Holds.CONVERSATION)
    made.channel.answers = {who: [wait] * 3 for who in made.people[:30]}
    made.channel.answers |= {who: [Faulty("503")] for who in made.people[30:44]}
    made.run(LATER)
    assert broadcast(made)[0] is BroadcastStatus.COMPLETED


def test_a_canary_lets_the_first_go_and_no_more() -> None:
    """Exactly so many; the rest waits with the reason."""
    made = world(50, canary=Canary(first=7))
    made.channel.takes = timedelta(seconds=3)
    made.run(LATER)
    assert len(made.channel.sends) == 7
    status, reason, detail = broadcast(made)
    assert (status, reason) == (BroadcastStatus.PAUSED, BroadcastReason.CANARY)
    assert detail == "the first 7 are out, 0 of them failed; approve it to go on"


def test_an_approved_canary_goes_on_to_the_end() -> None:
    """Everybody is sent to once."""
    made = world(50, canary=Canary(first=7))
    made.at(NOON + timedelta(minutes=5), lambda: made.broadcasts.approve("brd_1"))
    made.run(LATER)
    assert broadcast(made)[0] is BroadcastStatus.COMPLETED
    assert sorted(who for who, _ in made.channel.sends) == list(made.people)


def test_a_pause_by_hand_does_not_pass_the_canary() -> None:
    """What is resumed amid it still waits after the first."""
    made = world(50, canary=Canary(first=20))
    made.at(NOON + timedelta(seconds=1), lambda: made.broadcasts.pause("brd_1"))
    made.at(NOON + timedelta(minutes=5), lambda: made.broadcasts.resume("brd_1"))
    made.run(LATER)
    assert len(made.channel.sends) == 20
    assert broadcast(made)[1] is BroadcastReason.CANARY


def test_a_canary_as_large_as_the_audience_asks_nobody() -> None:
    """There is nothing left to hold back."""
    made = world(7, canary=Canary(first=7))
    made.run(LATER)
    assert broadcast(made)[0] is BroadcastStatus.COMPLETED
    assert {one.state for one in made.deliveries()} == {DeliveryState.SENT}
