"""The counters behind progress and report: what each change of the ledger adds to them.

A store adds these deltas in the very transaction that makes the change, and only where its guarded write took
hold, so that the counters always equal what counting the ledger would give. Keys are paths:

    state/<channel>/<state>                       deliveries standing there now
    reason/<state>/<reason>                       deliveries ended so
    round/<round>/<rung>/attempts|sent|absent     distinct tries, and what became of them
    hour/<UTC hour>/sent|clicked                  deliveries that stand as sent by the hour of it; clicks by hour
    event/<type>/<channel>/people|total           distinct people, and every event
    button/<button>/people|total                  the same by button
    doubled                                       deliveries possibly doubled by a crash

The channel is ``-`` where no conversation was found.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from broadcast.model import Attempt, Delivery, DeliveryState, Event, EventType, Outcome, Reason

Delta = tuple[str, int]

NO_CHANNEL = "-"


def of_plan(delivery: Delivery) -> Iterable[Delta]:
    """A delivery that is new in the ledger, whatever state it begins in."""
    yield _state(delivery, delivery.state), 1
    if delivery.reason is not None:
        yield f"reason/{delivery.state}/{delivery.reason}", 1
    if delivery.state is DeliveryState.SENT:
        yield from _sent_hour(delivery, 1)


def of_move(before: DeliveryState, after: Delivery) -> Iterable[Delta]:
    """A delivery that went from the state `before` to where it is now."""
    if before is after.state:
        return
    yield _state(after, before), -1
    if before is DeliveryState.SENT:
        yield from _sent_hour(after, -1)
    if before is DeliveryState.FAILED:  # the one failure that can be taken back (`tracking.applied`)
        yield f"reason/{before}/{Reason.REFUSED}", -1
    yield from of_plan(after)


def of_attempt(attempt: Attempt, *, new_rung: bool) -> Iterable[Delta]:
    """A line of the timeline; `new_rung` where it is the first of its (round, rung)."""
    path = f"round/{attempt.round}/{attempt.rung}"
    if new_rung:
        yield f"{path}/attempts", 1
    if attempt.outcome in {Outcome.SENT, Outcome.ABSENT}:
        yield f"{path}/{attempt.outcome}", 1


def of_event(delivery: Delivery, event: Event, *, first: bool, first_on_button: bool) -> Iterable[Delta]:
    """An event that is new. `first`: the delivery's first of this type; `first_on_button`: its first there."""
    path = f"event/{event.type}/{delivery.channel or NO_CHANNEL}"
    yield f"{path}/total", 1
    if first:
        yield f"{path}/people", 1
    if event.type is EventType.CLICKED:
        yield f"hour/{_hour(event.at)}/clicked", 1
    if event.type is EventType.CLICKED and event.button is not None:
        yield f"button/{event.button}/total", 1
        if first_on_button:
            yield f"button/{event.button}/people", 1


def of_doubt() -> Iterable[Delta]:
    """A delivery that became possibly doubled."""
    yield "doubled", 1


def _state(delivery: Delivery, state: DeliveryState) -> str:
    return f"state/{delivery.channel or NO_CHANNEL}/{state}"


def _sent_hour(delivery: Delivery, number: int) -> Iterable[Delta]:
    if delivery.sent_at is not None:
        yield f"hour/{_hour(delivery.sent_at)}/sent", number


def _hour(instant: datetime) -> str:
    return f"{instant.astimezone(UTC).isoformat()[:13]}:00:00Z"
