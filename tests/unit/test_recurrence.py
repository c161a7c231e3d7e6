"""Launches that repeat: what is written, which moments that means, and who launches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import cast
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from broadcast import recurrence
from broadcast.campaigns import LaunchOverrides
from broadcast.errors import Conflict, Invalid
from broadcast.model import Audience, Broadcast, BroadcastReason, BroadcastStatus, Campaign, Schedule
from broadcast.ports import Page, Store
from tests.unit.office import ACCOUNTS, NOW, TELEGRAM, Office

PARIS, LORD_HOWE = ZoneInfo("Europe/Paris"), ZoneInfo("Australia/Lord_Howe")
#: Any moment of six years.
ANY = st.integers(0, 6 * 366 * 86_400).map(lambda late: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=late))
FRIDAY = datetime(2026, 3, 27, 12, tzinfo=UTC)


def moments(text: str, number: int = 3, *, after: datetime = FRIDAY, zone: ZoneInfo = PARIS) -> list[str]:
    """The next so many, as the wall clock shows them."""
    repeat, found = recurrence.parse(text), []
    for _ in range(number):
        after = recurrence.following(repeat, after, zone)
        found.append(after.astimezone(zone).strftime("%a %d %b %H:%M"))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("every day at 09:00", ["Sat 28 Mar 09:00", "Sun 29 Mar 09:00", "Mon 30 Mar 09:00"]),
        ("every weekday at 09:00", ["Mon 30 Mar 09:00", "Tue 31 Mar 09:00", "Wed 01 Apr 09:00"]),
        ("Every  Weekday", ["Mon 30 Mar 00:00", "Tue 31 Mar 00:00", "Wed 01 Apr 00:00"]),
        ("every friday at 13:30", ["Fri 27 Mar 13:30", "Fri 03 Apr 13:30", "Fri 10 Apr 13:30"]),
        ("every friday at 13:00", ["Fri 03 Apr 13:00", "Fri 10 Apr 13:00", "Fri 17 Apr 13:00"]),
        ("every 1st of the month at 7:05", ["Wed 01 Apr 07:05", "Fri 01 May 07:05", "Mon 01 Jun 07:05"]),
        ("every 31st of the month", ["Tue 31 Mar 00:00", "Sun 31 May 00:00", "Fri 31 Jul 00:00"]),
        ("0 9 * * 1-5", ["Mon 30 Mar 09:00", "Tue 31 Mar 09:00", "Wed 01 Apr 09:00"]),
        ("*/30 14-15 * * *", ["Fri 27 Mar 14:00", "Fri 27 Mar 14:30", "Fri 27 Mar 15:00"]),
        ("15 8 * * 0", ["Sun 29 Mar 08:15", "Sun 05 Apr 08:15", "Sun 12 Apr 08:15"]),
        ("15 8 * * 7", ["Sun 29 Mar 08:15", "Sun 05 Apr 08:15", "Sun 12 Apr 08:15"]),
        ("0 0 1,15 * *", ["Wed 01 Apr 00:00", "Wed 15 Apr 00:00", "Fri 01 May 00:00"]),
        ("0 6 13 * fri", ["Fri 03 Apr 06:00", "Fri 10 Apr 06:00", "Mon 13 Apr 06:00"]),
        ("0 6 * JAN mon", ["Mon 04 Jan 06:00", "Mon 11 Jan 06:00", "Mon 18 Jan 06:00"]),
        ("0 6 1 1/6 *", ["Wed 01 Jul 06:00", "Fri 01 Jan 06:00", "Thu 01 Jul 06:00"]),
    ],
)
def test_words_and_cron_name_moments(text: str, expected: list[str]) -> None:
    """In the campaign's zone, each strictly after the one before."""
    assert moments(text) == expected


def test_a_launch_stays_at_its_hour_when_the_clocks_change() -> None:
    """Nine in Paris is eight and then seven in UTC."""
    repeat = recurrence.parse("every day at 09:00")
    saturday = recurrence.following(repeat, FRIDAY, PARIS)
    assert saturday == datetime(2026, 3, 28, 8, tzinfo=UTC)
    assert recurrence.following(repeat, saturday, PARIS) == datetime(2026, 3, 29, 7, tzinfo=UTC)


def test_a_time_that_the_clocks_leave_out_is_right_after() -> None:
    """Half past two on the night the clocks go forward is three o'clock; the next night it is itself again."""
    night = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert moments("every day at 02:30", 2, after=night) == ["Sun 29 Mar 03:00", "Mon 30 Mar 02:30"]


