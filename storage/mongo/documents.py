"""Documents and values, by hand: this is the hot path. What is ``None`` is left out of a new document.

Instants are whole microseconds since 1970, closed sets are their words, and what belongs to a channel or a campaign
alone is JSON text: nothing that MongoDB could read as its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import orjson

from broadcast.evolve import maker
from broadcast.model import (
    Attempt,
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
from broadcast.ports import ApiToken
from storage import changes
from storage.codec import instant, instant_or_none, json_text, micros, micros_or_none, undecodable

Document = Mapping[str, Any]
T = TypeVar("T")

_delivery_of = maker(Delivery)
_recipient_of = maker(Recipient)
_conversation_of = maker(Conversation)

_CHANNELS: dict[str | None, ChannelName | None] = {None: None, **{str(member): member for member in ChannelName}}
_REASONS: dict[str | None, Reason | None] = {None: None, **{str(member): member for member in Reason}}
_STATES = {str(member): member for member in DeliveryState}
_RUNGS = {str(member): member for member in Rung}
_REACH = {str(member): member for member in ConversationState}

#: A delivery without the lines of its timeline.
DELIVERY = {"lines": False, "touched": False, "claim": False}


def _named(kind: str) -> Callable[[Callable[[Document], T]], Callable[[Document], T]]:
    """A document that cannot be read is told by name; those beside it are not harmed."""

    def around(read: Callable[[Document], T]) -> Callable[[Document], T]:
        @wraps(read)
        def named(document: Document) -> T:
            try:
                return read(document)
            except (KeyError, ValueError, TypeError) as error:
                raise undecodable(kind, document["_id"]) from error

        return named

    return around


def _without_none(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}


def _word(value: str | None) -> str | None:
    return None if value is None else str(value)


@_named("delivery")
def delivery(document: Document) -> Delivery:
    """While it is being sent, what its intent wrote holds; what was before is under it, for an intent that is put
    back."""
    get = document.get
    begun = document.get("intent", document) if document["state"] == "sending" else document
    return _delivery_of(
        document["_id"],
        document["broadcast"],
        document["recipient"],
        document["position"],
        _CHANNELS[get("channel")],
        get("account"),
        get("conversation"),
        _STATES[document["state"]],
        _REASONS[get("reason")],
        document["round"],
        _RUNGS[document["rung"]],
        instant_or_none(get("due_at")),
        document["attempts"],
        begun["sends"],
        document["tries"],
        document["throttles"],
        instant_or_none(begun.get("rung_at")),
        instant_or_none(get("attempted_at")),
        instant_or_none(get("ended_at")),
        instant_or_none(get("sent_at")),
        instant_or_none(get("delivered_at")),
        instant_or_none(get("read_at")),
        instant_or_none(get("clicked_at")),
        get("platform_message_id"),
        document.get("possibly_doubled", False),
    )


def of_delivery(value: Delivery) -> dict[str, Any]:
    """What a new delivery of the ledger holds."""
    return _without_none(
        {
            "_id": value.id,
            **_of_plan(value),
            **of_progress(value),
            **of_marks(value),
            "turn": micros_or_none(value.due_at),
        }
    )


def of_begun(value: Delivery) -> dict[str, Any]:
    """What is stored of one whose intent was written, as far as its outcome asks: without what the intent keeps."""
    document = of_progress(value)
    del document["sends"], document["rung_at"]
    return document | _of_plan(value) | {"state": str(DeliveryState.SENDING)}


def _of_plan(value: Delivery) -> dict[str, Any]:
    """What never changes of a delivery but by an erasure."""
    return {
        "broadcast": value.broadcast,
        "recipient": value.recipient,
        "position": value.position,
        "channel": _word(value.channel),
        "account": value.account,
        "conversation": value.conversation,
    }


def of_turn(value: Delivery) -> dict[str, Any]:
    """By what it is found when due. What ends keeps it, so that an end writes no index."""
    return {"turn": micros_or_none(value.due_at)} if value.state is DeliveryState.PLANNED else {}


def of_progress(value: Delivery) -> dict[str, Any]:
    """What the engine moves of a delivery."""
    return {
        "state": str(value.state),
        "reason": _word(value.reason),
        "round": value.round,
        "rung": str(value.rung),
        "due_at": micros_or_none(value.due_at),
        "attempts": value.attempts,
        "sends": value.sends,
        "tries": value.tries,
        "throttles": value.throttles,
        "rung_at": micros_or_none(value.rung_at),
        "attempted_at": micros_or_none(value.attempted_at),
        "ended_at": micros_or_none(value.ended_at),
        "sent_at": micros_or_none(value.sent_at),
        "platform_message_id": value.platform_message_id,
        "possibly_doubled": value.possibly_doubled,
    }


def of_outcome(value: Delivery) -> dict[str, Any]:
    """State, reason, and since when."""
    return {
        "state": str(value.state),
        "reason": _word(value.reason),
        "ended_at": micros_or_none(value.ended_at),
        "sent_at": micros_or_none(value.sent_at),
    }


def of_marks(value: Delivery) -> dict[str, Any]:
    """What events set on a delivery."""
    return {
        "delivered_at": micros_or_none(value.delivered_at),
        "read_at": micros_or_none(value.read_at),
        "clicked_at": micros_or_none(value.clicked_at),
    }


@_named("recipient")
def recipient(document: Document) -> Recipient:
    get = document.get
    return _recipient_of(
        document["_id"],
        get("external_id"),
        get("email"),
        get("first_name"),
        get("last_name"),
        get("locale"),
        get("timezone"),
        get("country"),
        frozenset(document["tags"]),
        frozenset(document["lists"]),
        _CHANNELS[get("main_channel")],
        {ChannelName(one["channel"]): one["user_id"] for one in document["identities"]},
        {one["name"]: one["value"] for one in document["attributes"]},
        instant_or_none(get("unsubscribed_at")),
        instant_or_none(get("created_at")),
    )


def names(value: Recipient) -> list[str]:
    """What names one recipient only, in the order in which it is looked for."""
    found = [] if value.external_id is None else [f"external_id:{value.external_id}"]
    if value.email is not None:
        found.append(f"email:{changes.fold(value.email)}")
    return found + [f"{channel}:{user_id}" for channel, user_id in value.identities.items()]


def of_recipient(value: Recipient) -> dict[str, Any]:
    """All but the id and `unsubscribed_at`; ``None`` stays, to replace what was there."""
    return {
        "names": names(value) or None,
        "external_id": value.external_id,
        "email": value.email,
        "first_name": value.first_name,
        "last_name": value.last_name,
        "locale": value.locale,
        "timezone": value.timezone,
        "country": value.country,
        "tags": sorted(value.tags),
        "lists": sorted(value.lists),
        "main_channel": _word(value.main_channel),
        "identities": [{"channel": str(name), "user_id": id} for name, id in value.identities.items()],
        "attributes": [{"name": name, "value": text} for name, text in value.attributes.items()],
        "created_at": micros_or_none(value.created_at),
        "search": changes.search_text(value),
    }


@_named("conversation")
def conversation(document: Document) -> Conversation:
    return _conversation_of(
        document["_id"],
        document["account"],
        _CHANNELS[document["channel"]],
        document["recipient"],
        document["user_id"],
        orjson.loads(document["reference"]),
        _REACH[document["state"]],
        instant_or_none(document.get("last_seen")),
    )


def of_conversation(value: Conversation) -> dict[str, Any]:
    return {
        "account": value.account,
        "channel": str(value.channel),
        "recipient": value.recipient,
        "user_id": value.user_id,
        "reference": json_text(dict(value.reference)),
        "state": str(value.state),
        "last_seen": micros_or_none(value.last_seen),
    }


def of_attempt(value: Attempt) -> list[Any]:
    """A line of the timeline, as it is kept in its delivery."""
    return [micros(value.at), value.round, str(value.rung), str(value.outcome), value.detail]


@_named("timeline of delivery")
def attempts(document: Document) -> list[Attempt]:
    return [
        Attempt(document["_id"], instant(at), round, _RUNGS[rung], Outcome(outcome), detail)
        for at, round, rung, outcome, detail in document.get("lines", ())
    ]


@_named("event")
def event(document: Document) -> Event:
    return Event(
        document["_id"],
        document["delivery"],
        EventType(document["type"]),
        instant(document["at"]),
        document["button"],
        document["detail"],
    )


def of_event(value: Event) -> dict[str, Any]:
    return {
        "_id": value.key,
        "delivery": value.delivery,
        "type": str(value.type),
        "at": micros(value.at),
        "button": value.button,
        "detail": value.detail,
    }


@_named("receipt")
def receipt(document: Document) -> Receipt:
    return Receipt(
        document["account"],
        document["user_id"],
        EventType(document["type"]),
        document["message_id"],
        instant(document["at"]),
        document["up_to"],
        document["detail"],
    )


def of_receipt(value: Receipt) -> dict[str, Any]:
    return {
        "account": value.account,
        "user_id": value.user_id,
        "type": str(value.type),
        "message_id": value.message_id,
        "at": micros(value.at),
        "up_to": value.up_to,
        "detail": value.detail,
    }


@_named("token")
def token(document: Document) -> ApiToken:
    return ApiToken(
        document["_id"], document["hash"], document["role"], document["name"], instant(document["created_at"])
    )


def of_token(value: ApiToken) -> dict[str, Any]:
    return {"hash": value.hash, "role": value.role, "name": value.name, "created_at": micros(value.created_at)}
