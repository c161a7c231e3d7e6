"""What a broadcast has come to: its counters (`tally`) as the numbers that people are shown.

A signal that a channel cannot give is ``None``, never zero: `reported_by` says how many of those sent went where
it can be told (SHAPES.md, report).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from broadcast.model import (
    BEGUN_STATES,
    OPEN_STATES,
    Broadcast,
    Button,
    ButtonType,
    ChannelName,
    DeliveryState,
    EventType,
    Message,
    Reason,
    Rung,
)
from broadcast.ports import Features
from broadcast.tally import NO_CHANNEL

Tally = Mapping[str, int]
Reporting = Mapping[ChannelName, Features]


@dataclass(frozen=True, slots=True)
class Signal:
    """What came back: distinct `people`, every event (`total`), and out of how many sent it could be told."""

    people: int
    total: int
    reported_by: int


@dataclass(frozen=True, slots=True)
class ChannelLine:
    channel: ChannelName
    planned: int
    sent: int
    failed: int
    unscheduled: int
    skipped: int
    delivered: Signal | None
    read: Signal | None
    clicked: Signal | None


@dataclass(frozen=True, slots=True)
class HourLine:
    hour: datetime
    sent: int
    clicked: int


@dataclass(frozen=True, slots=True)
class RungLine:
    """Distinct tries of one rung of one round, and how many of them ended `sent` or `absent`."""

    round: int
    rung: Rung
    attempts: int
    sent: int
    absent: int


@dataclass(frozen=True, slots=True)
class ButtonLine:
    button: str
    type: ButtonType
    label: str
    people: int
    total: int


@dataclass(frozen=True, slots=True)
class ReasonLine:
    state: DeliveryState
    reason: Reason
    people: int


@dataclass(frozen=True, slots=True)
class Report:
    """`planned` is ``None`` until the audience is resolved. `possibly_doubled` is how many deliveries a crash may
    have sent twice. `deliveries_removed_at` is since when there are only these numbers, and no delivery behind them
    (`retention`)."""

    broadcast: str
    as_of: datetime
    planned: int | None
    sent: int
    deliveries: Mapping[DeliveryState, int]
    delivered: Signal | None
    read: Signal | None
    clicked: Signal | None
    channels: tuple[ChannelLine, ...]
    hours: tuple[HourLine, ...]
    rounds: tuple[RungLine, ...]
    buttons: tuple[ButtonLine, ...]
    reasons: tuple[ReasonLine, ...]
    possibly_doubled: int
    deliveries_removed_at: datetime | None = None


def report(broadcast: Broadcast, tally: Tally, *, reporting: Reporting, as_of: datetime) -> Report:
    """The numbers of a broadcast, from its counters at `as_of`. `reporting` says what each channel can tell; one
    that is left out (its account is no longer configured) tells nothing but clicks, which are our own."""
    channels = tuple(_channel_lines(tally, reporting))
    states = deliveries(tally)
    used = [line.channel for line in channels] or list(broadcast.audience.channels)
    return Report(
        broadcast=broadcast.id,
        as_of=as_of,
        planned=broadcast.planned,
        sent=states[DeliveryState.SENT],
        deliveries=states,
        delivered=_over(used, EventType.DELIVERED, tally, reporting),
        read=_over(used, EventType.READ, tally, reporting),
        clicked=_over(used, EventType.CLICKED, tally, reporting),
        channels=channels,
        hours=tuple(_hour_lines(tally)),
        rounds=tuple(_rung_lines(tally)),
        buttons=tuple(_button_lines(broadcast.message, tally)),
        reasons=tuple(_reason_lines(tally)),
        possibly_doubled=tally.get("doubled", 0),
        deliveries_removed_at=broadcast.deliveries_removed_at,
    )


def deliveries(tally: Tally) -> dict[DeliveryState, int]:
    """How many deliveries stand in each state, over all channels; every state is there."""
    counts = dict.fromkeys(DeliveryState, 0)
    for (_, state), number in _under("state", tally):
        counts[DeliveryState(state)] += number
    return counts


def begun(tally: Tally) -> int:
    """How many deliveries are begun (`BEGUN_STATES`), over all channels; of sums of deltas, how many more."""
    states = deliveries(tally)
    return sum(states[state] for state in BEGUN_STATES)


def progress(tally: Tally) -> float:
    """The share of deliveries that has an end, to the hundredth: 1.0 when all have, 0.0 before any is planned."""
    states = deliveries(tally)
    planned = sum(states.values())
    still_open = sum(states[state] for state in OPEN_STATES)
    if not planned or not still_open:
        return float(bool(planned))
    return min(round((planned - still_open) / planned, 2), 0.99)


# --- lines --------------------------------------------------------------------------------------------


def _under(head: str, tally: Tally) -> Iterator[tuple[tuple[str, ...], int]]:
    """The counters whose path begins with `head`: the rest of the path, and the count."""
    for path, number in tally.items():
        first, *rest = path.split("/")
        if first == head:
            yield tuple(rest), number


def _channel_lines(tally: Tally, reporting: Reporting) -> Iterator[ChannelLine]:
    """A line for each channel that anything was planned on. Who had no conversation is on none: see the reasons."""
    used = {name for (name, _), number in _under("state", tally) if number and name != NO_CHANNEL}
    for channel in sorted(ChannelName(name) for name in used):
        states = {state: tally.get(f"state/{channel}/{state}", 0) for state in DeliveryState}
        yield ChannelLine(
            channel=channel,
            planned=sum(states.values()),
            sent=states[DeliveryState.SENT],
            failed=states[DeliveryState.FAILED],
            unscheduled=states[DeliveryState.UNSCHEDULED],
            skipped=states[DeliveryState.SKIPPED],
            delivered=_over([channel], EventType.DELIVERED, tally, reporting),
            read=_over([channel], EventType.READ, tally, reporting),
            clicked=_over([channel], EventType.CLICKED, tally, reporting),
        )


def _over(channels: list[ChannelName], type: EventType, tally: Tally, reporting: Reporting) -> Signal | None:
    """What came back of one type over those of the channels that can tell; ``None`` where none of them can."""
    able = [channel for channel in channels if _tells(channel, type, reporting)]
    if not able:
        return None
    return Signal(
        people=sum(tally.get(f"event/{type}/{channel}/people", 0) for channel in able),
        total=sum(tally.get(f"event/{type}/{channel}/total", 0) for channel in able),
        reported_by=sum(tally.get(f"state/{channel}/{DeliveryState.SENT}", 0) for channel in able),
    )


def _tells(channel: ChannelName, type: EventType, reporting: Reporting) -> bool:
    if type is EventType.CLICKED:
        return True  # links lead through us and presses come back to us, whatever the platform reports
    features = reporting.get(channel)
    if features is None:
        return False
    return features.reports_read if type is EventType.READ else features.reports_delivered


def _hour_lines(tally: Tally) -> Iterator[HourLine]:
    for hour in sorted({hour for (hour, _), number in _under("hour", tally) if number}):
        sent, clicked = (tally.get(f"hour/{hour}/{what}", 0) for what in ("sent", "clicked"))
        yield HourLine(datetime.fromisoformat(hour), sent, clicked)


_TRIED = ("attempts", "sent", "absent")


def _rung_lines(tally: Tally) -> Iterator[RungLine]:
    """In the order in which they are climbed."""
    order = list(Rung)
    tried = {(int(round), Rung(rung)) for (round, rung, _), number in _under("round", tally) if number}
    for round, rung in sorted(tried, key=lambda one: (one[0], order.index(one[1]))):
        attempts, sent, absent = (tally.get(f"round/{round}/{rung}/{what}", 0) for what in _TRIED)
        yield RungLine(round, rung, attempts, sent, absent)


def _button_lines(message: Message, tally: Tally) -> Iterator[ButtonLine]:
    """Every button of the message, those of its variants after its own; one that nobody pressed has zeros."""
    for button in _buttons(message).values():
        people, total = (tally.get(f"button/{button.id}/{what}", 0) for what in ("people", "total"))
        yield ButtonLine(button.id, button.type, button.label, people, total)


def _buttons(message: Message) -> dict[str, Button]:
    """By id. A button that variants repeat is shown as the message itself has it."""
    found = {button.id: button for button in message.buttons}
    for variant in message.variants.values():
        for button in variant.buttons or ():
            found.setdefault(button.id, button)
    return found


def _reason_lines(tally: Tally) -> Iterator[ReasonLine]:
    """In the order of states, the commonest reason of each first."""
    order = list(DeliveryState)
    found = [
        ReasonLine(DeliveryState(state), Reason(reason), number)
        for (state, reason), number in _under("reason", tally)
        if number
    ]
    yield from sorted(found, key=lambda line: (order.index(line.state), -line.people, line.reason))
