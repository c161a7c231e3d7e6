"""Intents are written ahead of the sends: enough of them to go on with, and none that may not go any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from broadcast.model import Delivery, DeliveryState, Faulty, Holds, Schedule, Throttled
from broadcast.ports import Due, Lease, Result
from tests.engine.world import FEATURES, World

NOON = datetime(2026, 3, 27, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PEOPLE = [f"p{number:02}" for number in range(30)]


def world_of_thirty(rate: float = 1e6, **options: int) -> World:
    """Everybody at once; each send takes a second, two at a time, eight more may be granted, and live long."""
    world = World(NOON, PEOPLE, schedule=Schedule(immediate=True), rate=rate)
    world.presence = None
    world.channel.takes = SECOND
    chosen = {"concurrency": 2, "ahead": 8, **options}
    world.options = replace(world.options, intent_life=SECOND * 10, **chosen)  # type: ignore[arg-type]  # numbers
    return world


def intents_of(world: World) -> list[int]:
    """How many each write of intents holds. A loop that spins never lets virtual time go on: that ends here."""
    writes: list[int] = []
    intend = world.store.intend

    async def counted(lease: Lease, deliveries: Sequence[Delivery], *more: Any, **named: Any) -> list[str]:
        writes.append(len(deliveries))
        assert len(writes) < 500, "it spins"
        return await intend(lease, deliveries, *more, **named)

    world.store.intend = counted  # type: ignore[method-assign]  # a look at what is written
    return writes


def states(world: World) -> Counter[DeliveryState]:
    return Counter(delivery.state for delivery in world.deliveries())


def test_no_more_are_on_their_way_than_may_be() -> None:
    """However many are granted: two a second, one pair after the other."""
    world = world_of_thirty()
    world.run()
    begun = sorted((at - NOON) // SECOND for _, at in world.channel.sends)
    assert begun == [number // 2 for number in range(30)]
    assert states(world) == {DeliveryState.SENT: 30}


def test_intents_are_written_ahead() -> None:
    """So that a place that becomes free does not wait for storage."""
    world = world_of_thirty()
    world.run(until=NOON + SECOND / 2)
    counted = world.read(lambda: world.store.tally("brd_1"))
    assert states(world)[DeliveryState.SENT] == 2, "the two on their way come to their end"
    assert isinstance(counted, dict)
    assert counted["state/teams/planned"] == 28, "and the eight that were granted are handed back"


def test_what_was_granted_is_not_sent_after_a_stop() -> None:
    """Only what was on its way is."""
    world = world_of_thirty()
    world.at(NOON + SECOND * 1.5, lambda: world.broadcasts.stop("brd_1"))
    world.run()
    assert [at for _, at in world.channel.sends if at > NOON + SECOND * 1.5] == []
    assert states(world) == {DeliveryState.SENT: 4, DeliveryState.CANCELLED: 26}


def test_somebody_granted_who_unsubscribes_gets_nothing() -> None:
    """Their intent is taken back like any other, and they are skipped."""
    world = world_of_thirty()
    world.at(NOON + SECOND / 2, lambda: world.store.set_unsubscribed("p03", world.clock.now()))
    world.run()
    assert "p03" not in {who for who, _ in world.channel.sends}
    assert states(world) == {DeliveryState.SENT: 29, DeliveryState.SKIPPED: 1}


def test_what_was_granted_waits_while_the_account_is_held() -> None:
    """An answer 429 that holds the account holds those behind it, whose intents are written."""
    world = world_of_thirty()
    world.channel.answers = {"p00": [Throttled(SECOND * 60, Holds.ACCOUNT)]}
    world.run()
    during = [at for _, at in world.channel.sends if NOON + SECOND < at < NOON + SECOND * 61]
    assert during == []
    assert states(world) == {DeliveryState.SENT: 30}


def test_news_at_the_end_of_a_hold_does_not_make_it_spin() -> None:
    """What is prepared for the first slots behind the hold is judged anew once, and goes."""
    world = world_of_thirty(rate=50.0)
    world.people = PEOPLE[:3]
    world.channel.takes = SECOND / 100
    world.channel.answers = {"p00": [Throttled(SECOND * 5, Holds.ACCOUNT)]}
    world.at(NOON + SECOND * 4.99, lambda: world.store.set_unsubscribed("p02", world.clock.now()))
    writes = intents_of(world)
    world.run()
    assert states(world) == {DeliveryState.SENT: 2, DeliveryState.SKIPPED: 1}
    assert len(writes) < 20


def test_news_before_a_probe_does_not_make_it_spin() -> None:
    """In an outage one send is prepared for the end of its hold, judged anew once, and goes."""
    world = world_of_thirty(rate=50.0)
    world.channel.takes = SECOND / 100
    world.channel.answers = {who: [Faulty("503")] for who in PEOPLE[:5]}
    world.at(NOON + SECOND * 1.05, lambda: world.store.set_unsubscribed("p29", world.clock.now()))
    writes = intents_of(world)
    world.run()
    assert states(world) == {DeliveryState.SENT: 29, DeliveryState.SKIPPED: 1}
    assert len(writes) < 40


def test_sends_keep_their_distance_when_places_become_free_at_once() -> None:
    """The account's rate holds for sends, not for intents."""
    world = world_of_thirty(rate=10.0, concurrency=5)
    world.run()
    begun = sorted(at for _, at in world.channel.sends)
    assert min(later - earlier for earlier, later in pairwise(begun)) >= SECOND / 10


