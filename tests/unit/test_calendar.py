"""Working time, and the words it is written in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from zoneinfo import ZoneInfo

import pytest

from broadcast import calendar
from broadcast.errors import Fault, Invalid
from broadcast.model import OFFICE_HOURS, Schedule, Window

PARIS = ZoneInfo("Europe/Paris")


def faults_of(invalid: pytest.ExceptionInfo[Invalid]) -> list[tuple[str, str]]:
    return [(fault.field, fault.message) for fault in invalid.value.faults]


def instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


def spans(working: calendar.WorkingTime) -> list[str]:
    """Every span as the clock on the wall in its zone shows it, with offsets."""
    return [
        " ".join(edge.astimezone(working.zone).isoformat("T", "minutes") for edge in (span.start, span.end))
        for day in working.days
        for span in day.spans
    ]


def night(date: str, zone: str, window: str = "00:00-04:00") -> calendar.WorkingTime:
    """One date with one window."""
    start = dt.date.fromisoformat(date)
    hours = {start.weekday(): (calendar.parse_window(window),)}
    return calendar.working_time(Schedule(start=start, hours=hours), ZoneInfo(zone), not_before=None)


# --- what people write --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("09:00-12:00", Window(540, 720)),
        ("00:00-24:00", Window(0, 1440)),
        ("9:05-9:06", Window(545, 546)),
        ("09:00 - 12:00", Window(540, 720)),
    ],
)
def test_a_window_is_read(text: str, window: Window) -> None:
    """Local minutes of the day; the end may be midnight."""
    assert calendar.parse_window(text) == window


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12:00-09:00", "12:00-09:00 ends before it starts; write 09:00-12:00"),
        ("22:00-06:00", "22:00-06:00 ends before it starts; write 22:00-24:00 and, on the next day, 00:00-06:00"),
        ("22:00-00:00", "22:00-00:00 ends before it starts; write 22:00-24:00"),
        ("24:00-09:00", "24:00-09:00 ends before it starts; write 09:00-24:00"),
        ("09:00-09:00", "09:00-09:00 has no length; write an end after 09:00"),
        ("09:00-24:01", "24:01 is no time of a day; write one from 00:00 to 24:00"),
        ("09:60-12:00", "09:60 is no time of a day; write one from 00:00 to 24:00"),
        ("9-12", "9-12 is no window; write it as 09:00-12:00"),
        ("all day", "all day is no window; write it as 09:00-12:00"),
        ("", "nothing is no window; write it as 09:00-12:00"),
    ],
)
def test_a_faulty_window_names_its_mend(text: str, message: str) -> None:
    """Every way to get a window wrong has its own words."""
    with pytest.raises(Invalid) as invalid:
        calendar.parse_window(text, "hours.mon[0]")
    assert faults_of(invalid) == [("hours.mon[0]", message)]


def test_hours_are_kept_by_weekday_and_sorted() -> None:
    """Monday is 0; an empty list is a day not worked; windows may touch."""
    hours = calendar.parse_hours(
        {"sun": [], "tue": ["14:00-18:00", "09:00-12:00", "12:00-14:00"], "mon": ["00:00-24:00"]}
    )
    assert hours == {0: (Window(0, 1440),), 1: (Window(540, 720), Window(720, 840), Window(840, 1080))}


def test_all_faults_of_hours_are_told_at_once() -> None:
    """Each at its place in what was written, not in what was sorted."""
    raw = {"mon": ["12:00-09:00", "x"], "tues": ["09:00-12:00"], "wed": ["10:00-13:00", "09:00-12:00"], "xyz": []}
    with pytest.raises(Invalid) as invalid:
        calendar.parse_hours(raw, "schedule.hours")
    assert faults_of(invalid) == [
        ("schedule.hours.mon[0]", "12:00-09:00 ends before it starts; write 09:00-12:00"),
        ("schedule.hours.mon[1]", "x is no window; write it as 09:00-12:00"),
        ("schedule.hours.tues", "tues is no weekday; did you mean tue?"),
        ("schedule.hours.wed[0]", "10:00-13:00 overlaps 09:00-12:00; write 09:00-13:00"),
        ("schedule.hours.xyz", "xyz is no weekday; write one of mon, tue, wed, thu, fri, sat, sun"),
    ]


@pytest.mark.parametrize(
    ("raw", "field", "start"),
    [
        ({}, "hours", "no window at all"),
        ({"mon": [], "tue": []}, "hours", "no window at all"),
        ({"mon": "09:00-12:00"}, "hours.mon", "not a list of windows"),
        ({"mon": [9]}, "hours.mon[0]", "9 is no window"),
        ({"Monday": ["09:00-12:00"]}, "hours.Monday", "Monday is no weekday; did you mean mon?"),
    ],
)
def test_hours_of_another_shape_are_refused(raw: Mapping[str, object], field: str, start: str) -> None:
    """Nothing at all, text for a list, numbers for text, whole names."""
    with pytest.raises(Invalid) as invalid:
        calendar.parse_hours(raw)
    (fault,) = invalid.value.faults
    assert fault.field == field
    assert fault.message.startswith(start)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Europe/Pariss", "Europe/Pariss is no time zone; did you mean Europe/Paris?"),
        ("europe/paris", "europe/paris is no time zone; did you mean Europe/Paris?"),
        ("../../etc/passwd", "../../etc/passwd is no time zone; write one such as Europe/Paris"),
        ("", "nothing is no time zone; write one such as Europe/Paris"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest(name: str, message: str) -> None:
    """Whatever is wrong with it: letters, case, a path, nothing at all."""
    with pytest.raises(Invalid) as invalid:
        calendar.zone(name, "timezone")
    assert faults_of(invalid) == [("timezone", message)]


def test_a_known_zone_is_given() -> None:
    """By its IANA name."""
    assert calendar.zone("Australia/Lord_Howe").key == "Australia/Lord_Howe"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("2026-03-27", dt.date(2026, 3, 27)),
        ("2026-03-27T09:30", dt.datetime(2026, 3, 27, 9, 30)),  # noqa: DTZ001 - local time of no zone yet
        ("2026-03-27T00:00:00", dt.datetime(2026, 3, 27)),  # noqa: DTZ001
    ],
)
def test_a_start_is_a_date_or_a_local_date_time(text: str, start: dt.date) -> None:
    """Midnight given as a date-time stays one."""
    parsed = calendar.parse_start(text)
    assert (type(parsed), parsed) == (type(start), start)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2026-03-27T09:00:00+01:00", "carries an offset, and a start is local time; write 2026-03-27T09:00:00"),
        ("2026-03-27T09:00:00Z", "carries an offset, and a start is local time; write 2026-03-27T09:00:00"),
        ("2026-02-30", "is no date; write 2026-03-27 or 2026-03-27T09:00"),
        ("tomorrow", "is no date; write 2026-03-27 or 2026-03-27T09:00"),
        ("9999-12-31", "is out of reach; write a year from 1970 to 2199"),
    ],
)
def test_a_faulty_start_is_refused_in_words(text: str, message: str) -> None:
    """An offset above all: it would say which zone, and the schedule says that."""
    with pytest.raises(Invalid) as invalid:
        calendar.parse_start(text, "schedule.start")
    assert faults_of(invalid) == [("schedule.start", f"{text} {message}")]


def test_holidays_of_a_country_and_of_a_region() -> None:
    """Epiphany is one in Bavaria, not in all of Germany; the third of October is one everywhere."""
    german, bavarian = calendar.holiday_dates("DE", [2026]), calendar.holiday_dates("de-by", [2026])
    assert dt.date(2026, 10, 3) in german & bavarian
    assert dt.date(2026, 1, 6) in bavarian - german
    assert dt.date(2026, 3, 31) in calendar.holiday_dates("US-CA", [2026]) - calendar.holiday_dates("US", [2026])
    assert {date.year for date in calendar.holiday_dates("FR", range(2026, 2029))} == {2026, 2027, 2028}


@pytest.mark.parametrize(
    ("code", "start"),
    [
        ("XX", "XX is no country with known holidays; write "),
        ("", "nothing is no country with known holidays; write "),
        ("DE-XX", "DE-XX is no region with known holidays; write one of DE, DE-BB, DE-BE, DE-BW, "),
    ],
)
def test_an_unknown_country_or_region_is_refused(code: str, start: str) -> None:
    """A region with those that there are."""
    with pytest.raises(Invalid) as invalid:
        calendar.holiday_dates(code, [2026])
    assert [fault.message.startswith(start) for fault in invalid.value.faults] == [True]


def test_holidays_are_frozen_for_all_that_may_be_looked_at() -> None:
    """From the eve of the launch's year to past the reach; the schedule's own stay."""
    own = dt.date(2026, 5, 5)
    schedule = Schedule(holiday_country="DE", holidays=frozenset({own}))
    frozen = calendar.with_holidays(schedule, launched_at=instant("2026-03-27T08:00+00:00"))
    assert {own, dt.date(2026, 10, 3), dt.date(2029, 10, 3)} <= frozen.holidays
    assert calendar.with_holidays(Schedule(), launched_at=instant("2026-03-27T08:00+00:00")) == Schedule()


# --- working time -------------------------------------------------------------------------------------


def test_working_days_are_counted_over_weekends_and_holidays() -> None:
    """Friday, then Tuesday: the weekend is not worked and Monday is a holiday; the clock changed between."""
    schedule = Schedule(start=dt.date(2026, 3, 27), working_days=2, holidays=frozenset({dt.date(2026, 3, 30)}))
    assert spans(calendar.working_time(schedule, PARIS, not_before=None)) == [
        "2026-03-27T09:00+01:00 2026-03-27T18:00+01:00",
        "2026-03-31T09:00+02:00 2026-03-31T18:00+02:00",
    ]


@pytest.mark.parametrize(
    ("zone", "date", "window", "expected", "minutes"),
    [
        ("Europe/Paris", "2026-03-29", "01:00-04:00", ["2026-03-29T01:00+01:00 2026-03-29T04:00+02:00"], 120),
        ("Europe/Paris", "2026-03-29", "02:30-03:30", ["2026-03-29T03:00+02:00 2026-03-29T03:30+02:00"], 30),
        (
            "Europe/Paris",
            "2026-10-25",
            "02:15-02:45",
            ["2026-10-25T02:15+02:00 2026-10-25T02:45+02:00", "2026-10-25T02:15+01:00 2026-10-25T02:45+01:00"],
            60,
        ),
        (
            "Europe/Paris",
            "2026-10-25",
            "00:00-02:30",
            ["2026-10-25T00:00+02:00 2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00 2026-10-25T02:30+01:00"],
            180,
        ),
        (
            "Australia/Lord_Howe",
            "2026-10-04",
            "01:00-04:00",
            ["2026-10-04T01:00+10:30 2026-10-04T04:00+11:00"],
            150,
        ),
        (
            "Australia/Lord_Howe",
            "2026-04-05",
            "01:45-02:00",
            ["2026-04-05T01:45+11:00 2026-04-05T01:30+10:30", "2026-04-05T01:45+10:30 2026-04-05T02:00+10:30"],
            30,
        ),
        ("America/Sao_Paulo", "2017-10-15", "00:00-02:00", ["2017-10-15T01:00-02:00 2017-10-15T02:00-02:00"], 60),
        ("America/Sao_Paulo", "2018-02-17", "22:00-24:00", ["2018-02-17T22:00-02:00 2018-02-18T00:00-03:00"], 180),
        ("Africa/Casablanca", "2026-02-15", "02:00-04:00", ["2026-02-15T02:00+01:00 2026-02-15T04:00+00:00"], 180),
        ("Asia/Kathmandu", "2026-05-01", "09:00-12:00", ["2026-05-01T09:00+05:45 2026-05-01T12:00+05:45"], 180),
        ("America/Havana", "2026-11-01", "00:00-01:00", ["2026-11-01T00:00-04:00 2026-11-01T01:00-05:00"], 120),
        (
            "America/St_Johns",
            "2010-11-06",
            "23:00-24:00",
            ["2010-11-06T23:00-02:30 2010-11-07T00:00-02:30", "2010-11-06T23:01-03:30 2010-11-07T00:00-03:30"],
            119,
        ),
    ],
)
def test_working_time_is_what_the_wall_clock_reads(
    zone: str, date: str, window: str, expected: list[str], minutes: int
) -> None:
    """Gaps have none, both passes of a fold have theirs, and what touches is one span."""
    working = night(date, zone, window)
    assert spans(working) == expected
    assert working.days[0].length == dt.timedelta(minutes=minutes)
    assert working.days[0].seconds == minutes * 60


@pytest.mark.parametrize(
    ("zone", "window", "change", "next_date"),
    [
        ("Europe/Paris", "02:00-03:00", dt.date(2026, 3, 29), dt.date(2026, 4, 5)),  # wholly in the gap
        ("Pacific/Apia", "00:00-24:00", dt.date(2011, 12, 30), dt.date(2012, 1, 6)),  # a date that never was
    ],
)
def test_a_date_without_working_time_is_no_working_day(
    zone: str, window: str, change: dt.date, next_date: dt.date
) -> None:
    """Its weekday and window are worked, yet the clocks leave nothing of it."""
    schedule = Schedule(start=change, hours={change.weekday(): (calendar.parse_window(window),)})
    assert [day.date for day in calendar.working_time(schedule, ZoneInfo(zone), not_before=None).days] == [
        next_date
    ]


def test_the_launch_cuts_the_day_it_falls_in() -> None:
    """Counted from the launch's local date; a day with none left does not count."""
    schedule = Schedule(working_days=1, hours=OFFICE_HOURS)
    inside = calendar.working_time(schedule, PARIS, not_before=instant("2026-03-25T11:30:00.250+01:00"))
    late = calendar.working_time(schedule, PARIS, not_before=instant("2026-03-25T18:00+01:00"))
    assert inside.begins == instant("2026-03-25T11:30:00.250+01:00")
    assert inside.days[0].seconds == 6.5 * 3600 - 1
    assert spans(late) == ["2026-03-26T09:00+01:00 2026-03-26T18:00+01:00"]


