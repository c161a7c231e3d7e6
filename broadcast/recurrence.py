"""When a campaign launches again: "every weekday at 09:00", or the five fields of cron.

Pure: text goes in, moments come out. Times are those of a wall clock: a launch stays at nine o'clock whatever the
clocks do, one that a clock change leaves out is made right after it, one that comes twice is made once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

from broadcast.calendar import first_instant
from broadcast.errors import Fault, Invalid

FIELD = "schedule.repeat"
_DAY = timedelta(days=1)
#: 29 February may be eight years away: 1896 to 1904, 2096 to 2104.
_REACH = 8 * 366

_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAYS: Mapping[str, frozenset[int]] = MappingProxyType(
    {
        "day": frozenset(range(7)),
        "weekday": frozenset(range(5)),
        **{name: frozenset({number}) for number, name in enumerate(_NAMES)},
    }
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_WORDS = re.compile(r"every\s+(?P<which>.+?)(?:\s+at\s+(?P<at>.+))?", re.IGNORECASE)
_OF_MONTH = re.compile(r"(?P<day>\d{1,2})(?:st|nd|rd|th)(?:\s+of\s+(?:the\s+|every\s+)?month)?", re.IGNORECASE)
_CLOCK = re.compile(r"(?P<hour>\d{1,2}):(?P<minute>\d{2})")
_EXAMPLES = 'write "every weekday at 09:00", "every monday", "every 1st of the month", or five fields of cron'


@dataclass(frozen=True, slots=True)
class Repeat:
    """On which days and at which times. A day fits if its day of the month and its weekday (Monday is 0) do; where
    `either`, as cron has it if both are named, one of them is enough."""

    times: tuple[time, ...]
    days: frozenset[int] = frozenset(range(1, 32))
    months: frozenset[int] = frozenset(range(1, 13))
    weekdays: frozenset[int] = frozenset(range(7))
    either: bool = False

    def fits(self, day: date) -> bool:
        by_date, by_week = day.day in self.days, day.weekday() in self.weekdays
        return day.month in self.months and (by_date or by_week if self.either else by_date and by_week)


def following(repeat: Repeat, after: datetime, zone: ZoneInfo) -> datetime:
    """The first moment after the one given. `parse` lets nothing through that has none."""
    begin = after.astimezone(zone).date() - _DAY  # clocks that go back over midnight return to it
    found = _moments(repeat, (begin + number * _DAY for number in range(_REACH)), zone)
    return next(moment for moment in found if moment > after)


def latest(repeat: Repeat, until: datetime, zone: ZoneInfo) -> datetime:
    """The last moment at or before the one given: of those that were missed, the one that is made up for."""
    begin = until.astimezone(zone).date() + _DAY
    days = (begin - number * _DAY for number in range(_REACH))
    return next(moment for moment in _moments(repeat, days, zone, backwards=True) if moment <= until)


def _moments(
    repeat: Repeat, days: Iterator[date], zone: ZoneInfo, *, backwards: bool = False
) -> Iterator[datetime]:
    for day in days:
        if repeat.fits(day):
            for at in repeat.times[::-1] if backwards else repeat.times:
                yield first_instant(datetime.combine(day, at), zone)


# --- what was written ---------------------------------------------------------------------------------


def parse(text: str, field: str = FIELD) -> Repeat:
    """Raises `Invalid`, naming the field and the mend."""
    text = text.strip()
    if len(text.split()) == 5 and not text.casefold().startswith("every"):
        repeat = _cron(text.split(), field)
    else:
        repeat = _words(text, field)
    if not any(repeat.fits(date(2096, 1, 1) + number * _DAY) for number in range(_REACH + 366)):
        raise _invalid(field, f"{text} names a day that never comes; {_EXAMPLES}")
    return repeat


def _words(text: str, field: str) -> Repeat:
    said = _WORDS.fullmatch(text)
    if said is None:
        raise _invalid(field, f"{text or 'it'} is no repetition; {_EXAMPLES}")
    times = (_clock(said["at"], field),)
    which = " ".join(said["which"].casefold().split())
    if (numbered := _OF_MONTH.fullmatch(which)) is not None:
        day = int(numbered["day"])
        if not 1 <= day <= 31:
            raise _invalid(field, f"{which} is no day of a month; write 1st to 31st")
        return Repeat(times, days=frozenset({day}))
    if which not in _DAYS:
        raise _invalid(field, f"every {which} is no repetition; {_meant(which)}")
    return Repeat(times, weekdays=_DAYS[which])


def _meant(which: str) -> str:
    near = difflib.get_close_matches(which, _DAYS, n=1)
    return f"did you mean every {near[0]}?" if near else _EXAMPLES


def _clock(text: str | None, field: str) -> time:
    """Midnight where no time is told: then working time decides when the day's first send is."""
    if text is None:
        return time(0)
    read = _CLOCK.fullmatch(text.strip())
    if read is None or int(read["hour"]) > 23 or int(read["minute"]) > 59:
        raise _invalid(field, f"{text} is no time of day; write at 09:00")
    return time(int(read["hour"]), int(read["minute"]))


def _cron(fields: Sequence[str], field: str) -> Repeat:
    minutes = _Part("minute", 0, 59).read(fields[0], field)
    hours = _Part("hour", 0, 23).read(fields[1], field)
    days = _Part("day of the month", 1, 31).read(fields[2], field)
    months = _Part("month", 1, 12, _MONTHS).read(fields[3], field)
    weekdays = _Part("weekday", 0, 7, _WEEKDAYS).read(fields[4], field)
    return Repeat(
        tuple(time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes)),
        days,
        months,
        frozenset((number - 1) % 7 for number in weekdays),  # cron's Sunday is 0 and 7
        either=not (fields[2].startswith("*") or fields[4].startswith("*")),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """One field of cron: numbers, names, ranges, steps, and lists of them."""

    name: str
    least: int
    most: int
    names: Sequence[str] = ()

    def read(self, text: str, field: str) -> frozenset[int]:
        return frozenset(number for part in text.split(",") for number in self._span(part, field))

    def _span(self, part: str, field: str) -> range:
        span, slash, step = part.partition("/")
        begin, dash, end = span.partition("-")
        if slash and not (step.isdecimal() and int(step)):
            raise _invalid(field, f"{part} of the {self.name} has no step; write such as */15")
        if span == "*":
            first, last = self.least, self.most
        else:
            first = self._number(begin, field)
            last = self._number(end, field) if dash else self.most if slash else first
        if last < first:
            raise _invalid(field, f"{part} of the {self.name} ends before it starts; write {end}-{begin}")
        return range(first, last + 1, int(step) if slash else 1)

    def _number(self, text: str, field: str) -> int:
        word = text.casefold()
        if word in self.names:
            return self.names.index(word) + self.least
        if not text.isdecimal() or not self.least <= int(text) <= self.most:
            told = f"{text or 'nothing'} is no {self.name}; write {self.least} to {self.most}"
            raise _invalid(field, told if not self.names else f"{told}, or such as {self.names[1]}")
        return int(text)


def _invalid(field: str, message: str) -> Invalid:
    return Invalid([Fault(field, message)])
