"""How far an account is through a broadcast: before its edge nothing is planned there any more.

The index in which is found what is due holds what has ended as well, so that no change of state touches any index:
where one is touched MongoDB makes the keys of all of them anew, which is more than the rest of the write. So what
is due is looked for from the edge on. Whoever makes a delivery planned writes the edge of its place, in the same
transaction, and by its count of writes whoever moves an edge on knows whether what they looked at still holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from broadcast.model import Delivery, DeliveryState
from storage.codec import micros
from storage.mongo.connection import Access, Unit, change_where

Place = tuple[int, int, str]  # due_at, position, id
Planned = tuple[str, str, Place]  # account, broadcast, and where in it

EVER = 2**62  # microseconds
_START: Place = (-EVER, 0, "")
_END: Place = (EVER, 0, "")


@dataclass(frozen=True, slots=True)
class Edge:
    """`writes` is ``None`` where there is none yet, and then everything is looked through."""

    place: Place = _START
    writes: int | None = None


async def edge(db: Access, account: str, broadcast: str) -> Edge:
    found = await db.one("edges", _of(account, broadcast))
    if found is None:
        return Edge()
    due_at, position, id = found["place"]
    return Edge((due_at, position, id), found["writes"])


async def move_on(db: Access, account: str, broadcast: str, seen: Edge, first: Place | None) -> None:
    """To the first that is planned (``None``: none is), as it was found after `seen` was read. Where something was
    made planned since, the edge stays."""
    place = _END if first is None else first
    if seen.writes is None:
        made = {"$setOnInsert": {"place": _START, "writes": 0}}
        await db.update("edges", _of(account, broadcast), made, upsert=True)
    elif place > seen.place:
        unchanged = {**_of(account, broadcast), "writes": seen.writes}
        await db.update("edges", unchanged, {"$set": {"place": place}})


def planned(deliveries: Iterable[Delivery]) -> Iterator[Planned]:
    """Those of them that are, each with its place."""
    for one in deliveries:
        if one.state is DeliveryState.PLANNED and one.due_at is not None and one.account is not None:
            yield one.account, one.broadcast, (micros(one.due_at), one.position, one.id)


async def hold_back(unit: Unit, planned: Iterable[Planned]) -> None:
    """No edge is behind any of those that become planned."""
    firsts: dict[tuple[str, str], Place] = {}
    for account, broadcast, place in planned:
        firsts[account, broadcast] = min(place, firsts.get((account, broadcast), _END))
    await unit.change(
        "edges", [change_where(_of(*whose), [_held_at(place)], upsert=True) for whose, place in firsts.items()]
    )


def _held_at(place: Place) -> dict[str, Any]:
    stored = {"$ifNull": ["$place", {"$literal": _START}]}
    written = {"$add": [{"$ifNull": ["$writes", 0]}, 1]}
    return {"$set": {"place": {"$min": [stored, {"$literal": place}]}, "writes": written}}


def _of(account: str, broadcast: str) -> dict[str, Any]:
    return {"_id": {"account": account, "broadcast": broadcast}}
