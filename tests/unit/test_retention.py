"""What is old is folded into the report and removed; what is not stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from broadcast import report
from broadcast.campaigns import Broadcasts
from broadcast.errors import NotFound, Removed
from broadcast.model import BroadcastStatus, ChannelName, DeliveryState, EventType, Reason
from broadcast.ports import DeliveryFilter, Features
from broadcast.retention import BATCH, REPEATS, Retention, Swept, may_fold
from broadcast.virtual_time import VirtualClock
from storage.memory import MemoryStore
from tests.storage.builders import ACCOUNT, NOW, broadcast, delivery, dispatch, event, launch, receipt

B, S = BroadcastStatus, DeliveryState
AGE = timedelta(days=90)
JUST = timedelta(microseconds=1)
REPORTING = {ChannelName.TEAMS: Features(False, True, 30.0, (), 28_000)}


class Cellar:
    """A store, and sweeps of it at any moment."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    async def sweep(self, after_end: timedelta, *, age: timedelta = AGE) -> list[Swept]:
        retention = Retention(self.store, VirtualClock(NOW + after_end), after=age)
        return [one async for one in retention.sweep()]

    async def end(self, status: BroadcastStatus = B.COMPLETED) -> None:
        stored = await self.store.broadcast("brd_1")
        assert stored is not None
        await self.store.save_broadcast(replace(stored, status=status, finished_at=NOW), expected=stored.status)

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