def test_sends_at_a_pace_are_written_a_few_at_a_time() -> None:
    """Their intents are written ahead of their slots, their outcomes together; the pace is kept exactly."""
    world = world_of_thirty(rate=50.0, concurrency=30, ahead=64)
    world.people = [f"p{number:03}" for number in range(100)]
    writes = intents_of(world)
    world.channel.takes = SECOND / 100
    world.run()
    begun = sorted(at for _, at in world.channel.sends)
    assert [later - earlier for earlier, later in pairwise(begun)] == [SECOND / 50] * 99
    assert len(writes) < 50


def test_what_waits_for_its_slot_is_not_sent_after_a_stop() -> None:
    """However near its slot was."""
    world = world_of_thirty(rate=50.0)
    world.channel.takes = SECOND / 100
    world.at(NOON + SECOND * 0.211, lambda: world.broadcasts.stop("brd_1"))
    world.run()
    assert max(at for _, at in world.channel.sends) <= NOON + SECOND * 0.211
    assert states(world).keys() == {DeliveryState.SENT, DeliveryState.CANCELLED}


def test_a_conversation_is_spared_however_far_ahead_its_sends_are_prepared() -> None:
    """Two broadcasts to the same people, one message a second to each: counted from when a send begins."""
    world = world_of_thirty(rate=40.0, concurrency=30, ahead=64)
    world.channel.takes = SECOND / 100
    world.account = replace(world.account, features=replace(FEATURES, conversation_limits=((1, 1.0),)))
    world.others = [replace(world.broadcast, id="brd_2", campaign="cmp_2")]
    world.run(until=NOON + SECOND * 60)
    for who in PEOPLE:
        first, second = sorted(at for recipient, at in world.channel.sends if recipient == who)
        assert second - first >= SECOND


def test_an_intent_that_grew_old_is_judged_anew() -> None:
    """Sends that take long make those behind them wait longer than an intent lives: at the end all have gone, each
    once."""
    world = world_of_thirty()
    world.options = replace(world.options, intent_life=SECOND * 2)
    world.channel.takes = SECOND * 5
    world.run()
    assert Counter(who for who, _ in world.channel.sends) == dict.fromkeys(PEOPLE, 1)


def test_what_goes_well_is_written_together() -> None:
    """As long as there is enough to go on with, successes gather."""
    world = world_of_thirty(concurrency=1, ahead=20)
    world.people = [f"p{number:03}" for number in range(200)]
    world.channel.takes = timedelta(milliseconds=1)
    writes: list[int] = []
    record = world.store.record

    async def counted(lease: Lease, results: Sequence[Result]) -> list[str]:
        writes.extend([len(results)] if results else [])
        return await record(lease, results)

    world.store.record = counted  # type: ignore[method-assign]  # a look at what is written
    world.run()
    assert sum(writes) == 200
    assert len(writes) <= 50


def slow_store(world: World, *writes: str) -> None:
    """What is due is as it was half a second ago; these writes take a while before they hold."""
    due = world.store.due

    async def looked_before(account: str, **asked: Any) -> list[Due]:
        found = await due(account, **asked)
        await world.clock.sleep_until(world.clock.now() + SECOND / 2)
        return found

    def late(write: Callable[..., Awaitable[list[str]]]) -> Callable[..., Awaitable[list[str]]]:
        async def written(*asked: Any, **after: Any) -> list[str]:
            await world.clock.sleep_until(world.clock.now() + SECOND / 4)
            return await write(*asked, **after)

        return written

    world.store.due = looked_before  # type: ignore[method-assign]  # the real one, later
    for name in writes:
        setattr(world.store, name, late(getattr(world.store, name)))


def test_who_is_put_off_while_the_rest_is_loaded_is_not_forgotten() -> None:
    """The load beside the commit looked before it, and reaches beyond what was put off."""
    world = world_of_thirty(load=8)
    world.people = PEOPLE[:9]
    world.channel.answers = {who: [Throttled(SECOND * 5, Holds.CONVERSATION)] for who in world.people}
    slow_store(world, "intend", "record")
    world.run(until=NOON + SECOND * 60)
    assert states(world) == {DeliveryState.SENT: 9}


def test_senders_that_end_while_the_loop_writes_are_followed() -> None:
    """Each answer that is not plain success makes all of them wait for the loop; then as many go on."""
    world = world_of_thirty(load=8)
    again = Throttled(SECOND * 5, Holds.CONVERSATION)
    world.channel.answers = {who: [again] * (place % 4) for place, who in enumerate(PEOPLE)}
    slow_store(world, "intend")
    world.run(until=NOON + SECOND * 120)
    assert states(world) == {DeliveryState.SENT: 30}
