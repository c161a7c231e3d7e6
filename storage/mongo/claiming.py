"""What is due, and the intent to send it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId

from broadcast import tally
from broadcast.model import ChannelName, Delivery, DeliveryState, move_delivery
from broadcast.ports import Due
from storage.codec import micros_or_none
from storage.mongo import documents
from storage.mongo.base import among
from storage.mongo.connection import Access, Change, Document, Unit, change, change_where

Place = tuple[int, int, str]  # due_at, position, id

_ORDER = [("due_at", 1), ("position", 1), ("_id", 1)]
_TOGETHER = 100  # broadcasts read in one query: MongoDB merges up to 200 stretches of an index without sorting
_EVER = 2**62


async def due(
    db: Access, account: str, running: Sequence[str], *, last: int | None, after: Place | None, limit: int
) -> list[Due]:
    """Those of the broadcasts given whose person and conversation are known."""
    found: list[Due] = []
    while True:
        planned = await _planned(db, account, running, _EVER if last is None else last, after, limit)
        found += await known(db, planned)
        if len(found) >= limit or len(planned) < limit:
            return found[:limit]
        after = _place(planned[-1])


async def _planned(
    db: Access, account: str, every: Sequence[str], last: int, after: Place | None, limit: int
) -> list[dict[str, Any]]:
    """Broadcasts that do not run are never looked at."""
    found: list[dict[str, Any]] = []
    for begin in range(0, len(every), _TOGETHER):
        broadcasts = every[begin : begin + _TOGETHER]
        found += await _of_these(db, {"account": account, "broadcast": among(broadcasts)}, last, after, limit)
    return sorted(found, key=_place)[:limit] if len(every) > _TOGETHER else found


async def _of_these(
    db: Access, whose: Mapping[str, Any], last: int, after: Place | None, limit: int
) -> list[dict[str, Any]]:
    """Stretch by stretch, each read from the index in order, until there are enough."""
    found: list[dict[str, Any]] = []
    for stretch, order in stretches(last, after):
        if len(found) < limit:
            found += await db.all(
                "deliveries",
                {**whose, "state": "planned", **stretch},
                documents.DELIVERY,
                sort=order,
                limit=limit - len(found),
                hint="due",
            )
    return found


def stretches(last: int, after: Place | None) -> Iterator[tuple[dict[str, Any], Sequence[tuple[str, int]]]]:
    """What lies behind a place, as conditions that each are one stretch of the index, one after the other, each
    with what is left to order: MongoDB takes the index for an order only if that does not name what is fixed."""
    if after is None:
        yield {"due_at": {"$gte": -_EVER, "$lte": last}}, _ORDER
        return
    due_at, position, id = after
    if due_at <= last:
        yield {"due_at": due_at, "position": position, "_id": {"$gt": id}}, _ORDER[2:]
        yield {"due_at": due_at, "position": {"$gt": position}}, _ORDER[1:]
        yield {"due_at": {"$gt": due_at, "$lte": last}}, _ORDER


def _place(document: Mapping[str, Any]) -> Place:
    return document["due_at"], document["position"], document["_id"]


async def known(db: Access, found: Sequence[Mapping[str, Any]]) -> list[Due]:
    """With what an attempt needs to know; without those of whom that is not stored."""
    if not found:
        return []
    people = await db.all("recipients", {"_id": among({one["recipient"] for one in found})})
    places = await db.all(
        "conversations", {"_id": among({one["conversation"] for one in found if one.get("conversation")})}
    )
    recipients = {one["_id"]: documents.recipient(one) for one in people}
    conversations = {one["_id"]: documents.conversation(one) for one in places}
    return [
        Due(documents.delivery(one), recipients[one["recipient"]], conversations[one["conversation"]])
        for one in found
        if one["recipient"] in recipients and one.get("conversation") in conversations
    ]


# --- the intent ---------------------------------------------------------------------------------------

_CLAIMED = {
    "broadcast": True,
    "channel": True,
    "recipient": True,
    "conversation": True,
    "sends": True,
    "rung_at": True,
}


@dataclass(slots=True)
class Claim:
    """One intent, by a token of its own. `taken` is what it found, to be put back should nobody ever learn
    whether it was committed."""

    token: ObjectId = field(default_factory=ObjectId)
    taken: list[dict[str, Any]] = field(default_factory=list)

    async def write(self, unit: Unit, account: str, deliveries: Sequence[Delivery]) -> list[str]:
        """Answers the ids granted. What is read here is what holds at the commit: a stop of any kind that ends
        planned deliveries writes them, and then one of the two begins anew; a pause that comes later than what
        was read counts as later."""
        self.taken = await _grantable(unit, account, deliveries)
        grantable = {document["_id"] for document in self.taken}
        granted: dict[str, Delivery] = {}
        for delivery in deliveries:
            if delivery.id in grantable:
                granted.setdefault(delivery.id, delivery)
        await unit.change("deliveries", [*_intents(account, granted, self.token)])
        _count(unit, self.taken, DeliveryState.PLANNED, DeliveryState.SENDING)
        return [*granted]

    async def undo(self, unit: Unit) -> None:
        """Puts back what was claimed, if it was: whoever asked was told that it could not be written."""
        mine = {"_id": among(document["_id"] for document in self.taken), "state": "sending", "claim": self.token}
        held = {document["_id"] for document in await unit.all("deliveries", mine, {"_id": True})}
        back = [document for document in self.taken if document["_id"] in held]
        await unit.change("deliveries", [_put_back(document) for document in back])
        _count(unit, back, DeliveryState.SENDING, DeliveryState.PLANNED)


def _intents(account: str, granted: Mapping[str, Delivery], token: ObjectId) -> Iterator[Change]:
    """Those that change alike change together: most of a batch is its first send at one moment."""
    alike: dict[tuple[int, int | None], list[str]] = defaultdict(list)
    for delivery in granted.values():
        alike[delivery.sends, micros_or_none(delivery.rung_at)].append(delivery.id)
    for (sends, rung_at), ids in alike.items():
        values = {"state": "sending", "sends": sends, "rung_at": rung_at, "claim": token}
        yield change_where({"_id": among(ids), "account": account}, {"$set": values}, multi=True)


def _put_back(document: Mapping[str, Any]) -> Change:
    values = {"state": "planned", "sends": document["sends"], "rung_at": document.get("rung_at")}
    return change(document["_id"], {"$set": values})


async def _grantable(unit: Unit, account: str, deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
    """Those still planned, in running broadcasts, to people who may be written to where they can be reached: all
    asked in one command. What a delivery points at never changes, so that the values given tell what to ask for."""
    if not deliveries:
        return []
    places = [one.conversation for one in deliveries if one.conversation]
    conditions: dict[str, tuple[str, Document, Document]] = {
        "broadcast": _fitting("broadcasts", {one.broadcast for one in deliveries}, {"status": "running"}),
        "recipient": _fitting("recipients", {one.recipient for one in deliveries}, {"unsubscribed_at": None}),
        "conversation": _fitting("conversations", places, {"state": "reachable"}),
    }
    planned = {"_id": among(one.id for one in deliveries), "account": account, "state": "planned"}
    found, others = await unit.with_others("deliveries", planned, _CLAIMED, conditions)
    fits = {name: {one["_id"] for one in others[name]} for name in conditions}
    return [one for one in found if all(one.get(name) in fits[name] for name in conditions)]


def _fitting(collection: str, ids: Iterable[str], condition: Document) -> tuple[str, Document, Document]:
    return collection, {"_id": among(ids), **condition}, {"_id": True}


def _count(unit: Unit, moved: Sequence[Mapping[str, Any]], before: DeliveryState, after: DeliveryState) -> None:
    """Those of one broadcast and channel add the same."""
    alike: dict[tuple[str, str | None], int] = defaultdict(int)
    for document in moved:
        alike[document["broadcast"], document.get("channel")] += 1
    for (broadcast, channel), times in alike.items():
        name = None if channel is None else ChannelName(channel)
        value = move_delivery(Delivery("", "", "", 0, name, None, None, state=before), after)
        unit.tally(broadcast, tally.of_move(before, value), times=times)