def test_a_date_time_start_cuts_and_an_earlier_launch_does_not() -> None:
    """Of launch and start the later one counts, and days are counted from there."""
    start = calendar.parse_start("2026-03-25T14:30")
    schedule = Schedule(start=start, working_days=2)
    early = calendar.working_time(schedule, PARIS, not_before=instant("2026-03-01T08:00+01:00"))
    late = calendar.working_time(schedule, PARIS, not_before=instant("2026-04-01T10:00+02:00"))
    assert [day.date.day for day in early.days] == [25, 26]
    assert early.begins == instant("2026-03-25T14:30+01:00")
    assert late.begins == instant("2026-04-01T10:00+02:00")


def test_a_start_long_before_the_launch_still_finds_its_days() -> None:
    """Years before: the search begins at the launch."""
    schedule = Schedule(start=dt.date(2015, 1, 1))
    working = calendar.working_time(schedule, PARIS, not_before=instant("2026-03-25T10:00+01:00"))
    assert working.begins == instant("2026-03-25T10:00+01:00")


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("2026-03-29T01:59", "2026-03-29T01:59+01:00"),
        ("2026-03-29T02:30", "2026-03-29T03:00+02:00"),  # in the gap: the first reading not before it
        ("2026-03-29T03:00", "2026-03-29T03:00+02:00"),
        ("2026-10-25T02:30", "2026-10-25T02:30+02:00"),  # in the fold: the first pass
    ],
)
def test_a_start_that_the_clock_leaves_out_or_repeats(local: str, expected: str) -> None:
    """Nothing that reads earlier is left in, nothing that reads later is left out."""
    assert calendar.first_instant(dt.datetime.fromisoformat(local), PARIS) == instant(expected)


