"""Rates of campaigns, and several broadcasts on one account: who sends when, under virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from broadcast.campaigns import AT_ONCE
from broadcast.model import Audience, Broadcast, BroadcastKind, ChannelName, Order, Policies, PresencePolicy
from broadcast.pacing import Pacer, Turns, shared_out
from broadcast.ports import DeliveryFilter, Page
from tests.engine.world import World

NOON = datetime(2026, 3, 27, 12, tzinfo=UTC)
ANYBODY: PresencePolicy = dict.fromkeys(ChannelName)
MINUTE = timedelta(minutes=1)


def crowd(number: int) -> list[str]:
    return [f"p{place:05}" for place in range(number)]


def world(people: int, *, rate: float, own: float | None = None, order: Order = Order.FAIR) -> World:
    made = World(NOON, crowd(people), schedule=AT_ONCE, policies=Policies(presence=ANYBODY, rate=own), rate=rate)
    made.account = replace(made.account, order=order)
    return made


def another(made: World, id: str, **changes: object) -> Broadcast:
    """One more broadcast to the same people."""
    broadcast = replace(made.broadcast, id=id, **changes)  # type: ignore[arg-type]  # fields by name
    made.others.append(broadcast)
    return broadcast


def sent_of(made: World, id: str) -> list[datetime]:
    listing = asyncio.run(made.store.deliveries(DeliveryFilter(id), Page(1, 100_000)))
    return sorted(one.sent_at for one, _ in listing.items if one.sent_at is not None)


def busiest_minutes(times: Sequence[datetime]) -> tuple[int, int]:
    """The least and the most sends of any whole minute between the first and the last."""
    ends = [at for at in times if at + MINUTE <= times[-1]]
    counts = [sum(at <= one < at + MINUTE for one in times) for at in ends]
    return min(counts), max(counts)


def test_a_campaign_keeps_its_own_rate() -> None:
    """Two messages a second on an account that could send fifty: 120 in any minute, within 2 %."""
    made = world(400, rate=50, own=2)
    made.run()
    least, most = busiest_minutes(sent_of(made, "brd_1"))
    assert 118 <= least <= most <= 122


def test_its_sends_are_evenly_spaced() -> None:
    """Alone on the account, at least 1/rate apart, as an account's own are."""
    made = world(50, rate=50, own=4)
    made.run()
    assert all(b - a >= timedelta(seconds=0.25) for a, b in pairwise(sent_of(made, "brd_1")))


def test_a_campaign_keeps_its_rate_beside_one_that_takes_what_is_left() -> None:
    """4 a second of the account's 10, whatever the other does, within 2 % over any minute; the account is used."""
    made = world(600, rate=10, own=4)
    another(made, "brd_2", policies=Policies(presence=ANYBODY))
    made.run()
    own, other = sent_of(made, "brd_1"), sent_of(made, "brd_2")
    shared = [at for at in own if at <= other[-1]]
    least, most = busiest_minutes(shared)
    assert 235 <= least <= most <= 245
    least, most = busiest_minutes(sorted([*shared, *other]))
    assert 588 <= least <= most <= 600


def test_what_is_achieved_is_told_beside_the_rate() -> None:
    """Of the account and of each broadcast, within 2 %."""
    made = world(600, rate=10, own=4)
    another(made, "brd_2", policies=Policies(presence=ANYBODY))
    told: list[tuple[float, dict[str, float]]] = []
    half_way = NOON + timedelta(seconds=70)

    def look() -> None:
        status = made.engine.status
        told.append((status.achieved_rate(half_way), status.achieved_rates(half_way)))

    made.at(half_way, look)
    made.run(NOON + timedelta(seconds=80))
    [(account, broadcasts)] = told
    assert account == pytest.approx(10, rel=0.02)
    assert broadcasts["brd_1"] == pytest.approx(4, rel=0.02)
    assert broadcasts["brd_2"] == pytest.approx(6, rel=0.02)


def test_broadcasts_take_turns() -> None:
    """Of two with everything due at once, each has sent half at any time, though one was launched first."""
    made = world(200, rate=10)
    another(made, "brd_2", launched_at=NOON)
    made.run()
    first, second = sent_of(made, "brd_1"), sent_of(made, "brd_2")
    assert abs(first[-1] - second[-1]) <= timedelta(seconds=0.1)
    both = sorted([*((at, 1) for at in first), *((at, 2) for at in second)])
    counts: Counter[int] = Counter()
    for _, which in both:
        counts[which] += 1
        assert abs(counts[1] - counts[2]) <= 1


