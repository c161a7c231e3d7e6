"""What is old is folded into the report and removed; what is not stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from broadcast import report
from broadcast.campaigns import Broadcasts
from broadcast.errors import NotFound, Removed, StoreUnavailable
from broadcast.model import (
    AfterCrash,
    BroadcastStatus,
    ChannelName,
    Delivery,
    DeliveryState,
    EventType,
    Policies,
    Reason,
)
from broadcast.ports import DeliveryFilter, Due, Features, Lease
from broadcast.retention import BATCH, REPEATS, Retention, Swept, may_fold
from broadcast.virtual_time import VirtualClock
from storage.memory import MemoryStore
from tests.storage.builders import (
    ACCOUNT,
    NOW,
    Wall,
    broadcast,
    conversation,
    delivery,
    dispatch,
    event,
    launch,
    receipt,
    recipient,
)
from tests.unit.office import Crash, shaky

B, S = BroadcastStatus, DeliveryState
AGE = timedelta(days=90)
JUST = timedelta(microseconds=1)
REPORTING = {ChannelName.TEAMS: Features(False, True, 30.0, (), 28_000)}


class Cellar:
    """A store, and sweeps of it at any moment."""

    def __init__(self) -> None:
        self.wall = Wall()
        self.store = MemoryStore(wall=self.wall)

    async def sweep(self, after_end: timedelta, *, age: timedelta = AGE) -> list[Swept]:
        retention = Retention(self.store, VirtualClock(NOW + after_end), after=age)
        return [one async for one in retention.sweep()]

    async def end(self, status: BroadcastStatus = B.COMPLETED) -> None:
        stored = await self.store.broadcast("brd_1")
        assert stored is not None
        await self.store.save_broadcast(replace(stored, status=status, finished_at=NOW), expected=stored.status)

    async def drive(self, account: str, owner: str) -> Lease:
        """Some worker drives the account for half a minute."""
        lease = await self.store.acquire_lease(account, owner, 30)
        assert lease is not None
        return lease

    async def cut_off(self, *names: str, account: str = ACCOUNT, broadcast: str = "brd_1") -> list[Delivery]:
        """Sends on the account that a worker had begun when it died."""
        lease = await self.drive(account, "worker-1")
        begun = [
            delivery(name, broadcast, account=account, conversation=conversation(name, account).id)
            for name in names
        ]
        await self.store.save_recipients([recipient(name) for name in names])
        await self.store.save_conversations([conversation(name, account) for name in names])
        await self.store.plan(begun)
        intents = [replace(one, sends=1, rung_at=NOW) for one in begun]
        assert await self.store.intend(lease, intents, NOW) == [one.id for one in begun]
        self.wall.move(31)
        return begun

    async def state(self, one: Delivery) -> tuple[DeliveryState, Reason | None, bool]:
        found = await self.store.delivery(one.id)
        assert found is not None
        return found.state, found.reason, found.possibly_doubled

    async def deliveries(self) -> list[str]:
        return [one.id async for one, _ in self.store.all_deliveries(DeliveryFilter("brd_1"))]

    async def report(self) -> report.Report:
        found = await self.store.broadcast("brd_1")
        assert found is not None
        return report.report(found, await self.store.tally("brd_1"), reporting=REPORTING, as_of=NOW)


@pytest.fixture
async def cellar() -> Cellar:
    """A broadcast with everything that can become of a delivery, ended now."""
    made = Cellar()
    lease, [ann, ben, _, dan] = await launch(made.store, "ann", "ben", "cat", "dan")
    await dispatch(made.store, lease, ann)
    await dispatch(made.store, lease, dan, "101")
    await made.store.add_events([event(ann.id), event(ann.id, key="k2"), event(ann.id, EventType.READ, "k3")])
    await made.store.add_receipts([receipt("dan", "101", EventType.FAILED)])
    await made.store.set_unsubscribed(ben.recipient, NOW)
    await made.store.cancel_planned("brd_1", NOW, 9)
    await made.end()
    return made


@pytest.fixture
async def orphaned() -> Cellar:
    """A broadcast that was stopped now, of which a send was under way on an account that nobody drives any more."""
    made = Cellar()
    lease, [ann, *_] = await launch(made.store, "ann", "ben")
    await dispatch(made.store, lease, ann)
    await made.cut_off("eve")
    await made.store.cancel_planned("brd_1", NOW, 9)
    await made.end(B.STOPPED)
    return made


# --- what stays ---------------------------------------------------------------------------------------


async def test_nothing_goes_before_its_time(cellar: Cellar) -> None:
    """At the very age it is still there; a moment later it is not."""
    assert await cellar.sweep(AGE) == []
    assert len(await cellar.deliveries()) == 4
    assert [one.removed for one in await cellar.sweep(AGE + JUST)] == [4, 0]
    assert await cellar.deliveries() == []


@pytest.mark.parametrize("status", [B.SCHEDULED, B.INITIALIZING, B.RUNNING, B.PAUSED, B.FAILED])
def test_only_what_was_sent_to_its_end_is_folded(status: BroadcastStatus) -> None:
    """Whatever instant it carries."""
    one = broadcast(status=status, finished_at=NOW)
    assert not may_fold(one, {}, NOW + JUST)
    assert may_fold(replace(one, status=B.STOPPED), {}, NOW + JUST)


@pytest.mark.parametrize(
    ("tally", "folded"),
    [
        ({}, True),
        ({"state/teams/sent": 7, "state/-/skipped": 1, "state/teams/uncertain": 1}, True),
        ({"state/teams/sent": 7, "state/teams/sending": 1}, False),
        ({"state/teams/planned": 1}, False),
    ],
)
def test_what_is_in_flight_keeps_its_broadcast(tally: Mapping[str, int], *, folded: bool) -> None:
    """What may still be told of it would be counted nowhere."""
    assert may_fold(broadcast(status=B.STOPPED, finished_at=NOW), tally, NOW + JUST) is folded


async def test_one_that_must_wait_keeps_no_other_from_going(cellar: Cellar) -> None:
    """However many there are of them."""
    for number in range(60):
        stuck = broadcast(f"brd_stuck{number:02}", B.STOPPED, finished_at=NOW - JUST)
        await cellar.store.save_broadcast(stuck, expected=None)
        await cellar.store.plan([delivery("ann", stuck.id)])
    swept = await cellar.sweep(AGE + JUST)
    assert [one.broadcast.id for one in swept if one.broadcast and one.done] == ["brd_1"]


# --- what a crash left in flight, and nobody takes over -------------------------------------------------


async def test_what_somebody_drives_is_theirs_to_settle(orphaned: Cellar) -> None:
    """It may really be under way there. Nothing is written, and the account stays theirs."""
    [eve] = await orphaned.store.in_flight(lease := await orphaned.drive(ACCOUNT, "worker-2"))
    before = await orphaned.report()
    assert await orphaned.sweep(AGE + JUST) == []
    assert await orphaned.state(eve.delivery) == (S.SENDING, None, False)
    assert await orphaned.report() == before
    assert await orphaned.store.renew_lease(lease, 30)


async def test_what_is_driven_keeps_the_broadcast_and_nothing_else(orphaned: Cellar) -> None:
    """Of two accounts one is gone: what it left is settled, and the broadcast waits for the other."""
    stored = await orphaned.store.broadcast("brd_1")
    assert stored is not None
    running = replace(stored, status=B.RUNNING, finished_at=None)
    await orphaned.store.save_broadcast(running, expected=B.STOPPED)
    [finn] = await orphaned.cut_off("finn", account="teams/board")
    await orphaned.end(B.STOPPED)
    await orphaned.drive("teams/board", "worker-2")
    assert await orphaned.sweep(AGE + JUST) == []
    assert await orphaned.state(finn) == (S.SENDING, None, False)
    assert await orphaned.state(delivery("eve")) == (S.UNCERTAIN, None, False)


async def test_who_takes_the_account_in_the_middle_settles_it(
    orphaned: Cellar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep was so slow that its own lease ran out: it writes nothing, and is no failure."""
    look = MemoryStore.in_flight

    async def slow(self: MemoryStore, lease: Lease) -> list[Due]:
        found = await look(self, lease)
        orphaned.wall.move(60)
        await orphaned.drive(ACCOUNT, "worker-2")
        return found

    monkeypatch.setattr(MemoryStore, "in_flight", slow)
    assert await orphaned.sweep(AGE + JUST) == []
    assert await orphaned.state(delivery("eve")) == (S.SENDING, None, False)
    assert await orphaned.store.acquire_lease(ACCOUNT, "worker-3", 1) is None


