"""What comes back, and which delivery it belongs to: receipts, pressed buttons, tracked links."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime

from broadcast.evolve import evolver, maker
from broadcast.model import Delivery, DeliveryState, Event, EventType, Reason, Receipt, move_delivery

#: What only somebody who got the message can do, or a platform that brought it. Each leaves its mark on the
#: delivery, so that it counts whatever came before it.
PROOFS = frozenset({EventType.DELIVERED, EventType.READ, EventType.CLICKED})
# For every receipt: see `evolve` on why they are not `replace` and the constructor.
_evolve = evolver(Delivery)
_make_event = maker(Event)
_MAC_BYTES = 12
_WORD = "[A-Za-z0-9_-]+"
_PAYLOAD = re.compile(rf"cl:({_WORD}):({_WORD})")
_TOKEN = re.compile(rf"({_WORD})\.({_WORD})\.({_WORD})")
_MESSAGE_NUMBER = re.compile("[0-9]{1,20}")


def covers(receipt: Receipt, delivery: Delivery) -> bool:
    """Whether the receipt speaks of this delivery of its conversation. With `up_to`, ids are numbers that grow
    with time: every id up to the one named is covered (PLATFORMS A6, D2)."""
    mine = delivery.platform_message_id
    if mine is None:
        return False
    if not (receipt.up_to and _MESSAGE_NUMBER.fullmatch(mine) and _MESSAGE_NUMBER.fullmatch(receipt.message_id)):
        return mine == receipt.message_id
    return int(mine) <= int(receipt.message_id)


def event_of(receipt: Receipt, delivery: Delivery) -> Event:
    """The event a receipt is for one delivery. Its key lets each delivery be delivered, read or failed once."""
    key = f"{receipt.type}:{delivery.id}"
    return _make_event(key, delivery.id, receipt.type, receipt.at, None, receipt.detail)


def applied(delivery: Delivery, event: Event) -> Delivery:
    """What an event means for its delivery, whatever the order they come in. The earliest of each kind counts; a
    late one never lowers a state; a proof that it arrived settles an `uncertain` one, and outweighs a platform's
    word that it `failed` after all (one device of a person may refuse what another shows)."""
    if event.type is EventType.FAILED:
        return _failed_late(delivery, event)
    noted = _noted(delivery, event)
    return _settled(noted, event) if event.type in PROOFS and _is_doubted(delivery) else noted


def _is_doubted(delivery: Delivery) -> bool:
    """Nobody knew, or the platform accepted it (`sent_at` tells) and changed its mind."""
    changed = delivery.state is DeliveryState.FAILED and delivery.sent_at is not None
    return changed or delivery.state is DeliveryState.UNCERTAIN


def _settled(delivery: Delivery, event: Event) -> Delivery:
    at = _sent_at(delivery, event)
    ended_at = at if delivery.state is DeliveryState.FAILED else delivery.ended_at
    return move_delivery(delivery, DeliveryState.SENT, sent_at=at, ended_at=ended_at, reason=None)


def _failed_late(delivery: Delivery, event: Event) -> Delivery:
    if delivery.state not in {DeliveryState.SENT, DeliveryState.UNCERTAIN}:
        return delivery
    if delivery.delivered_at or delivery.read_at or delivery.clicked_at:
        return delivery
    at = _sent_at(delivery, event)
    return move_delivery(delivery, DeliveryState.FAILED, reason=Reason.REFUSED, sent_at=at, ended_at=event.at)


def _sent_at(delivery: Delivery, event: Event) -> datetime:
    return delivery.sent_at or delivery.attempted_at or event.at


def _noted(delivery: Delivery, event: Event) -> Delivery:
    match event.type:
        case EventType.DELIVERED if _is_earlier(event, delivery.delivered_at):
            return _evolve(delivery, delivered_at=event.at)
        case EventType.READ if _is_earlier(event, delivery.read_at):
            return _evolve(delivery, read_at=event.at)
        case EventType.CLICKED if _is_earlier(event, delivery.clicked_at):
            return _evolve(delivery, clicked_at=event.at)
    return delivery


def _is_earlier(event: Event, known: datetime | None) -> bool:
    return known is None or event.at < known


@dataclass(frozen=True, slots=True)
class Press:
    """Which button of which delivery."""

    delivery: str
    button: str


def payload(press: Press) -> str:
    """What a `reply` button carries: at most 64 bytes (PLATFORMS C3). It can be forged by old clients: whoever
    reads it checks that the delivery went to the person who pressed, and that it has such a button."""
    return f"cl:{press.delivery}:{press.button}"


def read_payload(text: str) -> Press | None:
    """The press behind a payload; ``None`` for anything else that a person may send."""
    match = _PAYLOAD.fullmatch(text)
    return Press(match[1], match[2]) if match else None


class Links:
    """Signs tracked links. A token names delivery and button and is worthless without the signature; the target
    is looked up in the broadcast's frozen message, never taken from the token: no open redirect."""

    def __init__(self, *, secret: str, public_url: str) -> None:
        self._key = hashlib.blake2b(secret.encode(), digest_size=32, person=b"clarion-links").digest()
        self._base = public_url.rstrip("/") + "/r/"

    def url(self, press: Press) -> str:
        return f"{self._base}{press.delivery}.{press.button}.{self._mac(press)}"

    def read(self, token: str) -> Press | None:
        """The press behind a token that this installation signed, else ``None``. Compares in constant time."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        press = Press(match[1], match[2])
        return press if hmac.compare_digest(match[3], self._mac(press)) else None

    def _mac(self, press: Press) -> str:
        text = f"{press.delivery}.{press.button}".encode()
        digest = hashlib.blake2b(text, key=self._key, digest_size=_MAC_BYTES).digest()
        return base64.urlsafe_b64encode(digest).decode()
