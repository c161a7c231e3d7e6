"""Erasing a person: what leads to them goes, what was counted stays."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from storage import changes
from storage.mongo import documents
from storage.mongo.base import Base, among
from storage.mongo.connection import Change, Unit, change


class Erasure(Base):
    async def erase_recipient(self, id: str, at: datetime) -> bool:
        return await self._write(lambda unit: _erase(unit, id, at))


async def _erase(unit: Unit, id: str, at: datetime) -> bool:
    """A start and an erasure must not miss each other: the erasure writes every broadcast that could start."""
    planning = await unit.all("broadcasts", {"status": "initializing"}, {"_id": True})
    changes.refuse_planning([one["_id"] for one in planning])
    if not await unit.one("recipients", {"_id": id}, {"_id": True}):
        return False
    await unit.update_many("broadcasts", {"status": "scheduled"}, {"$inc": {"touched": 1}})
    await _erase_deliveries(unit, id, at)
    places = await unit.all("conversations", {"recipient": id}, {"_id": True})
    await unit.delete_many("waiting", {"conversation": among(one["_id"] for one in places)})
    await unit.delete_many("conversations", {"recipient": id})
    await unit.delete_many("recipients", {"_id": id})
    unit.raise_control()
    return True


async def _erase_deliveries(unit: Unit, recipient: str, at: datetime) -> None:
    found = await unit.all("deliveries", {"recipient": recipient})
    writes: list[Change] = []
    for document in found:
        before = documents.delivery(document)
        after = changes.erased(before, at)
        unit.tally(before.broadcast, changes.move_deltas(before, after))
        values = {**documents.of_progress(after), **_silent(document)}
        writes.append(change(before.id, {"$set": values, "$unset": {"conversation": ""}}))
    await unit.change("deliveries", writes)
    whose = among(document["_id"] for document in found)
    await unit.update_many("events", {"delivery": whose}, {"$set": {"detail": None}})


def _silent(document: Mapping[str, Any]) -> dict[str, Any]:
    """The lines of a timeline without their details, which come last (`documents.of_attempt`)."""
    lines = document.get("lines")
    return {"lines": [[*line[:-1], None] for line in lines]} if lines else {}
