"""The engine obeys the brakes, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broadcast import virtual_time
from broadcast.campaigns import AT_ONCE, Broadcasts
from broadcast.launching import Launching
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
from broadcast.virtual_time import VirtualClock
from storage.memory import MemoryStore
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


# --- a canary over several accounts -------------------------------------------------------------------


class FarStore(MemoryStore):
    """What it told of its counters is old by the time it is heard, so that all accounts see the same. `asked` is
    how often it was asked for them."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.asked = 0

    async def tally(self, broadcast: str) -> Mapping[str, int]:
        self.asked += 1
        counted = await super().tally(broadcast)
        await self._clock.sleep_until(self._clock.now() + timedelta(milliseconds=20))
        return counted


class Accounts:
    """One broadcast to people on several accounts, each with an engine of its own."""

    def __init__(self, number: int, people: int, *, canary: Canary, rate: float = 10) -> None:
        self.worlds = [world(people, canary=canary, rate=rate) for _ in range(number)]
        first = self.worlds[0]
        self.store = FarStore(first.clock)
        self.broadcasts = Broadcasts(self.store, first.clock)
        for place, each in enumerate(self.worlds):
            each.people = [f"{who}_{place}" for who in each.people]
            each.clock, each.store, each.broadcasts = first.clock, self.store, self.broadcasts
            each.channel.clock, each.channel.account = first.clock, f"teams/{place}"
            each.account = replace(each.account, key=each.channel.account)

    def at(self, instant: datetime, act: Callable[[], object]) -> None:
        self.worlds[0].at(instant, act)

    def run(self, until: datetime = LATER) -> None:
        virtual_time.run(self.worlds[0].clock, lambda: self._run(until))

    async def _run(self, until: datetime) -> None:
        first = self.worlds[0]
        for each in self.worlds:
            await each.people_known()
        await self.store.save_broadcast(first.broadcast, expected=None)
        accounts = {each.account.key: each.account for each in self.worlds}
        await Launching(self.store, first.clock, accounts, first=first.options.first).start_due()
        await asyncio.gather(*(each.drive(until) for each in self.worlds))

    @property
    def sent(self) -> list[str]:
        return sorted(who for each in self.worlds for who, _ in each.channel.sends)


@pytest.mark.parametrize("rate", [1, 10, 500])
@pytest.mark.parametrize("number", [2, 3])
def test_a_canary_is_one_over_all_accounts(number: int, rate: float) -> None:
    """However many see room for the first at the same time, no more than these go out, and nobody twice."""
    made = Accounts(number, 30, canary=Canary(first=7), rate=rate)
    made.run()
    assert len(made.sent) == len({*made.sent}) == 7
    status, reason, detail = broadcast(made.worlds[0])
    assert (status, reason) == (BroadcastStatus.PAUSED, BroadcastReason.CANARY)
    assert detail == "the first 7 are out, 0 of them failed; approve it to go on"


def test_all_accounts_go_on_once_their_canary_is_approved() -> None:
    """Everybody is sent to once."""
    made = Accounts(2, 30, canary=Canary(first=7))
    made.at(NOON + timedelta(minutes=5), lambda: made.broadcasts.approve("brd_1"))
    made.run()
    assert broadcast(made.worlds[0])[0] is BroadcastStatus.COMPLETED
    assert made.sent == sorted(who for each in made.worlds for who in each.people)


def test_who_finds_the_canary_taken_waits_in_peace() -> None:
    """While the last of the first are on their way for a minute, the accounts look again once a second each."""
    made = Accounts(2, 30, canary=Canary(first=7))
    for each in made.worlds:
        each.channel.takes = timedelta(minutes=1)
    made.run(NOON + timedelta(seconds=50))
    assert len(made.sent) == 7
    assert made.store.asked < 2 * 60


def test_one_who_comes_back_leaves_the_place_to_another_account() -> None:
    """The first is throttled, on an account that waits for hours then: only then somebody else goes."""
    made = Accounts(2, 30, canary=Canary(first=1))
    throttled, other = (each.channel for each in made.worlds)
    throttled.answers = {who: [Throttled(timedelta(hours=2), Holds.ACCOUNT)] for who in made.worlds[0].people}
    throttled.takes = timedelta(seconds=10)
    made.run()
    assert broadcast(made.worlds[0])[1] is BroadcastReason.CANARY
    assert (len(throttled.sends), len(other.sends)) == (1, 1)
    assert other.sends[0][1] >= throttled.sends[0][1] + throttled.takes
