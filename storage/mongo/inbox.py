"""What came in: inbound keys, events, receipts.

An event always writes its delivery, even where it changes nothing of it, and so does a receipt that must wait: of
two transactions that speak of one delivery, the second then sees what the first did, or begins anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from bson import ObjectId

from broadcast import tracking
from broadcast.model import OPEN_STATES, Conversation, Delivery, Event, EventType, Receipt, Recipient
from broadcast.ports import Inbound, Known, Turn
from storage import changes, codec
from storage.arrivals import Arrival, apart
from storage.codec import BROADCAST, micros
from storage.mongo import documents
from storage.mongo.base import Base, among
from storage.mongo.connection import Change, Connection, Unit, change, change_where
from storage.mongo.people import save_conversations, save_recipients, set_unsubscribed
from storage.mongo.skipping import mark

T = TypeVar("T")

_TOUCH = {"$inc": {"touched": 1}}


class Inbox(Base):
    """Calls that come while another is being written share its transaction with the next ones (`Together`)."""

    def __init__(self, connection: Connection, *, wall: Callable[[], float] | None) -> None:
        super().__init__(connection, wall=wall)
        self._arrivals = self._together(self._take_in, "mongo inbounds")
        self._events = self._together(self._add_events, "mongo events")
        self._receipts = self._together(self._add_receipts, "mongo receipts")

    async def take_in(
        self, inbound: Inbound, decide: Callable[[Known], Turn[T]], *, at: datetime, delivery: str | None = None
    ) -> T | None:
        answer: T | None = await self._arrivals.call(Arrival(inbound, decide, at, delivery))
        return answer

    async def _take_in(self, arrivals: Sequence[Arrival]) -> list[Any]:
        return await self._write(lambda unit: _take_in(unit, arrivals))

    async def was_seen(self, account: str, key: str) -> bool:
        return await self._read(lambda db: db.one("inbound", {"_id": _inbound(account, key)})) is not None

    async def first_time(self, account: str, key: str, at: datetime) -> bool:
        document = {"_id": _inbound(account, key), "at": micros(at)}
        return await self._finish(self._read(lambda db: db.insert_new("inbound", document)))

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


# --- what people do -----------------------------------------------------------------------------------


async def _take_in(unit: Unit, arrivals: Sequence[Arrival]) -> list[Any]:
    """All that can be decided on one reading are read, decided and written together; then those that are left."""
    answers: list[Any] = []
    while len(answers) < len(arrivals):
        left = arrivals[len(answers) :]
        known = await _known(unit, left)
        now = left[: apart(left, known)]
        turns = [
            None if knows is None else (arrival, knows, arrival.decide(knows))
            for arrival, knows in zip(now, known, strict=False)
        ]
        await _write_turns(unit, [turn for turn in turns if turn is not None])
        answers += [None if turn is None else turn[2].answer for turn in turns]
    return answers


async def _known(unit: Unit, arrivals: Sequence[Arrival]) -> list[Known | None]:
    """``None``: the key is noted."""
    inbounds = [arrival.inbound for arrival in arrivals]
    keys = [_inbound(one.account, one.key) for one in inbounds]
    found = await unit.all("inbound", {"_id": {"$in": keys}})
    noted = {(one["_id"]["account"], one["_id"]["key"]) for one in found}
    who = [{"account": one.account, "user_id": one.person.user_id} for one in inbounds]
    places = [documents.conversation(one) for one in await unit.all("conversations", {"$or": who})]
    people = await _people(unit, arrivals, places)
    wanted = {arrival.delivery for arrival in arrivals if arrival.delivery is not None}
    deliveries = await _by_id(unit, "deliveries", wanted, documents.DELIVERY)
    broadcasts = await _by_id(unit, "broadcasts", {one["broadcast"] for one in deliveries.values()})
    place_of = {(one.account, one.user_id): one for one in places}

    def knows(arrival: Arrival) -> Known:
        one = arrival.inbound
        place = place_of.get((one.account, one.person.user_id))
        delivery = deliveries.get(arrival.delivery or "")
        broadcast = broadcasts.get(delivery["broadcast"]) if delivery else None
        named, mailed = (next((people[name] for name in some if name in people), None) for some in _names(arrival))
        return Known(
            place,
            people.get(f"_id {place.recipient}") if place else None,
            named,
            mailed,
            documents.delivery(delivery) if delivery else None,
            BROADCAST.decode(broadcast["_id"], broadcast["doc"]) if broadcast else None,
        )

    return [
        None if (arrival.inbound.account, arrival.inbound.key) in noted else knows(arrival) for arrival in arrivals
    ]


async def _people(unit: Unit, arrivals: Sequence[Arrival], places: Iterable[Conversation]) -> dict[str, Recipient]:
    """By id and by every name."""
    names = among({name for arrival in arrivals for some in _names(arrival) for name in some})
    wanted = {"$or": [{"_id": among({place.recipient for place in places})}, {"names": names}]}
    found: dict[str, Recipient] = {}
    for document in await unit.all("recipients", wanted):
        person = documents.recipient(document)
        found |= dict.fromkeys([f"_id {person.id}", *document.get("names", ())], person)
    return found


def _names(arrival: Arrival) -> tuple[list[str], list[str]]:
    """What names the person by channel id, and by e-mail."""
    person = arrival.inbound.person
    by_id = Recipient("", identities={arrival.inbound.channel: person.user_id})
    return documents.names(by_id), documents.names(Recipient("", email=person.email))


async def _by_id(
    unit: Unit, collection: str, ids: Iterable[str], fields: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    wanted = among(ids)
    found = await unit.all(collection, {"_id": wanted}, fields) if wanted["$in"] else []
    return {document["_id"]: document for document in found}


async def _write_turns(unit: Unit, turns: Sequence[tuple[Arrival, Known, Turn[Any]]]) -> None:
    """Of as many people as there are turns. The keys come first: who is told of one again waits here."""
    if not turns:
        return
    noted = [{"_id": _inbound(one.inbound.account, one.inbound.key), "at": micros(one.at)} for one, _, _ in turns]
    await unit.insert("inbound", noted)
    told = {turn.recipient.id: turn.recipient for _, _, turn in turns if turn.recipient is not None}
    if told:
        await save_recipients(unit, told)
    for arrival, _, turn in turns:
        if turn.unsubscribed is not None:
            at = arrival.at if turn.unsubscribed else None
            await set_unsubscribed(unit, turn.conversation.recipient, at)
    given = [turn.conversation for _, _, turn in turns]
    await save_conversations(unit, [replace(one, reference=codec.json_copy(one.reference)) for one in given])
    for arrival, knows, turn in turns:
        if turn.mark is not None:
            await mark(unit, (knows.conversation or turn.conversation).id, turn.mark, arrival.at)
    clicks = [turn.click for _, _, turn in turns if turn.click is not None]
    if clicks:
        await add_events(unit, clicks)


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
