"""What Viber tells: from one callback to what a person did, or what became of a message."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from viberbot.api.event_type import EventType as Callback
from viberbot.api.user_profile import UserProfile
from viberbot.api.viber_requests import create_request

from bot.channels.viber import messages
from bot.channels.viber.account import ViberAccount
from bot.channels.webhook import BODY_LIMIT, Received, header
from broadcast.evolve import maker
from broadcast.model import ChannelName, EventType, Receipt
from broadcast.ports import Inbound, Person, Said
from broadcast.tracking import read_payload

log = structlog.get_logger(__name__)

SIGNATURE_HEADER = "X-Viber-Content-Signature"

#: What Viber is asked to report beside messages and subscriptions, which always come.
EVENTS = (
    Callback.DELIVERED,
    Callback.SEEN,
    Callback.FAILED,
    Callback.SUBSCRIBED,
    Callback.UNSUBSCRIBED,
    Callback.CONVERSATION_STARTED,
)


@dataclass(slots=True)
class _Event:
    """A callback that viberbot understood, with what is needed to tell of it."""

    account: ViberAccount
    request: Any
    at: datetime


def receive(account: ViberAccount, headers: Mapping[str, str], body: bytes, now: datetime) -> Received:
    """What a callback says, and how it is answered. Nothing is read before its signature is proven. One that is
    unknown, or is not shaped as documented, says nothing and is answered 200, else Viber repeats it for an hour."""
    if len(body) > BODY_LIMIT:
        return Received(status=413, refused="too_large")
    if not _signed(account, headers, body):
        return Received(status=403, refused="bad_signature")
    data = _read(body)
    try:
        return _told(account, data, now)
    except Exception as error:  # noqa: BLE001 - viberbot raises bare Exception for an unknown message type
        log.warning(
            "a callback could not be read",
            action="viber_callback_unreadable",
            account=account.key,
            why=type(error).__name__,
        )
        return Received()


def _signed(account: ViberAccount, headers: Mapping[str, str], body: bytes) -> bool:
    given = header(headers, SIGNATURE_HEADER)
    expected = hmac.digest(account.token.encode(), body, "sha256").hex()
    return hmac.compare_digest(given.lower().encode(errors="replace"), expected.encode())


def _told(account: ViberAccount, data: Mapping[str, Any], now: datetime) -> Received:
    """Raises for what is not shaped as documented."""
    name = data.get("event", "")
    if name in _RECEIPTS:
        return _receipt(account, data, now)
    if name in _TELLS:
        return _TELLS[name](_Event(account, create_request(dict(data)), _instant(data.get("timestamp"), now)))
    log.debug("a callback of no interest", action="viber_callback_ignored", account=account.key)
    return Received()


def _read(body: bytes) -> Mapping[str, Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) and isinstance(data.get("event"), str) else {}


def _instant(milliseconds: object, now: datetime) -> datetime:
    """Viber's time of the callback; ours where that is no time at all."""
    if not isinstance(milliseconds, int):
        return now
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return now


def _subscribed(event: _Event) -> Received:
    user = event.request.user
    return _deed(event, f"subscribed:{user.id}:{event.request.timestamp}", _person(user), Said.SUBSCRIBED)


def _unsubscribed(event: _Event) -> Received:
    user_id = event.request.user_id
    key = f"unsubscribed:{user_id}:{event.request.timestamp}"
    return _deed(event, key, _person(UserProfile(user_id=user_id)), Said.UNSUBSCRIBED)


def _opened(event: _Event) -> Received:
    """Somebody opened the chat: no subscription yet, and one welcome is allowed."""
    request = event.request
    return Received(
        body=messages.welcome(event.account),
        inbound=_deed(
            event,
            f"conversation_started:{request.message_token}",
            _person(request.user),
            Said.SEEN,
            start_payload=request.context or None,
        ).inbound,
    )


def _written(event: _Event) -> Received:
    request = event.request
    if request.chat_id is not None:  # written in some other chat, through an extension: not to this bot
        return Received()
    text = getattr(request.message, "text", None) or ""
    return _deed(
        event, f"message:{request.message_token}", _person(request.sender), _said(text, request), text=text
    )


def _said(text: str, request: Any) -> Said:
    """A pressed `reply` button arrives as text like any other: its payload gives it away. What is silent and an
    address is the echo of a pressed link."""
    if read_payload(text):
        return Said.PRESSED
    if not text or (request.silent and text.startswith(("http://", "https://"))):
        return Said.SEEN
    return Said.TEXT


def _deed(
    event: _Event, key: str, person: Person | None, said: Said, *, text: str = "", start_payload: str | None = None
) -> Received:
    if person is None:
        return Received()
    inbound = Inbound(
        key=key,
        account=event.account.key,
        channel=ChannelName.VIBER,
        person=person,
        said=said,
        at=event.at,
        text=text,
        start_payload=start_payload,
    )
    return Received(inbound=(inbound,))


def _person(user: Any) -> Person | None:
    """Viber knows one name: what comes before the first space is taken for the first."""
    if not isinstance(user.id, str) or not user.id:
        return None
    first, _, last = (user.name or "").strip().partition(" ")
    return Person(
        user_id=user.id,
        first_name=first or None,
        last_name=last.strip() or None,
        locale=user.language or None,
        country=user.country or None,
    )


#: One for every message that arrives: see `evolve` on why it is not made by its constructor.
_make_receipt = maker(Receipt)

#: What each says, and whether of every earlier message too: `seen` is reported once, when unread messages are read
#: (PLATFORMS D2).
_RECEIPTS: Mapping[str, tuple[EventType, bool]] = {
    Callback.DELIVERED: (EventType.DELIVERED, False),
    Callback.SEEN: (EventType.READ, True),
    Callback.FAILED: (EventType.FAILED, False),
}


def _receipt(account: ViberAccount, data: Mapping[str, Any], now: datetime) -> Received:
    """Read from the JSON itself: to make the library's objects of it took longer than all else here."""
    type, up_to = _RECEIPTS[data["event"]]
    told = _make_receipt(
        account.key,
        str(data["user_id"]),
        type,
        str(data["message_token"]),
        _instant(data["timestamp"], now),
        up_to,
        data.get("desc") or None,
    )
    return Received(receipts=(told,))


_TELLS: Mapping[str, Callable[[_Event], Received]] = {
    Callback.SUBSCRIBED: _subscribed,
    Callback.UNSUBSCRIBED: _unsubscribed,
    Callback.CONVERSATION_STARTED: _opened,
    Callback.MESSAGE: _written,
}