def test_a_time_that_comes_twice_is_one_launch() -> None:
    """The first pass of the night the clocks go back; also where they do by half an hour."""
    for zone, day, at in ((PARIS, "2026-10-24", "02:30"), (LORD_HOWE, "2026-04-04", "01:45")):
        after = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=zone).astimezone(UTC)
        repeat = recurrence.parse(f"every day at {at}")
        first = recurrence.following(repeat, after, zone)
        assert timedelta(hours=23) < recurrence.following(repeat, first, zone) - first < timedelta(hours=26)
        assert first.astimezone(zone).fold == 0


@given(
    st.sampled_from(["0 9 * * mon-fri", "30 2 * * *", "*/20 1-3 * * *", "0 0 29 2 *", "5 4 1-7 */2 *"]),
    ANY,
)
def test_following_and_latest_agree(text: str, after: datetime) -> None:
    """The latest before the next one is at or before the moment asked for."""
    repeat = recurrence.parse(text)
    following = recurrence.following(repeat, after, PARIS)
    latest = recurrence.latest(repeat, after, PARIS)
    assert latest <= after < following
    assert recurrence.following(repeat, latest, PARIS) == following
    assert recurrence.latest(repeat, following, PARIS) == following


@given(
    st.sampled_from(["0 9 * * mon-fri", "15 */6 * * *", "0 12 1,15 * *", "10 10 */10 3 *", "0 0 29 2 *"]),
    ANY,
)
def test_cron_agrees_with_a_library(text: str, after: datetime) -> None:
    """APScheduler's trigger, in UTC, where no clock changes."""
    minute, hour, day, month, weekday = text.split()
    trigger = CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=UTC)
    expected = trigger.get_next_fire_time(None, after + timedelta(microseconds=1))
    assert recurrence.following(recurrence.parse(text), after, ZoneInfo("UTC")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("every weekdy", "did you mean every weekday?"),
        ("every mondey at 09:00", "did you mean every monday?"),
        ("every blue moon", 'write "every weekday at 09:00"'),
        ("daily", 'daily is no repetition; write "every weekday at 09:00"'),
        ("", "it is no repetition"),
        ("every day at 25:00", "25:00 is no time of day; write at 09:00"),
        ("every day at noon", "noon is no time of day"),
        ("every 32nd of the month", "is no day of a month; write 1st to 31st"),
        ("60 9 * * *", "60 is no minute; write 0 to 59"),
        ("0 24 * * *", "24 is no hour; write 0 to 23"),
        ("0 9 0 * *", "0 is no day of the month; write 1 to 31"),
        ("0 9 * 13 *", "13 is no month; write 1 to 12, or such as feb"),
        ("0 9 * * monkey", "monkey is no weekday; write 0 to 7, or such as mon"),
        ("0 9 * * 5-1", "5-1 of the weekday ends before it starts; write 1-5"),
        ("*/0 9 * * *", "*/0 of the minute has no step; write such as */15"),
        (", 9 * * *", "nothing is no minute"),
        ("0 9 30 2 *", "names a day that never comes"),
    ],
)
async def test_what_is_no_repetition_is_refused_in_words(text: str, message: str) -> None:
    """With its field and its mend, when the campaign is made."""
    with pytest.raises(Invalid) as refusal:
        await Office().draft(schedule=Schedule(repeat=text))
    [fault] = refusal.value.faults
    assert fault.field == "schedule.repeat"
    assert message in fault.message


# --- who launches -------------------------------------------------------------------------------------

DAILY = Schedule(timezone="UTC", repeat="every weekday at 08:00")


async def repeating(office: Office, schedule: Schedule = DAILY) -> Campaign:
    await office.hire("ann")
    campaign = await office.draft(schedule=schedule)
    assert campaign.next_launch_at is None
    await office.campaigns.launch(campaign.id, by="tok_1")
    return await office.campaigns.get(campaign.id)


async def launches(office: Office) -> list[Broadcast]:
    return [*(await office.store.broadcasts(page=Page(1, 100))).items][::-1]


def move_to(office: Office, moment: datetime) -> None:
    office.clock.move(moment - office.clock.now())


MONDAY = datetime(2026, 3, 30, 8, tzinfo=UTC)


async def test_the_first_launch_is_by_hand_and_tells_the_next() -> None:
    """A Friday's launch is followed by Monday's; nothing is launched before it."""
    office = Office()
    assert (await repeating(office)).next_launch_at == MONDAY
    move_to(office, MONDAY - timedelta(seconds=1))
    assert await office.campaigns.launch_due() == []
    assert await office.campaigns.awaited() == {"cmp_1": MONDAY}


