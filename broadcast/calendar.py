"""Working time: which instants a broadcast may use (RULES.md, working time).

What people write (windows, zones, holidays, a start) comes in as text and leaves as values or as faults that
name their mend. `working_time` turns a schedule into spans of UTC instants, once per broadcast and zone, so
that everything asked afterwards is a bisection.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice, pairwise
from types import MappingProxyType
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from broadcast.errors import Fault, Invalid
from broadcast.model import WEEKDAYS, Hours, Schedule, Window

#: How many dates are searched for working days, counted from the first that could be one: three years.
REACH_DATES = 3 * 366
#: Years a start may lie in; keeps date arithmetic and the search above clear of both ends of the calendar.
YEARS = range(1970, 2200)

_DAY = dt.timedelta(days=1)
_SECOND = dt.timedelta(seconds=1)
_DAY_MINUTES = 24 * 60
#: Offsets are probed this far apart. Two changes of one zone never came closer than 7 days since 1970 (tzdata).
_PROBE = dt.timedelta(hours=12)
_TIME = re.compile(r"(\d{1,2}):(\d{2})")
_EXAMPLE = "write it as 09:00-12:00"


# --- what people write --------------------------------------------------------------------------------


def parse_window(text: str, field: str = "window") -> Window:
    """The window that ``09:00-12:00`` says; the end may be ``24:00``. Raises `Invalid` with the mend."""
    start, end = (_minute(part, text, field) for part in _halves(text, field))
    if start == end:
        raise _invalid(field, f"{text} has no length; write an end after {_clock(start)}")
    if end < start:
        raise _invalid(field, f"{text} ends before it starts; write {_turned(start, end)}")
    return Window(start, end)


def _halves(text: str, field: str) -> tuple[str, str]:
    start, dash, end = text.partition("-")
    if not dash:
        raise _invalid(field, f"{text or 'nothing'} is no window; {_EXAMPLE}")
    return start.strip(), end.strip()


def _minute(part: str, text: str, field: str) -> int:
    """The minute of the day that ``HH:MM`` names, 0 to 1440."""
    match = _TIME.fullmatch(part)
    if match is None:
        raise _invalid(field, f"{text} is no window; {_EXAMPLE}")
    hour, minute = int(match[1]), int(match[2])
    if minute > 59 or hour * 60 + minute > _DAY_MINUTES:
        raise _invalid(field, f"{part} is no time of a day; write one from 00:00 to 24:00")
    return hour * 60 + minute


def _turned(start: int, end: int) -> str:
    """What somebody probably meant who wrote an end before the start: a night, or both the wrong way round."""
    night = _DAY_MINUTES - start + end <= _DAY_MINUTES // 2 and start < _DAY_MINUTES
    if not night:
        return str(Window(end, start))
    evening = str(Window(start, _DAY_MINUTES))
    return evening if end == 0 else f"{evening} and, on the next day, {Window(0, end)}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def parse_hours(raw: Mapping[str, object], field: str = "hours") -> Hours:
    """Windows per weekday, sorted, from ``{"mon": ["09:00-12:00"], …}``; keys are mon to sun.

    Raises `Invalid` with every fault found at once, each at its place such as ``hours.mon[0]``.
    """
    faults: list[Fault] = []
    hours: dict[int, tuple[Window, ...]] = {}
    for key, texts in raw.items():
        if key not in WEEKDAYS:
            faults.append(Fault(f"{field}.{key}", f"{key} is no weekday; {_did_you_mean(key, WEEKDAYS)}"))
        elif windows := _windows(texts, f"{field}.{key}", faults):
            hours[WEEKDAYS.index(key)] = windows
    if not faults and not hours:
        faults.append(Fault(field, 'no window at all; write for example {"mon": ["09:00-12:00"]}'))
    if faults:
        raise Invalid(faults)
    return MappingProxyType(dict(sorted(hours.items())))


def _windows(texts: object, field: str, faults: list[Fault]) -> tuple[Window, ...]:
    """The windows of one weekday, sorted; what is wrong with them is added to `faults`."""
    if not isinstance(texts, list | tuple):
        faults.append(Fault(field, 'not a list of windows; write ["09:00-12:00", "14:00-18:00"]'))
        return ()
    placed: list[tuple[Window, str]] = []
    for place, text in enumerate(texts):
        where = f"{field}[{place}]"
        try:
            placed.append((parse_window(str(text), where), where))
        except Invalid as invalid:
            faults.extend(invalid.faults)
    placed.sort(key=lambda item: item[0])
    faults.extend(_overlaps(placed))
    return tuple(window for window, _ in placed)


def _overlaps(placed: Iterable[tuple[Window, str]]) -> Iterator[Fault]:
    """A fault for each two neighbours, in order of start, that share a minute; touching is no overlap."""
    for (earlier, _), (later, where) in pairwise(placed):
        if later.start < earlier.end:
            mend = Window(earlier.start, max(earlier.end, later.end))
            yield Fault(where, f"{later} overlaps {earlier}; write {mend}")


def zone(name: str, field: str = "timezone") -> ZoneInfo:
    """The zone of this IANA name. Raises `Invalid` with the nearest name there is."""
    if name not in _zone_names():
        mend = _did_you_mean(name, _zone_names(), "write one such as Europe/Paris")
        raise _invalid(field, f"{name or 'nothing'} is no time zone; {mend}")
    return ZoneInfo(name)


@cache
def _zone_names() -> frozenset[str]:
    """Every zone this machine knows; reading them walks a folder, hence once."""
    return frozenset(available_timezones())


def _did_you_mean(word: str, words: Iterable[str], otherwise: str | None = None) -> str:
    """The nearest of `words` as a question, whatever its case; `otherwise` (or all of them) if none is near."""
    spelled = {known.casefold(): known for known in sorted(words)}
    near = difflib.get_close_matches(word.casefold(), spelled, n=1)
    if near:
        return f"did you mean {spelled[near[0]]}?"
    return otherwise or f"write one of {', '.join(words)}"


def parse_start(text: str, field: str = "start") -> dt.date | dt.datetime:
    """The local date or naive local date-time that ISO 8601 `text` says; an offset is refused, for a start is
    read in the zone of the broadcast, or in each recipient's own."""
    try:
        parsed = dt.datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{text or 'nothing'} is no date; write 2026-03-27 or 2026-03-27T09:00"
        raise _invalid(field, message) from error
    if parsed.tzinfo is not None:
        local = parsed.replace(tzinfo=None).isoformat()
        raise _invalid(field, f"{text} carries an offset, and a start is local time; write {local}")
    if parsed.year not in YEARS:
        raise _invalid(field, f"{text} is out of reach; write a year from {YEARS[0]} to {YEARS[-1]}")
    return parsed.date() if _is_date(text) else parsed


