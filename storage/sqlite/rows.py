"""Rows and values, by hand: this is the hot path. The order of the columns is that of the dataclasses' fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import orjson

from broadcast.evolve import maker
from broadcast.model import (
    Attempt,
    Broadcast,
    ChannelName,
    Conversation,
    ConversationState,
    Delivery,
    DeliveryState,
    Event,
    EventType,
    Outcome,
    Reason,
    Receipt,
    Recipient,
    Rung,
)
from broadcast.ports import ApiToken, Due, Known
from storage import changes
from storage.codec import instant, instant_or_none, json_text, micros, micros_or_none, undecodable

Row = Sequence[Any]
T = TypeVar("T")

# One of each for every send or callback: see `evolve` on why they are not made by their constructors.
_make_delivery = maker(Delivery)
_make_recipient = maker(Recipient)
_make_conversation = maker(Conversation)
_make_due = maker(Due)
_make_known = maker(Known)

_CHANNEL = {str(member): member for member in ChannelName}
_CHANNELS: dict[str | None, ChannelName | None] = {None: None} | {str(member): member for member in ChannelName}
_REASONS: dict[str | None, Reason | None] = {None: None, **{str(member): member for member in Reason}}
_STATES = {str(member): member for member in DeliveryState}
_RUNGS = {str(member): member for member in Rung}
_REACH = {str(member): member for member in ConversationState}

#: A delivery with a note of its intent is in `sending`, whatever its own row says (see the schema).
LEDGER = "deliveries d LEFT JOIN sending s ON s.key = d.key"
STATE = "CASE WHEN s.key IS NULL THEN d.state ELSE 'sending' END"
DELIVERY = (
    f"d.id, d.broadcast, d.recipient, d.position, d.channel, d.account, d.conversation, {STATE}, d.reason, "
    "d.round, d.rung, d.due_at, d.attempts, coalesce(s.sends, d.sends), d.tries, d.throttles, "
    "CASE WHEN s.key IS NULL THEN d.rung_at ELSE s.rung_at END, d.attempted_at, d.ended_at, "
    "d.sent_at, d.delivered_at, d.read_at, d.clicked_at, d.platform_message_id, d.possibly_doubled"
)
RECIPIENT = (
    "r.id, r.external_id, r.email, r.first_name, r.last_name, r.locale, r.timezone, r.country, r.main_channel, "
    "r.doc, r.unsubscribed_at, r.created_at"
)
CONVERSATION = "c.id, c.account, c.channel, c.recipient, c.user_id, c.reference, c.state, c.last_seen"

_WIDTH_D, _WIDTH_R, _WIDTH_C = 25, 12, 8


def _named(kind: str) -> Callable[[Callable[[Row], T]], Callable[[Row], T]]:
    """A row that cannot be read is told by name; the rows beside it are not harmed."""

    def around(read: Callable[[Row], T]) -> Callable[[Row], T]:
        @wraps(read)
        def named(row: Row) -> T:
            try:
                return read(row)
            except (KeyError, ValueError, TypeError) as error:
                raise undecodable(kind, row[0]) from error

        return named

    return around


@_named("delivery")
def delivery(row: Row) -> Delivery:
    return _make_delivery(
        row[0],
        row[1],
        row[2],
        row[3],
        _CHANNELS[row[4]],
        row[5],
        row[6],
        _STATES[row[7]],
        _REASONS[row[8]],
        row[9],
        _RUNGS[row[10]],
        None if row[11] is None else instant(row[11]),
        row[12],
        row[13],
        row[14],
        row[15],
        None if row[16] is None else instant(row[16]),
        None if row[17] is None else instant(row[17]),
        None if row[18] is None else instant(row[18]),
        None if row[19] is None else instant(row[19]),
        None if row[20] is None else instant(row[20]),
        None if row[21] is None else instant(row[21]),
        None if row[22] is None else instant(row[22]),
        row[23],
        bool(row[24]),
    )


def of_delivery(value: Delivery) -> Row:
    """What a new row of the ledger holds."""
    return (
        value.id,
        value.broadcast,
        value.recipient,
        value.position,
        value.channel and str(value.channel),
        value.account,
        value.conversation,
        own_state(value),
        *of_progress(value),
        *of_marks(value),
    )


def own_state(value: Delivery) -> str:
    """What the delivery's own row says of its state."""
    return str(DeliveryState.PLANNED if value.state is DeliveryState.SENDING else value.state)


def of_intent(key: int, value: Delivery) -> Row:
    """The note of an intent."""
    return key, value.account, value.sends, micros_or_none(value.rung_at)


def of_marks(value: Delivery) -> Row:
    """What events set on a delivery."""
    return micros_or_none(value.delivered_at), micros_or_none(value.read_at), micros_or_none(value.clicked_at)


