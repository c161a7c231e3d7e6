"""What is due, and the intent to send it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import MinKey, ObjectId

from broadcast import tally
from broadcast.model import ChannelName, ConversationState, Delivery, DeliveryState, move_delivery
from broadcast.ports import Due
from storage import changes
from storage.codec import micros_or_none
from storage.mongo import documents, edges
from storage.mongo.base import among
from storage.mongo.connection import Access, Change, Document, Key, Unit, change_all
from storage.mongo.counting import begun
from storage.mongo.edges import EVER, Place

_PLACE = {"account": True, "broadcast": True, "channel": True, "turn": True, "position": True}
#: What an attempt has no use for of a person.
_PERSON = {"names": False, "search": False}
#: What keeps people and conversations from being written to, as the indexes of those few have it.
UNSUBSCRIBED: Document = {"unsubscribed_at": {"$type": "number"}}
CLOSED: Document = {
    "state": among(sorted(state for state in ConversationState if state is not ConversationState.REACHABLE))
}


async def due(db: Access, account: str, broadcast: str, *, last: int, after: Place | None, limit: int) -> list[Due]:
    """Those whose person and conversation are known."""
    if after is not None:
        return (await _known_between(db, account, broadcast, _behind(after), last, limit))[1]
    edge = await edges.edge(db, account, broadcast)
    first, found = await _known_between(db, account, broadcast, edge.place, last, limit)
    if first is not None or last == EVER:
        await edges.move_on(db, account, broadcast, edge, first)
    return found


async def any_planned(db: Access, account: str, broadcast: str) -> bool:
    edge = await edges.edge(db, account, broadcast)
    planned = await _between(db, account, broadcast, edge.place, EVER, 1, _PLACE)
    await edges.move_on(db, account, broadcast, edge, _place(planned[0]) if planned else None)
    return bool(planned)


async def _known_between(
    db: Access, account: str, broadcast: str, begin: Place, last: int, limit: int
) -> tuple[Place | None, list[Due]]:
    """With the place of the first, known or not."""
    first: Place | None = None
    found: list[Due] = []
    while True:
        planned = await _between(db, account, broadcast, begin, last, limit, documents.DELIVERY)
        if first is None and planned:
            first = _place(planned[0])
        found += await known(db, planned)
        if len(found) >= limit or len(planned) < limit:
            return first, found[:limit]
        begin = _behind(_place(planned[-1]))


def _behind(place: Place) -> Place:
    due_at, position, id = place
    return due_at, position, id + "\0"


async def _between(
    db: Access, account: str, broadcast: str, begin: Place, last: int, limit: int, fields: Document
) -> list[dict[str, Any]]:
    """In order, the place itself included."""
    if begin[0] > last:
        return []
    stretch = _key(account, broadcast, begin), _key(account, broadcast, (last + 1, MinKey(), MinKey()))
    return await db.all(
        "deliveries",
        {"state": "planned"},
        fields,
        sort=[(name, 1) for name, _ in stretch[0]],
        limit=limit,
        hint="in_turn",
        stretch=stretch,
    )


def _key(account: str, broadcast: str, place: tuple[Any, Any, Any]) -> Key:
    return [*zip(("account", "broadcast", "turn", "position", "_id"), (account, broadcast, *place), strict=True)]


def _place(document: Mapping[str, Any]) -> Place:
    return document["turn"], document["position"], document["_id"]


async def known(db: Access, found: Sequence[Mapping[str, Any]]) -> list[Due]:
    """With what an attempt needs to know; without those of whom that is not stored."""
    if not found:
        return []
    people = await db.all("recipients", {"_id": among({one["recipient"] for one in found})}, _PERSON)
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


@dataclass(slots=True)
class Claim:
    """One intent, by a token of its own, for these ids at most."""

    ids: Sequence[str]
    token: ObjectId = field(default_factory=ObjectId)

    async def write(
        self, unit: Unit, account: str, deliveries: Sequence[Delivery], limits: Mapping[str, int]
    ) -> list[str]:
        """Answers the ids granted. Of the deliveries nothing is read: the write takes those that are still planned,
        and only where these are fewer it is asked which. A stop of any kind that ends planned deliveries writes
        them, and then one of the two begins anew; a pause that comes later than what was read counts as later.
        What a delivery points at never changes, so that the values given tell what to ask for. `limits`: see
        `intend`."""
        wanted = await _allowed(unit, deliveries)
        if limited := limits.keys() & {one.broadcast for one in wanted.values()}:
            wanted = await _within(unit, account, wanted, {id: limits[id] for id in sorted(limited)})
        written = await unit.change("deliveries", [*_intents(account, wanted, self.token)])
        if written < len(wanted):
            taken = {one["_id"] for one in await self._taken(unit)}
            wanted = {id: delivery for id, delivery in wanted.items() if id in taken}
        moved = ((one.broadcast, one.channel) for one in wanted.values())
        _count(unit, moved, DeliveryState.PLANNED, DeliveryState.SENDING)
        return [*wanted]

    async def undo(self, unit: Unit) -> None:
        """Puts back what was claimed, if it was: whoever asked was told that it could not be written."""
        taken = await self._taken(unit)
        await unit.change("deliveries", [change_all([one["_id"] for one in taken], {"$set": {"state": "planned"}})])
        due = (one for one in taken if one.get("turn") is not None)
        await edges.hold_back(unit, ((one["account"], one["broadcast"], _place(one)) for one in due))
        moved = ((one["broadcast"], one.get("channel")) for one in taken)
        _count(unit, moved, DeliveryState.SENDING, DeliveryState.PLANNED)

    async def _taken(self, unit: Unit) -> list[dict[str, Any]]:
        mine = {"_id": among(self.ids), "state": "sending", "intent.claim": self.token}
        return await unit.all("deliveries", mine, _PLACE, hint="_id_")


def _intents(account: str, wanted: Mapping[str, Delivery], token: ObjectId) -> Iterator[Change]:
    """Those that change alike change together: most of a batch is its first send at one moment."""
    alike: dict[tuple[int, int | None], list[str]] = defaultdict(list)
    for delivery in wanted.values():
        alike[delivery.sends, micros_or_none(delivery.rung_at)].append(delivery.id)
    for (sends, rung_at), ids in alike.items():
        intent = {"sends": sends, "rung_at": rung_at, "claim": token}
        yield change_all(ids, {"$set": {"state": "sending", "intent": intent}}, account=account, state="planned")


async def _allowed(unit: Unit, deliveries: Sequence[Delivery]) -> dict[str, Delivery]:
    """Those in running broadcasts, to people who may be written to where they can be reached, by id. Who may not is
    asked for, in indexes that hold nobody else."""
    if not deliveries:
        return {}
    running = await _fitting(unit, "broadcasts", (one.broadcast for one in deliveries), {"status": "running"})
    left = await _fitting(unit, "recipients", (one.recipient for one in deliveries), UNSUBSCRIBED, "unsubscribed")
    places = (one.conversation for one in deliveries if one.conversation)
    closed = await _fitting(unit, "conversations", places, CLOSED, "closed")
    allowed: dict[str, Delivery] = {}
    for one in deliveries:
        if one.broadcast in running and one.recipient not in left and one.conversation not in closed:
            allowed.setdefault(one.id, one)
    return allowed


async def _within(
    unit: Unit, account: str, wanted: Mapping[str, Delivery], limits: Mapping[str, int]
) -> dict[str, Delivery]:
    """The first of them that are still planned, until as many are begun as may be."""
    room = {id: most - await begun(unit, id) for id, most in limits.items()}
    planned = await _fitting(unit, "deliveries", wanted, {"account": account, "state": "planned"})
    return {id: one for id, one in wanted.items() if id in planned and changes.takes_place(room, one.broadcast)}


async def _fitting(
    unit: Unit, collection: str, ids: Iterable[str], condition: Document, index: str = "_id_"
) -> set[str]:
    found = await unit.all(collection, {"_id": among({*ids}), **condition}, {"_id": True}, hint=index)
    return {one["_id"] for one in found}


def _count(
    unit: Unit, moved: Iterable[tuple[str, str | None]], before: DeliveryState, after: DeliveryState
) -> None:
    """Those of one broadcast and channel add the same."""
    alike: dict[tuple[str, str | None], int] = defaultdict(int)
    for kind in moved:
        alike[kind] += 1
    for (broadcast, channel), times in alike.items():
        name = None if channel is None else ChannelName(channel)
        value = move_delivery(Delivery("", "", "", 0, name, None, None, state=before), after)
        unit.tally(broadcast, tally.of_move(before, value), times=times)


# --- what is in flight --------------------------------------------------------------------------------


@dataclass(slots=True)
class Flights:
    """What an account has in flight, as its lease tells it, so that no index need: by claim the ids that were asked
    for, from the intent on until the outcome of each is written. It may tell of more than fly, never of fewer."""

    _open: dict[str, set[str]] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    begun: dict[str, Delivery] = field(default_factory=dict)
    """Those that began here, by id, as their intents left them: nothing of that need be read again."""

    def noted(self, claim: Claim | None = None) -> dict[str, Any]:
        """What the lease is told with the next write under it."""
        told: dict[str, Any] = {}
        if claim is not None and claim.ids:
            told["$set"] = {f"claims.{claim.token}": claim.ids}
        if self._over:
            told["$unset"] = dict.fromkeys((f"claims.{token}" for token in self._over), "")
        return told

    def written(self, landed: Iterable[str]) -> None:
        """The write that these ended with took hold."""
        self._over.clear()
        gone = {*landed}
        for id in gone:
            self.begun.pop(id, None)
        for ids in self._open.values():
            ids.difference_update(gone)
        self._settle()

    def granted(self, claim: Claim, intents: Mapping[str, Delivery]) -> None:
        """So did the claim's."""
        self._open[str(claim.token)] = {*intents}
        self.begun |= intents
        self._settle()

    def put_back(self, claim: Claim) -> None:
        self._over.add(str(claim.token))

    def found(self, claims: Mapping[str, Sequence[str]], flying: Iterable[str]) -> None:
        """What the lease tells, by whomever, and what of it is in flight."""
        self.begun.clear()
        self._open = {token: {*ids}.intersection(flying) for token, ids in claims.items()}
        self._settle()

    def _settle(self) -> None:
        for token in [token for token, ids in self._open.items() if not ids]:
            del self._open[token]
            self._over.add(token)


async def claims(db: Access, account: str) -> dict[str, list[str]]:
    """The ids of each claim that the account's lease tells of."""
    held = await db.one("leases", {"_id": account}, {"claims": True})
    return dict(held.get("claims", {})) if held else {}


async def in_flight(db: Access, account: str, told: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """What is being sent of those that were claimed, in no order."""
    ids = among({id for some in told.values() for id in some})
    wanted = {"_id": ids, "account": account, "state": "sending"}
    return await db.all("deliveries", wanted, documents.DELIVERY, hint="_id_") if ids["$in"] else []