def _is_date(text: str) -> bool:
    """Whether ISO 8601 `text` stops at the day."""
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def holiday_dates(country: str, years: Iterable[int], field: str = "holiday_country") -> frozenset[dt.date]:
    """Public holidays of a country (``DE``) or one of its regions (``DE-BY``), from the `holidays` library.

    Raises `Invalid` for a code it does not know. A year it has no data for has no holidays.
    """
    import holidays  # noqa: PLC0415 - loading it takes a third of a second that most processes never need

    code, region = _holiday_region(country, holidays.list_supported_countries(include_aliases=False), field)
    return frozenset(holidays.country_holidays(code, subdiv=region, years=years, expand=False))


def _holiday_region(country: str, supported: Mapping[str, list[str]], field: str) -> tuple[str, str | None]:
    """The library's own spelling of country and region."""
    code, _, wanted = country.partition("-")
    code = code.upper()
    if code not in supported:
        raise _invalid(field, f"{country or 'nothing'} is no country with known holidays; write DE or DE-BY")
    if not wanted:
        return code, None
    regions = {region.casefold(): region for region in supported[code]}
    if wanted.casefold() not in regions:
        known = ", ".join([code, *(f"{code}-{region}" for region in supported[code])])
        raise _invalid(field, f"{country} is no region with known holidays; write one of {known}")
    return code, regions[wanted.casefold()]


