"""First moments: even, and a matter between seed, recipient and round alone."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from broadcast import calendar, plan
from broadcast.errors import Invalid
from broadcast.model import Policies, Rung, Schedule, Window
from broadcast.rounds import Step

PARIS = ZoneInfo("Europe/Paris")
DRAWN_FOR_ANN = 675646677
SPLIT_DAY = (Window(9 * 60, 12 * 60), Window(14 * 60, 18 * 60))
#: Friday to Tuesday over a clock change: 7, 3 and 9 hours of working time.
SCHEDULE = Schedule(
    start=dt.date(2026, 3, 27),
    working_days=3,
    timezone="Europe/Paris",
    hours={4: SPLIT_DAY, 6: (Window(60, 300),), 1: (Window(540, 1080),)},
)


def instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


@pytest.fixture
def working() -> calendar.WorkingTime:
    return calendar.working_time(SCHEDULE, PARIS, not_before=None)


def chi_square(counts: Counter[int], cells: int) -> float:
    """How far counts lie from even, in the usual measure; about `cells` if they are."""
    expected = counts.total() / cells
    return sum((counts[cell] - expected) ** 2 / expected for cell in range(cells))


# --- draws --------------------------------------------------------------------------------------------


def test_draws_are_the_same_for_ever() -> None:
    """Running broadcasts stand on these very numbers: a change of the hash is a change of their plan."""
    assert plan.below(10**9, 7, "first", "ann", 1) == DRAWN_FOR_ANN
    assert plan.below(10**9, 7, "first", "ann", 2) != DRAWN_FOR_ANN
    assert plan.unit(7, "first", "ann", 1) == pytest.approx(DRAWN_FOR_ANN / 10**9, abs=1e-9)


def test_keys_are_told_apart() -> None:
    """By seed and by each part, also where the parts run together to the same text."""
    seeds = {plan.unit(seed, "ab", "c") for seed in (1, 11, -1)}
    keys = (("a", "bc"), ("abc",), ("abc", ""), ("1", "2:ab"), ())
    assert len(seeds | {plan.unit(1, *key) for key in keys}) == len(seeds) + len(keys) == 8


def test_any_text_may_be_a_key() -> None:
    """Ids are opaque, also lone surrogates."""
    assert 0 <= plan.unit(2**80, "\ud800", "é", "\x00") < 1


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_units_and_integers_are_even(seed: int) -> None:
    """Chi-square over a hundred cells; the limit is passed once in a thousand fair tries."""
    units = Counter(int(plan.unit(seed, "send", number) * 100) for number in range(20_000))
    numbers = Counter(plan.below(100, seed, "cell", number) for number in range(20_000))
    assert chi_square(units, 100) < 149
    assert chi_square(numbers, 100) < 149


# --- drawn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_first_moments_are_even_over_elapsed_working_time(working: calendar.WorkingTime, seed: int) -> None:
    """Nineteen hours in 114 cells of ten minutes: each day weighs what it lasts, also the one with a gap."""
    opens = [
        span.start + number * dt.timedelta(minutes=10)
        for day in working.days
        for span in day.spans
        for number in range((span.end - span.start) // dt.timedelta(minutes=10))
    ]
    place = {cell: number for number, cell in enumerate(opens)}
    assert len(opens) == 114
    first = plan.drawn(seed)
    moments = [first(f"rcp_{number}", 1, working.days) for number in range(30_000)]
    counts = Counter(place[moment.replace(minute=moment.minute // 10 * 10, second=0)] for moment in moments)
    assert chi_square(counts, 114) < 166
    assert chi_square(Counter(moment.second for moment in moments), 60) < 99


def test_a_recipient_s_moment_does_not_know_of_the_others(working: calendar.WorkingTime) -> None:
    """Whoever else there is, in whatever order, and asked how often."""
    first = plan.drawn(7)
    people = [f"rcp_{number}" for number in range(200)]
    alone = {who: plan.drawn(7)(who, 1, working.days) for who in people}
    assert {who: first(who, 1, working.days) for who in reversed(people)} == alone
    assert {who: first(who, 1, working.days) for who in islice(people, 50, None, 3)}.items() <= alone.items()


def test_moments_depend_on_seed_recipient_and_round(working: calendar.WorkingTime) -> None:
    """A change of any gives another."""
    days = working.days
    moments = {
        plan.drawn(7)("ann", 1, days),
        plan.drawn(8)("ann", 1, days),
        plan.drawn(7)("ben", 1, days),
        plan.drawn(7)("ann", 2, days),
    }
    assert len(moments) == 4


def test_every_second_of_a_short_day_is_drawn_and_no_other() -> None:
    """From the opening on, and never at closing; a launch amid a second waits for the next whole one."""
    at = instant("2026-03-27T09:00:00.500+01:00")
    day = calendar.WorkingDay(at.date(), (calendar.Span(at, at + dt.timedelta(seconds=3)),))
    seen = {plan.drawn(seed)("ann", 1, [day]) for seed in range(100)}
    assert sorted(seen) == [at + dt.timedelta(seconds=0.5 + number) for number in range(3)]


def test_less_than_a_second_left_is_still_a_moment() -> None:
    """No whole second lies in it, so its beginning is taken."""
    at = instant("2026-03-27T17:59:59.600+01:00")
    day = calendar.WorkingDay(at.date(), (calendar.Span(at, at + dt.timedelta(seconds=0.4)),))
    assert plan.drawn(7)("ann", 1, [day]) == at


# --- pinned -------------------------------------------------------------------------------------------


def test_pins_come_first_and_the_rest_is_drawn(working: calendar.WorkingTime) -> None:
    """By recipient and round; a pin names its own day, whatever days are offered."""
    pins = {"ann": [dt.datetime.fromisoformat("2026-03-27T14:27:00+01:00"), instant("2026-03-31T10:00+02:00")]}
    drawn = plan.drawn(7)
    first = plan.pinned(pins, drawn)
    assert first("ann", 1, working.days) == instant("2026-03-27T14:27+01:00")
    assert first("ann", 1, working.days).tzinfo is dt.UTC
    assert first("ann", 2, working.days[1:2]) == instant("2026-03-31T10:00+02:00")
    assert first("ann", 3, working.days[2:]) == drawn("ann", 3, working.days[2:])
    assert first("ben", 1, working.days) == drawn("ben", 1, working.days)


def test_a_pin_that_has_passed_is_drawn_anew(working: calendar.WorkingTime) -> None:
    """The retry of round 1 lasted past the day pinned for round 2."""
    pins = {"ann": [instant("2026-03-27T10:00+01:00"), instant("2026-03-29T03:00+02:00")]}
    drawn = plan.drawn(7)
    assert plan.pinned(pins, drawn)("ann", 2, working.days[2:]) == drawn("ann", 2, working.days[2:])


# --- first step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rounds", "days"), [(1, 3), (2, 2), (3, 1), (4, 1)])
def test_the_first_round_leaves_days_for_the_others(working: calendar.WorkingTime, rounds: int, days: int) -> None:
    """The first max(1, working_days - rounds + 1) days, and all of them come up."""
    assert plan.first_round_days(working, rounds) == working.days[:days]
    first, policies = plan.drawn(7), Policies(rounds=rounds)
    steps = [plan.first_step(working, SCHEDULE, policies, str(who), first, launch=None) for who in range(200)]
    assert {(step.round, step.rung) for step in steps} == {(1, Rung.FIRST)}
    assert {working.day_index(step.due_at) for step in steps} == set(range(days))


@pytest.mark.parametrize(
    ("launch", "due"),
    [
        (None, "2026-03-27T09:00+01:00"),
        ("2026-03-27T10:11:12.345+01:00", "2026-03-27T10:11:12.345+01:00"),
        ("2026-03-27T12:00+01:00", "2026-03-27T14:00+01:00"),
        ("2026-03-27T18:00+01:00", "2026-03-29T01:00+01:00"),
    ],
)
def test_an_immediate_broadcast_starts_at_the_launch_or_the_next_opening(
    working: calendar.WorkingTime, launch: str | None, due: str
) -> None:
    """Everybody at the same moment: pacing spreads them."""
    schedule = Schedule(immediate=True)
    at = None if launch is None else instant(launch)
    steps = {
        plan.first_step(working, schedule, Policies(), who, plan.drawn(7), launch=at) for who in ("ann", "ben")
    }
    assert steps == {Step(1, Rung.FIRST, instant(due))}


def test_an_immediate_broadcast_after_its_end_is_refused(working: calendar.WorkingTime) -> None:
    """In words, not with a moment outside working time."""
    with pytest.raises(Invalid, match="no working time is left"):
        plan.first_step(
            working,
            Schedule(immediate=True),
            Policies(),
            "ann",
            plan.drawn(7),
            launch=instant("2026-04-01T00:00+02:00"),
        )
