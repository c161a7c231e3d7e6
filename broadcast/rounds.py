"""What comes after an attempt that found nobody: the rungs of a round, and the next round (RULES.md, rungs).

Pure: working time, policies and moments go in, the next step comes out. What the platform answers is another
matter and uses no rung; of that, only the waiting for working time is here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from broadcast.calendar import WorkingDay, WorkingTime, stretches
from broadcast.model import Policies, Rung

#: The first moment of a round: (recipient id, round, days it may fall in) to an instant. What it answers
#: depends on nothing else, least of all on other recipients (see `plan.drawn` and `plan.pinned`).
FirstMoment = Callable[[str, int, Sequence[WorkingDay]], dt.datetime]


@dataclass(frozen=True, slots=True)
class Step:
    """The attempt a delivery waits for: its name, round and rung, and the instant (UTC) it is due."""

    round: int
    rung: Rung
    due_at: dt.datetime


def after_absent(
    working: WorkingTime,
    policies: Policies,
    first: FirstMoment,
    recipient: str,
    *,
    round: int,
    rung: Rung,
    rung_at: dt.datetime,
    at: dt.datetime,
) -> Step | None:
    """The step after an attempt that ended absent; None once the delivery is to be unscheduled.

    `rung_at` is the actual time of the rung: when presence was first answered for it. `at` is the moment of
    this absence: the same, or later where it was met by a retry after the platform failed. A rung not later
    than `at` has passed; the next round begins on the working day after that of `at`.
    """
    for later in _LATER[rung]:
        due = _DUE[later](working, policies, rung_at)
        if due is not None and due > at:
            return Step(round, later, due)
    day = working.day_after(at)
    if round >= policies.rounds or day is None:
        return None
    return Step(round + 1, Rung.FIRST, first(recipient, round + 1, working.days[day : day + 1]))


def after_wait(working: WorkingTime, wanted: dt.datetime) -> dt.datetime | None:
    """When a retry or a held send wanted at `wanted` may go: then, or at the next opening; None if no working
    time of the broadcast is left."""
    return working.next_open(wanted)


def _again(working: WorkingTime, policies: Policies, first_at: dt.datetime) -> dt.datetime | None:
    """Some minutes after `first_at`, if that is working time of the same local date."""
    due = first_at + dt.timedelta(minutes=policies.retry_minutes)
    index = working.day_index(due)
    same_day = index is not None and working.days[index].date == working.local_date(first_at)
    return due if same_day else None


def _slot(working: WorkingTime, policies: Policies, previous: dt.datetime) -> dt.datetime | None:
    """The first slot boundary after `previous` that is working time of the same local date."""
    return boundary_after(working, previous, slot_minutes=policies.slot_minutes)


#: The rungs that may still follow in the same round, in order.
_LATER: Mapping[Rung, tuple[Rung, ...]] = MappingProxyType(
    {Rung.FIRST: (Rung.AGAIN, Rung.SLOT), Rung.AGAIN: (Rung.SLOT,), Rung.SLOT: ()}
)
#: When a rung is due, given the actual time of the rung before it.
_DUE: Mapping[Rung, Callable[[WorkingTime, Policies, dt.datetime], dt.datetime | None]] = MappingProxyType(
    {Rung.AGAIN: _again, Rung.SLOT: _slot}
)


def boundary_after(working: WorkingTime, previous: dt.datetime, *, slot_minutes: int) -> dt.datetime | None:
    """The first slot boundary strictly after `previous` in the working time of its local date, or None.

    A boundary is a whole minute whose wall-clock minute of the day is a multiple of `slot_minutes`: a time
    that a gap leaves out is none, and both passes of a fold have theirs.
    """
    day = working.day_of(previous)
    if day is None:
        return None
    just_after = previous + dt.datetime.resolution
    step = dt.timedelta(minutes=slot_minutes)
    found = (_boundary(working, day, max(span.start, just_after), span.end, step) for span in day.spans)
    return next((boundary for boundary in found if boundary is not None), None)


def _boundary(
    working: WorkingTime, day: WorkingDay, since: dt.datetime, until: dt.datetime, step: dt.timedelta
) -> dt.datetime | None:
    """The first boundary in [`since`, `until`), which lies within `day`: a division per stretch of one offset,
    for in it the wall clock runs evenly."""
    if since >= until:
        return None
    midnight = dt.datetime.combine(day.date, dt.time(), dt.UTC)
    for stretch in stretches(working.zone, since, until):
        wall = stretch.start + stretch.offset - midnight
        boundary = stretch.start + (-wall % step)
        if boundary < stretch.end:
            return boundary
    return None