def test_a_recipient_elsewhere_has_days_of_their_own() -> None:
    """The launch is late on Friday in Paris, Saturday morning in Auckland and Friday noon in New York."""
    launch = instant("2026-03-27T20:00+01:00")
    firsts = {
        name: spans(calendar.working_time(Schedule(), ZoneInfo(name), not_before=launch))
        for name in ("Europe/Paris", "Pacific/Auckland", "America/New_York")
    }
    assert firsts == {
        "Europe/Paris": ["2026-03-30T09:00+02:00 2026-03-30T18:00+02:00"],
        "Pacific/Auckland": ["2026-03-30T09:00+13:00 2026-03-30T18:00+13:00"],
        "America/New_York": ["2026-03-27T15:00-04:00 2026-03-27T18:00-04:00"],
    }


def test_fewer_days_than_wanted_are_given_within_reach() -> None:
    """Three years hold 156 or 157 Mondays."""
    schedule = Schedule(start=dt.date(2026, 3, 30), working_days=1000, hours={0: (Window(0, 60),)})
    assert len(calendar.working_time(schedule, PARIS, not_before=None).days) == 157


def test_no_working_time_at_all_is_refused_in_words() -> None:
    """Every Monday of three years a holiday; no day wanted; nothing to count from."""
    mondays = frozenset(dt.date(2026, 3, 30) + dt.timedelta(weeks=number) for number in range(160))
    closed = Schedule(start=dt.date(2026, 3, 30), hours={0: (Window(0, 60),)}, holidays=mondays)
    fields = []
    for schedule in (closed, Schedule(start=dt.date(2026, 3, 30), working_days=0), Schedule()):
        with pytest.raises(Invalid) as invalid:
            calendar.working_time(schedule, PARIS, not_before=None)
        fields += [fault.field for fault in invalid.value.faults]
    assert fields == ["schedule.hours", "schedule.working_days", "schedule.start"]


