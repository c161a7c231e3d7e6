"""What came in: inbound keys, events, receipts.

An event always writes its delivery, even where it changes nothing of it, and so does a receipt that must wait: of
two transactions that speak of one delivery, the second then sees what the first did, or begins anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId

from broadcast import tracking
from broadcast.model import OPEN_STATES, Conversation, Delivery, Event, EventType, Receipt
from storage import changes
from storage.codec import micros
from storage.mongo import documents
from storage.mongo.base import Base, among
from storage.mongo.connection import Change, Connection, Unit, change, change_where

_TOUCH = {"$inc": {"touched": 1}}


class Inbox(Base):
    """Calls that come while another is being written share its transaction with the next ones (`Together`)."""

    def __init__(self, connection: Connection, *, wall: Callable[[], float] | None) -> None:
        super().__init__(connection, wall=wall)
        self._keys = self._together(self._note_keys, "mongo inbound keys")
        self._events = self._together(self._add_events, "mongo events")
        self._receipts = self._together(self._add_receipts, "mongo receipts")

    async def was_seen(self, account: str, key: str) -> bool:
        return await self._read(lambda db: db.one("inbound", {"_id": _inbound(account, key)})) is not None

    async def first_time(self, account: str, key: str, at: datetime) -> bool:
        return await self._keys.call({"_id": _inbound(account, key), "at": micros(at)})

    async def _note_keys(self, documents: Sequence[dict[str, Any]]) -> list[bool]:
        return await self._read(lambda db: db.insert_those_new("inbound", documents))

    async def add_events(self, events: Sequence[Event]) -> int:
        return await self._events.call(events) if events else 0

    async def _add_events(self, calls: Sequence[Sequence[Event]]) -> list[int]:
        every = [event for events in calls for event in events]
        new = await self._write(lambda unit: add_events(unit, every))
        return [_claimed(events, new) for events in calls]

    async def add_receipts(self, receipts: Sequence[Receipt]) -> None:
        if receipts:
            await self._receipts.call(receipts)

    async def _add_receipts(self, calls: Sequence[Sequence[Receipt]]) -> list[None]:
        every = [receipt for receipts in calls for receipt in receipts]
        await self._write(lambda unit: _add_receipts(unit, every))
        return [None for _ in calls]


def _inbound(account: str, key: str) -> dict[str, str]:
    return {"account": account, "key": key}


def _claimed(events: Sequence[Event], new: set[str]) -> int:
    """How many of the new keys are of this call: each is of the first that had it."""
    mine = {event.key for event in events} & new
    new -= mine
    return len(mine)


async def add_events(unit: Unit, events: Iterable[Event]) -> set[str]:
    """Those whose key is new and whose delivery is known; answers their keys."""
    given = {event.key: event for event in reversed([*events])}
    known = await unit.all("events", {"_id": among(given)}, {"_id": True})
    new = [event for event in reversed(given.values()) if event.key not in {one["_id"] for one in known}]
    return await _Noting(unit).run(new) if new else set()


class _Noting:
    """New events on their way to their deliveries, in order."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._before: dict[str, Delivery] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._buttons: dict[tuple[str, EventType], set[str | None]] = defaultdict(set)
        self._new: list[dict[str, Any]] = []

    async def run(self, events: Sequence[Event]) -> set[str]:
        await self._load(events)
        for event in events:
            if event.delivery in self._deliveries:
                self._note(event)
        await self._write()
        return {document["_id"] for document in self._new}

    async def _load(self, events: Sequence[Event]) -> None:
        whose = among({event.delivery for event in events})
        found = await self._unit.all("deliveries", {"_id": whose}, documents.DELIVERY)
        self._before = {document["_id"]: documents.delivery(document) for document in found}
        self._deliveries = dict(self._before)
        for one in await self._unit.all("events", {"delivery": whose}):
            self._buttons[one["delivery"], EventType(one["type"])].add(one["button"])

    def _note(self, event: Event) -> None:
        before = self._deliveries[event.delivery]
        earlier = self._buttons[event.delivery, event.type]
        on_button = event.type is EventType.CLICKED and event.button not in earlier
        noted = changes.noted(before, event, first=not earlier, first_on_button=on_button)
        self._unit.tally(before.broadcast, noted.deltas)
        self._deliveries[event.delivery] = noted.delivery
        earlier.add(event.button)
        self._new.append({**documents.of_event(event), "order": ObjectId()})

    async def _write(self) -> None:
        touched = dict.fromkeys(document["delivery"] for document in self._new)
        await self._unit.change("deliveries", [change(id, self._update(id)) for id in touched])
        await self._unit.insert("events", self._new)

    def _update(self, id: str) -> Mapping[str, Any]:
        after = self._deliveries[id]
        if after is self._before[id]:
            return _TOUCH
        return {**_TOUCH, "$set": {**documents.of_outcome(after), **documents.of_marks(after)}}


