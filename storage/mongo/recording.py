"""Outcomes on their way into the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from broadcast import tally
from broadcast.model import Attempt, ChannelName, ConversationState, Delivery, DeliveryState
from broadcast.ports import Result
from storage import changes
from storage.codec import json_text, micros
from storage.mongo import documents, edges
from storage.mongo.base import among
from storage.mongo.connection import Change, Unit, change
from storage.mongo.edges import Planned
from storage.mongo.inbox import apply_waiting
from storage.mongo.skipping import mark

_HOUR = 3_600_000_000
_GONE = {"state": None}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result with what its answer told of the conversation, checked before anything is written."""

    result: Result
    learned: Mapping[str, Any] | None
    marked_at: datetime | None


class Recording:
    """One batch of results. What the timeline gains is pushed into the delivery itself: one write a delivery. Only
    what an answer told of a conversation makes it stop and write what it has, because it ends other deliveries."""

    def __init__(self, unit: Unit, account: str, begun: Mapping[str, Delivery]) -> None:
        self._unit = unit
        self._account = account
        self._begun = begun
        self._stored: dict[str, dict[str, Any]] = {}
        self._given: set[str] = set()
        self._waited_on: set[str] = set()
        self._writes: list[Change] = []
        self._planned: list[Planned] = []
        self._learned: dict[str, dict[str, Any]] = defaultdict(dict)
        self._moves: dict[tuple[Any, ...], tuple[DeliveryState, Delivery]] = {}
        self._tries: dict[tuple[Any, ...], Attempt] = {}
        self._counts: dict[tuple[Any, ...], int] = defaultdict(int)

    async def run(self, outcomes: Sequence[Outcome]) -> list[str]:
        await self._load([outcome.result.delivery for outcome in outcomes])
        written = []
        for outcome in outcomes:
            stored = self._stored.get(outcome.result.delivery.id)
            if stored is None or not self._takes(stored, outcome.result):
                continue
            self._note(stored, outcome.result)
            written.append(outcome.result.delivery.id)
            await self._told(stored.get("conversation"), outcome)
        await self._flush()
        await edges.hold_back(self._unit, self._planned)
        await self._learn()
        self._count()
        told_of = self._waited_on & {self._stored[id].get("conversation") for id in written}
        if told_of:
            await apply_waiting(self._unit, told_of)
        return written

    @property
    def landed(self) -> set[str]:
        """Of those that were given, the ones that are not being sent any more."""
        return {id for id in self._given if self._stored.get(id, _GONE)["state"] != "sending"}

    async def _load(self, given: Sequence[Delivery]) -> None:
        """What is stored of them, and whether any receipt waits on their conversations."""
        if not given:
            return
        self._given = {one.id for one in given}
        known = await self._still_sending(self._given & self._begun.keys())
        self._stored = {id: documents.of_begun(self._begun[id]) for id in known}
        if unknown := self._given - known:
            await self._read(unknown)
        places = {one.conversation for one in given if one.conversation}
        waiting = await self._unit.all("waiting", {"conversation": among(places)}, {"conversation": True})
        self._waited_on = {document["conversation"] for document in waiting}

    async def _still_sending(self, ids: Set[str]) -> Set[str]:
        """Of those that began here: whatever else becomes of them, their state tells."""
        if not ids:
            return ids
        wanted = {"_id": among(ids), "state": {"$ne": "sending"}}
        others = await self._unit.all("deliveries", wanted, {"_id": True}, hint="_id_")
        return ids - {one["_id"] for one in others}

    async def _read(self, ids: Iterable[str]) -> None:
        found = await self._unit.all("deliveries", {"_id": among(ids)}, documents.DELIVERY)
        self._stored |= {document["_id"]: document for document in found}

    def _takes(self, stored: Mapping[str, Any], result: Result) -> bool:
        if stored["state"] != result.before or stored.get("account") != self._account:
            return False
        if not changes.moves_on(result):
            return True
        return tuple(stored.get(name) for name in changes.RUNG) != changes.rung_of(result.delivery)

    def _note(self, stored: dict[str, Any], result: Result) -> None:
        """Only what is another than it was is written."""
        after = result.delivery
        values = documents.of_progress(after) | documents.of_turn(after)
        moved = {name: value for name, value in values.items() if stored.get(name) != value}
        update: dict[str, Any] = {"$set": moved}
        if after.state is DeliveryState.SENDING:
            update["$unset"] = {"intent": ""}
        if result.attempt is not None:
            update["$push"] = {"lines": documents.of_attempt(result.attempt)}
            kind = self._try(stored, result.attempt, new_rung=result.new_rung)
            self._counts[kind] += 1
        self._writes.append(change(after.id, update))
        self._move(stored, result.before, after)
        if after.state is DeliveryState.PLANNED and after.due_at is not None:
            place = (micros(after.due_at), stored["position"], after.id)
            self._planned.append((self._account, stored["broadcast"], place))
        stored |= moved

    def _move(self, stored: Mapping[str, Any], before: DeliveryState, after: Delivery) -> None:
        broadcast = stored["broadcast"]
        if after.state is not before:
            hour = None if after.sent_at is None else micros(after.sent_at) // _HOUR
            channel = stored.get("channel")
            kind = (broadcast, channel, before, after.state, after.reason, hour)
            if kind not in self._moves:
                name = None if channel is None else ChannelName(channel)
                self._moves[kind] = (before, replace(after, channel=name))
            self._counts[kind] += 1
        if after.possibly_doubled and not stored.get("possibly_doubled", False):
            self._unit.tally(broadcast, tally.of_doubt())

    def _try(self, stored: Mapping[str, Any], attempt: Attempt, *, new_rung: bool) -> tuple[Any, ...]:
        kind = (stored["broadcast"], attempt.round, attempt.rung, attempt.outcome, new_rung)
        self._tries.setdefault(kind, attempt)
        return kind

    async def _told(self, conversation: str | None, outcome: Outcome) -> None:
        if conversation is None:
            return
        if outcome.learned:
            self._learned[conversation] |= outcome.learned
        if outcome.result.marks is not None and outcome.marked_at is not None:
            await self._mark(conversation, outcome.result.marks, outcome.marked_at)

    async def _mark(self, conversation: str, state: ConversationState, at: datetime) -> None:
        await self._flush()
        ended = {*await mark(self._unit, conversation, state, at)} & self._stored.keys()
        if ended:
            await self._read(ended)

    async def _flush(self) -> None:
        await self._unit.change("deliveries", self._writes)
        self._writes = []

    async def _learn(self) -> None:
        if not self._learned:
            return
        wanted = {"_id": among(self._learned)}
        writes = []
        for document in await self._unit.all("conversations", wanted, {"reference": True}):
            merged = {**orjson.loads(document["reference"]), **self._learned[document["_id"]]}
            writes.append(change(document["_id"], {"$set": {"reference": json_text(merged)}}))
        await self._unit.change("conversations", writes)

    def _count(self) -> None:
        """Moves of one kind add the same: one of each is asked for its deltas."""
        for kind, (before, after) in self._moves.items():
            self._unit.tally(kind[0], tally.of_move(before, after), times=self._counts[kind])
        for kind, attempt in self._tries.items():
            self._unit.tally(kind[0], tally.of_attempt(attempt, new_rung=kind[-1]), times=self._counts[kind])