def test_working_time_answers_at_its_edges() -> None:
    """Half open: an opening is in, a closing is not; between and after."""
    hours = {4: (Window(540, 720), Window(840, 1080)), 0: (Window(540, 720),)}
    schedule = Schedule(start=dt.date(2026, 3, 27), working_days=2, hours=hours)
    working = calendar.working_time(schedule, PARIS, not_before=None)
    table = {
        "2026-03-27T08:59:59.999+01:00": (None, "2026-03-27T09:00+01:00", 1),
        "2026-03-27T09:00+01:00": (0, "2026-03-27T09:00+01:00", 1),
        "2026-03-27T12:00+01:00": (None, "2026-03-27T14:00+01:00", 1),
        "2026-03-27T18:00+01:00": (None, "2026-03-30T09:00+02:00", 1),
        "2026-03-29T10:00+02:00": (None, "2026-03-30T09:00+02:00", 1),
        "2026-03-30T11:59:59.999+02:00": (1, "2026-03-30T11:59:59.999+02:00", None),
        "2026-03-30T12:00+02:00": (None, None, None),
    }
    for text, (index, opening, after) in table.items():
        at = instant(text)
        assert working.day_index(at) == index, text
        assert working.contains(at) == (index is not None), text
        assert working.next_open(at) == (opening and instant(opening)), text
        assert working.day_after(at) == after, text
    assert working.begins == instant("2026-03-27T09:00+01:00")
    assert working.ends == instant("2026-03-30T12:00+02:00")