async def test_a_launch_that_repeats_counts_from_its_moment() -> None:
    """As if it had been launched then, for that day; the next one is known."""
    office = Office()
    campaign = await repeating(office, replace(DAILY, start=date(2026, 3, 27)))
    move_to(office, MONDAY + timedelta(minutes=2))
    [again] = await office.campaigns.launch_due()
    assert (again.launched_at, again.starts_at) == (MONDAY, MONDAY + timedelta(hours=1))
    assert (again.launched_by, again.campaign) == ("repeat", campaign.id)
    campaign = await office.campaigns.get(campaign.id)
    assert (campaign.broadcasts, campaign.last_launched_at) == (2, MONDAY)
    assert campaign.next_launch_at == MONDAY + timedelta(days=1)
    assert await office.campaigns.launch_due() == []
    assert [b.seed for b in await launches(office)] == sorted({b.seed for b in await launches(office)})


async def test_what_was_missed_is_launched_once() -> None:
    """A host that was off for a week makes up for the last one only; come too late, it is held."""
    office = Office()
    await repeating(office)
    move_to(office, MONDAY + timedelta(days=8, hours=8))
    [again] = await office.campaigns.launch_due()
    assert again.launched_at == MONDAY + timedelta(days=8)
    assert again.repeats_at == MONDAY + timedelta(days=9)
    await office.launching.start_due()
    held = await office.broadcasts.get(again.id)
    assert (held.status, held.reason) == (BroadcastStatus.PAUSED, BroadcastReason.HELD_LATE_START)


@dataclass
class Behind:
    """A store as a host read it a moment ago."""

    now: Store
    campaign: Campaign

    def __getattr__(self, name: str) -> object:
        return getattr(self.now, name)

    async def repeating(self) -> list[Campaign]:
        return [self.campaign]


async def test_of_many_hosts_one_launches() -> None:
    """The others saw the same campaign a moment before."""
    office = Office()
    stale = await repeating(office)
    move_to(office, MONDAY)
    assert len(await office.campaigns.launch_due()) == 1

    office.store = cast("Store", Behind(office.store, stale))
    assert await office.campaigns.launch_due() == []
    assert len(await launches(office)) == 2


async def test_a_start_that_lies_ahead_is_the_first_of_them() -> None:
    """The next launch comes after it, not before."""
    office = Office()
    campaign = await repeating(office, replace(DAILY, start=date(2026, 4, 9)))
    assert campaign.next_launch_at == datetime(2026, 4, 10, 8, tzinfo=UTC)


async def test_what_is_not_valid_any_more_is_left_out() -> None:
    """Its list is gone, say: the host's log tells why, and the next one is waited for."""
    office = Office()
    await office.store.ensure_lists({"lst_staff": "Staff"})
    await office.hire("ann", lists=frozenset({"lst_staff"}))
    campaign = await office.draft(schedule=DAILY, audience=Audience(lists=("lst_staff",), accounts=(TELEGRAM,)))
    await office.campaigns.launch(campaign.id, by="tok_1")
    move_to(office, MONDAY)
    campaigns = office.campaigns
    campaigns._accounts = {key: one for key, one in ACCOUNTS.items() if key != TELEGRAM}  # noqa: SLF001 - settings of another day
    with capture_logs() as logs:
        assert await campaigns.launch_due() == []
    assert [one["action"] for one in logs] == ["repeat_skipped"]
    assert (await office.campaigns.get(campaign.id)).next_launch_at == MONDAY + timedelta(days=1)


async def test_a_repetition_is_ended() -> None:
    """Nothing is launched any more by itself; by hand it can be. Ending it twice is a conflict."""
    office = Office()
    campaign = await repeating(office)
    ended = await office.campaigns.end_repeat(campaign.id)
    assert (ended.next_launch_at, ended.schedule.repeat) == (None, None)
    move_to(office, MONDAY)
    assert await office.campaigns.launch_due() == []
    await office.campaigns.launch(campaign.id, by="tok_1", overrides=LaunchOverrides(seed=3))
    assert (await office.campaigns.get(campaign.id)).next_launch_at is None
    with pytest.raises(Conflict, match="does not repeat"):
        await office.campaigns.end_repeat(campaign.id)


async def test_a_trial_repeats_nothing() -> None:
    """It is one message to one person."""
    office = Office()
    await office.hire("ann")
    campaign = await office.draft(schedule=DAILY)
    await office.campaigns.try_out(campaign.id, to=await office.person("ann"), by="tok_1")
    assert await office.campaigns.awaited() == {}


def test_moments_are_strictly_ascending() -> None:
    """Also through a night in which many of them are left out."""
    repeat, moment, found = recurrence.parse("*/10 * * * *"), datetime(2026, 3, 28, 23, tzinfo=UTC), []
    for _ in range(40):
        moment = recurrence.following(repeat, moment, PARIS)
        found.append(moment)
    assert all(a < b for a, b in pairwise(found))
    assert found[0] > NOW
