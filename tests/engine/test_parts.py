"""The engine's small parts: changed copies, virtual time, pacing."""

from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from broadcast import virtual_time
from broadcast.evolve import evolver, maker
from broadcast.model import Attempt, Delivery, DeliveryState, Outcome, Rung, Window
from broadcast.pacing import CATCH_UP, WELL, Conversations, Pacer
from broadcast.virtual_time import Stuck, VirtualClock

NOON = datetime(2026, 3, 27, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_evolve_is_replace() -> None:
    """For every field, and for none."""
    evolve = evolver(Delivery)
    delivery = Delivery("dlv_1", "brd_1", "ann", 3, None, None, None, state=DeliveryState.SENT, tries=2)
    assert evolve(delivery) == delivery
    for number, field in enumerate(fields(Delivery)):
        assert evolve(delivery, **{field.name: number}) == replace(delivery, **{field.name: number})  # type: ignore[arg-type]  # any value will do


def test_what_is_made_fast_is_what_the_constructor_makes() -> None:
    """Equal, of the same class, and as frozen."""
    slow = Attempt("dlv_1", NOON, 1, Rung.FIRST, Outcome.SENT, None)
    fast = maker(Attempt)("dlv_1", NOON, 1, Rung.FIRST, Outcome.SENT, None)
    assert (fast, hash(fast), type(fast)) == (slow, hash(slow), Attempt)
    with pytest.raises(FrozenInstanceError):
        fast.round = 2  # type: ignore[misc]  # which is what is tried


def test_values_that_check_themselves_are_not_made_fast() -> None:
    """Their check would be passed by."""
    with pytest.raises(TypeError, match="nothing to check"):
        maker(Window)


# --- virtual time -------------------------------------------------------------------------------------


def test_a_lower_rank_goes_first() -> None:
    """Of those who wait for the same instant, and whatever it then has to do is done before the others wake."""
    clock = VirtualClock(NOON)
    order: list[str] = []

    async def sleeper(name: str, rank: int) -> None:
        await clock.sleep_until(NOON + SECOND, rank=rank)
        await asyncio.sleep(0)
        order.append(name)

    async def main() -> None:
        await asyncio.gather(sleeper("later", 0), sleeper("first", -1), sleeper("last", 0))

    virtual_time.run(clock, main)
    assert order == ["first", "later", "last"]


def test_wait_ends_with_the_event_or_the_instant() -> None:
    """It says which, and time stands where it ended."""
    clock = VirtualClock(NOON)
    event = asyncio.Event()

    async def main() -> tuple[bool, datetime, bool, datetime]:
        in_vain, then = await clock.wait(event, NOON + SECOND), clock.now()
        setting = asyncio.create_task(clock.sleep_until(NOON + 2 * SECOND))
        setting.add_done_callback(lambda _: event.set())
        return in_vain, then, await clock.wait(event, NOON + 9 * SECOND), clock.now()

    assert virtual_time.run(clock, main) == (False, NOON + SECOND, True, NOON + 2 * SECOND)


def test_a_wait_can_be_cancelled() -> None:
    """By somebody else than its own timer, also at its very instant."""
    clock = VirtualClock(NOON)

    async def main() -> bool:
        waiting = asyncio.create_task(clock.wait(asyncio.Event(), NOON + SECOND))
        await clock.sleep_until(NOON + SECOND, rank=-1)
        waiting.cancel()
        await asyncio.wait({waiting})
        return waiting.cancelled()

    assert virtual_time.run(clock, main)


def test_waiting_for_nothing_is_said() -> None:
    """Instead of hanging for ever."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        virtual_time.run(VirtualClock(NOON), main)


# --- pacing -------------------------------------------------------------------------------------------


def test_slots_are_one_interval_apart() -> None:
    """However long nothing was sent before."""
    pacer = Pacer(0.5)
    assert [pacer.take(NOON) for _ in range(3)] == [NOON, NOON + 2 * SECOND, NOON + 4 * SECOND]


def test_time_that_was_not_used_frees_one_slot() -> None:
    """Not those that might have been."""
    pacer = Pacer(0.5)
    pacer.take(NOON)
    late = NOON + 60 * SECOND
    assert [pacer.is_free(late, taken) for taken in (0, 1)] == [True, False]


def test_a_timer_that_is_a_little_late_costs_nothing() -> None:
    """Slots are counted from where they lay."""
    pacer = Pacer(1)
    pacer.take(NOON)
    pacer.take(NOON + SECOND + CATCH_UP)
    assert pacer.slot() == NOON + 2 * SECOND


def test_whoever_came_late_does_not_make_the_next_come_early() -> None:
    """What became ready after its slot had come keeps the whole distance to the next."""
    pacer = Pacer(1)
    pacer.take(NOON)
    ready = NOON + SECOND + CATCH_UP / 2
    pacer.take(ready, ready)
    assert pacer.slot() == ready + SECOND


def test_a_rate_that_does_not_divide_a_second_is_never_exceeded() -> None:
    """Intervals are rounded up to the microsecond."""
    pacer = Pacer(3)
    pacer.take(NOON)
    assert (pacer.slot() - NOON) * 3 >= SECOND


def test_a_shorter_hold_never_ends_a_longer_one() -> None:
    """On a conversation as on the account."""
    conversations = Conversations(())
    conversations.hold("cnv_1", NOON + 9 * SECOND, NOON)
    conversations.hold("cnv_1", NOON + SECOND, NOON)
    assert conversations.earliest("cnv_1") == NOON + 9 * SECOND


def test_five_different_people_are_an_outage() -> None:
    """The same one five times is not; any other answer begins anew."""
    health = WELL
    for who in "aaaaa":
        health = health.failed(who)
    assert not health.outage
    for who in "bcd":
        health = health.failed(who)
    assert not health.outage
    assert health.failed("e").outage
    assert not health.answered().failed("e").outage


def test_probes_wait_longer_and_longer() -> None:
    """Up to a minute."""
    health = WELL
    for who in "abcde":
        health = health.failed(who)
    waits = []
    for _ in range(8):
        waits.append(health.probe_after().total_seconds())
        health = health.failed("a")
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
