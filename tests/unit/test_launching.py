"""The start of a broadcast: who is planned, when, and what a crash or a second host makes of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from broadcast import launching, plan, report
from broadcast.campaigns import LaunchOverrides, every
from broadcast.errors import Invalid, StoreUnavailable
from broadcast.launching import Calendars, Launching, delivery_id, origin
from broadcast.model import (
    Audience,
    Broadcast,
    BroadcastReason,
    BroadcastStatus,
    ChannelName,
    ConversationState,
    Delivery,
    DeliveryState,
    OutsideHours,
    Policies,
    Reason,
    Recipient,
    Rung,
    Schedule,
    Window,
)
from broadcast.ports import Said
from storage.memory import MemoryStore
from tests.storage import builders
from tests.unit.office import ACCOUNTS, NOW, TEAMS, TELEGRAM, VIBER, Crash, Office, shaky

B, S = BroadcastStatus, DeliveryState
PEOPLE = ("ann", "ben", "cat", "dan", "eve")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people a page."""
    monkeypatch.setattr(launching, "PAGE", 2)


def launcher(office: Office, calls: int | None = None) -> Launching:
    return Launching(shaky(office.store, calls), office.clock, ACCOUNTS)


# --- who is planned -----------------------------------------------------------------------------------


async def test_everybody_is_planned_once_within_working_time(small_pages: None) -> None:
    """Over several pages, in one order, each for their first moment; the broadcast runs."""
    office = Office()
    await office.hire(*PEOPLE)
    broadcast = await office.running()
    deliveries = await office.deliveries(broadcast)
    assert list(deliveries) == [f"rcp_{name}" for name in PEOPLE]
    assert [one.position for one in deliveries.values()] == [0, 1, 2, 3, 4]
    for one in deliveries.values():
        assert (one.state, one.round, one.rung, one.attempts) == (S.PLANNED, 1, Rung.FIRST, 0)
        assert one.due_at is not None
        assert NOW <= one.due_at < NOW.replace(hour=18)
        assert (one.channel, one.account) == (ChannelName.TELEGRAM, TELEGRAM)
        assert one.conversation is not None
    assert (broadcast.status, broadcast.planned) == (B.RUNNING, 5)


async def test_the_audience_is_resolved_at_the_start() -> None:
    """Whoever came since the launch is in, whoever left the list is not."""
    office = Office()
    await office.hire("ann", "ben", lists=frozenset({"lst_staff"}))
    await office.store.ensure_lists({"lst_staff": "Staff"})
    broadcast = await office.launched(audience=Audience(lists=("lst_staff",)))
    await office.hire("cat", lists=frozenset({"lst_staff"}))
    await office.store.save_recipients([replace(await office.person("ann"), lists=frozenset())])
    await office.launching.start_due()
    assert set(await office.deliveries(broadcast)) == {"rcp_ben", "rcp_cat"}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (ConversationState.BLOCKED, Reason.BLOCKED),
        (ConversationState.UNSUBSCRIBED, Reason.UNSUBSCRIBED),
        (ConversationState.GONE, Reason.GONE),
    ],
)
async def test_whoever_is_shut_is_planned_as_skipped(state: ConversationState, reason: Reason) -> None:
    """Counted on their channel with the reason, at the moment of the plan."""
    office = Office()
    await office.hire("ann", "ben")
    [known] = await office.store.conversations_of("rcp_ann")
    await office.store.mark_conversation(known.id, state, NOW)
    broadcast = await office.running()
    ann = (await office.deliveries(broadcast))["rcp_ann"]
    assert (ann.state, ann.reason, ann.ended_at, ann.due_at) == (S.SKIPPED, reason, NOW, None)
    assert (ann.channel, ann.conversation) == (ChannelName.TELEGRAM, known.id)
    assert broadcast.planned == 2


async def test_whoever_unsubscribed_is_planned_as_skipped_since_then() -> None:
    """With the moment they did."""
    office = Office()
    await office.hire("ann", "ben")
    await office.says("ann", "STOP")
    office.clock.move(timedelta(hours=1))
    broadcast = await office.running()
    ann = (await office.deliveries(broadcast))["rcp_ann"]
    assert (ann.state, ann.reason, ann.ended_at) == (S.SKIPPED, Reason.UNSUBSCRIBED, NOW)