def test_a_backlog_hides_no_other_broadcast() -> None:
    """Thousands due of one, more than are held at once; one that is launched amid them sends at once."""
    made = world(300, rate=10)
    made.options = replace(made.options, load=40)
    late = another(made, "brd_2", audience=Audience(recipients=("p00007",)))
    late_start = NOON + timedelta(seconds=10)
    made.others.clear()

    async def launch() -> None:
        await made.store.save_broadcast(replace(late, launched_at=late_start, starts_at=late_start), expected=None)
        await made.launching().start_due()

    made.at(late_start, launch)
    made.run()
    [only] = sent_of(made, "brd_2")
    assert only - late_start <= timedelta(seconds=0.3)


def test_a_sequential_account_serves_the_first_launched() -> None:
    """All that is due of the first goes before any of the second."""
    made = world(50, rate=10, order=Order.SEQUENTIAL)
    another(made, "brd_2", launched_at=NOON - timedelta(microseconds=1))
    made.run()
    assert max(sent_of(made, "brd_2")) < min(sent_of(made, "brd_1"))


def test_a_trial_waits_for_nobody() -> None:
    """Also on a sequential account, though it was launched last."""
    made = world(50, rate=10, order=Order.SEQUENTIAL)
    one = Audience(recipients=("p00003",))
    another(made, "brd_2", launched_at=NOON, audience=one, kind=BroadcastKind.TRIAL)
    made.run()
    [only] = sent_of(made, "brd_2")
    assert only <= sent_of(made, "brd_1")[1]


def test_nobody_is_looked_at_while_the_broadcast_waits_for_its_slot() -> None:
    """Hundreds are due and one may go a second: the others stay in their queue."""
    made = world(300, rate=50, own=1)
    made.run(NOON + timedelta(seconds=20))
    memory = made.engine._memory  # noqa: SLF001 - what it did not do cannot be seen from outside
    assert memory.number_of("brd_1") >= 250
    assert len(sent_of(made, "brd_1")) <= 21


# --- shares and turns as values -----------------------------------------------------------------------


def test_shares_are_in_proportion_to_what_is_planned() -> None:
    """So that both accounts have done at the same moment."""
    shares = shared_out(8.0, {"teams/hr": 300, "telegram/news": 100, "viber/x": 0})
    assert shares == {"teams/hr": 6.0, "telegram/news": 2.0}
    assert 300 / shares["teams/hr"] == 100 / shares["telegram/news"]


def test_no_rate_has_no_shares() -> None:
    """Then the account's own pace is the only one."""
    assert shared_out(None, {"teams/hr": 3}) == {}
    assert shared_out(2.0, {}) == {}


def test_whoever_was_idle_has_saved_up_nothing() -> None:
    """One that joins after a hundred turns of another alternates with it from then on."""
    turns = Turns(Order.FAIR, Pacer(10))
    for id in ("a", "b"):
        turns.admit(id, NOON, None)
    for _ in range(100):
        turns.serve(turns.first(["a"]))
    order = []
    for _ in range(4):
        order.append(turns.first(["a", "b"]))
        turns.serve(order[-1])
    assert sorted(order[:2]) == sorted(order[2:]) == ["a", "b"]


def test_a_pause_resets_no_rate() -> None:
    """What ran a moment ago keeps its next slot, though it is not running when the engine looks around."""
    turns = Turns(Order.FAIR, Pacer(10))
    turns.admit("a", NOON, 0.1)
    turns.take("a", NOON)
    turns.keep([], NOON + timedelta(seconds=3))
    turns.admit("a", NOON, 0.1)
    assert turns.slot("a") == NOON + timedelta(seconds=10)
    turns.keep([], NOON + timedelta(seconds=10))
    turns.admit("a", NOON, 0.1)
    assert turns.slot("a") < NOON


@pytest.mark.parametrize("rate", [1e-300, 1e-9])
def test_a_tiny_share_is_slow_and_no_fault(rate: float) -> None:
    """However little one account has of a large plan."""
    assert Pacer(rate).interval >= timedelta(days=100)
