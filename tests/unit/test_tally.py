"""The counters: what each change adds, under the keys that the report reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from broadcast import report, tally
from broadcast.model import (
    Attempt,
    ChannelName,
    Delivery,
    DeliveryState,
    Event,
    EventType,
    Outcome,
    Reason,
    Rung,
)
from broadcast.tally import Delta
from tests.unit.test_report import BROADCAST, features

S = DeliveryState
NOW = datetime(2026, 3, 27, 14, 27, tzinfo=UTC)
PLANNED = Delivery("dlv_1", "brd_1", "rcp_1", 0, ChannelName.TEAMS, "teams/hr", "cnv_1")
SENT = replace(PLANNED, state=S.SENT, sent_at=NOW)


def counted(*deltas: Iterable[Delta]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for some in deltas:
        for path, number in some:
            counts[path] += number
    return {path: number for path, number in counts.items() if number}


def test_a_plan_counts_its_state_and_reason() -> None:
    """Whoever is skipped from the start is counted with why."""
    skipped = replace(PLANNED, state=S.SKIPPED, reason=Reason.NO_CONVERSATION, channel=None)
    assert counted(tally.of_plan(PLANNED)) == {"state/teams/planned": 1}
    assert counted(tally.of_plan(skipped)) == {"state/-/skipped": 1, "reason/skipped/no_conversation": 1}


def test_a_move_takes_from_one_state_and_adds_to_the_other() -> None:
    """The hour is that of the send."""
    assert counted(tally.of_move(S.SENDING, SENT)) == {
        "state/teams/sending": -1,
        "state/teams/sent": 1,
        "hour/2026-03-27T14:00:00Z/sent": 1,
    }


def test_a_delivery_that_stays_where_it_is_counts_nothing() -> None:
    """Planned for another moment is planned all the same."""
    assert counted(tally.of_move(S.PLANNED, PLANNED)) == {}


def test_a_failure_that_comes_late_and_is_taken_back_leaves_no_trace() -> None:
    """State, reason and hour are each taken back with it."""
    failed = replace(SENT, state=S.FAILED, reason=Reason.REFUSED)
    late = counted(tally.of_plan(SENT), tally.of_move(S.SENT, failed))
    assert late == {"state/teams/failed": 1, "reason/failed/refused": 1}
    assert counted(late.items(), tally.of_move(S.FAILED, SENT)) == counted(tally.of_plan(SENT))


def test_the_hour_is_that_of_utc() -> None:
    """Whatever offset an instant carries."""
    local = NOW.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert counted(tally.of_plan(replace(SENT, sent_at=local))) == counted(tally.of_plan(SENT))


@pytest.mark.parametrize(
    ("outcome", "also"),
    [
        (Outcome.SENT, "sent"),
        (Outcome.ABSENT, "absent"),
        (Outcome.THROTTLED, None),
        (Outcome.ERROR, None),
        (Outcome.REFUSED, None),
    ],
)
def test_an_attempt_counts_once_for_its_rung(outcome: Outcome, also: str | None) -> None:
    """A retry is no further attempt, but may be the one that is sent."""
    line = Attempt("dlv_1", NOW, 2, Rung.AGAIN, outcome)
    outcomes = {f"round/2/again/{also}": 1} if also else {}
    assert counted(tally.of_attempt(line, new_rung=True)) == {"round/2/again/attempts": 1, **outcomes}
    assert counted(tally.of_attempt(line, new_rung=False)) == outcomes


def test_people_are_counted_once_and_events_every_time() -> None:
    """Distinct people, and every event; for clicks also by hour and button."""
    click = Event("k", "dlv_1", EventType.CLICKED, NOW, "enrol")
    assert counted(
        tally.of_event(SENT, click, first=True, first_on_button=True),
        tally.of_event(SENT, click, first=False, first_on_button=False),
    ) == {
        "event/clicked/teams/people": 1,
        "event/clicked/teams/total": 2,
        "hour/2026-03-27T14:00:00Z/clicked": 2,
        "button/enrol/people": 1,
        "button/enrol/total": 2,
    }


@pytest.mark.parametrize("type", sorted(set(EventType) - {EventType.CLICKED}))
def test_every_other_event_counts_under_its_own_name(type: EventType) -> None:
    """By type and channel alone."""
    found = counted(tally.of_event(SENT, Event("k", "dlv_1", type, NOW), first=True, first_on_button=False))
    assert found == {f"event/{type}/teams/people": 1, f"event/{type}/teams/total": 1}


def test_a_click_on_no_button_is_a_click() -> None:
    """It counts for the person and the hour, and for no button."""
    click = Event("k", "dlv_1", EventType.CLICKED, NOW)
    found = counted(tally.of_event(SENT, click, first=True, first_on_button=True))
    assert not [path for path in found if path.startswith("button/")]


def test_the_report_reads_every_counter() -> None:
    """One delivery sent after an absence, read and pressed, and one possibly doubled: all of it is shown."""
    absent = Attempt("dlv_1", NOW, 1, Rung.FIRST, Outcome.ABSENT)
    sent = Attempt("dlv_1", NOW, 1, Rung.AGAIN, Outcome.SENT)
    click, read = Event("c", "dlv_1", EventType.CLICKED, NOW, "enrol"), Event("r", "dlv_1", EventType.READ, NOW)
    counts = counted(
        tally.of_plan(PLANNED),
        tally.of_plan(replace(PLANNED, state=S.SKIPPED, reason=Reason.UNSUBSCRIBED)),
        tally.of_attempt(absent, new_rung=True),
        tally.of_attempt(sent, new_rung=True),
        tally.of_move(S.PLANNED, replace(PLANNED, state=S.SENDING)),
        tally.of_move(S.SENDING, SENT),
        tally.of_event(SENT, click, first=True, first_on_button=True),
        tally.of_event(SENT, read, first=True, first_on_button=False),
        tally.of_doubt(),
    )
    reporting = {ChannelName.TEAMS: features(delivered=False, read=True)}
    shown = report.report(BROADCAST, counts, reporting=reporting, as_of=NOW)
    [channel], [hour] = shown.channels, shown.hours
    assert (shown.sent, channel.planned, channel.sent, channel.skipped) == (1, 2, 1, 1)
    assert shown.read == channel.read == report.Signal(1, 1, 1)
    assert shown.clicked == report.Signal(1, 1, 1)
    assert (hour.sent, hour.clicked) == (1, 1)
    assert [(line.rung, line.attempts, line.sent, line.absent) for line in shown.rounds] == [
        (Rung.FIRST, 1, 0, 1),
        (Rung.AGAIN, 1, 1, 0),
    ]
    assert shown.buttons[0] == report.ButtonLine("enrol", shown.buttons[0].type, "Enrol", 1, 1)
    assert shown.reasons == (report.ReasonLine(S.SKIPPED, Reason.UNSUBSCRIBED, 1),)
    assert shown.possibly_doubled == 1
