"""Ending planned deliveries from outside the engine: somebody unsubscribed, a conversation closed, a stop.

Every ending writes the delivery itself, so that it and an intent for the same delivery cannot both take hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from broadcast.model import ConversationState, Delivery, Reason
from storage import changes
from storage.mongo import documents
from storage.mongo.connection import Change, Unit, change


async def mark(unit: Unit, conversation: str, state: ConversationState, at: datetime) -> list[str]:
    """Sets the state; answers the ids of the planned deliveries that ended with it."""
    if not await unit.update("conversations", {"_id": conversation}, {"$set": {"state": str(state)}}):
        return []
    unit.raise_control()
    if state not in changes.ENDS:
        return []
    return await skip_planned(unit, {"conversation": conversation}, reason=changes.ENDS[state], at=at)


async def skip_planned(unit: Unit, whose: Mapping[str, Any], *, reason: Reason, at: datetime) -> list[str]:
    """Skips what is planned for the person or on the conversation; answers the ids."""
    planned = await unit.all("deliveries", {**whose, "state": "planned"}, documents.DELIVERY)
    return await end(unit, map(documents.delivery, planned), lambda one: changes.skipped(one, reason, at))


async def end(unit: Unit, planned: Iterable[Delivery], ended: Callable[[Delivery], Delivery]) -> list[str]:
    """Writes what `ended` makes of each, with its counters; answers the ids."""
    writes: list[Change] = []
    written = []
    for before in planned:
        after = ended(before)
        writes.append(change(before.id, {"$set": documents.of_progress(after)}))
        unit.tally(before.broadcast, changes.move_deltas(before, after))
        written.append(before.id)
    await unit.change("deliveries", writes)
    return written
