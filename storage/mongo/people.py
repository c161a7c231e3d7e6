"""Recipients, lists and conversations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from broadcast.errors import Conflict
from broadcast.model import Audience, Conversation, ConversationState, Reason, Recipient
from broadcast.ports import Listing, Page
from storage import changes, codec
from storage.mongo import documents
from storage.mongo.base import Base, among, containing
from storage.mongo.connection import Access, Change, Connection, Unit, change
from storage.mongo.skipping import mark, skip_planned


class People(Base):
    def __init__(self, connection: Connection, *, wall: Callable[[], float] | None) -> None:
        super().__init__(connection, wall=wall)
        self._places = self._together(self._keep_places, "mongo conversations")

    async def recipient(self, id: str) -> Recipient | None:
        found = await self._read(lambda db: db.one("recipients", {"_id": id}))
        return documents.recipient(found) if found else None

    async def match_recipients(self, wanted: Sequence[Recipient]) -> list[Recipient | None]:
        names = [documents.names(one) for one in wanted]
        every = {name for some in names for name in some}
        found = await self._read(lambda db: db.all("recipients", {"names": among(every)}))
        owners = {name: document for document in found for name in document["names"]}
        named = [next((owners[name] for name in some if name in owners), None) for some in names]
        return [documents.recipient(document) if document else None for document in named]

    async def save_recipients(self, recipients: Sequence[Recipient]) -> None:
        batch = {recipient.id: recipient for recipient in recipients}
        if batch:
            await self._write(lambda unit: save_recipients(unit, batch))

    async def recipients(self, q: str, page: Page) -> Listing[Recipient]:
        wanted = containing("search", changes.fold(q))

        async def run(db: Access) -> Listing[Recipient]:
            total = await db.count("recipients", wanted)
            found = await db.all("recipients", wanted, sort=[("_id", 1)], skip=page.offset, limit=page.per_page)
            return Listing(tuple(map(documents.recipient, found)), total)

        return await self._read(run)

    async def audience(
        self, audience: Audience, *, after: str, limit: int
    ) -> list[tuple[Recipient, tuple[Conversation, ...]]]:
        async def run(db: Access) -> list[tuple[Recipient, tuple[Conversation, ...]]]:
            behind = {"$and": [{"_id": {"$gt": after}}, _meant(audience)]}
            found = await db.all("recipients", behind, sort=[("_id", 1)], limit=limit)
            places = await _conversations_of(db, [document["_id"] for document in found])
            return [(documents.recipient(document), tuple(places[document["_id"]])) for document in found]

        return await self._read(run)

    async def audience_size(self, audience: Audience) -> int:
        return await self._read(lambda db: db.count("recipients", _meant(audience)))

    async def attribute_names(self) -> frozenset[str]:
        return frozenset(await self._read(lambda db: db.distinct("recipients", "attributes.name")))

    async def set_unsubscribed(self, recipient: str, at: datetime | None) -> None:
        await self._write(lambda unit: set_unsubscribed(unit, recipient, at))

    async def list_ids(self) -> Mapping[str, str]:
        found = await self._read(lambda db: db.all("lists", {}, sort=[("_id", 1)]))
        return {document["_id"]: document["name"] for document in found}

    async def ensure_lists(self, lists: Mapping[str, str]) -> None:
        new = [change(id, {"$setOnInsert": {"name": name}}, upsert=True) for id, name in lists.items()]
        await self._write(lambda unit: unit.change("lists", new))

    async def conversation(self, account: str, user_id: str) -> Conversation | None:
        found = await self._read(lambda db: db.one("conversations", {"account": account, "user_id": user_id}))
        return documents.conversation(found) if found else None

    async def conversations_of(self, recipient: str) -> list[Conversation]:
        return (await self._read(lambda db: _conversations_of(db, [recipient])))[recipient]

    async def save_conversations(self, conversations: Sequence[Conversation]) -> None:
        batch = [replace(given, reference=codec.json_copy(given.reference)) for given in conversations]
        if batch:
            await self._places.call(batch)

    async def _keep_places(self, calls: Sequence[Sequence[Conversation]]) -> list[None]:
        """Of everybody who wrote while others were being kept, in one transaction."""
        every = [conversation for batch in calls for conversation in batch]
        await self._write(lambda unit: save_conversations(unit, every))
        return [None for _ in calls]

    async def mark_conversation(self, id: str, state: ConversationState, at: datetime) -> None:
        await self._write(lambda unit: mark(unit, id, state, at))


async def save_recipients(unit: Unit, batch: Mapping[str, Recipient]) -> None:
    """What names a person may move within the batch: all of it is let go of first, then claimed."""
    claimed = _claimed(batch)
    owned = {"names": among(claimed), "_id": {"$nin": [*batch]}}
    for document in await unit.all("recipients", owned, {"names": True}, limit=1):
        taken = next(name for name in document["names"] if name in claimed)
        raise _belongs_to_another(claimed[taken])
    moving = {"_id": among(batch), "names": {"$exists": True}}
    await unit.update_many("recipients", moving, {"$unset": {"names": ""}})
    await unit.change("recipients", [_replaced(recipient) for recipient in batch.values()])


async def set_unsubscribed(unit: Unit, recipient: str, at: datetime | None) -> None:
    stored = await unit.one("recipients", {"_id": recipient}, {"unsubscribed_at": True})
    if stored is None:
        return
    earlier = stored.get("unsubscribed_at")
    since = None if at is None else codec.micros(at) if earlier is None else earlier
    await unit.update("recipients", {"_id": recipient}, {"$set": {"unsubscribed_at": since}})
    unit.raise_control()
    if at is not None:
        await skip_planned(unit, {"recipient": recipient}, reason=Reason.UNSUBSCRIBED, at=at)


def _claimed(batch: Mapping[str, Recipient]) -> dict[str, str]:
    """Who of the batch wants each name. Raises `Conflict` when two do."""
    claimed: dict[str, str] = {}
    for id, recipient in batch.items():
        for name in documents.names(recipient):
            if claimed.setdefault(name, id) != id:
                raise _belongs_to_another(id)
    return claimed


def _belongs_to_another(id: str) -> Conflict:
    return Conflict(f"the external id, e-mail or a channel id of {id} belongs to another recipient")


def _replaced(recipient: Recipient) -> Change:
    values = documents.of_recipient(recipient)
    kept = {name: value for name, value in values.items() if value is not None}
    gone = {name: "" for name, value in values.items() if value is None}
    return change(recipient.id, {"$set": kept, "$unset": gone} if gone else {"$set": kept}, upsert=True)


def _meant(audience: Audience) -> dict[str, Any]:
    """Lists, segments and recipients add up; excluded lists take away. No segment can be stored yet."""
    excluded = {"lists": {"$nin": [*audience.exclude_lists]}} if audience.exclude_lists else {}
    if audience.everybody:
        return excluded
    return {"$or": [{"_id": among(audience.recipients)}, {"lists": among(audience.lists)}], **excluded}


async def _conversations_of(db: Access, recipients: Sequence[str]) -> dict[str, list[Conversation]]:
    found: dict[str, list[Conversation]] = defaultdict(list)
    wanted = {"recipient": among(recipients)}
    for document in await db.all("conversations", wanted, sort=[("_id", 1)]):
        found[document["recipient"]].append(documents.conversation(document))
    return found


async def save_conversations(unit: Unit, batch: Sequence[Conversation]) -> None:
    """All are looked up at once, by the user and by the id: a first word of many may come in one call."""
    accounts = {given.account for given in batch}
    by_user = [
        {"account": account, "user_id": among(given.user_id for given in batch if given.account == account)}
        for account in accounts
    ]
    known = await unit.all("conversations", {"$or": [*by_user, {"_id": among(given.id for given in batch)}]})
    stored = {(one["account"], one["user_id"]): documents.conversation(one) for one in known}
    owners = {one["_id"]: (one["account"], one["user_id"]) for one in known}
    kept: dict[tuple[str, str], Conversation] = {}
    for given in batch:
        who = (given.account, given.user_id)
        before = kept.get(who) or stored.get(who)
        if before is None and owners.setdefault(given.id, who) != who:
            raise Conflict(f"conversation {given.id} is of another user")
        kept[who] = changes.merged(before, given)
    await unit.change("conversations", [_kept(conversation) for conversation in kept.values()])


def _kept(conversation: Conversation) -> Change:
    return change(conversation.id, {"$set": documents.of_conversation(conversation)}, upsert=True)
