"""Outcomes on their way into the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from broadcast import tally
from broadcast.model import Attempt, ChannelName, ConversationState, Delivery, DeliveryState
from broadcast.ports import Result
from storage import changes
from storage.codec import json_text, micros
from storage.mongo import documents
from storage.mongo.base import among
from storage.mongo.connection import Change, Unit, change
from storage.mongo.inbox import apply_waiting
from storage.mongo.skipping import mark

_HOUR = 3_600_000_000
_GUARDS = {
    "state": True,
    "broadcast": True,
    "account": True,
    "conversation": True,
    "channel": True,
    "possibly_doubled": True,
    **dict.fromkeys(changes.RUNG, True),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result with what its answer told of the conversation, checked before anything is written."""

    result: Result
    learned: Mapping[str, Any] | None
    marked_at: datetime | None


@dataclass(slots=True)
class _Stored:
    """What a result is checked against."""

    state: str
    broadcast: str
    account: str | None
    conversation: str | None
    channel: ChannelName | None
    possibly_doubled: bool
    rung: tuple[Any, ...]


class Recording:
    """One batch of results. What the timeline gains is pushed into the delivery itself: one write a delivery. Only
    what an answer told of a conversation makes it stop and write what it has, because it ends other deliveries."""

    def __init__(self, unit: Unit, account: str) -> None:
        self._unit = unit
        self._account = account
        self._stored: dict[str, _Stored] = {}
        self._waited_on: set[str] = set()
        self._writes: list[Change] = []
        self._learned: dict[str, dict[str, Any]] = defaultdict(dict)
        self._moves: dict[tuple[Any, ...], tuple[DeliveryState, Delivery]] = {}
        self._tries: dict[tuple[Any, ...], Attempt] = {}
        self._counts: dict[tuple[Any, ...], int] = defaultdict(int)

    async def run(self, outcomes: Sequence[Outcome]) -> list[str]:
        await self._load([outcome.result.delivery for outcome in outcomes])
        written = []
        for outcome in outcomes:
            stored = self._stored.get(outcome.result.delivery.id)
            if stored is None or stored.state != outcome.result.before or stored.account != self._account:
                continue
            if changes.moves_on(outcome.result) and stored.rung == changes.rung_of(outcome.result.delivery):
                continue
            self._note(stored, outcome.result)
            written.append(outcome.result.delivery.id)
            await self._told(stored.conversation, outcome)
        await self._flush()
        await self._learn()
        self._count()
        told_of = self._waited_on & {self._stored[id].conversation for id in written}
        if told_of:
            await apply_waiting(self._unit, told_of)
        return written

    async def _load(self, given: Sequence[Delivery]) -> None:
        """What is stored of them, and whether any receipt waits on their conversations, in one command."""
        if not given:
            return
        places = {one.conversation for one in given if one.conversation}
        waiting = {"waiting": ("waiting", {"conversation": among(places)}, {"conversation": True})}
        wanted = {"_id": among(one.id for one in given)}
        found, others = await self._unit.with_others("deliveries", wanted, _GUARDS, waiting)
        self._stored = {document["_id"]: _stored(document) for document in found}
        self._waited_on = {document["conversation"] for document in others["waiting"]}

    def _note(self, stored: _Stored, result: Result) -> None:
        after = result.delivery
        update: dict[str, Any] = {"$set": documents.of_progress(after)}
        if result.attempt is not None:
            update["$push"] = {"lines": documents.of_attempt(result.attempt)}
            kind = self._try(stored, result.attempt, new_rung=result.new_rung)
            self._counts[kind] += 1
        self._writes.append(change(after.id, update))
        self._move(stored, result.before, after)
        stored.state, stored.possibly_doubled = str(after.state), after.possibly_doubled

    def _move(self, stored: _Stored, before: DeliveryState, after: Delivery) -> None:
        if after.state is not before:
            hour = None if after.sent_at is None else micros(after.sent_at) // _HOUR
            kind = (stored.broadcast, stored.channel, before, after.state, after.reason, hour)
            if kind not in self._moves:
                self._moves[kind] = (before, replace(after, channel=stored.channel))
            self._counts[kind] += 1
        if after.possibly_doubled and not stored.possibly_doubled:
            self._unit.tally(stored.broadcast, tally.of_doubt())

    def _try(self, stored: _Stored, attempt: Attempt, *, new_rung: bool) -> tuple[Any, ...]:
        kind = (stored.broadcast, attempt.round, attempt.rung, attempt.outcome, new_rung)
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
        for id in await mark(self._unit, conversation, state, at):
            if id in self._stored:
                self._stored[id].state = str(DeliveryState.SKIPPED)

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


def _stored(document: Mapping[str, Any]) -> _Stored:
    get = document.get
    return _Stored(
        document["state"],
        document["broadcast"],
        get("account"),
        get("conversation"),
        None if get("channel") is None else ChannelName(document["channel"]),
        get("possibly_doubled", False),
        tuple(get(name) for name in changes.RUNG),
    )
