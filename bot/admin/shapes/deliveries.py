"""Deliveries and their timelines as bodies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from bot.admin.shapes.common import (
    Count,
    Instant,
    Listed,
    Paged,
    Search,
    is_none,
    listed,
)
from bot.admin.validation import Query, Shape
from broadcast.model import (
    OPEN_STATES,
    Attempt,
    ChannelName,
    Delivery,
    DeliveryState,
    Event,
    EventType,
    Outcome,
    Reason,
    Recipient,
    Rung,
)


class DeliveryRecipient(Shape):
    id: str
    external_id: str | None
    name: str | None
    email: str | None


class DeliveryRow(Shape):
    """One recipient in one broadcast. `due_at` is null once nothing is due any more."""

    id: str
    broadcast: str
    state: DeliveryState
    reason: Reason | None
    recipient: DeliveryRecipient
    channel: ChannelName | None
    account: str | None
    round: int
    rung: Rung
    attempts: Count
    sends: Count
    due_at: Instant | None
    sent_at: Instant | None
    delivered_at: Instant | None
    read_at: Instant | None
    clicked_at: Instant | None
    platform_message_id: str | None
    possibly_doubled: bool


class DeliveryList(Listed):
    items: list[DeliveryRow]


class TimelineEntry(Shape):
    """An `attempt` with its round, rung and outcome, or an event by its type."""

    at: Instant
    type: Literal["attempt"] | EventType
    round: int | None = Field(default=None, exclude_if=is_none)
    rung: Rung | None = Field(default=None, exclude_if=is_none)
    outcome: Outcome | None = Field(default=None, exclude_if=is_none)
    button: str | None = Field(default=None, exclude_if=is_none)
    detail: str | None


class DeliveryOut(DeliveryRow):
    timeline: list[TimelineEntry]


def delivery_row(delivery: Delivery, recipient: Recipient) -> DeliveryRow:
    return DeliveryRow(
        id=delivery.id,
        broadcast=delivery.broadcast,
        state=delivery.state,
        reason=delivery.reason,
        recipient=DeliveryRecipient(
            id=recipient.id,
            external_id=recipient.external_id,
            name=recipient.name or None,
            email=recipient.email,
        ),
        channel=delivery.channel,
        account=delivery.account,
        round=delivery.round,
        rung=delivery.rung,
        attempts=delivery.attempts,
        sends=delivery.sends,
        due_at=delivery.due_at if delivery.state in OPEN_STATES else None,
        sent_at=delivery.sent_at,
        delivered_at=delivery.delivered_at,
        read_at=delivery.read_at,
        clicked_at=delivery.clicked_at,
        platform_message_id=delivery.platform_message_id,
        possibly_doubled=delivery.possibly_doubled,
    )


def delivery_out(delivery: Delivery, recipient: Recipient, timeline: Iterable[Attempt | Event]) -> DeliveryOut:
    row = delivery_row(delivery, recipient)
    return DeliveryOut(**dict(row), timeline=[_entry(line) for line in timeline])


def _entry(line: Attempt | Event) -> TimelineEntry:
    if isinstance(line, Attempt):
        return TimelineEntry(
            at=line.at, type="attempt", round=line.round, rung=line.rung, outcome=line.outcome, detail=line.detail
        )
    return TimelineEntry(at=line.at, type=line.type, button=line.button, detail=line.detail)


class DeliveryFilterQuery(Query):
    """`state`, `reason` and `channel` may name several, with commas between."""

    state: Annotated[list[DeliveryState], BeforeValidator(listed)] = Field(default_factory=list)
    reason: Annotated[list[Reason], BeforeValidator(listed)] = Field(default_factory=list)
    channel: Annotated[list[ChannelName], BeforeValidator(listed)] = Field(default_factory=list)
    q: Search = ""


class DeliveryQuery(DeliveryFilterQuery, Paged):
    pass
