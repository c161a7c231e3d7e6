"""What comes back, and which delivery it belongs to: receipts, pressed buttons, tracked links."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, replace

from broadcast.model import Delivery, DeliveryState, Event, EventType, Reason, Receipt, move_delivery

_PAYLOAD = "cl"
_MAC_BYTES = 12


def covers(receipt: Receipt, delivery: Delivery) -> bool:
    """Whether the receipt speaks of this delivery of its conversation. With `up_to`, ids are numbers that grow
    with time: every id up to the one named is covered (PLATFORMS A6, D2)."""
    mine = delivery.platform_message_id
    if mine is None:
        return False
    if not receipt.up_to or not (mine.isdigit() and receipt.message_id.isdigit()):
        return mine == receipt.message_id
    return int(mine) <= int(receipt.message_id)


def event_of(receipt: Receipt, delivery: Delivery) -> Event:
    """The event a receipt is for one delivery. Its key lets each delivery be delivered, read or failed once."""
    return Event(
        key=f"{receipt.type}:{delivery.id}",
        delivery=delivery.id,
        type=receipt.type,
        at=receipt.at,
        detail=receipt.detail,
    )


def applied(delivery: Delivery, event: Event) -> Delivery:
    """What an event means for its delivery. The first of each kind counts; a late one never lowers a state;
    anything that only somebody who got the message can do settles an `uncertain` one."""
    if event.type is EventType.FAILED:
        return _failed_late(delivery, event)
    noted = _noted(delivery, event)
    if delivery.state is DeliveryState.UNCERTAIN and noted is not delivery:
        return move_delivery(noted, DeliveryState.SENT, sent_at=delivery.attempted_at or event.at, reason=None)
    return noted


def _failed_late(delivery: Delivery, event: Event) -> Delivery:
    if delivery.state not in {DeliveryState.SENT, DeliveryState.UNCERTAIN}:
        return delivery
    if delivery.delivered_at or delivery.read_at or delivery.clicked_at:
        return delivery
    return move_delivery(delivery, DeliveryState.FAILED, reason=Reason.REFUSED, ended_at=event.at)


def _noted(delivery: Delivery, event: Event) -> Delivery:
    match event.type:
        case EventType.DELIVERED if delivery.delivered_at is None:
            return replace(delivery, delivered_at=event.at)
        case EventType.READ if delivery.read_at is None:
            return replace(delivery, read_at=event.at)
        case EventType.CLICKED if delivery.clicked_at is None:
            return replace(delivery, clicked_at=event.at)
    return delivery


@dataclass(frozen=True, slots=True)
class Press:
    """Which button of which delivery."""

    delivery: str
    button: str


def payload(press: Press) -> str:
    """What a `reply` button carries: at most 64 bytes (PLATFORMS C3). It can be forged by old clients: whoever
    reads it checks that the delivery went to the person who pressed."""
    return f"{_PAYLOAD}:{press.delivery}:{press.button}"


def read_payload(text: str) -> Press | None:
    """The press behind a payload; ``None`` for anything else that a person may send."""
    prefix, _, rest = text.partition(":")
    delivery, _, button = rest.partition(":")
    return Press(delivery, button) if prefix == _PAYLOAD and delivery and button else None


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
        head, _, mac = token.rpartition(".")
        delivery, _, button = head.partition(".")
        if not (delivery and button):
            return None
        press = Press(delivery, button)
        return press if hmac.compare_digest(mac.encode(), self._mac(press).encode()) else None

    def _mac(self, press: Press) -> str:
        text = f"{press.delivery}.{press.button}".encode()
        digest = hashlib.blake2b(text, key=self._key, digest_size=_MAC_BYTES).digest()
        return base64.urlsafe_b64encode(digest).decode()