async def test_nobody_to_write_to_is_over_at_once() -> None:
    """All skipped: completed, with everybody accounted for."""
    office = Office()
    await office.store.save_recipients([Recipient("rcp_ann")])
    broadcast = await office.running()
    ann = (await office.deliveries(broadcast))["rcp_ann"]
    assert (ann.state, ann.reason, ann.channel, ann.account) == (S.SKIPPED, Reason.NO_CONVERSATION, None, None)
    assert (broadcast.status, broadcast.planned) == (B.COMPLETED, 1)


async def test_an_audience_that_became_empty_fails_it() -> None:
    """With its reason: there was somebody when it was launched."""
    office = Office()
    await office.store.ensure_lists({"lst_staff": "Staff"})
    await office.hire("ann", lists=frozenset({"lst_staff"}))
    broadcast = await office.launched(audience=Audience(lists=("lst_staff",)))
    await office.store.save_recipients([replace(await office.person("ann"), lists=frozenset())])
    await office.launching.start_due()
    failed = await office.broadcasts.get(broadcast.id)
    assert (failed.status, failed.reason) == (B.FAILED, BroadcastReason.EMPTY_AUDIENCE)
    assert (failed.planned, failed.finished_at) == (0, NOW)


async def test_whoever_a_narrow_audience_does_not_mean_is_not_counted() -> None:
    """They are elsewhere only."""
    office = Office()
    await office.hire("ann")
    await office.hire("ben", account=VIBER)
    broadcast = await office.running(audience=Audience(channels=(ChannelName.VIBER,)))
    assert list(await office.deliveries(broadcast)) == ["rcp_ben"]
    assert broadcast.planned == 1


async def test_a_conversation_is_opened_for_whom_the_directory_names() -> None:
    """It exists before the delivery on it does, and one that exists stays as it is."""
    office = Office()
    listed = Recipient("rcp_ann", identities={ChannelName.TEAMS: "object-id"})
    await office.store.save_recipients([listed])
    broadcast = await office.running()
    [opened] = await office.store.conversations_of("rcp_ann")
    assert (opened.account, opened.user_id, opened.state) == (TEAMS, "object-id", ConversationState.REACHABLE)
    assert (await office.deliveries(broadcast))["rcp_ann"].conversation == opened.id
    await office.does("object-id", Said.SEEN, account=TEAMS)
    assert [one.id for one in await office.store.conversations_of("rcp_ann")] == [opened.id]


async def test_a_rate_is_shared_out_over_the_accounts_that_are_used() -> None:
    """In proportion to what is planned on each, whoever is skipped left out, frozen once it runs."""
    office = Office()
    await office.hire("ann", "ben", "cat", "dan")
    await office.hire("eve", account=VIBER)
    await office.says("dan", "STOP")
    broadcast = await office.running(policies=Policies(rate=2.0))
    assert broadcast.rates == {TELEGRAM: 1.5, VIBER: 0.5}
    assert (await office.running()).rates == {}


# --- when ---------------------------------------------------------------------------------------------


async def test_it_starts_at_its_start_and_not_before() -> None:
    """A microsecond before it, and at it."""
    office = Office()
    await office.hire("ann")
    broadcast = await office.launched(schedule=Schedule(start=date(2026, 3, 30)))
    assert await office.next_start() == broadcast.starts_at
    office.clock.move(broadcast.starts_at - NOW - timedelta(microseconds=1))
    assert await office.launching.start_due() == []
    assert await office.status(broadcast) is B.SCHEDULED
    office.clock.move(timedelta(microseconds=1))
    assert await office.launching.start_due() == [broadcast.id]
    assert await office.next_start() is None


async def test_what_is_due_first_starts_first() -> None:
    """Whatever was launched last."""
    office = Office()
    await office.hire("ann")
    late = await office.launched(schedule=Schedule(start=date(2026, 3, 31)))
    soon = await office.launched(schedule=Schedule(start=date(2026, 3, 30)))
    office.clock.move(timedelta(days=5))
    patient = Launching(office.store, office.clock, ACCOUNTS, hold_late_start=timedelta(days=9))
    assert await patient.start_due() == [soon.id, late.id]


