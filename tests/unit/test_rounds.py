"""The rungs: the worked examples of RULES.md, and what lies beside them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from zoneinfo import ZoneInfo

import pytest

from broadcast import calendar, plan, rounds
from broadcast.model import WEEKDAYS, Hours, Policies, Rung, Schedule
from broadcast.rounds import Step

PARIS = ZoneInfo("Europe/Paris")
OFFICE = calendar.parse_hours({day: ["09:00-12:00", "14:00-18:00"] for day in WEEKDAYS[:5]})
SUNDAY = calendar.parse_hours({"sun": ["01:00-04:00"]})
NAMES = [Rung.FIRST, Rung.AGAIN, Rung.SLOT]


def instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


def days(start: str, count: int = 1, zone: ZoneInfo = PARIS, hours: Hours = OFFICE) -> calendar.WorkingTime:
    schedule = Schedule(start=dt.date.fromisoformat(start), working_days=count, hours=hours)
    return calendar.working_time(schedule, zone, not_before=None)


def absences(
    working: calendar.WorkingTime, policies: Policies, firsts: list[str], recipient: str = "ann"
) -> list[tuple[int, Rung, str]]:
    """Every attempt at somebody who is never there, on the clock of their zone; first moments are pinned."""
    first = plan.pinned({recipient: [instant(text) for text in firsts]}, plan.drawn(7))
    step: Step | None = plan.first_step(working, Schedule(), policies, recipient, first, launch=None)
    lines = []
    while step is not None:
        shown = step.due_at.astimezone(working.zone).isoformat("T", "minutes")
        lines.append((step.round, step.rung, shown))
        step = after(working, step, policies=policies, first=first)
    return lines


def after(
    working: calendar.WorkingTime,
    step: Step,
    *,
    at: str | None = None,
    policies: Policies | None = None,
    first: rounds.FirstMoment | None = None,
) -> Step | None:
    """What follows a step that was tried when due and ended absent, then or at `at`."""
    return rounds.after_absent(
        working,
        policies or Policies(),
        first or plan.drawn(7),
        "ann",
        round=step.round,
        rung=step.rung,
        rung_at=step.due_at,
        at=step.due_at if at is None else instant(at),
    )


@pytest.mark.parametrize(
    ("first", "attempts"),
    [
        ("14:27", {Rung.FIRST: "14:27", Rung.AGAIN: "14:37", Rung.SLOT: "15:00"}),
        ("14:50", {Rung.FIRST: "14:50", Rung.AGAIN: "15:00", Rung.SLOT: "16:00"}),
        ("14:55", {Rung.FIRST: "14:55", Rung.AGAIN: "15:05", Rung.SLOT: "16:00"}),
        ("11:52", {Rung.FIRST: "11:52", Rung.SLOT: "14:00"}),
        ("11:45", {Rung.FIRST: "11:45", Rung.AGAIN: "11:55", Rung.SLOT: "14:00"}),
        ("17:45", {Rung.FIRST: "17:45", Rung.AGAIN: "17:55"}),
        ("17:55", {Rung.FIRST: "17:55"}),
        ("09:00", {Rung.FIRST: "09:00", Rung.AGAIN: "09:10", Rung.SLOT: "10:00"}),
    ],
)
def test_the_worked_examples(first: str, attempts: Mapping[Rung, str]) -> None:
    """RULES.md, worked examples: Paris, one working day, absent throughout."""
    lines = absences(days("2026-03-27"), Policies(), [f"2026-03-27T{first}+01:00"])
    assert lines == [(1, rung, f"2026-03-27T{time}+01:00") for rung, time in attempts.items()]


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        ("2026-03-29T01:50+01:00", ["2026-03-29T03:00+02:00"]),
        ("2026-10-25T02:27+02:00", ["2026-10-25T02:37+02:00", "2026-10-25T02:00+01:00"]),
        ("2026-10-25T02:55+02:00", ["2026-10-25T02:05+01:00", "2026-10-25T03:00+01:00"]),
    ],
)
def test_the_worked_examples_of_the_two_sundays(first: str, rest: list[str]) -> None:
    """RULES.md, worked examples: the clock goes forward, then back."""
    lines = absences(days(first[:10], hours=SUNDAY), Policies(), [first])
    assert lines == [(1, rung, time) for rung, time in zip(NAMES, [first, *rest], strict=False)]


@pytest.mark.parametrize(
    ("previous", "slot", "boundary"),
    [
        ("2026-10-04T01:50+10:30", 60, "2026-10-04T03:00+11:00"),  # RULES.md: 02:00 is left out
        ("2026-10-04T01:50+10:30", 30, "2026-10-04T02:30+11:00"),  # the moment of the change reads 02:30
        ("2026-10-04T01:50+10:30", 45, "2026-10-04T03:00+11:00"),  # 02:15 is left out
        ("2026-04-05T01:35+11:00", 30, "2026-04-05T01:30+10:30"),  # 02:00 is 01:30 again
        ("2026-04-05T01:35+11:00", 60, "2026-04-05T02:00+10:30"),
        ("2026-04-05T01:00+11:00", 7, "2026-04-05T01:03+11:00"),
    ],
)
def test_boundaries_on_lord_howe(previous: str, slot: int, boundary: str) -> None:
    """Its clock moves by half an hour."""
    working = days(previous[:10], zone=ZoneInfo("Australia/Lord_Howe"), hours=SUNDAY)
    assert rounds.boundary_after(working, instant(previous), slot_minutes=slot) == instant(boundary)


@pytest.mark.parametrize(
    ("previous", "slot", "boundary"),
    [
        ("08:59:59.999999", 60, "09:00"),  # opening time is working time
        ("09:00", 60, "10:00"),  # strictly after
        ("09:00:00.001", 60, "10:00"),
        ("09:59:59.5", 60, "10:00"),
        ("11:00", 60, "14:00"),  # 12:00 and 13:00 are outside
        ("17:00", 60, None),  # 18:00 is closing time
        ("11:50", 7, "11:54"),  # minute 714 is 102 times 7
        ("09:00", 90, "10:30"),
        ("09:00", 1439, None),  # 23:59
        ("09:00", 1440, None),  # midnight
        ("09:00", 1000, "16:40"),
        ("17:58:30", 1, "17:59"),
    ],
)
def test_boundaries_of_a_day(previous: str, slot: int, boundary: str | None) -> None:
    """Multiples of any number of minutes, counted from local midnight."""
    found = rounds.boundary_after(days("2026-03-27"), instant(f"2026-03-27T{previous}+01:00"), slot_minutes=slot)
    assert found == (boundary and instant(f"2026-03-27T{boundary}+01:00"))


def test_boundaries_are_those_of_the_local_clock() -> None:
    """Kathmandu is 5:45 ahead: its hours are no hours of UTC."""
    working = days("2026-03-27", zone=ZoneInfo("Asia/Kathmandu"))
    found = rounds.boundary_after(working, instant("2026-03-27T09:20+05:45"), slot_minutes=60)
    assert found == instant("2026-03-27T10:00+05:45")


def test_midnight_is_a_boundary_of_its_own_day_only() -> None:
    """A night: 24:00 belongs to the next date, so the evening ends without a slot."""
    hours = calendar.parse_hours({"fri": ["22:00-24:00"], "sat": ["00:00-06:00"]})
    lines = absences(days("2026-03-27", 2, hours=hours), Policies(rounds=1), ["2026-03-27T23:45+01:00"])
    assert [time for _, _, time in lines] == ["2026-03-27T23:45+01:00", "2026-03-27T23:55+01:00"]


def test_again_is_skipped_on_another_local_day() -> None:
    """23:55 and ten minutes is working time, but tomorrow's."""
    hours = calendar.parse_hours({"fri": ["22:00-24:00"], "sat": ["00:00-06:00"]})
    working = days("2026-03-27", 2, hours=hours)
    step = after(working, Step(1, Rung.FIRST, instant("2026-03-27T23:55+01:00")))
    assert step is not None
    assert (step.round, step.rung, working.day_index(step.due_at)) == (2, Rung.FIRST, 1)


