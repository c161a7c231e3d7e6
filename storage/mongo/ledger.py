"""The deliveries: planned, claimed, recorded, listed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from broadcast.model import Attempt, Delivery, Event, Recipient
from broadcast.ports import DeliveryFilter, Due, Lease, Listing, Page, Result
from storage import changes, codec
from storage.codec import micros
from storage.mongo import claiming, documents, edges
from storage.mongo.base import among, containing, words
from storage.mongo.campaigns import running
from storage.mongo.claiming import Claim, Flights
from storage.mongo.connection import Access, Connection, OutcomeUnknown, Unit
from storage.mongo.counting import counters
from storage.mongo.edges import EVER
from storage.mongo.leases import Leases
from storage.mongo.recording import Outcome, Recording
from storage.mongo.skipping import end

_PAGE = 1_000  # rows of an export read at once
_PLAN_ORDER = [("position", 1), ("_id", 1)]
_LOOK_BACK = 10_000  # deliveries read behind an edge after which it is moved on


class Ledger(Leases):
    """An account's intents and outcomes are written one batch after the other: they all write its lease, and would
    only get in each other's way."""

    def __init__(self, connection: Connection, *, wall: Callable[[], float] | None) -> None:
        super().__init__(connection, wall=wall)
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unsure: dict[str, list[Claim]] = defaultdict(list)
        self._flights: dict[str, Flights] = defaultdict(Flights)
        self._passed: dict[tuple[str, str], int] = defaultdict(int)

    async def plan(self, deliveries: Sequence[Delivery], attempts: Sequence[Attempt] = ()) -> int:
        return await self._write(lambda unit: _plan(unit, deliveries, attempts)) if deliveries else 0

    async def due(
        self,
        account: str,
        *,
        broadcast: str,
        until: datetime,
        after: tuple[datetime, int, str] | None,
        limit: int,
    ) -> list[Due]:
        behind = None if after is None else (micros(after[0]), after[1], after[2])
        last = micros(until)

        async def run(db: Access) -> list[Due]:
            if not await db.one("broadcasts", {"_id": broadcast, "status": "running"}, {"_id": True}):
                return []
            if self._passed[account, broadcast] >= _LOOK_BACK:
                await claiming.any_planned(db, account, broadcast)
                del self._passed[account, broadcast]
            return await claiming.due(db, account, broadcast, last=last, after=behind, limit=limit)

        found = await self._read(run)
        self._passed[account, broadcast] += len(found)
        return found

    async def next_due(self, account: str) -> datetime | None:
        async def run(db: Access) -> list[Due]:
            every = await running(db)
            firsts = [await claiming.due(db, account, id, last=EVER, after=None, limit=1) for id in every]
            return [due for found in firsts for due in found]

        moments = [due.delivery.due_at for due in await self._read(run)]
        return min((moment for moment in moments if moment is not None), default=None)

    async def intend(
        self,
        lease: Lease,
        deliveries: Sequence[Delivery],
        at: datetime,  # noqa: ARG002 - nothing but state, sends and rung_at changes
        *,
        after: Sequence[Result] = (),
        limits: Mapping[str, int] = {},
    ) -> list[str]:
        return await self._finish(self._intend(lease, deliveries, _outcomes(after), limits))

    async def _intend(
        self,
        lease: Lease,
        deliveries: Sequence[Delivery],
        outcomes: Sequence[Outcome],
        limits: Mapping[str, int],
    ) -> list[str]:
        """A claim of which nobody could tell whether it was written is put back before the next one: what was not
        granted is planned, and no delivery is left waiting for an outcome that cannot come."""
        claim = Claim([*{one.id for one in deliveries}])
        unsure, flights = self._unsure[lease.account], self._flights[lease.account]

        async def run(unit: Unit) -> tuple[list[str], Recording]:
            await self._check(unit, lease, flights.noted(claim))
            for earlier in unsure:
                await earlier.undo(unit)
            recording = Recording(unit, lease.account, flights.begun)
            if outcomes:
                await recording.run(outcomes)
            return await claim.write(unit, lease.account, deliveries, limits), recording

        async with self._turns[lease.account]:
            try:
                granted, recording = await self._transact(run)
            except OutcomeUnknown:
                unsure.append(claim)
                raise
            flights.written(recording.landed)
            taken = {*granted}
            flights.granted(claim, {one.id: one for one in deliveries if one.id in taken})
            for earlier in unsure:
                flights.put_back(earlier)
            unsure.clear()
            return granted

    async def record(self, lease: Lease, results: Sequence[Result]) -> list[str]:
        return await self._finish(self._record(lease, _outcomes(results)))

    async def _record(self, lease: Lease, outcomes: Sequence[Outcome]) -> list[str]:
        flights = self._flights[lease.account]

        async def run(unit: Unit) -> tuple[list[str], Recording]:
            await self._check(unit, lease, flights.noted())
            recording = Recording(unit, lease.account, flights.begun)
            return await recording.run(outcomes), recording

        async with self._turns[lease.account]:
            written, recording = await self._transact(run)
            flights.written(recording.landed)
            return written

    async def in_flight(self, lease: Lease) -> list[Due]:
        async def run(db: Access) -> list[Due]:
            told = await claiming.claims(db, lease.account)
            found = await claiming.in_flight(db, lease.account, told)
            self._flights[lease.account].found(told, [one["_id"] for one in found])
            return await claiming.known(db, sorted(found, key=lambda one: (one["position"], one["_id"])))

        async with self._turns[lease.account]:
            return await self._read(run)

    async def cancel_planned(self, broadcast: str, at: datetime, limit: int) -> int:
        async def run(unit: Unit) -> int:
            wanted = {"broadcast": broadcast, "state": "planned"}
            found = await unit.all(
                "deliveries", wanted, documents.DELIVERY, sort=_PLAN_ORDER, limit=limit, hint="in_order"
            )
            if found:
                unit.raise_control()
            return len(await end(unit, map(documents.delivery, found), lambda one: changes.cancelled(one, at)))

        return await self._write(run)

    async def delivery(self, id: str) -> Delivery | None:
        found = await self._read(lambda db: db.one("deliveries", {"_id": id}, documents.DELIVERY))
        return documents.delivery(found) if found else None

    async def deliveries(self, filter: DeliveryFilter, page: Page) -> Listing[tuple[Delivery, Recipient]]:
        async def run(db: Access) -> Listing[tuple[Delivery, Recipient]]:
            found = await _rows(db, filter, skip=page.offset, limit=page.per_page)
            return Listing(tuple(found), await _total(db, filter))

        return await self._read(run)

    async def all_deliveries(self, filter: DeliveryFilter) -> AsyncIterator[tuple[Delivery, Recipient]]:
        behind: tuple[int, str] | None = None
        while True:
            found = await self._next_rows(filter, behind)
            for row in found:
                yield row
            if len(found) < _PAGE:
                return
            last = found[-1][0]
            behind = (last.position, last.id)

    async def _next_rows(
        self, filter: DeliveryFilter, behind: tuple[int, str] | None
    ) -> list[tuple[Delivery, Recipient]]:
        return await self._read(lambda db: _rows(db, filter, behind=behind, limit=_PAGE))

    async def timeline(self, delivery: str) -> list[Attempt | Event]:
        async def run(db: Access) -> list[Attempt | Event]:
            stored = await db.one("deliveries", {"_id": delivery}, {"lines": True})
            events = await db.all("events", {"delivery": delivery})
            lines = documents.attempts(stored) if stored else []
            in_order = sorted(events, key=lambda one: one["order"])
            return changes.in_time_order(lines, map(documents.event, in_order))

        return await self._read(run)