async def test_each_lives_in_their_own_zone() -> None:
    """With `recipient_timezone`; without a zone, or with one that is none, the broadcast's."""
    office = Office()
    zones = {"ann": "Asia/Tokyo", "ben": None, "cat": "Atlantis/Center", "dan": "America/New_York"}
    for name, zone in zones.items():
        await office.hire(name, timezone=zone)
    monday = {0: (Window(9 * 60, 9 * 60 + 1),)}
    schedule = Schedule(start=date(2026, 3, 30), timezone="Europe/Paris", recipient_timezone=True, hours=monday)
    broadcast = await office.running(schedule=schedule)
    due = {name: one.due_at for name, one in (await office.deliveries(broadcast)).items()}
    hours = {name: at.replace(second=0) for name, at in due.items() if at}
    assert hours == {
        "rcp_ann": datetime(2026, 3, 30, 0, tzinfo=UTC),
        "rcp_ben": datetime(2026, 3, 30, 7, tzinfo=UTC),
        "rcp_cat": datetime(2026, 3, 30, 7, tzinfo=UTC),
        "rcp_dan": datetime(2026, 3, 30, 13, tzinfo=UTC),
    }


async def test_else_all_live_in_the_zone_of_the_broadcast() -> None:
    """Whatever their own is."""
    office = Office()
    await office.hire("ann", timezone="Asia/Tokyo")
    one_minute = Schedule(start=date(2026, 3, 30), hours={0: (Window(9 * 60, 9 * 60 + 1),)})
    broadcast = await office.running(schedule=one_minute)
    due = (await office.deliveries(broadcast))["rcp_ann"].due_at
    assert due is not None
    assert due.replace(second=0) == datetime(2026, 3, 30, 9, tzinfo=UTC)


def test_a_zone_without_working_time_has_no_calendar() -> None:
    """What is a day of work in one zone may not be left in another."""
    schedule = Schedule(
        start=datetime(2026, 3, 27, 9),  # noqa: DTZ001 - a start is local
        recipient_timezone=True,
        holidays=every_day_from(date(2026, 3, 28)),
    )
    broadcast = builders.broadcast(schedule=schedule, launched_at=datetime(2026, 3, 27, 15, tzinfo=UTC))
    calendars = Calendars(broadcast)
    assert calendars.of(Recipient("rcp_ann", timezone="Asia/Tokyo")) is None
    assert calendars.of(Recipient("rcp_ben")) is not None


def every_day_from(first: date) -> frozenset[date]:
    return frozenset(first + timedelta(days=number) for number in range(1200))


@pytest.mark.parametrize("immediate", [True, False])
async def test_whoever_has_no_working_time_left_is_unscheduled(immediate: bool) -> None:
    """Their day was over when it was launched, and there is no other."""
    office = Office()
    await office.hire("ann", timezone="Asia/Tokyo")
    await office.hire("ben")
    schedule = Schedule(immediate=immediate, recipient_timezone=True, holidays=every_day_from(date(2026, 3, 28)))
    broadcast = await office.running(schedule=schedule)
    deliveries = await office.deliveries(broadcast)
    ann = deliveries["rcp_ann"]
    assert (ann.state, ann.reason, ann.ended_at) == (S.UNSCHEDULED, Reason.NO_TIME, NOW)
    assert deliveries["rcp_ben"].state is S.PLANNED


async def test_an_immediate_one_is_due_at_the_launch_or_the_next_opening() -> None:
    """Everybody at once: pacing spreads it."""
    office = Office()
    await office.hire("ann", "ben")
    noon = await office.running(
        schedule=Schedule(immediate=True), policies=Policies(outside_hours=OutsideHours.HOLD)
    )
    assert {one.due_at for one in (await office.deliveries(noon)).values()} == {NOW}
    office.clock.move(timedelta(hours=7))
    night = await office.running(schedule=Schedule(immediate=True, working_days=2))
    assert {one.due_at for one in (await office.deliveries(night)).values()} == {
        datetime(2026, 3, 30, 9, tzinfo=UTC)
    }


async def test_first_moments_may_be_pinned() -> None:
    """A scenario says when."""
    office = Office()
    await office.hire("ann")
    pin = NOW + timedelta(minutes=7)
    broadcast = await office.launched()
    pinning = Launching(
        office.store, office.clock, ACCOUNTS, first=lambda b: plan.pinned({"rcp_ann": [pin]}, plan.drawn(b.seed))
    )
    await pinning.start_due()
    assert (await office.deliveries(broadcast))["rcp_ann"].due_at == pin