def with_holidays(schedule: Schedule, *, launched_at: dt.datetime) -> Schedule:
    """The schedule with the holidays of its country for every date `working_time` may look at, to be frozen
    at the launch: a newer table then never moves a running broadcast."""
    if schedule.holiday_country is None:
        return schedule
    since = max(launched_at.year, schedule.start.year if schedule.start else launched_at.year)
    years = range(since - 1, since + REACH_DATES // 365 + 2)
    return replace(schedule, holidays=schedule.holidays | holiday_dates(schedule.holiday_country, years))


def _invalid(field: str, message: str) -> Invalid:
    return Invalid([Fault(field, message)])


# --- working time -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """An unbroken stretch of working time between two UTC instants, half open."""

    start: dt.datetime
    end: dt.datetime

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ValueError(f"{self} ends before it starts")


@dataclass(frozen=True, slots=True)
class WorkingDay:
    """A local date with working time: its spans, ascending, touching ones joined.

    `seconds` counts the whole seconds of the clock in them. It is kept, as are the runs they come in, because
    every draw of a first moment asks.
    """

    date: dt.date
    spans: tuple[Span, ...]
    seconds: int = field(init=False, compare=False, repr=False)
    _runs: tuple[tuple[dt.datetime, int], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.spans:
            raise ValueError(f"{self.date} has no working time, so it is no working day")
        runs = tuple(_run(span) for span in self.spans)
        object.__setattr__(self, "_runs", runs)
        object.__setattr__(self, "seconds", sum(length for _, length in runs))

    @property
    def length(self) -> dt.timedelta:
        """Elapsed working time: a fold counts twice, a gap not at all."""
        return sum((span.end - span.start for span in self.spans), dt.timedelta())

    def second(self, number: int) -> dt.datetime:
        """The whole second of working time with this number, counted from 0 to `seconds` - 1."""
        for start, length in self._runs:
            if number < length:
                return start + dt.timedelta(0, number)
            number -= length
        raise IndexError(f"{self.date} has {self.seconds} seconds of working time")


def _run(span: Span) -> tuple[dt.datetime, int]:
    """The first whole second of a span, and how many whole seconds it has."""
    first = _whole_second(span.start)
    return first, (_whole_second(span.end) - first) // _SECOND


def _whole_second(instant: dt.datetime) -> dt.datetime:
    """The first whole second not before `instant`."""
    return instant.replace(microsecond=0) + _SECOND if instant.microsecond else instant


@dataclass(frozen=True, slots=True)
class WorkingTime:
    """The working days of one broadcast in one zone, in order of date; never empty.

    Everything asked of it is a bisection. Spans are kept sorted by instant apart from their days, since where
    clocks go back across midnight (St. John's before 2011) the spans of two dates interleave.
    """

    zone_name: str
    days: tuple[WorkingDay, ...]
    zone: ZoneInfo = field(init=False, compare=False, repr=False)
    _dates: tuple[dt.date, ...] = field(init=False, compare=False, repr=False)
    _starts: tuple[dt.datetime, ...] = field(init=False, compare=False, repr=False)
    _ends: tuple[dt.datetime, ...] = field(init=False, compare=False, repr=False)
    _owners: tuple[int, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.days:
            raise ValueError("working time without a working day")
        spans = sorted((span.start, span.end, index) for index, day in enumerate(self.days) for span in day.spans)
        starts, ends, owners = zip(*spans, strict=True)
        derived = {"zone": ZoneInfo(self.zone_name), "_dates": tuple(day.date for day in self.days)}
        for name, value in (derived | {"_starts": starts, "_ends": ends, "_owners": owners}).items():
            object.__setattr__(self, name, value)

    @property
    def begins(self) -> dt.datetime:
        """The first instant of working time."""
        return self._starts[0]

    @property
    def ends(self) -> dt.datetime:
        """The end of working time: the first instant after the last."""
        return self._ends[-1]

    def contains(self, instant: dt.datetime) -> bool:
        """Whether `instant` is working time of these days."""
        return self._span_at(instant) is not None

    def next_open(self, instant: dt.datetime) -> dt.datetime | None:
        """`instant` if it is working time, else the next opening among these days; None after the last."""
        after = bisect_right(self._starts, instant)
        if after and instant < self._ends[after - 1]:
            return instant
        return self._starts[after] if after < len(self._starts) else None

    def day_index(self, instant: dt.datetime) -> int | None:
        """The place in `days` of the day whose working time `instant` is; None outside working time."""
        at = self._span_at(instant)
        return None if at is None else self._owners[at]

    def day_after(self, instant: dt.datetime) -> int | None:
        """The place of the first day whose date is after the local date of `instant`; None after the last."""
        index = bisect_right(self._dates, self.local_date(instant))
        return index if index < len(self.days) else None

    def day_of(self, instant: dt.datetime) -> WorkingDay | None:
        """The working day on the local date of `instant`, be it working time or not."""
        local = self.local_date(instant)
        index = bisect_left(self._dates, local)
        return self.days[index] if index < len(self.days) and self._dates[index] == local else None

    def local_date(self, instant: dt.datetime) -> dt.date:
        """The date that a calendar on the wall in this zone shows at `instant`."""
        return instant.astimezone(self.zone).date()

    def _span_at(self, instant: dt.datetime) -> int | None:
        before = bisect_right(self._starts, instant) - 1
        return before if before >= 0 and instant < self._ends[before] else None


def working_time(schedule: Schedule, zone: ZoneInfo, *, not_before: dt.datetime | None) -> WorkingTime:
    """The broadcast's working days in `zone`, without anything before `not_before` (the launch).

    Only `schedule.holidays` are skipped: those of `holiday_country` are in them from the launch on (see
    `with_holidays`). Within `REACH_DATES` fewer days than wanted may exist; those are given. Raises `Invalid`
    if there is none. Costs about a fifth of a millisecond per week: keep one per broadcast and zone.
    """
    if schedule.working_days < 1:
        raise _invalid("schedule.working_days", f"{schedule.working_days} is too few; write 1 or more")
    cut = _cut(schedule, zone, not_before)
    first = _first_date(schedule, zone, cut)
    days = tuple(islice(_working_days(schedule, zone, first, cut), schedule.working_days))
    if not days:
        reason = f"no working time in {zone.key} within three years of {first}"
        raise _invalid(
            "schedule.hours", f"{reason}; open a weekday or window that no holiday or clock change takes"
        )
    return WorkingTime(zone.key, days)


def _cut(schedule: Schedule, zone: ZoneInfo, not_before: dt.datetime | None) -> dt.datetime | None:
    """The instant before which nothing is working time: the launch or a date-time start, the later one."""
    cuts = [] if not_before is None else [not_before.astimezone(dt.UTC)]
    if isinstance(schedule.start, dt.datetime):
        cuts.append(first_instant(schedule.start, zone))
    return max(cuts, default=None)


def _first_date(schedule: Schedule, zone: ZoneInfo, cut: dt.datetime | None) -> dt.date:
    """The first local date that may have working time left. One before that of the cut may: clocks that go
    back across midnight return to it."""
    if schedule.start is None and cut is None:
        raise _invalid("schedule.start", "no start and no launch to count from; write a date such as 2026-03-27")
    reached = dt.date.min if cut is None else cut.astimezone(zone).date()
    if schedule.start is None:
        return reached
    start = schedule.start.date() if isinstance(schedule.start, dt.datetime) else schedule.start
    return start if start >= reached else max(start, reached - _DAY)


def _working_days(
    schedule: Schedule, zone: ZoneInfo, first: dt.date, cut: dt.datetime | None
) -> Iterator[WorkingDay]:
    for number in range(REACH_DATES):
        date = first + number * _DAY
        windows = schedule.hours.get(date.weekday(), ())
        if windows and date not in schedule.holidays and (spans := _spans(date, windows, zone, cut)):
            yield WorkingDay(date, spans)


def _spans(date: dt.date, windows: Iterable[Window], zone: ZoneInfo, cut: dt.datetime | None) -> tuple[Span, ...]:
    """The instants of `date` that read as one of `windows` on the wall, as far as they are not before `cut`."""
    midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
    read: list[tuple[dt.datetime, dt.datetime]] = []
    for stretch in stretches(zone, midnight - _DAY, midnight + 2 * _DAY):
        since = stretch.start if cut is None else max(stretch.start, cut)
        for window in windows:
            start = max(midnight + dt.timedelta(minutes=window.start) - stretch.offset, since)
            end = min(midnight + dt.timedelta(minutes=window.end) - stretch.offset, stretch.end)
            if start < end:
                read.append((start, end))
    return _joined(sorted(read))


def _joined(pieces: Iterable[tuple[dt.datetime, dt.datetime]]) -> tuple[Span, ...]:
    """Ascending pieces as spans, those that touch made one."""
    joined: list[tuple[dt.datetime, dt.datetime]] = []
    for start, end in pieces:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return tuple(Span(start, end) for start, end in joined)


# --- wall clocks and instants -------------------------------------------------------------------------


class Stretch(NamedTuple):
    """UTC instants, half open, over which a zone keeps one offset."""

    start: dt.datetime
    end: dt.datetime
    offset: dt.timedelta


def stretches(zone: ZoneInfo, since: dt.datetime, until: dt.datetime) -> Iterator[Stretch]:
    """The stretches of one offset that make up [`since`, `until`), ascending, exact to the second.

    `zoneinfo` tells offsets but not when they change; a change shows as two probes that differ, and is then
    found by bisection.
    """
    start, probe, offset = since, since, _offset(zone, since)
    while probe < until:
        before, probe = probe, min(probe + _PROBE, until)
        if _offset(zone, probe) == offset:
            continue
        change = _change(zone, before, probe, offset)
        if change >= until:
            break
        yield Stretch(start, change, offset)
        start, probe, offset = change, change, _offset(zone, change)
    yield Stretch(start, until, offset)


def _change(zone: ZoneInfo, before: dt.datetime, after: dt.datetime, offset: dt.timedelta) -> dt.datetime:
    """The first second after `before`, where `offset` holds, at which it holds no more; at `after` it does not."""
    held, left = 0, -((before - after) // _SECOND)
    while left - held > 1:
        middle = (held + left) // 2
        if _offset(zone, before + middle * _SECOND) == offset:
            held = middle
        else:
            left = middle
    return (before + left * _SECOND).replace(microsecond=0)


def _offset(zone: ZoneInfo, instant: dt.datetime) -> dt.timedelta:
    return instant.astimezone(zone).utcoffset() or dt.timedelta()


def first_instant(local: dt.datetime, zone: ZoneInfo) -> dt.datetime:
    """The first instant (UTC) at which the wall clock in `zone` reads the naive `local` or later: in a fold
    the first pass, in a gap the moment the clock goes forward."""
    wall = local.replace(tzinfo=dt.UTC)
    for stretch in stretches(zone, wall - _DAY, wall + 2 * _DAY):
        if wall - stretch.offset < stretch.end:
            return max(wall - stretch.offset, stretch.start)
    raise AssertionError("offsets stay under a day, so the clock has passed it two days later")
