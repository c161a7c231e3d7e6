"""Planning against a second, naive implementation, over calendars around every odd change of clocks."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from broadcast import calendar, plan, rounds
from broadcast.errors import Invalid
from broadcast.model import Policies, Rung, Schedule, Window
from tests import naive

#: Zones with a date on which their clocks change, or that is missing altogether.
CHANGES = (
    ("Europe/Paris", dt.date(2026, 3, 29)),
    ("Europe/Paris", dt.date(2026, 10, 25)),
    ("Australia/Lord_Howe", dt.date(2026, 4, 5)),  # half an hour
    ("Australia/Lord_Howe", dt.date(2026, 10, 4)),
    ("Africa/Casablanca", dt.date(2026, 2, 15)),  # around Ramadan
    ("Africa/Casablanca", dt.date(2026, 3, 22)),
    ("America/Sao_Paulo", dt.date(2017, 10, 15)),  # the day begins at 01:00
    ("America/Sao_Paulo", dt.date(2018, 2, 18)),  # 23:00 comes twice the evening before
    ("Asia/Kathmandu", dt.date(1986, 1, 1)),  # a quarter of an hour
    ("Asia/Kathmandu", dt.date(2026, 5, 1)),
    ("Pacific/Apia", dt.date(2011, 12, 30)),  # left out
    ("America/Havana", dt.date(2026, 3, 8)),  # the day begins at 01:00
    ("America/Havana", dt.date(2026, 11, 1)),  # 00:00 comes twice
    ("Asia/Beirut", dt.date(2026, 3, 29)),
    ("Asia/Beirut", dt.date(2026, 10, 25)),
    ("Antarctica/Troll", dt.date(2026, 3, 29)),  # two hours
    ("America/Caracas", dt.date(2016, 5, 1)),
)
#: Clocks that went back across midnight, so that the spans of two dates interleave.
INTERLEAVED = ("America/St_Johns", dt.date(2010, 11, 7))

ODD_MINUTES = (0, 1, 30, 60, 90, 120, 150, 180, 240, 540, 720, 840, 1080, 1380, 1410, 1440)
MINUTES = st.one_of(st.sampled_from(ODD_MINUTES), st.integers(0, 1440))
RECIPIENTS = st.text(max_size=12)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, ...]:
    """Up to three windows of one weekday; some touch."""
    edges = sorted(draw(st.lists(MINUTES, min_size=2, max_size=4, unique=True)))
    pairs = list(pairwise(edges))
    return tuple(Window(*pair) for pair in (pairs if draw(st.booleans()) else pairs[::2]))


@dataclass(frozen=True)
class Case:
    """One broadcast in one zone, its working time worked out in both ways."""

    schedule: Schedule
    real: calendar.WorkingTime
    naive: naive.Working


@st.composite
def cases(draw: st.DrawFn, changes: tuple[tuple[str, dt.date], ...] = (*CHANGES, INTERLEAVED)) -> Case:
    name, change = draw(st.sampled_from(changes))
    zone = ZoneInfo(name)
    near = change + draw(st.integers(-3, 1)) * naive.DAY
    day = st.builds(lambda minute: dt.datetime.combine(near, dt.time()) + minute * naive.MINUTE, MINUTES)
    launch = draw(day).replace(tzinfo=dt.UTC) - draw(st.sampled_from([0, 0, 5, 30])) * naive.DAY
    schedule = Schedule(
        start=draw(st.one_of(st.none(), st.just(near), day)),
        working_days=draw(st.integers(1, 4)),
        holidays=frozenset(near + number * naive.DAY for number in draw(st.sets(st.integers(0, 6), max_size=2))),
        hours=draw(st.dictionaries(st.integers(0, 6), windows(), min_size=2)),
    )
    try:
        real = calendar.working_time(schedule, zone, not_before=launch)
    except Invalid:
        assume(False)
    return Case(schedule, real, naive.working_time(schedule, zone, launch))


@st.composite
def instants(draw: st.DrawFn, case: Case) -> dt.datetime:
    """An instant in or near the working time of a case, often just beside an edge of it."""
    spans = [span for day in case.real.days for span in day.spans]
    edge = draw(st.sampled_from([edge for span in spans for edge in (span.start, span.end)]))
    beside = st.sampled_from([-60_000, -1, 0, 1, 60_000])
    return edge + draw(st.one_of(beside, st.integers(-36_000_000, 36_000_000))) * dt.timedelta(milliseconds=1)


POLICIES = st.builds(
    Policies,
    rounds=st.integers(1, 5),
    retry_minutes=st.one_of(st.sampled_from([1, 7, 10, 45, 90, 1440]), st.integers(1, 2000)),
    slot_minutes=st.one_of(st.sampled_from([1, 7, 15, 45, 60, 90, 1440]), st.integers(1, 2000)),
)


def minutes_of(day: calendar.WorkingDay) -> list[dt.datetime]:
    """The whole minutes in the spans of a day."""
    return [
        span.start + number * naive.MINUTE
        for span in day.spans
        for number in range((span.end - span.start) // naive.MINUTE)
    ]


@given(cases())
@settings(max_examples=60, deadline=None)
def test_working_time_is_what_the_wall_clock_says(case: Case) -> None:
    """The same working days, and in them the same minutes."""
    assert {day.date: minutes_of(day) for day in case.real.days} == case.naive.minutes


@given(cases(), st.data())
@settings(max_examples=60, deadline=None)
def test_questions_to_working_time_agree(case: Case, data: st.DataObject) -> None:
    """Contained, next opening, day and day after, at any instant."""
    instant = data.draw(instants(case))
    index, after = case.real.day_index(instant), case.real.day_after(instant)
    dates = [day.date for day in case.real.days]
    assert case.real.contains(instant) == case.naive.contains(instant) == (index is not None)
    assert case.real.next_open(instant) == case.naive.next_open(instant)
    assert index is None or dates[index] == case.naive.local_date(instant)
    assert dates[len(dates) if after is None else after :] == case.naive.dates_after(instant)


@given(cases(), st.data())
@settings(max_examples=60, deadline=None)
def test_waiting_never_ends_outside_working_time_nor_earlier_for_a_later_wish(
    case: Case, data: st.DataObject
) -> None:
    """Of two wishes, the later waits at least as long as the earlier one; both come out in working time."""
    early, late = sorted((data.draw(instants(case)), data.draw(instants(case))))
    first, second = rounds.after_wait(case.real, early), rounds.after_wait(case.real, late)
    assert second is None or (first is not None and first <= second)
    for wanted, got in ((early, first), (late, second)):
        assert got is None or (got >= wanted and case.naive.contains(got))


@given(cases(), POLICIES, st.data())
@settings(max_examples=60, deadline=None)
def test_boundaries_agree_and_keep_their_order(case: Case, policies: Policies, data: st.DataObject) -> None:
    """The same slot boundary; within one date a later attempt never finds an earlier boundary."""
    early, late = sorted((data.draw(instants(case)), data.draw(instants(case))))
    slot = policies.slot_minutes
    first = rounds.boundary_after(case.real, early, slot_minutes=slot)
    second = rounds.boundary_after(case.real, late, slot_minutes=slot)
    assert first == naive.boundary_after(case.naive, early, slot)
    assert second == naive.boundary_after(case.naive, late, slot)
    if second is not None and case.real.local_date(early) == case.real.local_date(late):
        assert first is not None
        assert early < first <= second


@given(cases(), POLICIES, RECIPIENTS, st.integers(0, 2**31), st.data())
@settings(max_examples=110, deadline=None)
def test_the_step_after_an_absence_agrees(
    case: Case, policies: Policies, recipient: str, seed: int, data: st.DataObject
) -> None:
    """The same round, rung and moment, also when a retry ended absent later than its rung."""
    number, rung = data.draw(st.integers(1, policies.rounds)), data.draw(st.sampled_from(Rung))
    rung_at = data.draw(instants(case))
    at = data.draw(st.one_of(st.just(rung_at), instants(case).map(lambda later: max(later, rung_at))))
    first = plan.drawn(seed)

    def naive_first(who: str, later: int, minutes: object) -> dt.datetime:
        assert isinstance(minutes, list)
        second = plan.below(len(minutes) * 60, seed, "first", who, later)
        moment: dt.datetime = minutes[second // 60] + second % 60 * dt.timedelta(seconds=1)
        return moment

    step = rounds.after_absent(
        case.real, policies, first, recipient, round=number, rung=rung, rung_at=rung_at, at=at
    )
    expected = naive.after_absent(
        case.naive, policies, naive_first, recipient, round=number, rung=rung, rung_at=rung_at, at=at
    )
    assert (step and (step.round, step.rung, step.due_at)) == expected
    assert step is None or case.naive.contains(step.due_at)


@given(cases(), st.integers(1, 6), RECIPIENTS, st.integers(-(2**63), 2**63))
@settings(max_examples=60, deadline=None)
def test_first_moments_lie_in_the_days_of_round_one(case: Case, wanted: int, recipient: str, seed: int) -> None:
    """In working time, on a whole second, on one of the first `working_days - rounds + 1` days."""
    due = plan.first_step(
        case.real, case.schedule, Policies(rounds=wanted), recipient, plan.drawn(seed), launch=None
    ).due_at
    dates = list(case.naive.minutes)[: max(1, len(case.naive.minutes) - wanted + 1)]
    assert case.naive.contains(due)
    assert not due.microsecond
    assert case.naive.local_date(due) in dates


@given(cases(CHANGES), POLICIES, RECIPIENTS, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_somebody_never_there_is_tried_in_order_and_then_let_go(
    case: Case, policies: Policies, recipient: str, seed: int
) -> None:
    """Ascending, in working time, each (round, rung) once, a round a day, and an end."""
    first = plan.drawn(seed)
    step: rounds.Step | None = plan.first_step(case.real, case.schedule, policies, recipient, first, launch=None)
    steps: list[rounds.Step] = []
    while step is not None:
        steps.append(step)
        assert len(steps) <= 3 * policies.rounds
        step = rounds.after_absent(
            case.real,
            policies,
            first,
            recipient,
            round=step.round,
            rung=step.rung,
            rung_at=step.due_at,
            at=step.due_at,
        )
    assert all(early.due_at < late.due_at for early, late in pairwise(steps))
    assert all(case.naive.contains(step.due_at) for step in steps)
    assert len({(step.round, step.rung) for step in steps}) == len(steps)
    days = {(step.round, case.naive.local_date(step.due_at)) for step in steps}
    assert len(days) == len({number for number, _ in days}) == len({date for _, date in days})


@pytest.mark.parametrize("name", sorted({name for name, _ in (*CHANGES, INTERLEAVED)}))
def test_offset_changes_are_found_to_the_minute(name: str) -> None:
    """Two years of one zone: the stretches cover everything and have the offsets that the wall clock shows."""
    zone, year = ZoneInfo(name), {"America/Sao_Paulo": 2017, "Pacific/Apia": 2011}.get(name, 2026)
    since = dt.datetime(year, 1, 1, tzinfo=dt.UTC)
    found = list(calendar.stretches(zone, since, since + 730 * naive.DAY))
    assert all(early.end == late.start and early.offset != late.offset for early, late in pairwise(found))
    hours = (since + number * dt.timedelta(minutes=30) for number in range(730 * 48))
    shown = [(hour, hour.astimezone(zone).utcoffset()) for hour in hours]
    changes = [late for early, late in pairwise(shown) if early[1] != late[1]]
    assert [(stretch.start, stretch.offset) for stretch in found[1:]] == changes