async def test_a_plan_is_a_function_of_its_seed() -> None:
    """Not of who else is in it."""
    dues = []
    for names in (("ann",), PEOPLE):
        office = Office()
        await office.hire(*names)
        campaign = await office.draft()
        made = await office.campaigns.launch(campaign.id, by="tok_1", overrides=LaunchOverrides(seed=7))
        await office.launching.start_due()
        dues.append((await office.deliveries(made))["rcp_ann"].due_at)
    assert dues[0] == dues[1]


def test_a_delivery_is_named_by_both() -> None:
    """No two pairs share a name, also where the texts run together; a payload has room for it."""
    names = {delivery_id(*pair) for pair in (("brd_1", "2"), ("brd_", "12"), ("brd_2", "1"), ("brd_1", "3"))}
    assert len(names) == 4
    assert len(delivery_id("brd_abcdefghijklmnop", "rcp_1")) == 24


@pytest.mark.parametrize(
    ("broadcast", "begins"),
    [
        ("brd_abcdefghijklmnop", "brd_abcdefgh"),
        ("brd_7", "brd_7"),
        ("brd_a.b", None),
        ("brd_größe", None),
        ("brd_", None),
    ],
)
def test_a_delivery_tells_how_its_broadcast_is_called(broadcast: str, begins: str | None) -> None:
    """Also once it is not kept any more; never in signs that a link could not carry."""
    made = delivery_id(broadcast, "rcp_1")
    assert origin(made) == begins
    assert re.fullmatch("[A-Za-z0-9_-]+", made)


@pytest.mark.parametrize("delivery", ["dlv_1", "", "dlv_abcdefghijkl"])
def test_what_names_no_broadcast_has_no_origin(delivery: str) -> None:
    """An id of another making."""
    assert origin(delivery) is None


# --- many hosts, stops, crashes -----------------------------------------------------------------------


async def all_are_planned(office: Office, names: Sequence[str] = PEOPLE) -> None:
    [broadcast] = await running(office)
    deliveries = await office.deliveries(broadcast)
    tally = await office.store.tally(broadcast.id)
    assert sorted(deliveries) == [f"rcp_{name}" for name in names]
    assert {one.state for one in deliveries.values()} == {S.PLANNED}
    assert broadcast.planned == sum(report.deliveries(tally).values()) == len(names)


async def running(office: Office) -> list[Broadcast]:
    return await every(office.store, B.RUNNING)


async def test_many_hosts_start_it_once(small_pages: None) -> None:
    """The status is claimed in the store."""
    office = Office()
    await office.hire(*PEOPLE)
    broadcast = await office.launched()
    started = await asyncio.gather(*(launcher(office).start_due() for _ in range(3)))
    assert sorted(started) == [[], [], [broadcast.id]]
    await all_are_planned(office)


async def test_a_host_that_joins_in_cancels_nothing(small_pages: None) -> None:
    """It takes the plan of another for an interrupted one: whoever is second leaves it running."""
    office = Office()
    await office.hire(*PEOPLE)
    await office.launched()
    await asyncio.gather(launcher(office).start_due(), late(launcher(office)))
    await all_are_planned(office)


async def late(other: Launching) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    await other.finish_interrupted()


@pytest.mark.parametrize("turns", range(0, 30, 2))
async def test_a_stop_during_the_plan_leaves_nothing_planned(small_pages: None, turns: int) -> None:
    """At whatever moment of it; what is planned after the stop goes too."""
    office = Office()
    await office.hire(*PEOPLE)
    broadcast = await office.launched()
    starting = asyncio.create_task(launcher(office).start_due())
    for _ in range(turns):
        await asyncio.sleep(0)
    stopped = await office.broadcasts.stop(broadcast.id)
    await starting
    assert await office.broadcasts.get(broadcast.id) == stopped
    assert {one.state for one in (await office.deliveries(broadcast)).values()} <= {S.CANCELLED}