async def _add_receipts(unit: Unit, receipts: Sequence[Receipt]) -> None:
    who = {(receipt.account, receipt.user_id) for receipt in receipts}
    named = [{"account": account, "user_id": user_id} for account, user_id in who]
    found = map(documents.conversation, await unit.all("conversations", {"$or": named}))
    conversations = {(one.account, one.user_id): one for one in found}
    spoken = [
        (receipt, conversations[receipt.account, receipt.user_id])
        for receipt in receipts
        if (receipt.account, receipt.user_id) in conversations
    ]
    await _apply(unit, spoken)
    await _keep_waiting(unit, spoken)


async def _apply(unit: Unit, spoken: Sequence[tuple[Receipt, Conversation]]) -> None:
    """To every delivery that each covers, in order of id."""
    places = among({conversation.id for _, conversation in spoken})
    sent = {"conversation": places, "platform_message_id": {"$ne": None}}
    on: dict[str | None, list[Delivery]] = defaultdict(list)
    found = map(documents.delivery, await unit.all("deliveries", sent, documents.DELIVERY))
    for delivery in sorted(found, key=lambda one: one.id):
        on[delivery.conversation].append(delivery)
    events = [
        tracking.event_of(receipt, delivery)
        for receipt, conversation in spoken
        for delivery in on[conversation.id]
        if tracking.covers(receipt, delivery)
    ]
    if events:
        await add_events(unit, events)


async def _keep_waiting(unit: Unit, spoken: Sequence[tuple[Receipt, Conversation]]) -> None:
    still_open = await _open(unit, {conversation.id for _, conversation in spoken})
    if not still_open:
        return
    await unit.update_many("deliveries", {"_id": among(still_open)}, _TOUCH)
    places = {*still_open.values()}
    await unit.change("waiting", [_waits(*one) for one in spoken if one[1].id in places])


def _waits(receipt: Receipt, conversation: Conversation) -> Change:
    """The first of those that say the same is kept."""
    document = {**documents.of_receipt(receipt), "conversation": conversation.id}
    once = {name: document.pop(name) for name in ("conversation", "type", "message_id", "up_to")}
    return change_where(once, {"$setOnInsert": document}, upsert=True)


async def _open(unit: Unit, conversations: Iterable[str]) -> dict[str, str]:
    """The open deliveries on these conversations, each with its conversation."""
    wanted = {"conversation": among(conversations), "state": among(sorted(OPEN_STATES))}
    found = await unit.all("deliveries", wanted, {"conversation": True})
    return {document["_id"]: document["conversation"] for document in found}


async def apply_waiting(unit: Unit, conversations: Iterable[str]) -> None:
    """What came before the outcomes just recorded on these conversations; forgotten once nothing is open there."""
    kept = await unit.all("waiting", {"conversation": among(conversations)}, sort=[("_id", 1)])
    waited_on = {document["conversation"] for document in kept}
    found = await unit.all("conversations", {"_id": among(waited_on)})
    known = {document["_id"]: documents.conversation(document) for document in found}
    receipts = [
        (documents.receipt(one), known[one["conversation"]]) for one in kept if one["conversation"] in known
    ]
    await _apply(unit, receipts)
    settled = waited_on - {*(await _open(unit, waited_on)).values()}
    await unit.delete_many("waiting", {"conversation": among(settled)})