def _outcomes(results: Sequence[Result]) -> list[Outcome]:
    """Checked before anything is written."""
    return [
        Outcome(
            result,
            codec.json_copy(result.reference) if result.reference else None,
            changes.marked_at(result) if result.marks else None,
        )
        for result in results
    ]


# --- planning -----------------------------------------------------------------------------------------


async def _plan(unit: Unit, deliveries: Sequence[Delivery], attempts: Sequence[Attempt]) -> int:
    known = await unit.all("deliveries", {"_id": among(one.id for one in deliveries)}, {"_id": True})
    there = {document["_id"] for document in known}
    new = {delivery.id: delivery for delivery in reversed(deliveries) if delivery.id not in there}
    if not new:
        return 0
    lines: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.delivery in new:
            lines[attempt.delivery].append(attempt)
    await unit.insert("deliveries", [_with_lines(one, lines.get(one.id, ())) for one in reversed(new.values())])
    await edges.hold_back(unit, edges.planned(new.values()))
    _count_plan(unit, new.values(), lines)
    unit.raise_control()
    return len(new)


def _with_lines(delivery: Delivery, lines: Sequence[Attempt]) -> dict[str, Any]:
    document = documents.of_delivery(delivery)
    if lines:
        document["lines"] = [documents.of_attempt(line) for line in lines]
    return document