async def test_a_stop_during_the_plan_ends_the_planning(small_pages: None) -> None:
    """What is stopped needs no further page."""
    office = Office()
    await office.hire(*PEOPLE)
    broadcast = await office.launched()
    starting = asyncio.create_task(launcher(office).start_due())
    for _ in range(4):
        await asyncio.sleep(0)
    await office.broadcasts.stop(broadcast.id)
    await starting
    assert len(await office.deliveries(broadcast)) <= 2


@pytest.mark.parametrize("calls", range(2, 14))
async def test_a_plan_that_a_crash_cut_short_is_finished(small_pages: None, calls: int) -> None:
    """Nobody twice, nobody lost, each for the same moment as without it."""
    office, other = Office(), Office()
    for one in (office, other):
        await one.hire(*PEOPLE)
        await one.launched()
    try:
        await launcher(office, calls).start_due()
    except Crash:
        await office.launching.finish_interrupted()
    await other.launching.start_due()
    await all_are_planned(office)
    [ours], [theirs] = await running(office), await running(other)
    assert await office.deliveries(ours) == await other.deliveries(theirs)


async def test_people_who_come_and_go_during_a_crash_are_accounted_for(small_pages: None) -> None:
    """`planned` is what there is, not what one of the two plans saw."""
    office = Office()
    await office.hire(*PEOPLE, lists=frozenset({"lst_staff"}))
    await office.store.ensure_lists({"lst_staff": "Staff"})
    broadcast = await office.launched(audience=Audience(lists=("lst_staff",)))
    with pytest.raises(Crash):
        await launcher(office, 4).start_due()
    assert await office.deliveries(broadcast)
    await office.store.save_recipients([replace(await office.person("ann"), lists=frozenset())])
    await office.hire("fay", lists=frozenset({"lst_staff"}))
    await office.launching.finish_interrupted()
    await all_are_planned(office, (*PEOPLE[:2], *PEOPLE[2:], "fay"))


class Failing(MemoryStore):
    """Cannot plan, as long as it is told so."""

    down = True

    async def plan(self, deliveries: Sequence[Delivery], attempts: object = ()) -> int:
        if self.down:
            raise StoreUnavailable("the disk is full")
        return await super().plan(deliveries)


class Mute(MemoryStore):
    """Claims a broadcast, and then cannot say so, once."""

    told = False

    async def save_broadcast(self, broadcast: Broadcast, *, expected: BroadcastStatus | None) -> None:
        await super().save_broadcast(broadcast, expected=expected)
        if expected is B.SCHEDULED and not self.told:
            self.told = True
            raise StoreUnavailable("the connection was lost in the middle of a write")


async def test_a_start_whose_claim_was_written_untold_is_taken_up_again() -> None:
    """Whoever claimed it goes on with it, without a restart."""
    office = Office(store=Mute())
    await office.hire(*PEOPLE)
    broadcast = await office.launched()
    knocking = office.launching
    with pytest.raises(StoreUnavailable):
        await knocking.start_due()
    assert await office.status(broadcast) is B.INITIALIZING
    await knocking.start_due()
    assert await office.status(broadcast) is B.RUNNING
    await all_are_planned(office)


async def test_a_plan_that_the_store_cut_short_is_taken_up_again() -> None:
    """Without a restart: the next knock goes on with it, once."""
    store = Failing()
    office = Office(store=store)
    await office.hire(*PEOPLE)
    broadcast = await office.launched()
    knocking = office.launching
    with pytest.raises(StoreUnavailable):
        await knocking.start_due()
    with pytest.raises(StoreUnavailable):
        await knocking.start_due()
    assert await office.status(broadcast) is B.INITIALIZING
    store.down = False
    assert await knocking.start_due() == []
    await all_are_planned(office)


async def test_one_that_cannot_be_finished_keeps_no_other_from_it() -> None:
    """Each has its turn, and the trouble is told."""
    office = Office()
    await office.hire("ann")
    nowhere = Schedule(timezone="Atlantis/Center")
    lost = builders.broadcast("brd_a", B.INITIALIZING, audience=Audience(), schedule=nowhere)
    sound = builders.broadcast("brd_b", B.INITIALIZING, audience=Audience(), schedule=Schedule())
    for one in (lost, sound):
        await office.store.save_broadcast(one, expected=None)
    with pytest.raises(Invalid):
        await office.launching.finish_interrupted()
    assert [await office.status(one) for one in (lost, sound)] == [B.INITIALIZING, B.RUNNING]
