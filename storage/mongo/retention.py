"""What goes when it is old: deliveries with their stories, and what repeats are told by."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from broadcast.model import OPEN_STATES, Broadcast, BroadcastStatus
from storage.codec import BROADCAST, micros
from storage.mongo.base import Base, among
from storage.mongo.connection import Access, Unit

_OLDEST_FIRST = [("finished_at", 1), ("_id", 1)]
_NOTED = ("inbound", "answers", "waiting")


class Retention(Base):
    async def outlived(
        self,
        statuses: Collection[BroadcastStatus],
        *,
        finished_before: datetime,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Broadcast]:
        wanted: dict[str, Any] = {
            "status": among(sorted(statuses)),
            "removal_done": False,
            "finished_at": {"$lt": micros(finished_before)},
        }
        if after is not None:
            finished, id = micros(after[0]), after[1]
            wanted["$or"] = [{"finished_at": {"$gt": finished}}, {"finished_at": finished, "_id": {"$gt": id}}]
        found = await self._read(lambda db: db.all("broadcasts", wanted, sort=_OLDEST_FIRST, limit=limit))
        return [BROADCAST.decode(one["_id"], one["doc"]) for one in found]

    async def remove_deliveries(self, broadcast: str, limit: int) -> int:
        return await self._write(lambda unit: _remove(unit, broadcast, limit))

    async def forget(self, before: datetime, limit: int) -> int:
        return await self._read(lambda db: _forget(db, micros(before), limit))


async def _remove(unit: Unit, broadcast: str, limit: int) -> int:
    """An event writes its delivery: of it and the removal, one begins anew and finds what the other made."""
    marked = await unit.one("broadcasts", {"_id": broadcast})
    if marked is None or BROADCAST.decode(broadcast, marked["doc"]).deliveries_removed_at is None:
        return 0
    ended = {"broadcast": broadcast, "state": {"$nin": sorted(OPEN_STATES)}}
    in_order = [("position", 1), ("_id", 1)]
    found = await unit.all("deliveries", ended, {"_id": True}, sort=in_order, limit=limit, hint="in_order")
    gone = among(one["_id"] for one in found)
    if found:
        await unit.delete_many("deliveries", {"_id": gone})
        await unit.delete_many("events", {"delivery": gone})
    else:
        await unit.delete_many("edges", {"_id.broadcast": broadcast})
    return len(found)


async def _forget(db: Access, moment: int, limit: int) -> int:
    """What is forgotten and noted again meanwhile stays: it is younger then."""
    forgotten = 0
    for collection in _NOTED:
        old = {"at": {"$lt": moment}}
        found = await db.all(collection, old, {"_id": True}, limit=limit)
        if found:
            await db.delete_many(collection, {"_id": {"$in": [one["_id"] for one in found]}, **old})
        forgotten += len(found)
    return forgotten
