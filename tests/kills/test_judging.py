"""The judge of the kills sees what it is there to see."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broadcast.model import AfterCrash, ChannelName, Delivery, DeliveryState
from tests.kills.judging import IN_FLIGHT_AT_STOP, Arrival, Shipment, Verdict, judge

BEGAN = datetime(2026, 3, 27, 9, tzinfo=UTC)
ARRIVED = BEGAN + 2 * IN_FLIGHT_AT_STOP
ROW = Delivery("dlv_1", "brd_1", "rcp_ann", 0, ChannelName.TEAMS, "teams/default", "cnv_1", DeliveryState.SENT)
MARKED = replace(ROW, possibly_doubled=True)


def judged(
    *rows: Delivery,
    arrivals: int = 1,
    policy: AfterCrash = AfterCrash.RESEND,
    people: tuple[str, ...] = ("ann",),
    stopped: datetime | None = None,
    counted: int | None = None,
    in_flight: int = 1,
    ended: bool = True,
) -> Verdict:
    """The verdict on one broadcast to Ann, who received it so many times."""
    counts = Counter(row.state for row in rows) if counted is None else {DeliveryState.SENT: counted}
    shipment = Shipment("one", policy, BEGAN, [("ann", row) for row in rows], counts, ended=ended)
    return judge(
        [shipment],
        {"one": [Arrival("ann", "teams", ARRIVED)] * arrivals},
        people=frozenset(people),
        stopped={"ann": stopped} if stopped else {},
        in_flight=in_flight,
    )


def in_state(state: DeliveryState) -> Delivery:
    return replace(ROW, state=state)


@pytest.mark.parametrize(
    ("verdict", "names"),
    [
        (judged(ROW), []),
        (judged(MARKED, arrivals=2), []),
        (judged(in_state(DeliveryState.UNCERTAIN), arrivals=0, policy=AfterCrash.HOLD), []),
        (judged(in_state(DeliveryState.FAILED), arrivals=0), []),
        (judged(ROW, arrivals=0), ["lost"]),
        (judged(in_state(DeliveryState.PLANNED), arrivals=0), ["lost"]),
        (judged(in_state(DeliveryState.SENDING)), ["lost", "sent beyond the plan"]),
        (judged(ROW, people=("ann", "ben")), ["lost"]),
        (judged(ROW, ended=False), ["lost"]),
        (judged(ROW, arrivals=2), ["doubles unmarked"]),
        (judged(MARKED, arrivals=2, policy=AfterCrash.HOLD), ["doubles under hold"]),
        (judged(MARKED, arrivals=3), ["more doubles than sends in flight"]),
        (judged(people=()), ["sent beyond the plan"]),
        (judged(in_state(DeliveryState.SKIPPED)), ["sent beyond the plan"]),
        (judged(ROW, ROW), ["sent beyond the plan"]),
        (judged(ROW, stopped=BEGAN - timedelta(seconds=1)), ["sent after STOP"]),
        (judged(ROW, stopped=ARRIVED - IN_FLIGHT_AT_STOP), []),
        (judged(ROW, stopped=ARRIVED - IN_FLIGHT_AT_STOP - timedelta(milliseconds=1)), ["sent after STOP"]),
        (judged(ROW, counted=2), ["counters that are wrong"]),
    ],
)
def test_each_fault_has_its_name(verdict: Verdict, names: list[str]) -> None:
    """What must not be is found, and nothing else is."""
    assert list(verdict.faults) == names