def _count_plan(unit: Unit, new: Iterable[Delivery], lines: Mapping[str, Sequence[Attempt]]) -> None:
    """Deliveries that begin alike add the same: one of each kind is asked for its deltas."""
    alike: dict[tuple[Any, ...], list[Delivery]] = defaultdict(list)
    for one in new:
        if one.id in lines:
            unit.tally(one.broadcast, changes.plan_deltas(one, lines[one.id]))
        else:
            alike[one.broadcast, one.channel, one.state, one.reason, one.possibly_doubled].append(one)
    for deliveries in alike.values():
        deltas = changes.plan_deltas(deliveries[0], ())
        unit.tally(deliveries[0].broadcast, deltas, times=len(deliveries))


# --- listing ------------------------------------------------------------------------------------------


async def _rows(
    db: Access,
    filter: DeliveryFilter,
    *,
    behind: tuple[int, str] | None = None,
    skip: int = 0,
    limit: int,
) -> list[tuple[Delivery, Recipient]]:
    wanted = _wanted(filter)
    if behind is not None:
        position, id = behind
        wanted["position"] = {"$gte": position}
        wanted["$or"] = [{"position": {"$gt": position}}, {"_id": {"$gt": id}}]
    found = await db.piped("deliveries", [*_matching(filter, wanted), {"$skip": skip}, {"$limit": limit}])
    people = await db.all("recipients", {"_id": among({one["recipient"] for one in found})})
    known = {document["_id"]: documents.recipient(document) for document in people}
    return [(documents.delivery(one), known.get(one["recipient"]) or Recipient(one["recipient"])) for one in found]


def _wanted(filter: DeliveryFilter) -> dict[str, Any]:
    chosen = words(state=filter.states, reason=filter.reasons, channel=filter.channels)
    return {"broadcast": filter.broadcast, **chosen}


def _matching(filter: DeliveryFilter, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The filter in the order of the plan, from the index; a person is looked up where the text asks for it."""
    stages: list[dict[str, Any]] = [{"$match": wanted}, {"$sort": dict(_PLAN_ORDER)}, {"$unset": ["lines"]}]
    if filter.q:
        whose = {"from": "recipients", "localField": "recipient", "foreignField": "_id", "as": "person"}
        stages += [
            {"$lookup": whose},
            {"$unwind": "$person"},
            {"$match": containing("person.search", changes.fold(filter.q))},
            {"$unset": "person"},
        ]
    return stages


async def _total(db: Access, filter: DeliveryFilter) -> int:
    """From the counters where they tell it, so that the first page of a million is not a count of them."""
    if filter.q:
        counted = await db.piped("deliveries", [*_matching(filter, _wanted(filter)), {"$count": "total"}])
        return int(counted[0]["total"]) if counted else 0
    if filter.reasons:
        return await db.count("deliveries", _wanted(filter))
    total = 0
    for path, count in (await counters(db, filter.broadcast)).items():
        kind, *place = path.split("/")
        if kind == "state" and _asked(filter, *place):
            total += count
    return total


def _asked(filter: DeliveryFilter, channel: str, state: str) -> bool:
    return (not filter.channels or channel in filter.channels) and (not filter.states or state in filter.states)