def of_outcome(value: Delivery) -> Row:
    """State, reason, and since when."""
    return (
        own_state(value),
        value.reason and str(value.reason),
        micros_or_none(value.ended_at),
        micros_or_none(value.sent_at),
    )


def of_progress(value: Delivery) -> Row:
    """What the engine moves of a delivery beside its state."""
    return (
        value.reason and str(value.reason),
        value.round,
        str(value.rung),
        micros_or_none(value.due_at),
        value.attempts,
        value.sends,
        value.tries,
        value.throttles,
        micros_or_none(value.rung_at),
        micros_or_none(value.attempted_at),
        micros_or_none(value.ended_at),
        micros_or_none(value.sent_at),
        value.platform_message_id,
        value.possibly_doubled,
    )


@_named("recipient")
def recipient(row: Row) -> Recipient:
    doc = orjson.loads(row[9])
    return _make_recipient(
        row[0],
        row[1],
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        row[7],
        frozenset(doc["tags"]),
        frozenset(doc["lists"]),
        _CHANNELS[row[8]],
        {_CHANNEL[channel]: user_id for channel, user_id in doc["identities"].items()},
        doc["attributes"],
        instant_or_none(row[10]),
        instant_or_none(row[11]),
    )


def of_recipient(value: Recipient) -> Row:
    doc = {
        "tags": sorted(value.tags),
        "lists": sorted(value.lists),
        "identities": {str(channel): user_id for channel, user_id in value.identities.items()},
        "attributes": dict(value.attributes),
    }
    return (
        value.id,
        value.external_id,
        value.email,
        None if value.email is None else changes.fold(value.email),
        value.first_name,
        value.last_name,
        value.locale,
        value.timezone,
        value.country,
        value.main_channel and str(value.main_channel),
        json_text(doc),
        micros_or_none(value.created_at),
        changes.search_text(value),
    )


@_named("conversation")
def conversation(row: Row) -> Conversation:
    return _make_conversation(
        row[0],
        row[1],
        _CHANNEL[row[2]],
        row[3],
        row[4],
        orjson.loads(row[5]),
        _REACH[row[6]],
        instant_or_none(row[7]),
    )


def of_conversation(value: Conversation) -> Row:
    return (
        value.id,
        value.account,
        str(value.channel),
        value.recipient,
        value.user_id,
        json_text(dict(value.reference)),
        str(value.state),
        micros_or_none(value.last_seen),
    )


def due(row: Row) -> Due:
    """A row of `DELIVERY`, `RECIPIENT` and `CONVERSATION`."""
    return _make_due(
        delivery(row),
        recipient(row[_WIDTH_D : _WIDTH_D + _WIDTH_R]),
        conversation(row[_WIDTH_D + _WIDTH_R :]),
    )


def known(row: Row, named: str | None, broadcast: Broadcast | None) -> Known:
    """A row of `CONVERSATION`, `RECIPIENT` three times (its own, the one `named`, the one with the e-mail) and
    `DELIVERY`, each of which may be missing. One that is named and has the conversation is told once."""
    own, other, mailed, asked = (_WIDTH_C + _WIDTH_R * count for count in range(4))
    person = None if row[own] is None else recipient(row[own:other])
    return _make_known(
        None if row[0] is None else conversation(row),
        person,
        person if person is not None and named == person.id else _or_none(row[other:mailed]),
        _or_none(row[mailed:asked]),
        None if row[asked] is None else delivery(row[asked:]),
        broadcast,
    )


def _or_none(row: Row) -> Recipient | None:
    return None if row[0] is None else recipient(row)


def with_recipient(row: Row) -> tuple[Delivery, Recipient]:
    """A row of `DELIVERY` and, where the person is still known, `RECIPIENT`."""
    known = row[_WIDTH_D] is not None
    return delivery(row), recipient(row[_WIDTH_D:]) if known else Recipient(row[2])


def of_attempt(value: Attempt) -> Row:
    return (micros(value.at), value.round, str(value.rung), str(value.outcome), value.detail)


@_named("attempt of delivery")
def attempt(row: Row) -> Attempt:
    return Attempt(row[0], instant(row[1]), row[2], _RUNGS[row[3]], Outcome(row[4]), row[5])


@_named("event")
def event(row: Row) -> Event:
    return Event(row[0], row[1], EventType(row[2]), instant(row[3]), row[4], row[5])


@_named("receipt of account")
def receipt(row: Row) -> Receipt:
    return Receipt(row[0], row[1], EventType(row[2]), row[3], instant(row[4]), bool(row[5]), row[6])


def of_receipt(value: Receipt) -> Row:
    return (
        value.account,
        value.user_id,
        str(value.type),
        value.message_id,
        micros(value.at),
        value.up_to,
        value.detail,
    )


@_named("token")
def token(row: Row) -> ApiToken:
    return ApiToken(row[0], row[1], row[2], row[3], instant(row[4]))