@pytest.mark.parametrize(
    ("retry", "times"), [(1, ["14:28", "15:00"]), (33, ["15:00", "16:00"]), (213, ["15:00"]), (1440, ["15:00"])]
)
def test_again_comes_after_any_number_of_minutes(retry: int, times: list[str]) -> None:
    """On a boundary the next one follows; at closing time or tomorrow it is skipped."""
    policies = Policies(retry_minutes=retry)
    lines = absences(days("2026-03-27"), policies, ["2026-03-27T14:27+01:00"])
    assert [time[11:16] for _, _, time in lines[1:]] == times


def test_rungs_count_from_the_actual_time() -> None:
    """Pacing delayed the first to 14:55:01.250: ten minutes later is 15:05:01.250, and the slot 16:00."""
    working = days("2026-03-27")
    again = after(working, Step(1, Rung.FIRST, instant("2026-03-27T14:55:01.250+01:00")))
    assert again == Step(1, Rung.AGAIN, instant("2026-03-27T15:05:01.250+01:00"))
    late = Step(1, Rung.AGAIN, instant("2026-03-27T16:00:00.001+01:00"))
    assert after(working, late) == Step(1, Rung.SLOT, instant("2026-03-27T17:00+01:00"))


def test_each_round_has_a_day_and_after_the_last_it_is_over() -> None:
    """Two rounds on three days: the weekend is passed over, and Tuesday is left alone."""
    firsts = ["2026-03-27T14:27+01:00"]
    lines = absences(days("2026-03-27", 3), Policies(rounds=2), firsts)
    assert [(number, rung) for number, rung, _ in lines[:3]] == [(1, rung) for rung in NAMES]
    assert {number for number, _, _ in lines[3:]} == {2}
    assert {time[:10] for _, _, time in lines[3:]} == {"2026-03-30"}


