"""What every store guarantees of removing what is old (broadcast.ports, Keeping), the unhappy rows first."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broadcast.model import BroadcastStatus, Delivery, DeliveryState, EventType, Outcome
from broadcast.ports import DeliveryFilter, Lease, Store
from broadcast.retention import FOLDED, Retention
from broadcast.virtual_time import VirtualClock
from tests.storage.builders import (
    ACCOUNT,
    NOW,
    Wall,
    absent,
    at,
    attempt,
    broadcast,
    delivery,
    dispatch,
    event,
    launch,
    receipt,
    sent,
)

B, S = BroadcastStatus, DeliveryState


async def listed(store: Store, broadcast_id: str = "brd_1") -> list[str]:
    return [one.id async for one, _ in store.all_deliveries(DeliveryFilter(broadcast_id))]


async def end(store: Store, id: str = "brd_1", status: BroadcastStatus = B.COMPLETED, *, mark: bool = True) -> None:
    """The broadcast ended a while ago, and its deliveries are to go."""
    ended = broadcast(id, status, finished_at=at(60), deliveries_removed_at=at(90) if mark else None)
    await store.save_broadcast(ended, expected=B.RUNNING)


async def told(store: Store, names: str = "ann ben cat") -> tuple[Lease, list[Delivery]]:
    """A broadcast that was sent to each, with a story of its own."""
    lease, planned = await launch(store, *names.split())
    for place, one in enumerate(planned):
        away = absent(one)
        await store.record(lease, [away])
        await dispatch(store, lease, away.delivery, str(100 + place))
        await store.add_events(
            [event(one.id, key=f"click {place}"), event(one.id, EventType.READ, f"read {place}")]
        )
    return lease, planned


# --- deliveries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["brd_1", "brd_unknown"])
async def test_nothing_goes_of_a_broadcast_that_is_not_marked(store: Store, id: str) -> None:
    """Ended or not, and whoever asks: the mark comes first, so that nobody takes a part for all."""
    _, planned = await told(store)
    await end(store, mark=False)
    assert await store.remove_deliveries(id, 10) == 0
    assert await listed(store) == [one.id for one in planned]


async def test_what_has_no_end_yet_stays(store: Store) -> None:
    """What is planned or in flight can still be sent, and can be told of."""
    lease, [ann, ben, cat] = await launch(store, "ann", "ben", "cat")
    await dispatch(store, lease, ann)
    await store.intend(lease, [ben], NOW)
    await end(store, status=B.STOPPED)
    assert await store.remove_deliveries("brd_1", 10) == 1
    assert await listed(store) == [ben.id, cat.id]
    assert await store.record(lease, [sent(ben)]) == [ben.id]
    assert await store.remove_deliveries("brd_1", 10) == 1


async def test_counters_stay_when_their_deliveries_go(store: Store) -> None:
    """What was counted is what the report is made of, now and later."""
    await told(store)
    before = await store.tally("brd_1")
    await end(store)
    assert await store.remove_deliveries("brd_1", 10) == 3
    assert await store.tally("brd_1") == before
    assert before["button/enrol/people"] == 3


async def test_a_delivery_goes_with_its_whole_story(store: Store) -> None:
    """Row, attempts and events; it is as if it had never been known."""
    _, [ann, *_] = await told(store)
    await end(store)
    await store.remove_deliveries("brd_1", 10)
    assert await listed(store) == []
    assert await store.delivery(ann.id) is None
    assert await store.timeline(ann.id) == []


async def test_deliveries_go_some_at_a_time(store: Store) -> None:
    """Each call removes a bounded number, and the last ones say that nothing is left."""
    await told(store)
    await end(store)
    assert [await store.remove_deliveries("brd_1", 2) for _ in range(4)] == [2, 1, 0, 0]


async def test_what_is_left_between_two_calls_is_whole(store: Store) -> None:
    """Whoever dies in between leaves deliveries that have all of their story, and the others none of it."""
    _, planned = await told(store)
    await end(store)
    await store.remove_deliveries("brd_1", 2)
    [left] = await listed(store)
    assert left == planned[-1].id
    lines = await store.timeline(left)
    assert [type(line).__name__ for line in lines] == ["Attempt", "Attempt", "Event", "Event"]


async def test_other_broadcasts_to_the_same_people_stay(store: Store) -> None:
    """The same person, the same conversation, another broadcast: nothing of it is touched."""
    lease, _ = await told(store)
    await store.save_broadcast(broadcast("brd_2"), expected=None)
    other = delivery("ann", "brd_2")
    await store.plan([other], [attempt(other, Outcome.ABSENT)])
    await end(store)
    await store.remove_deliveries("brd_1", 10)
    assert await listed(store, "brd_2") == [other.id]
    assert await store.timeline(other.id) == [attempt(other, Outcome.ABSENT)]
    assert await store.intend(lease, [other], NOW) == [other.id]


async def test_an_event_that_comes_too_late_counts_nowhere(store: Store) -> None:
    """Neither a repeat of one that was counted, nor a new one."""
    _, [ann, *_] = await told(store)
    await end(store)
    await store.remove_deliveries("brd_1", 10)
    before = await store.tally("brd_1")
    late = [event(ann.id, key="click 0"), event(ann.id, key="new")]
    assert await store.add_events(late) == 0
    assert await store.tally("brd_1") == before
    assert await store.timeline(ann.id) == []


@pytest.mark.parametrize("up_to", [False, True])
async def test_a_receipt_that_comes_too_late_counts_nowhere(store: Store, *, up_to: bool) -> None:
    """It speaks of a message that nobody knows any more; what is still known it covers as ever."""
    lease, _ = await told(store)
    await store.save_broadcast(broadcast("brd_2"), expected=None)
    newer = delivery("ann", "brd_2")
    await store.plan([newer])
    await dispatch(store, lease, newer, "90")
    await end(store)
    await store.remove_deliveries("brd_1", 10)
    before = await store.tally("brd_1")
    await store.add_receipts([receipt("ann", "100", EventType.DELIVERED, up_to=up_to)])
    assert await store.tally("brd_1") == before
    found = await store.delivery(newer.id)
    assert found is not None
    assert (found.delivered_at is not None) is up_to


async def test_a_result_of_a_removed_delivery_writes_nothing(store: Store) -> None:
    """Whoever slept through it all with an outcome in hand."""
    lease, [ann, *_] = await told(store)
    await end(store)
    await store.remove_deliveries("brd_1", 10)
    before = await store.tally("brd_1")
    assert await store.record(lease, [sent(ann)]) == []
    assert await store.intend(lease, [ann], NOW) == []
    assert await store.tally("brd_1") == before


async def test_new_deliveries_have_stories_of_their_own(store: Store) -> None:
    """Nothing of what was removed shows up with what is planned afterwards."""
    lease, _ = await told(store)
    await end(store)
    await store.remove_deliveries("brd_1", 10)
    await store.save_broadcast(broadcast("brd_2"), expected=None)
    planned = [delivery(name, "brd_2", place) for place, name in enumerate(("ann", "ben"))]
    await store.plan(planned)
    assert [await store.timeline(one.id) for one in planned] == [[], []]
    await dispatch(store, lease, planned[0])
    assert await store.timeline(planned[0].id) == [attempt(planned[0])]


# --- which broadcasts ---------------------------------------------------------------------------------


async def test_broadcasts_that_are_not_old_or_not_over_are_not_found(store: Store) -> None:
    """One that runs, one that ended at the very instant, one of another status, and one that is done."""
    finished = at(60)
    for id, status, values in (
        ("brd_runs", B.RUNNING, {}),
        ("brd_young", B.COMPLETED, {"finished_at": finished}),
        ("brd_failed", B.FAILED, {"finished_at": at(1)}),
        ("brd_done", B.COMPLETED, {"finished_at": at(1), "removal_done": True}),
    ):
        await store.save_broadcast(broadcast(id, status, **values), expected=None)
    assert await store.outlived(FOLDED, finished_before=finished, after=None, limit=9) == []
    [young] = await store.outlived(FOLDED, finished_before=at(60.001), after=None, limit=9)
    assert young.id == "brd_young"


async def test_old_broadcasts_are_found_the_oldest_first(store: Store) -> None:
    """By when they finished, then by id, in parts; with fractions of a second and without."""
    moments = {"brd_c": at(1), "brd_a": at(1).replace(microsecond=0), "brd_d": at(3), "brd_b": at(1)}
    for id, moment in moments.items():
        status = B.STOPPED if id == "brd_d" else B.COMPLETED
        await store.save_broadcast(broadcast(id, status, finished_at=moment), expected=None)
    first = await store.outlived(FOLDED, finished_before=at(9), after=None, limit=3)
    assert [one.id for one in first] == ["brd_a", "brd_b", "brd_c"]
    assert first[0] == broadcast("brd_a", B.COMPLETED, finished_at=moments["brd_a"])
    behind = (at(1), "brd_b")
    rest = await store.outlived(FOLDED, finished_before=at(9), after=behind, limit=9)
    assert [one.id for one in rest] == ["brd_c", "brd_d"]


async def test_a_broadcast_that_was_marked_is_found_until_it_is_done(store: Store) -> None:
    """So that whoever comes after a crash goes on with it."""
    await store.save_broadcast(broadcast(), expected=None)
    await end(store)
    [found] = await store.outlived(FOLDED, finished_before=at(99), after=None, limit=9)
    assert found.deliveries_removed_at == at(90)
    await store.save_broadcast(replace(found, removal_done=True), expected=B.COMPLETED)
    assert await store.outlived(FOLDED, finished_before=at(99), after=None, limit=9) == []


async def swept(store: Store) -> list[str]:
    """The broadcasts that a sweep folds once they are a day old."""
    sweep = Retention(store, VirtualClock(at(60) + timedelta(days=2)), after=timedelta(days=1)).sweep()
    return [one.broadcast.id async for one in sweep if one.broadcast and one.done]


async def test_what_nobody_takes_over_goes_once_its_lease_has_run_out(store: Store, wall: Wall) -> None:
    """A worker died in the middle of a send, and its account is gone. As long as somebody may still drive it, all
    of it stays; then what was under way is uncertain, and the broadcast goes with all others."""
    lease, [ann, ben] = await launch(store, "ann", "ben")
    await dispatch(store, lease, ann)
    assert await store.intend(lease, [replace(ben, sends=1, rung_at=NOW)], NOW) == [ben.id]
    await end(store, status=B.STOPPED, mark=False)
    assert await swept(store) == []
    assert await listed(store) == [ann.id, ben.id]
    wall.move(31)
    assert await swept(store) == ["brd_1"]
    assert await listed(store) == []
    tally = await store.tally("brd_1")
    states = {state: tally.get(f"state/teams/{state}", 0) for state in (S.SENDING, S.SENT, S.UNCERTAIN)}
    assert states == {S.SENDING: 0, S.SENT: 1, S.UNCERTAIN: 1}
    assert await store.in_flight(lease) == []
    assert await store.acquire_lease(ACCOUNT, "worker-2", 30) is not None


# --- what repeats are told by -------------------------------------------------------------------------


async def test_keys_answers_and_receipts_that_are_young_stay(store: Store) -> None:
    """What was noted at the instant or later is still needed to tell a repeat."""
    await launch(store, "ann")
    await store.first_time(ACCOUNT, "k", at(4))
    await store.remember_answer("k", "f", b"a", at(4))
    await store.add_receipts([receipt("ann", "7")])
    assert await store.forget(at(4), 9) == 0
    assert not await store.first_time(ACCOUNT, "k", at(5))
    assert await store.remembered_answer("k", NOW) == ("f", b"a")


async def test_old_keys_are_forgotten_some_at_a_time(store: Store) -> None:
    """Each call forgets a bounded number; an account's key is forgotten for that account."""
    for number in range(3):
        await store.first_time(ACCOUNT, f"k{number}", at(number))
    await store.first_time("viber/default", "k0", at(9))
    assert [await store.forget(at(3), 2) for _ in range(3)] == [2, 1, 0]
    assert await store.first_time(ACCOUNT, "k0", at(9))
    assert not await store.first_time("viber/default", "k0", at(9))


async def test_an_old_answer_is_forgotten(store: Store) -> None:
    """Its key may be used for something new."""
    await store.remember_answer("k", "f", b"a", NOW)
    assert await store.forget(at(1), 9) == 1
    assert await store.remembered_answer("k", NOW) is None
    await store.remember_answer("k", "g", b"b", at(2))
    assert await store.remembered_answer("k", NOW) == ("g", b"b")


async def test_an_old_receipt_waits_no_longer(store: Store) -> None:
    """Its outcome was never recorded; one that is recorded much later is of another message."""
    lease, [ann] = await launch(store, "ann")
    await store.add_receipts([receipt("ann", "100"), receipt("ann", "100", EventType.DELIVERED, at=at(9))])
    assert await store.forget(at(5), 9) == 1
    await dispatch(store, lease, ann)
    found = await store.delivery(ann.id)
    assert found is not None
    assert (found.read_at, found.delivered_at) == (None, at(9))
