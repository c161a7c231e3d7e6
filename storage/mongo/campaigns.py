"""Campaigns, broadcasts, their counters, and the version of what steers them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from broadcast.errors import Conflict
from broadcast.model import Broadcast, BroadcastKind, BroadcastStatus, Campaign, CampaignStatus, ChannelName
from broadcast.ports import Listing, Page
from storage import changes
from storage.codec import BROADCAST, CAMPAIGN, micros, micros_or_none
from storage.mongo import claiming
from storage.mongo.base import Base, containing, words
from storage.mongo.connection import Access, Unit
from storage.mongo.counting import counters

_POLL_SECONDS = 0.4  # how often a waiter looks for control writes of other processes where it is not told of them
_LOOK_SECONDS = 5.0  # and how often where it is


class Campaigns(Base):
    async def campaign(self, id: str) -> Campaign | None:
        found = await self._read(lambda db: db.one("campaigns", {"_id": id}))
        return _campaign(found) if found else None

    async def campaigns_named(self, name: str) -> list[Campaign]:
        folded = {"name_folded": changes.fold(name)}
        found = await self._read(lambda db: db.all("campaigns", folded, sort=[("_id", 1)]))
        exact = [document for document in found if document["name"] == name]
        return [_campaign(document) for document in exact or found]

    async def save_campaign(self, campaign: Campaign, *, expected: CampaignStatus | None) -> None:
        if not await self._read(lambda db: _write_campaign(db, campaign, expected)):
            raise Conflict(f"campaign {campaign.id} is not {expected or 'new'} any more")

    async def campaigns(
        self, *, status: CampaignStatus | None, q: str, channel: ChannelName | None, page: Page
    ) -> Listing[Campaign]:
        statuses, channels = [status] if status else [], [channel] if channel else []
        wanted = {**words(status=statuses, channels=channels), **containing("name_folded", changes.fold(q))}

        async def run(db: Access) -> Listing[Campaign]:
            total = await db.count("campaigns", wanted)
            newest = [("created_at", -1), ("_id", -1)]
            found = await db.all("campaigns", wanted, sort=newest, skip=page.offset, limit=page.per_page)
            return Listing(tuple(map(_campaign, found)), total)

        return await self._read(run)

    async def repeating(self) -> list[Campaign]:
        found = await self._read(lambda db: db.all("campaigns", {"repeats": True}))
        return changes.next_first(map(_campaign, found))

    async def broadcast(self, id: str) -> Broadcast | None:
        found = await self._read(lambda db: db.one("broadcasts", {"_id": id}))
        return _broadcast(found) if found else None

    async def save_broadcast(self, broadcast: Broadcast, *, expected: BroadcastStatus | None) -> None:
        await self._write(lambda unit: _save_broadcast(unit, broadcast, expected))

    async def broadcasts(
        self,
        *,
        statuses: Collection[BroadcastStatus] = (),
        kind: BroadcastKind | None = None,
        campaign: str | None = None,
        page: Page,
    ) -> Listing[Broadcast]:
        wanted = words(status=statuses, kind=[kind] if kind else [])
        if campaign is not None:
            wanted["campaign"] = campaign

        async def run(db: Access) -> Listing[Broadcast]:
            total = await db.count("broadcasts", wanted)
            newest = [("launched_at", -1), ("_id", -1)]
            found = await db.all("broadcasts", wanted, sort=newest, skip=page.offset, limit=page.per_page)
            return Listing(tuple(map(_broadcast, found)), total)

        return await self._read(run)

    async def broadcasts_beginning(self, id: str) -> list[Broadcast]:
        stretch = {"_id": {"$gte": id, "$lt": f"{id}\U0010ffff"}}
        return [*map(_broadcast, await self._read(lambda db: db.all("broadcasts", stretch, sort=[("_id", 1)])))]

    async def running_on(self, account: str) -> list[str]:
        async def run(db: Access) -> list[str]:
            claims = await claiming.claims(db, account)
            flying = {one["broadcast"] for one in await claiming.in_flight(db, account, claims)}
            every = await running(db)
            return [id for id in every if id in flying or await claiming.any_planned(db, account, id)]

        return await self._read(run)

    async def tally(self, broadcast: str) -> Mapping[str, int]:
        return await self._read(lambda db: counters(db, broadcast))

    async def control_version(self) -> int:
        slots = await self._read(lambda db: db.all("control", {}))
        return sum(int(slot["version"]) for slot in slots)

    async def wait_control(self, seen: int) -> int:
        self._watch()
        return await self._waiters.moved_on(
            seen, self.control_version, lambda: _LOOK_SECONDS if self._told_at_once else _POLL_SECONDS
        )


def _campaign(document: Mapping[str, Any]) -> Campaign:
    return CAMPAIGN.decode(document["_id"], document["doc"])


def _broadcast(document: Mapping[str, Any]) -> Broadcast:
    return BROADCAST.decode(document["_id"], document["doc"])


async def _write_guarded(
    db: Access, collection: str, id: str, values: Mapping[str, Any], expected: str | None
) -> bool:
    """False where the stored status is another."""
    if expected is None:
        return await db.update(collection, {"_id": id}, {"$setOnInsert": values}, upsert=True) == 0
    return await db.update(collection, {"_id": id, "status": str(expected)}, {"$set": values}) == 1


async def _write_campaign(db: Access, campaign: Campaign, expected: CampaignStatus | None) -> bool:
    values = {
        "name": campaign.name,
        "name_folded": changes.fold(campaign.name),
        "status": str(campaign.status),
        "created_at": micros(campaign.created_at),
        "channels": [str(channel) for channel in campaign.audience.channels],
        "repeats": campaign.next_launch_at is not None,
        "doc": CAMPAIGN.encode(campaign),
    }
    return await _write_guarded(db, "campaigns", campaign.id, values, expected)


async def _save_broadcast(unit: Unit, broadcast: Broadcast, expected: BroadcastStatus | None) -> None:
    values = {
        "campaign": broadcast.campaign,
        "kind": str(broadcast.kind),
        "status": str(broadcast.status),
        "launched_at": micros(broadcast.launched_at),
        "finished_at": micros_or_none(broadcast.finished_at),
        "removal_done": broadcast.removal_done,
        "doc": BROADCAST.encode(broadcast),
    }
    if not await _write_guarded(unit, "broadcasts", broadcast.id, values, expected):
        raise Conflict(f"broadcast {broadcast.id} is not {expected or 'new'} any more")
    if expected is None and broadcast.kind is BroadcastKind.CAMPAIGN:
        await _count_launch(unit, broadcast)
    unit.raise_control()


async def _count_launch(unit: Unit, broadcast: Broadcast) -> None:
    stored = await unit.one("campaigns", {"_id": broadcast.campaign})
    if stored is not None:
        campaign = _campaign(stored)
        await _write_campaign(unit, changes.launched(campaign, broadcast), campaign.status)


async def running(db: Access) -> list[str]:
    found = await db.all("broadcasts", {"status": "running"}, {"_id": True}, sort=[("_id", 1)])
    return [document["_id"] for document in found]