def test_windows_that_touch_are_one_span_but_days_stay_apart() -> None:
    """A night over midnight is two days."""
    hours = {4: (Window(1320, 1380), Window(1380, 1440)), 5: (Window(0, 360),)}
    working = calendar.working_time(
        Schedule(start=dt.date(2026, 3, 27), working_days=2, hours=hours), PARIS, not_before=None
    )
    assert [len(day.spans) for day in working.days] == [1, 1]
    assert working.days[0].spans[0].end == working.days[1].spans[0].start
    assert working.day_index(working.days[1].spans[0].start) == 1


def test_days_interleave_where_clocks_go_back_across_midnight() -> None:
    """St. John's 2010-11-07: at 00:01 it is 23:01 of the sixth again, so the seventh begins, stops and goes on."""
    windows = {5: (Window(23 * 60, 24 * 60),), 6: (Window(0, 60),)}
    schedule = Schedule(start=dt.date(2010, 11, 6), working_days=2, hours=windows)
    working = calendar.working_time(schedule, ZoneInfo("America/St_Johns"), not_before=None)
    readings = [
        ("2010-11-06T23:59-02:30", 0),
        ("2010-11-07T00:00-02:30", 1),
        ("2010-11-06T23:01-03:30", 0),
        ("2010-11-07T00:00-03:30", 1),
    ]
    assert [working.day_index(instant(text)) for text, _ in readings] == [day for _, day in readings]
    launch = instant("2010-11-06T23:30-03:30")  # the second pass: half an hour is left of the sixth
    left = calendar.working_time(schedule, ZoneInfo("America/St_Johns"), not_before=launch)
    assert [day.length for day in left.days] == [dt.timedelta(minutes=30), dt.timedelta(minutes=60)]


def test_values_refuse_nonsense_at_birth() -> None:
    """An empty span, a day without spans, working time without days, a second past the last."""
    at = instant("2026-03-27T09:00+01:00")
    with pytest.raises(ValueError, match="ends before"):
        calendar.Span(at, at)
    with pytest.raises(ValueError, match="no working day"):
        calendar.WorkingDay(at.date(), ())
    with pytest.raises(ValueError, match="without a working day"):
        calendar.WorkingTime("Europe/Paris", ())
    day = calendar.WorkingDay(at.date(), (calendar.Span(at, at + dt.timedelta(seconds=2)),))
    assert day.second(1) == at + dt.timedelta(seconds=1)
    with pytest.raises(IndexError):
        day.second(2)


def test_faults_read_as_text() -> None:
    """What a console prints of an invalid calendar."""
    assert str(Invalid([Fault("hours.mon[0]", "x is no window")])) == "hours.mon[0]: x is no window"
