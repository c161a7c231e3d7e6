"""What stops a broadcast by itself, and what lets it go on: decisions, and the use cases that obey them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from broadcast import brakes
from broadcast.brakes import Breaker
from broadcast.errors import Conflict, Invalid
from broadcast.launching import Launching
from broadcast.model import (
    Attempt,
    Broadcast,
    BroadcastReason,
    BroadcastStatus,
    Canary,
    Delivery,
    DeliveryState,
    Outcome,
    Policies,
    Reason,
    Rung,
    Schedule,
)
from broadcast.ports import Result
from tests.unit.office import ACCOUNTS, NOW, Office

B, S, R = BroadcastStatus, DeliveryState, BroadcastReason
MONDAY = Schedule(start=date(2026, 3, 30))
HOUR = timedelta(hours=1)


# --- a start that was missed --------------------------------------------------------------------------


async def missed(office: Office, by: timedelta, schedule: Schedule = MONDAY) -> Broadcast:
    """A broadcast that nobody started until so long after its start."""
    await office.hire("ann", "ben")
    broadcast = await office.launched(schedule=schedule)
    office.clock.move(broadcast.starts_at + by - office.clock.now())
    await office.launching.start_due()
    return await office.broadcasts.get(broadcast.id)


async def test_a_start_that_was_missed_by_much_is_held() -> None:
    """Paused with the reason and by how much; nobody is planned."""
    office = Office()
    held = await missed(office, timedelta(hours=3, minutes=5))
    assert (held.status, held.reason, held.planned) == (B.PAUSED, R.HELD_LATE_START, None)
    assert held.reason_detail is not None
    assert "2026-03-30 09:00 UTC" in held.reason_detail
    assert "3 h 5 min late" in held.reason_detail
    assert await office.deliveries(held) == {}


async def test_a_start_that_was_missed_by_little_is_made() -> None:
    """Up to the set time, and no longer."""
    assert (await missed(Office(), HOUR)).status is B.RUNNING
    assert (await missed(Office(), HOUR + timedelta(seconds=1))).status is B.PAUSED


async def test_how_late_is_too_late_can_be_set() -> None:
    """A host that allows five hours starts it."""
    office = Office()
    await office.hire("ann")
    broadcast = await office.launched(schedule=MONDAY)
    office.clock.move(broadcast.starts_at + 4 * HOUR - NOW)
    patient = Launching(office.store, office.clock, ACCOUNTS, hold_late_start=5 * HOUR)
    assert await patient.start_due() == [broadcast.id]


@pytest.mark.parametrize("word", ["approve", "resume"])
async def test_a_held_start_begins_when_it_is_let_go(word: str) -> None:
    """Working time counts from then: nobody is due in the past, and no day is lost."""
    office = Office()
    held = await missed(office, 30 * HOUR, replace(MONDAY, working_days=2))
    now = office.clock.now()
    assert now == datetime(2026, 3, 31, 15, tzinfo=UTC)
    going = await getattr(office.broadcasts, word)(held.id)
    assert (going.status, going.starts_at, going.plans_from) == (B.SCHEDULED, now, now)
    assert going.expected_finish_at == datetime(2026, 4, 1, 18, tzinfo=UTC)
    assert await office.launching.start_due() == [held.id]
    for one in (await office.deliveries(held)).values():
        assert one.due_at is not None
        assert one.due_at >= now


async def test_a_start_that_somebody_held_over_begins_when_it_is_resumed() -> None:
    """They asked for it, so it is not held again."""
    office = Office()
    await office.hire("ann")
    broadcast = await office.launched(schedule=MONDAY)
    await office.broadcasts.pause(broadcast.id)
    office.clock.move(broadcast.starts_at + 5 * HOUR - NOW)
    await office.broadcasts.resume(broadcast.id)
    assert await office.launching.start_due() == [broadcast.id]


async def test_a_start_that_still_lies_ahead_stays_where_it_was() -> None:
    """A pause before it moves nothing."""
    office = Office()
    await office.hire("ann")
    broadcast = await office.launched(schedule=MONDAY)
    await office.broadcasts.pause(broadcast.id)
    assert await office.broadcasts.resume(broadcast.id) == broadcast


@pytest.mark.parametrize("reason", [R.BY_USER, R.FAILURE_RATE, R.ACCOUNT_DISCONNECTED])
async def test_only_what_asks_is_approved(reason: BroadcastReason) -> None:
    """Anything else is resumed, by whoever saw to it."""
    office = Office()
    await office.hire("ann")
    broadcast = await office.running()
    with pytest.raises(Conflict, match="waits for nobody's approval"):
        await office.broadcasts.approve(broadcast.id)
    await office.broadcasts.pause(broadcast.id, reason)
    with pytest.raises(Conflict, match="waits for nobody's approval"):
        await office.broadcasts.approve(broadcast.id)


# --- too many failures --------------------------------------------------------------------------------

SENDING = Delivery("dlv_1", "brd_1", "rcp_1", 0, None, None, None, state=S.SENDING, tries=1)


def outcome(kind: Outcome, **changes: object) -> Result:
    after = replace(SENDING, **changes)  # type: ignore[arg-type]  # fields by name
    return Result(S.SENDING, after, Attempt("dlv_1", NOW, 1, Rung.FIRST, kind))


SENT = outcome(Outcome.SENT, state=S.SENT)
REFUSED = outcome(Outcome.REFUSED, state=S.FAILED, reason=Reason.REFUSED)


@pytest.mark.parametrize(
    ("result", "failure"),
    [
        (SENT, False),
        (REFUSED, True),
        (outcome(Outcome.ERROR, state=S.PLANNED, tries=2), True),
        (outcome(Outcome.ERROR, state=S.FAILED, tries=5, reason=Reason.RETRIES_SPENT), True),
        (outcome(Outcome.ERROR, state=S.UNCERTAIN), True),
        (outcome(Outcome.ERROR, state=S.PLANNED), None),
        (outcome(Outcome.THROTTLED, state=S.PLANNED), None),
        (outcome(Outcome.ABSENT, state=S.PLANNED), None),
        (Result(S.PLANNED, replace(SENDING, state=S.UNSCHEDULED)), None),
    ],
)
def test_what_counts_as_a_failure(result: Result, failure: bool | None) -> None:
    """Errors that use up a try, and refusals; an outage, a shut account, a 429 and an absence say nothing."""
    assert brakes.is_failure(SENDING, result) is failure


def fed(*results: Result) -> Breaker:
    breaker = Breaker()
    for result in results:
        breaker.count(SENDING, result)
    return breaker


def test_three_in_ten_of_the_last_fifty_pull_the_brake() -> None:
    """Fifteen do, fourteen do not; the figures are told."""
    assert fed(*[SENT] * 36, *[REFUSED] * 14).pulled() == {}
    pulled = fed(*[SENT] * 35, *[REFUSED] * 15).pulled()["brd_1"]
    assert pulled.reason is R.FAILURE_RATE
    assert pulled.detail.startswith("15 of the last 50 sends failed or were refused (30%)")


def test_only_the_last_fifty_count() -> None:
    """Failures that lie further back are forgotten."""
    assert fed(*[REFUSED] * 14, *[SENT] * 50, *[REFUSED] * 14).pulled() == {}


def test_fifty_are_not_waited_for_where_the_rest_could_not_help() -> None:
    """The first fifteen all failed: whatever comes, they are three in ten of the first fifty."""
    assert "15 of the last 15" in fed(*[REFUSED] * 15).pulled()["brd_1"].detail


def test_a_brake_that_was_pulled_begins_anew() -> None:
    """Fifteen more failures pull it again, one does not; others have windows of their own."""
    breaker = fed(*[REFUSED] * 15)
    other = replace(SENDING, broadcast="brd_2")
    for _ in range(14):
        breaker.count(other, REFUSED)
    assert [*breaker.pulled()] == ["brd_1"]
    breaker.count(SENDING, REFUSED)
    assert breaker.pulled() == {}
    breaker.keep(["brd_1"])
    breaker.count(other, REFUSED)
    assert breaker.pulled() == {}


# --- a canary -----------------------------------------------------------------------------------------


async def flown(office: Office, then: int | None, **counts: int) -> Broadcast:
    """A broadcast paused after its canary, of which so many deliveries ended so."""
    names = [f"{state}{number}" for state, many in counts.items() for number in range(many)]
    await office.hire(*names, "last")
    broadcast = await office.running(policies=Policies(canary=Canary(first=len(names), minutes=then)))
    lease = await office.store.acquire_lease("telegram/news", "one", 60)
    assert lease is not None
    for who, delivery in (await office.deliveries(broadcast)).items():
        state = who.removeprefix("rcp_").rstrip("0123456789")
        if state != "last":
            ended = replace(delivery, state=S(state), ended_at=NOW)
            await office.store.record(lease, [Result(S.PLANNED, ended)])
    tally = {state: counts.get(state.value, 0) for state in S} | {S.PLANNED: 1}
    brake = brakes.canary_over(broadcast, tally, office.clock.now())
    assert brake is not None
    return await office.broadcasts.pull(broadcast.id, brake)


def test_a_canary_counts_what_is_out() -> None:
    """Sent, failed or unknown, and what is on its way; the skipped were never written to."""
    counts = dict.fromkeys(S, 0) | {S.SENT: 3, S.FAILED: 1, S.SENDING: 2, S.SKIPPED: 40, S.PLANNED: 9}
    broadcast = replace(_bare(), policies=Policies(canary=Canary(first=8)))
    assert brakes.has_canary(broadcast)
    assert not brakes.has_canary(replace(broadcast, canary_passed=True))
    assert brakes.canary_left(broadcast, counts) == 2
    assert brakes.canary_over(broadcast, counts, NOW) is None
    assert brakes.canary_over(broadcast, counts | {S.SENT: 7}, NOW) is not None
    assert brakes.canary_over(broadcast, counts | {S.SENT: 7, S.PLANNED: 0, S.SENDING: 0}, NOW) is None


def _bare() -> Broadcast:
    from tests.storage.builders import broadcast  # noqa: PLC0415 - needed here only

    return broadcast()


async def test_a_canary_that_waits_for_approval_goes_on_with_it() -> None:
    """However long that takes; it is asked for once."""
    office = Office()
    paused = await flown(office, None, sent=2)
    assert (paused.status, paused.reason, paused.resumes_at) == (B.PAUSED, R.CANARY, None)
    office.clock.move(20 * HOUR)
    await office.launching.start_due()
    assert await office.status(paused) is B.PAUSED
    going = await office.broadcasts.approve(paused.id)
    assert (going.status, going.canary_passed, going.reason) == (B.RUNNING, True, None)


async def test_a_canary_without_failures_goes_on_after_its_time() -> None:
    """By itself, and not before."""
    office = Office()
    paused = await flown(office, 30, sent=2)
    assert paused.resumes_at == office.clock.now() + HOUR / 2
    assert await office.next_start() == paused.resumes_at
    office.clock.move(HOUR / 2 - timedelta(seconds=1))
    await office.launching.start_due()
    assert await office.status(paused) is B.PAUSED
    office.clock.move(timedelta(seconds=1))
    await office.launching.start_due()
    going = await office.broadcasts.get(paused.id)
    assert (going.status, going.canary_passed, going.resumes_at) == (B.RUNNING, True, None)


async def test_a_canary_with_failures_waits_for_somebody() -> None:
    """Its time over, it says how many failed."""
    office = Office()
    paused = await flown(office, 30, sent=2, failed=1)
    office.clock.move(HOUR)
    await office.launching.start_due()
    waits = await office.broadcasts.get(paused.id)
    assert (waits.status, waits.reason, waits.resumes_at) == (B.PAUSED, R.CANARY, None)
    assert waits.reason_detail == "1 of the first 3 failed; approve it to go on all the same"
    assert (await office.broadcasts.approve(paused.id)).status is B.RUNNING


async def test_a_stop_leaves_nothing_to_go_on_by_itself() -> None:
    """Nothing is awaited any more."""
    office = Office()
    paused = await flown(office, 30, sent=2)
    await office.broadcasts.stop(paused.id)
    assert await office.next_start() is None


@pytest.mark.parametrize(
    ("canary", "field"),
    [
        (Canary(first=0), "policies.canary.first"),
        (Canary(first=-3, minutes=5), "policies.canary.first"),
        (Canary(first=5, minutes=0), "policies.canary.then"),
        (Canary(first=5, minutes=10_081), "policies.canary.then"),
    ],
)
async def test_a_canary_out_of_range_is_refused(canary: Canary, field: str) -> None:
    """With its field and its bounds."""
    with pytest.raises(Invalid) as refusal:
        await Office().draft(policies=Policies(canary=canary))
    [fault] = refusal.value.faults
    assert fault.field == field
    assert " from 1 to " in fault.message