def test_with_no_working_day_left_it_is_over_before_the_last_round() -> None:
    """Three rounds, one day."""
    lines = absences(days("2026-03-27"), Policies(rounds=3), ["2026-03-27T17:55+01:00"])
    assert [number for number, _, _ in lines] == [1]


def test_the_next_round_is_drawn_in_its_day_alone() -> None:
    """The same moment as asked for directly."""
    working, first = days("2026-03-27", 4), plan.drawn(7)
    step = after(working, Step(1, Rung.SLOT, instant("2026-03-27T15:00+01:00")))
    assert step == Step(2, Rung.FIRST, first("ann", 2, working.days[1:2]))


def test_a_pinned_round_names_its_own_day() -> None:
    """Round 2 is pinned two working days on; round 3 follows on the day after that."""
    firsts = ["2026-03-27T17:55+01:00", "2026-03-31T17:55+02:00"]
    lines = absences(days("2026-03-27", 5), Policies(), firsts)
    assert [time[:10] for _, rung, time in lines if rung is Rung.FIRST] == [
        "2026-03-27",
        "2026-03-31",
        "2026-04-01",
    ]


@pytest.mark.parametrize(
    ("rung", "rung_at", "at", "expected"),
    [
        (Rung.FIRST, "14:27", "14:30", (1, Rung.AGAIN, "14:37")),
        (Rung.FIRST, "14:27", "14:37", (1, Rung.SLOT, "15:00")),  # not later than the absence: passed
        (Rung.FIRST, "14:27", "14:59:59.999", (1, Rung.SLOT, "15:00")),
        (Rung.AGAIN, "14:37", "14:50", (1, Rung.SLOT, "15:00")),
    ],
)
def test_rungs_that_passed_during_a_retry_are_skipped(
    rung: Rung, rung_at: str, at: str, expected: tuple[int, Rung, str]
) -> None:
    """A retry keeps its round and rung; only what lies after its absence may follow."""
    number, name, due = expected
    step = after(
        days("2026-03-27"), Step(1, rung, instant(f"2026-03-27T{rung_at}+01:00")), at=f"2026-03-27T{at}+01:00"
    )
    assert step == Step(number, name, instant(f"2026-03-27T{due}+01:00"))


@pytest.mark.parametrize(
    ("at", "day"),
    [
        ("2026-03-27T15:00+01:00", "2026-03-30"),  # its slot has passed: on to the next working day
        ("2026-03-30T09:05+02:00", "2026-03-31"),  # the retry lasted into Monday: the day after that
        ("2026-03-28T12:00+01:00", "2026-03-30"),  # between working days
        ("2026-03-31T09:00+02:00", None),
    ],
)
def test_the_next_round_follows_the_day_of_the_retry(at: str, day: str | None) -> None:
    """RULES.md: the next round is the working day after that retry's."""
    working = days("2026-03-27", 3)
    step = after(working, Step(1, Rung.FIRST, instant("2026-03-27T14:27+01:00")), at=at)
    assert (step and (step.round, step.rung)) == (day and (2, Rung.FIRST))
    assert (step and working.local_date(step.due_at).isoformat()) == day


@pytest.mark.parametrize(
    ("wanted", "due"),
    [
        ("2026-03-27T11:59:59.999+01:00", "2026-03-27T11:59:59.999+01:00"),
        ("2026-03-27T12:00+01:00", "2026-03-27T14:00+01:00"),
        ("2026-03-27T18:00+01:00", "2026-03-30T09:00+02:00"),
        ("2026-03-30T18:00+02:00", None),  # nothing left of this broadcast, though Tuesday is worked
    ],
)
def test_a_wait_ends_in_working_time_of_the_broadcast(wanted: str, due: str | None) -> None:
    """A retry or a held send; None once the broadcast has no working time left."""
    assert rounds.after_wait(days("2026-03-27", 2), instant(wanted)) == (due and instant(due))
