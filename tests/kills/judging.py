"""What the platforms saw, against what the store says: lost, doubled, marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broadcast.model import AfterCrash, Delivery, DeliveryState

OPEN = frozenset({DeliveryState.PLANNED, DeliveryState.SENDING})
#: After a STOP was taken: what was granted or in flight by then may still arrive.
IN_FLIGHT_AT_STOP = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message that a person received."""

    person: str
    channel: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Shipment:
    """One broadcast as the store has it in the end. `rows` are its deliveries with the person behind each,
    `counted` is what its counters say of them."""

    name: str
    after_crash: AfterCrash
    launched_at: datetime
    rows: Sequence[tuple[str, Delivery]]
    counted: Mapping[DeliveryState, int]
    ended: bool = True


@dataclass(slots=True)
class Verdict:
    """What became of everything; each fault names what it is about."""

    deliveries: int = 0
    states: Counter[DeliveryState] = field(default_factory=Counter)
    copies: int = 0
    """Messages beyond the first to one person in one broadcast."""
    marked: int = 0
    in_flight: int = 0
    """Sends in flight at the kills, all together."""
    lost: list[str] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)
    held_twice: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    """Received outside what was planned."""
    after_stop: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        """What must not be, by what it is called."""
        too_many = [f"{self.copies} copies, {self.in_flight} sends were in flight"]
        found = {
            "lost": self.lost,
            "doubles unmarked": self.unmarked,
            "doubles under hold": self.held_twice,
            "sent beyond the plan": self.beyond,
            "sent after STOP": self.after_stop,
            "counters that are wrong": self.miscounted,
            "more doubles than sends in flight": too_many if self.copies > self.in_flight else [],
        }
        return {name: faults for name, faults in found.items() if faults}


def judge(
    shipments: Sequence[Shipment],
    arrivals: Mapping[str, Sequence[Arrival]],
    *,
    people: frozenset[str],
    stopped: Mapping[str, datetime],
    in_flight: int,
) -> Verdict:
    """`arrivals` by the name of the broadcast; `stopped`: when the platform was told that a STOP was taken."""
    verdict = Verdict(in_flight=in_flight)
    for shipment in shipments:
        _judge(verdict, shipment, arrivals.get(shipment.name, ()), people, stopped)
    known = {shipment.name for shipment in shipments}
    verdict.beyond += [f"broadcast {name}: nobody launched it" for name in arrivals if name not in known]
    return verdict


def _judge(
    verdict: Verdict,
    shipment: Shipment,
    arrivals: Sequence[Arrival],
    people: frozenset[str],
    stopped: Mapping[str, datetime],
) -> None:
    received = Counter(arrival.person for arrival in arrivals)
    states = Counter(row.state for _, row in shipment.rows)
    if not shipment.ended:
        verdict.lost.append(f"{shipment.name}: the broadcast did not complete")
    verdict.deliveries += len(shipment.rows)
    verdict.states += states
    planned = Counter(person for person, _ in shipment.rows)
    verdict.beyond += [f"{shipment.name}: {who} is not in the plan" for who in received.keys() - planned.keys()]
    verdict.beyond += [f"{shipment.name}: {who} is in the plan twice" for who, n in planned.items() if n > 1]
    for person in sorted(people - planned.keys()):
        if person not in stopped or stopped[person] > shipment.launched_at:
            verdict.lost.append(f"{shipment.name}: {person} was not planned")
    for person, row in shipment.rows:
        _judge_row(verdict, shipment, person, row, received[person])
    verdict.after_stop += _too_late(shipment, arrivals, stopped)
    if {state: n for state, n in shipment.counted.items() if n} != states:
        verdict.miscounted.append(f"{shipment.name}: {dict(shipment.counted)} for {dict(states)}")


def _judge_row(verdict: Verdict, shipment: Shipment, person: str, row: Delivery, received: int) -> None:
    name = f"{shipment.name}: {person} ({row.id}, {row.state}, received {received})"
    verdict.marked += row.possibly_doubled
    if row.state in OPEN or (row.state is DeliveryState.SENT and not received):
        verdict.lost.append(name)
    if row.state not in {DeliveryState.SENT, DeliveryState.UNCERTAIN} and received and not row.possibly_doubled:
        verdict.beyond.append(name)
    if received > 1:
        verdict.copies += received - 1
        if shipment.after_crash is AfterCrash.HOLD:
            verdict.held_twice.append(name)
        elif not row.possibly_doubled:
            verdict.unmarked.append(name)


def _too_late(shipment: Shipment, arrivals: Sequence[Arrival], stopped: Mapping[str, datetime]) -> Iterator[str]:
    for arrival in arrivals:
        at = stopped.get(arrival.person)
        if at is not None and (arrival.at > at + IN_FLIGHT_AT_STOP or shipment.launched_at > at):
            yield f"{shipment.name}: {arrival.person} at {arrival.at}, STOP was taken at {at}"
