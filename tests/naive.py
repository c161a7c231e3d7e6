"""The sending rules a second time, so plainly that they can be read against RULES.md line by line.

Nothing is computed: every minute of UTC is asked what the clock on the wall reads. Slow, and that is the point:
it shares no idea with `broadcast.calendar` and `broadcast.rounds`. Instants of a schedule and the offsets of
its zone must fall on whole minutes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo

from broadcast.model import Policies, Rung, Schedule

MINUTE = dt.timedelta(minutes=1)
DAY = dt.timedelta(days=1)
#: How many days of UTC are read before giving up.
PATIENCE = 100

#: (round, rung, due)
Step = tuple[int, Rung, dt.datetime]
#: (recipient, round, minutes of working time it may fall into)
First = Callable[[str, int, Sequence[dt.datetime]], dt.datetime]


@lru_cache(maxsize=4096)
def wall(zone: ZoneInfo, date: dt.date) -> list[tuple[dt.datetime, dt.datetime]]:
    """Each minute of one day of UTC, and what the wall reads then."""
    midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
    minutes = [midnight + number * MINUTE for number in range(24 * 60)]
    return [(minute, minute.astimezone(zone).replace(tzinfo=None)) for minute in minutes]


def minute_of_day(reading: dt.datetime) -> int:
    return reading.hour * 60 + reading.minute


def is_worked(schedule: Schedule, reading: dt.datetime) -> bool:
    windows = schedule.hours.get(reading.weekday(), ())
    inside = any(window.start <= minute_of_day(reading) < window.end for window in windows)
    return inside and reading.date() not in schedule.holidays


@dataclass(frozen=True)
class Working:
    """Minutes of working time per local date, only of the broadcast's working days."""

    zone: ZoneInfo
    minutes: dict[dt.date, list[dt.datetime]]

    @cached_property
    def all(self) -> list[dt.datetime]:
        return sorted(minute for minutes in self.minutes.values() for minute in minutes)

    @cached_property
    def each(self) -> frozenset[dt.datetime]:
        return frozenset(self.all)

    def contains(self, instant: dt.datetime) -> bool:
        return instant.replace(second=0, microsecond=0) in self.each

    def next_open(self, instant: dt.datetime) -> dt.datetime | None:
        if self.contains(instant):
            return instant
        return next((minute for minute in self.all if minute > instant), None)

    def local_date(self, instant: dt.datetime) -> dt.date:
        return instant.astimezone(self.zone).date()

    def dates_after(self, instant: dt.datetime) -> list[dt.date]:
        return sorted(date for date in self.minutes if date > self.local_date(instant))


def working_time(schedule: Schedule, zone: ZoneInfo, launch: dt.datetime) -> Working:
    """The first `working_days` dates that have a worked minute left; fewer if patience ends first."""
    start = schedule.start or launch.astimezone(zone).date()
    first = start.date() if isinstance(start, dt.datetime) else start
    found: dict[dt.date, list[dt.datetime]] = {}
    reached = not isinstance(start, dt.datetime)
    for minute, reading in _scan(zone, first, launch):
        reached = reached or (isinstance(start, dt.datetime) and reading >= start)
        if reading.weekday() not in schedule.hours or minute < launch or not reached:
            continue
        if reading.date() >= first and is_worked(schedule, reading):
            found.setdefault(reading.date(), []).append(minute)
            if len(found) > schedule.working_days and reading.hour > 0:
                break  # not in the first hour: clocks may go back across midnight
    return Working(zone, {date: found[date] for date in sorted(found)[: schedule.working_days]})


def _scan(zone: ZoneInfo, first: dt.date, launch: dt.datetime) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    since = max(first, launch.date() - DAY) - DAY
    for number in range(PATIENCE):
        yield from wall(zone, since + number * DAY)


def boundary_after(working: Working, previous: dt.datetime, slot_minutes: int) -> dt.datetime | None:
    for minute in working.minutes.get(working.local_date(previous), []):
        reading = minute_of_day(minute.astimezone(working.zone))
        if minute > previous and reading % slot_minutes == 0:
            return minute
    return None


def again(working: Working, retry_minutes: int, first_at: dt.datetime) -> dt.datetime | None:
    due = first_at + retry_minutes * MINUTE
    same_day = working.local_date(due) == working.local_date(first_at)
    return due if same_day and working.contains(due) else None


def after_absent(
    working: Working,
    policies: Policies,
    first: First,
    recipient: str,
    *,
    round: int,
    rung: Rung,
    rung_at: dt.datetime,
    at: dt.datetime,
) -> Step | None:
    if rung is Rung.FIRST:
        due = again(working, policies.retry_minutes, rung_at)
        if due is not None and due > at:
            return round, Rung.AGAIN, due
    if rung is not Rung.SLOT:
        due = boundary_after(working, rung_at, policies.slot_minutes)
        if due is not None and due > at:
            return round, Rung.SLOT, due
    left = working.dates_after(at)
    if round == policies.rounds or not left:
        return None
    return round + 1, Rung.FIRST, first(recipient, round + 1, working.minutes[left[0]])