CALLS = 17  # as many as the sweep makes


async def swept_and_died(orphaned: Cellar, calls: int) -> bool:
    """Whether the process died in the sweep."""
    retention = Retention(shaky(orphaned.store, calls), VirtualClock(NOW + AGE + JUST), after=AGE)
    try:
        async for _ in retention.sweep():
            pass
    except Crash:
        return True
    return False


@pytest.mark.parametrize("calls", range(CALLS))
async def test_a_crash_amid_it_is_mended_by_the_next_sweep(orphaned: Cellar, calls: int) -> None:
    """Between any two calls, also between settling and folding: counted once, and gone."""
    assert await swept_and_died(orphaned, calls)
    await orphaned.sweep(AGE + timedelta(hours=1))
    after = await orphaned.report()
    assert (after.deliveries[S.SENDING], after.deliveries[S.UNCERTAIN]) == (0, 1)
    assert await orphaned.deliveries() == []


async def test_the_crashes_above_reach_beyond_the_last_call(orphaned: Cellar) -> None:
    """Given one call more, the sweep comes to its end."""
    assert not await swept_and_died(orphaned, CALLS)


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("call", ["acquire_lease", "in_flight", "record", "cancel_planned", "save_broadcast"])
async def test_a_store_that_goes_away_amid_it_changes_nothing_wrongly(
    orphaned: Cellar, call: str, *, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether what it was told was done or not: the sweep ends, the account is free, the next one does the rest."""
    done = getattr(MemoryStore, call)

    async def away(self: MemoryStore, *args: object, **keywords: object) -> None:
        if written:
            await done(self, *args, **keywords)
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryStore, call, away)
        with pytest.raises(StoreUnavailable):
            await orphaned.sweep(AGE + JUST)
    settled = call in {"cancel_planned", "save_broadcast"} or (call == "record" and written)
    assert (await orphaned.report()).deliveries[S.UNCERTAIN] == settled
    assert len(await orphaned.deliveries()) == 3
    await orphaned.sweep(AGE + JUST)
    assert (await orphaned.report()).deliveries[S.UNCERTAIN] == 1
    assert await orphaned.deliveries() == []
    await orphaned.drive(ACCOUNT, "worker-2")


async def test_a_lease_that_cannot_be_given_back_runs_out(
    orphaned: Cellar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within seconds; the sweep goes on meanwhile."""

    async def away(_self: MemoryStore, _lease: Lease) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(MemoryStore, "release_lease", away)
    assert (await orphaned.sweep(AGE + JUST))[-1].done
    assert await orphaned.store.acquire_lease(ACCOUNT, "worker-2", 30) is None
    orphaned.wall.move(8)
    await orphaned.drive(ACCOUNT, "worker-2")


@pytest.mark.parametrize("after_crash", list(AfterCrash))
async def test_what_nobody_takes_over_is_settled_and_folded(orphaned: Cellar, after_crash: AfterCrash) -> None:
    """In the same sweep, as a worker that takes over does it: of what was stopped nobody can know, and nothing is
    sent again. The account is free afterwards."""
    stored = await orphaned.store.broadcast("brd_1")
    assert stored is not None
    changed = replace(stored, policies=Policies(after_crash=after_crash))
    await orphaned.store.save_broadcast(changed, expected=B.STOPPED)
    before = await orphaned.report()
    assert [(one.removed, one.done) for one in await orphaned.sweep(AGE + JUST)] == [(3, False), (0, True)]
    after = await orphaned.report()
    assert after.deliveries == {**before.deliveries, S.SENDING: 0, S.UNCERTAIN: 1}
    assert after.deliveries[S.SENT] == after.deliveries[S.CANCELLED] == 1
    await orphaned.drive(ACCOUNT, "worker-2")


async def test_nothing_is_settled_before_its_time(orphaned: Cellar) -> None:
    """At the very age a send is left alone still: it is the age that says that none can be under way."""
    assert await orphaned.sweep(AGE) == []
    assert await orphaned.state(delivery("eve")) == (S.SENDING, None, False)


async def test_deliveries_are_gone_through_only_for_what_is_counted_in_flight(
    cellar: Cellar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the counters tell of none, a million others are not looked at."""
    monkeypatch.delattr(MemoryStore, "all_deliveries")
    assert (await cellar.sweep(AGE + JUST))[-1].done


async def test_what_runs_on_the_account_is_settled_as_a_takeover_does(orphaned: Cellar) -> None:
    """What may be sent again waits for whoever drives the account next, listed as possibly doubled; who has
    unsubscribed since is written to no more."""
    await orphaned.store.save_broadcast(broadcast("brd_2"), expected=None)
    [gus, hal] = await orphaned.cut_off("gus", "hal", broadcast="brd_2")
    await orphaned.store.set_unsubscribed(hal.recipient, NOW)
    await orphaned.sweep(AGE + JUST)
    assert await orphaned.state(gus) == (S.PLANNED, None, True)
    assert await orphaned.state(hal) == (S.SKIPPED, Reason.UNSUBSCRIBED, True)
    running = await orphaned.store.broadcast("brd_2")
    assert running is not None
    assert running.status is B.RUNNING


async def test_what_was_the_last_of_one_that_runs_completes_it(orphaned: Cellar) -> None:
    """As a takeover does."""
    held = broadcast("brd_2", policies=Policies(after_crash=AfterCrash.HOLD))
    await orphaned.store.save_broadcast(held, expected=None)
    [gus] = await orphaned.cut_off("gus", broadcast="brd_2")
    await orphaned.sweep(AGE + JUST)
    assert await orphaned.state(gus) == (S.UNCERTAIN, None, False)
    completed = await orphaned.store.broadcast("brd_2")
    assert completed is not None
    assert (completed.status, completed.finished_at) == (B.COMPLETED, NOW + AGE + JUST)


async def test_what_keeps_no_ended_broadcast_is_left_to_who_drives_it(cellar: Cellar) -> None:
    """A broadcast that runs waits for its account, however long."""
    await cellar.store.save_broadcast(broadcast("brd_2"), expected=None)
    [gus] = await cellar.cut_off("gus", broadcast="brd_2")
    assert (await cellar.sweep(AGE + JUST))[-1].done
    assert await cellar.state(gus) == (S.SENDING, None, False)


# --- what goes ----------------------------------------------------------------------------------------


async def test_the_report_is_the_same_after_as_before(cellar: Cellar) -> None:
    """Every number of it; it only says since when there is nothing behind it."""
    before = await cellar.report()
    await cellar.sweep(AGE + JUST)
    after = await cellar.report()
    assert after.deliveries_removed_at == NOW + AGE + JUST
    assert replace(after, deliveries_removed_at=None) == before
    assert (before.reasons[0].reason, before.clicked and before.clicked.total) == (Reason.REFUSED, 2)


async def test_who_asks_for_deliveries_hears_that_they_are_gone(cellar: Cellar) -> None:
    """With the day; and who asks for what never was hears that."""
    broadcasts = Broadcasts(cellar.store, VirtualClock(NOW))
    assert (await broadcasts.with_deliveries("brd_1")).id == "brd_1"
    await cellar.sweep(AGE + JUST)
    with pytest.raises(Removed, match="Benefits week were removed on 2026-06-25"):
        await broadcasts.with_deliveries("brd_1")
    with pytest.raises(NotFound):
        await broadcasts.with_deliveries("brd_x")


async def test_large_broadcasts_go_piece_by_piece() -> None:
    """No piece is larger than a writer can spare."""
    cellar = Cellar()
    await cellar.store.save_broadcast(broadcast(), expected=None)
    ended = [
        delivery(f"p{number}", position=number, state=S.UNSCHEDULED, reason=Reason.ABSENT)
        for number in range(2 * BATCH + 1)
    ]
    await cellar.store.plan(ended)
    await cellar.end()
    assert [one.removed for one in await cellar.sweep(AGE + JUST)] == [BATCH, BATCH, 1, 0]


async def test_a_sweep_that_was_cut_off_is_taken_up(cellar: Cellar) -> None:
    """What was marked is finished by the next, under the instant of the first."""
    first = Retention(cellar.store, VirtualClock(NOW + AGE + JUST), after=AGE).sweep()
    await anext(first)
    await first.aclose()
    cut = await cellar.store.broadcast("brd_1")
    assert cut is not None
    assert (cut.deliveries_removed_at, cut.removal_done) == (NOW + AGE + JUST, False)
    [swept] = await cellar.sweep(AGE + timedelta(hours=1))
    assert swept == Swept(replace(cut, removal_done=True), 0, done=True)


async def test_what_is_done_is_not_looked_at_again(cellar: Cellar) -> None:
    """A sweep that finds nothing does nothing."""
    await cellar.sweep(AGE + JUST)
    version = await cellar.store.control_version()
    assert await cellar.sweep(2 * AGE) == []
    assert await cellar.store.control_version() == version


async def test_two_who_sweep_at_once_come_to_the_same(cellar: Cellar) -> None:
    """Turn by turn, as two hosts of which one does not know yet that it lost its turn."""
    sweeps = [Retention(cellar.store, VirtualClock(NOW + AGE + JUST), after=AGE).sweep() for _ in range(2)]
    swept = [await anext(sweep) for sweep in sweeps]
    for sweep in sweeps:
        swept += [one async for one in sweep]
    assert sum(one.removed for one in swept) == 4
    assert (await cellar.report()).deliveries[S.SENT] == 1


@pytest.mark.parametrize("age", [timedelta(days=1), AGE])
async def test_what_tells_a_repeat_is_kept_long_enough(age: timedelta) -> None:
    """As long as the deliveries, and never shorter than a platform repeats its callbacks."""
    cellar, kept = Cellar(), max(age, REPEATS)
    await cellar.store.first_time(ACCOUNT, "k", NOW)
    assert await cellar.sweep(kept, age=age) == []
    assert await cellar.store.was_seen(ACCOUNT, "k")
    assert await cellar.sweep(kept + JUST, age=age) == [Swept(None, 1)]
    assert not await cellar.store.was_seen(ACCOUNT, "k")
