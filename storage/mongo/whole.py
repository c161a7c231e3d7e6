"""A database of MongoDB read out, or filled, as a whole."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from bson import ObjectId

from broadcast.model import (
    Broadcast,
    Campaign,
    ChannelName,
    DeliveryState,
    Event,
    PresenceState,
    Receipt,
    Recipient,
)
from broadcast.ports import PresenceCount
from storage.codec import BROADCAST, CAMPAIGN, instant, micros, micros_or_none
from storage.errors import CannotOpen
from storage.mongo import documents
from storage.mongo.base import among
from storage.mongo.campaigns import Campaigns
from storage.mongo.connection import Connection, field
from storage.mongo.counting import counters
from storage.mongo.meaning import told
from storage.mongo.schema import opened
from storage.records import KINDS, PAGE, Counter, Holder, NamedList, Record, Remembered, Seen, Story

_Document = Mapping[str, Any]
_MARK = {"_id": "copying"}  # in `meta`, while a copy is being written

#: What one document of a collection is. Deliveries and counters are read in their own ways.
_READ: dict[str, Callable[[_Document], Record]] = {
    "lists": lambda one: NamedList(one["_id"], one["name"]),
    "recipients": documents.recipient,
    "conversations": documents.conversation,
    "campaigns": lambda one: CAMPAIGN.decode(one["_id"], one["doc"]),
    "broadcasts": lambda one: BROADCAST.decode(one["_id"], one["doc"]),
    "waiting": documents.receipt,
    "inbound": lambda one: Seen(one["_id"]["account"], one["_id"]["key"], instant(one["at"])),
    "presence": lambda one: PresenceCount(
        ChannelName(one["channel"]), int(one["hour"]), PresenceState(one["state"]), int(one["count"])
    ),
    "tokens": documents.token,
    "answers": lambda one: Remembered(
        one["_id"], one["fingerprint"], b64encode(one["answer"]).decode(), instant(one["at"])
    ),
}


class MongoWhole:
    """See `Target` for what may be relied on. What is filled is marked until it is finished (`refuse_unfinished`)
    and cleared first if it was marked before."""

    def __init__(self, connection: Connection) -> None:
        self.name = connection.name
        self._connection = connection
        self._access = connection.access
        self._campaigns = Campaigns(connection, wall=None)

    @classmethod
    async def open(cls, url: str) -> Self:
        """Creates or migrates the database first. Raises `CannotOpen`."""
        return cls(await opened(url, slots=range(1)))

    async def holders(self) -> list[Holder]:
        held = {"owner": {"$ne": None}, "$expr": {"$gt": ["$expires", "$$NOW"]}}
        with told():
            found = await self._access.all("leases", held, sort=[("_id", 1)])
        return [Holder(one["_id"], one["owner"]) for one in found]

    async def is_empty(self) -> bool:
        with told():
            if await self._access.one("meta", _MARK):
                return True
            return not any([await self._access.one(kind, {}, {"_id": True}) for kind in KINDS])

    async def count(self, kind: str) -> int:
        with told():
            if kind == "tally":
                return sum([len(await counters(self._access, id)) for id in await self._counted()])
            return await self._access.count(kind, {})

    async def read(self, kind: str) -> AsyncIterator[Sequence[Record]]:
        if kind == "tally":
            for id in await self._counted():
                with told():
                    counted = await counters(self._access, id)
                yield [Counter(id, path, count) for path, count in sorted(counted.items())]
            return
        async for page in self._pages(kind):
            yield await self._stories(page) if kind == "deliveries" else [_READ[kind](one) for one in page]

    async def _counted(self) -> list[str]:
        with told():
            return sorted(await self._access.distinct("tally", "broadcast"))

    async def _pages(self, collection: str) -> AsyncIterator[list[dict[str, Any]]]:
        behind: dict[str, Any] = {}
        while True:
            with told():
                page = await self._access.all(collection, behind, sort=[("_id", 1)], limit=PAGE)
            if not page:
                return
            yield page
            behind = {"_id": {"$gt": page[-1]["_id"]}}

    async def _stories(self, page: Sequence[_Document]) -> list[Story]:
        wanted = {"delivery": among(one["_id"] for one in page)}
        with told():
            found = await self._access.all("events", wanted)
        events: dict[str, list[Event]] = defaultdict(list)
        for one in sorted(found, key=lambda one: one["order"]):
            events[one["delivery"]].append(documents.event(one))
        return [
            Story(documents.delivery(one), tuple(documents.attempts(one)), tuple(events[one["_id"]]))
            for one in page
        ]

    # --- filling ------------------------------------------------------------------------------------

    async def begin(self, origin: str) -> None:
        with told():
            await self._access.update("meta", _MARK, {"$set": {"from": origin}}, upsert=True)
            for kind in (*KINDS, "events", "edges"):
                await self._access.delete_many(kind, {})

    async def write(self, kind: str, records: Sequence[Record]) -> None:
        own: Mapping[str, Callable[[Any], Awaitable[None]]] = {
            "deliveries": self._write_stories,
            "tally": self._write_counters,
            "waiting": self._write_waiting,
            "campaigns": self._write_campaigns,
            "broadcasts": self._write_broadcasts,
        }
        with told():
            if kind in own:
                await own[kind](records)
            else:
                await self._access.insert(kind, [_WRITE[kind](record) for record in records])

    async def _write_campaigns(self, campaigns: Sequence[Campaign]) -> None:
        for one in campaigns:
            await self._campaigns.save_campaign(one, expected=None)

    async def _write_broadcasts(self, broadcasts: Sequence[Broadcast]) -> None:
        """Their campaigns are not there yet, so that none counts as launched by this."""
        for one in broadcasts:
            await self._campaigns.save_broadcast(one, expected=None)

    async def _write_stories(self, stories: Sequence[Story]) -> None:
        events = [{**documents.of_event(event), "order": ObjectId()} for story in stories for event in story.events]
        await self._access.insert("deliveries", [_of_story(story) for story in stories])
        await self._access.insert("events", events)
        await self._write_flights(stories)

    async def _write_flights(self, stories: Sequence[Story]) -> None:
        """What is in flight is told by the lease of its account, which nobody holds yet."""
        flying: dict[str, list[str]] = defaultdict(list)
        for story in stories:
            if story.delivery.state is DeliveryState.SENDING and story.delivery.account is not None:
                flying[story.delivery.account].append(story.delivery.id)
        for account, ids in flying.items():
            told = {"$set": {f"claims.{ObjectId()}": ids}}
            await self._access.update("leases", {"_id": account}, told, upsert=True)

    async def _write_counters(self, records: Sequence[Counter]) -> None:
        """All of a broadcast in its first slot."""
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        for one in records:
            counts[one.broadcast][f"counts.{field(one.path)}"] = one.count
        for broadcast, values in counts.items():
            change = {"$set": {"broadcast": broadcast, **values}}
            await self._access.update("tally", {"_id": f"{broadcast}#0"}, change, upsert=True)

    async def _write_waiting(self, receipts: Sequence[Receipt]) -> None:
        """Each with the conversation it is about. One at a time, so that their order is that of their ids."""
        for one in receipts:
            who = {"account": one.account, "user_id": one.user_id}
            place = await self._access.one("conversations", who, {"_id": True})
            about = place["_id"] if place else f"{one.account} {one.user_id}"
            await self._access.insert(
                "waiting", [{"_id": ObjectId(), **documents.of_receipt(one), "conversation": about}]
            )

    async def finish(self) -> None:
        with told():
            await self._access.delete_many("meta", _MARK)

    async def close(self) -> None:
        await self._connection.close()


async def refuse_unfinished(url: str) -> None:
    """Raises `CannotOpen` where a copy into this database was begun and not finished."""
    connection = Connection(url, slots=range(1))
    try:
        with told():
            mark = await connection.access.one("meta", _MARK)
    finally:
        await connection.close()
    if mark:
        raise CannotOpen(
            f"{connection.name}: holds an unfinished copy of {mark['from']}; copy again, which begins anew, "
            "or drop the database"
        )


async def version(url: str) -> int:
    """The schema that the database has; 0 where there is none yet. Raises `CannotOpen`."""
    connection = Connection(url, slots=range(1))
    try:
        await connection.check()
        with told():
            stored = await connection.access.one("meta", {"_id": "schema"})
    finally:
        await connection.close()
    return int(stored["version"]) if stored else 0


# --- documents ----------------------------------------------------------------------------------------


def _of_story(story: Story) -> dict[str, Any]:
    document = documents.of_delivery(story.delivery)
    if story.attempts:
        document["lines"] = [documents.of_attempt(line) for line in story.attempts]
    return document


def _of_recipient(one: Recipient) -> dict[str, Any]:
    document = {
        "_id": one.id,
        **documents.of_recipient(one),
        "unsubscribed_at": micros_or_none(one.unsubscribed_at),
    }
    return {name: value for name, value in document.items() if value is not None}


#: What one record becomes, where it becomes one document.
_WRITE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "lists": lambda one: {"_id": one.id, "name": one.name},
    "recipients": _of_recipient,
    "conversations": lambda one: {"_id": one.id, **documents.of_conversation(one)},
    "inbound": lambda one: {"_id": {"account": one.account, "key": one.key}, "at": micros(one.at)},
    "presence": lambda one: {
        "_id": f"{one.channel}/{one.hour}/{one.state}",
        "channel": one.channel.value,
        "hour": one.hour,
        "state": one.state.value,
        "count": one.count,
    },
    "tokens": lambda one: {"_id": one.id, **documents.of_token(one)},
    "answers": lambda one: {
        "_id": one.key,
        "fingerprint": one.fingerprint,
        "answer": b64decode(one.answer),
        "at": micros(one.at),
    },
}
