"""The deliveries: planned, claimed, recorded, listed.

The hot path is `due`, `intend`, `record`: whole batches, rows by their integer key, counters by kind of change.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import Any

import orjson

from broadcast import report, tally
from broadcast.model import (
    Attempt,
    BroadcastStatus,
    ChannelName,
    ConversationState,
    Delivery,
    DeliveryState,
    Event,
    Recipient,
    move_delivery,
)
from broadcast.ports import DeliveryFilter, Due, Lease, Listing, Page, Result
from storage import changes, codec
from storage.codec import instant, micros, micros_or_none
from storage.sqlite import rows
from storage.sqlite.base import Base, ids, one, words
from storage.sqlite.batches import Rows, in_one, read
from storage.sqlite.campaigns import counters
from storage.sqlite.inbox import apply_waiting
from storage.sqlite.lanes import Unit
from storage.sqlite.leases import check
from storage.sqlite.skipping import end, mark

_SENDING = str(DeliveryState.SENDING)
_PAGE = 1_000  # rows of an export read at once
_HOUR = 3_600_000_000

_DELIVERIES = Rows(
    """
    INSERT INTO deliveries (
        id, broadcast, recipient, position, channel, account, conversation, state, reason, round, rung, due_at,
        attempts, sends, tries, throttles, rung_at, attempted_at, ended_at, sent_at, platform_message_id,
        possibly_doubled, delivered_at, read_at, clicked_at
    ) VALUES
    """,
    25,
)
# `OR FAIL`: what fails here undoes the whole call, so SQLite need not copy every page to undo the statement alone.
_MOVED = Rows(
    """
    UPDATE OR FAIL deliveries SET
        state = v.column1, reason = v.column2, round = v.column3, rung = v.column4, due_at = v.column5,
        attempts = v.column6, sends = v.column7, tries = v.column8, throttles = v.column9, rung_at = v.column10,
        attempted_at = v.column11, ended_at = v.column12, sent_at = v.column13, platform_message_id = v.column14,
        possibly_doubled = v.column15, last_attempt = v.column16
    FROM (VALUES
    """,
    17,
    ") v WHERE deliveries.key = v.column17",
)
_ATTEMPTS = Rows("INSERT INTO attempts (key, delivery, previous, at, round, rung, outcome, detail) VALUES", 8)
_INTENTS = Rows("INSERT INTO sending (key, account, sends, rung_at) VALUES", 4)
_OVER = Rows("DELETE FROM sending WHERE key IN (VALUES", 1, ")")


class Ledger(Base):
    async def plan(self, deliveries: Sequence[Delivery], attempts: Sequence[Attempt] = ()) -> int:
        return await self._write(lambda unit: _plan(unit, deliveries, attempts))

    async def due(
        self,
        account: str,
        *,
        broadcast: str,
        until: datetime,
        after: tuple[datetime, int, str] | None,
        limit: int,
    ) -> list[Due]:
        first, position, id = (-_EVER, 0, "") if after is None else (micros(after[0]), after[1], after[2])
        wanted = {
            "account": account,
            "broadcast": broadcast,
            "first": first,
            "position": position,
            "id": id,
            "last": micros(until),
            "limit": limit,
        }

        return await self._read(lambda db: [rows.due(row) for row in read(db, _DUE_TOGETHER, wanted)])

    async def next_due(self, account: str) -> datetime | None:
        """Those that do not run are never looked at."""
        wanted = {"account": account, "first": -_EVER, "position": 0, "id": "", "last": _EVER, "limit": 1}

        def run(db: sqlite3.Connection) -> datetime | None:
            running = "SELECT id FROM broadcasts WHERE status = ?"
            every = db.execute(running, (str(BroadcastStatus.RUNNING),)).fetchall()
            firsts = [db.execute(DUE, {**wanted, "broadcast": id}).fetchone() for (id,) in every]
            return min((instant(row[_DUE_AT]) for row in firsts if row), default=None)

        return await self._read(run)

    async def intend(
        self,
        lease: Lease,
        deliveries: Sequence[Delivery],
        at: datetime,  # noqa: ARG002 - nothing but state, sends and rung_at changes
        *,
        after: Sequence[Result] = (),
        limits: Mapping[str, int] = {},
    ) -> list[str]:
        outcomes = [*map(_Outcome.of, after)]

        def run(unit: Unit) -> list[str]:
            check(unit.db, lease, self._wall())
            if outcomes:
                _Recording(unit, lease).run(outcomes)
            return _intend(unit, lease, deliveries, limits)

        return await self._write(run)

    async def record(self, lease: Lease, results: Sequence[Result]) -> list[str]:
        outcomes = [*map(_Outcome.of, results)]

        def run(unit: Unit) -> list[str]:
            check(unit.db, lease, self._wall())
            return _Recording(unit, lease).run(outcomes)

        return await self._write(run)

    async def in_flight(self, lease: Lease) -> list[Due]:
        def run(db: sqlite3.Connection) -> list[Due]:
            found = db.execute(
                f"""
                SELECT {rows.DELIVERY}, {rows.RECIPIENT}, {rows.CONVERSATION}
                FROM sending s CROSS JOIN deliveries d ON d.key = s.key
                JOIN recipients r ON r.id = d.recipient JOIN conversations c ON c.id = d.conversation
                WHERE s.account = ? ORDER BY d.position, d.id
                """,  # noqa: S608 - our columns
                (lease.account,),
            )
            return [rows.due(row) for row in found]

        return await self._read(run)

    async def cancel_planned(self, broadcast: str, at: datetime, limit: int) -> int:
        def run(unit: Unit) -> int:
            found = unit.db.execute(LEFT, {"broadcast": broadcast, "limit": limit}).fetchall()
            if found:
                unit.raise_control()
            return len(end(unit, map(rows.delivery, found), lambda one: changes.cancelled(one, at)))

        return await self._write(run)

    async def delivery(self, id: str) -> Delivery | None:
        sql = f"SELECT {rows.DELIVERY} FROM {rows.LEDGER} WHERE d.id = ?"  # noqa: S608 - our columns
        return await self._read(lambda db: one(db.execute(sql, (id,)).fetchone(), rows.delivery))

    async def deliveries(self, filter: DeliveryFilter, page: Page) -> Listing[tuple[Delivery, Recipient]]:
        def run(db: sqlite3.Connection) -> Listing[tuple[Delivery, Recipient]]:
            found = _rows(db, filter=filter, limit=page.per_page, offset=page.offset)
            return Listing(tuple(map(rows.with_recipient, found)), _total(db, filter))

        return await self._list(run)

    async def all_deliveries(self, filter: DeliveryFilter) -> AsyncIterator[tuple[Delivery, Recipient]]:
        behind = _START
        while True:
            found = await self._list(partial(_rows, filter=filter, behind=behind, limit=_PAGE))
            for row in found:
                yield rows.with_recipient(row)
            if len(found) < _PAGE:
                return
            behind = (found[-1][_POSITION], found[-1][_ID])

    async def timeline(self, delivery: str) -> list[Attempt | Event]:
        return await self._read(lambda db: _timeline(db, delivery))


# --- planning -----------------------------------------------------------------------------------------


def _plan(unit: Unit, deliveries: Sequence[Delivery], attempts: Sequence[Attempt]) -> int:
    known = _known(unit.db, [delivery.id for delivery in deliveries])
    new = {delivery.id: delivery for delivery in reversed(deliveries) if delivery.id not in known}
    if not new:
        return 0
    # What goes at one time is kept side by side, so that a claim reads few pages, and its outcomes write few.
    in_turn = sorted(new.values(), key=lambda one: (one.due_at is None, one.due_at, one.position))
    _DELIVERIES.run(unit.db, [rows.of_delivery(delivery) for delivery in in_turn])
    lines: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.delivery in new:
            lines[attempt.delivery].append(attempt)
    if lines:
        _insert_lines(unit.db, lines)
    flying = [delivery for delivery in new.values() if delivery.state is DeliveryState.SENDING]
    if flying:
        keys = _known(unit.db, [delivery.id for delivery in flying])
        _INTENTS.run(unit.db, [rows.of_intent(keys[one.id], one) for one in flying])
    _count_plan(unit, new.values(), lines)
    unit.raise_control()
    return len(new)


def _known(db: sqlite3.Connection, wanted: Sequence[str]) -> dict[str, int]:
    """Ids that are in the ledger, with their keys."""
    sql = "SELECT id, key FROM deliveries WHERE id IN (SELECT value FROM json_each(?))"
    return dict(db.execute(sql, (ids(wanted),)).fetchall())


def _insert_lines(db: sqlite3.Connection, lines: Mapping[str, Sequence[Attempt]]) -> None:
    keys = _known(db, list(lines))
    line = _next_line(db)
    written: list[rows.Row] = []
    for id, attempts in lines.items():
        previous = None
        for attempt in attempts:
            written.append((line, keys[id], previous, *rows.of_attempt(attempt)))
            previous, line = line, line + 1
        db.execute("UPDATE deliveries SET last_attempt = ? WHERE key = ?", (previous, keys[id]))
    _ATTEMPTS.run(db, written)


def _next_line(db: sqlite3.Connection) -> int:
    """The key of the next line of any timeline: nobody else writes while this transaction does."""
    (last,) = db.execute("SELECT max(key) FROM attempts").fetchone()
    return (last or 0) + 1


def _count_plan(unit: Unit, new: Iterable[Delivery], lines: Mapping[str, Sequence[Attempt]]) -> None:
    """Deliveries that begin alike add the same: one of each kind is asked for its deltas."""
    alike: dict[tuple[Any, ...], list[Delivery]] = defaultdict(list)
    for delivery in new:
        if delivery.id in lines:
            unit.count(delivery.broadcast, changes.plan_deltas(delivery, lines[delivery.id]))
        else:
            kind = (
                delivery.broadcast,
                delivery.channel,
                delivery.state,
                delivery.reason,
                delivery.possibly_doubled,
            )
            alike[kind].append(delivery)
    for deliveries in alike.values():
        deltas = changes.plan_deltas(deliveries[0], ())
        unit.count(deliveries[0].broadcast, deltas, times=len(deliveries))


# --- claiming -----------------------------------------------------------------------------------------

_DUE_AT, _POSITION, _ID = 11, 3, 0

#: One running broadcast from a place on; SQLite stops reading where we stop asking. The joins are in this order.
_DUE_COLUMNS = f"{rows.DELIVERY}, {rows.RECIPIENT}, {rows.CONVERSATION}"
_DUE_FROM = """
    FROM deliveries d INDEXED BY deliveries_due
    CROSS JOIN recipients r ON r.id = d.recipient
    CROSS JOIN conversations c ON c.id = d.conversation
    LEFT JOIN sending s ON s.key = d.key
    WHERE d.state = 'planned' AND s.key IS NULL AND d.account = :account AND d.broadcast = :broadcast
    AND EXISTS (SELECT 1 FROM broadcasts b WHERE b.id = :broadcast AND b.status = 'running')
    AND (d.due_at, d.position, d.id) > (:first, :position, :id) AND d.due_at <= :last
    ORDER BY d.due_at, d.position, d.id LIMIT :limit
"""
DUE = f"SELECT {_DUE_COLUMNS} {_DUE_FROM}"
_DUE_TOGETHER = in_one(_DUE_COLUMNS, _DUE_FROM)
_EVER = 2**62
_START = (-_EVER, "")  # behind this place comes the whole plan

#: What is left of a broadcast and not in flight.
LEFT = f"""
    SELECT {rows.DELIVERY}
    FROM deliveries d INDEXED BY deliveries_due LEFT JOIN sending s ON s.key = d.key
    WHERE d.broadcast = :broadcast AND d.state = 'planned' AND s.key IS NULL
    ORDER BY d.account, d.due_at, d.position, d.id LIMIT :limit
"""  # noqa: S608 - our columns


#: What may be sent of the ids asked. The planner is told the order: a few hundred ids, each looked up.
_GRANTABLE_FROM = """
    FROM json_each(:ids) wanted
    CROSS JOIN deliveries d ON d.id = wanted.value
    WHERE d.state = 'planned' AND d.account = :account
    AND d.broadcast IN (SELECT id FROM broadcasts WHERE status = 'running')
    AND NOT EXISTS (SELECT 1 FROM sending s WHERE s.key = d.key)
    AND NOT EXISTS (
        SELECT 1 FROM recipients r INDEXED BY recipients_unsubscribed
        WHERE r.id = d.recipient AND r.unsubscribed_at IS NOT NULL
    )
    AND NOT EXISTS (
        SELECT 1 FROM conversations c INDEXED BY conversations_closed
        WHERE c.id = d.conversation AND c.state <> 'reachable'
    )
"""
_GRANTED = "d.id, d.key, d.broadcast, d.channel"
GRANTABLE = f"SELECT {_GRANTED} {_GRANTABLE_FROM}"
_GRANTABLE_TOGETHER = in_one(_GRANTED, _GRANTABLE_FROM)


def _intend(unit: Unit, lease: Lease, deliveries: Sequence[Delivery], limits: Mapping[str, int]) -> list[str]:
    """Nobody else writes meanwhile: what is counted holds until the commit."""
    wanted = orjson.dumps([delivery.id for delivery in deliveries]).decode()
    found = read(unit.db, _GRANTABLE_TOGETHER, {"ids": wanted, "account": lease.account})
    grantable = {row[0]: row for row in found}
    room = {id: most - _begun(unit, id) for id, most in limits.items()}
    granted: list[str] = []
    intents = []
    alike: dict[tuple[str, str | None], int] = defaultdict(int)
    for delivery in deliveries:
        row = grantable.pop(delivery.id, None)
        if row is not None and changes.takes_place(room, row[2]):
            granted.append(delivery.id)
            intents.append((row[1], lease.account, delivery.sends, micros_or_none(delivery.rung_at)))
            alike[row[2], row[3]] += 1
    _INTENTS.run(unit.db, intents)
    for (broadcast, channel), count in alike.items():
        unit.count(broadcast, _sending_deltas(channel), times=count)
    return granted


def _begun(unit: Unit, broadcast: str) -> int:
    """With what this call adds: that is written at its end."""
    return report.begun(counters(unit.db, broadcast)) + report.begun(unit.counted(broadcast))


@cache
def _sending_deltas(channel: str | None) -> Sequence[tally.Delta]:
    """What the claim of any delivery of the channel adds."""
    name = None if channel is None else ChannelName(channel)
    planned = Delivery("", "", "", 0, name, None, None)
    return tuple(tally.of_move(DeliveryState.PLANNED, move_delivery(planned, DeliveryState.SENDING)))


# --- recording ----------------------------------------------------------------------------------------


_BEFORE = in_one(
    f"d.id, d.key, {rows.STATE}, d.broadcast, d.account, d.conversation, d.channel, d.possibly_doubled, "
    "d.last_attempt",
    "FROM json_each(?) wanted CROSS JOIN deliveries d ON d.id = wanted.value LEFT JOIN sending s ON s.key = d.key",
)
#: What results are checked against, the last line of all timelines, and whether receipts wait.
_STORED = f"SELECT ({_BEFORE}), (SELECT max(key) FROM attempts), EXISTS (SELECT 1 FROM waiting)"  # noqa: S608 - our columns


@dataclass(slots=True)
class _Outcome:
    """A result with what its answer told of the conversation, checked before anything is written."""

    result: Result
    learned: Mapping[str, Any] | None
    marked_at: datetime | None

    @staticmethod
    def of(result: Result) -> _Outcome:
        learned = codec.json_copy(result.reference) if result.reference else None
        return _Outcome(result, learned, changes.marked_at(result) if result.marks else None)


@dataclass(slots=True)
class _Stored:
    """What a result is checked against."""

    key: int
    state: str
    broadcast: str
    account: str | None
    conversation: str | None
    channel: str | None
    possibly_doubled: int
    last_attempt: int | None


@dataclass(slots=True)
class _Alike:
    """One of the results that add the same to the counters, and how many they are."""

    broadcast: str
    result: Result
    times: int = 1


class _Recording:
    """One batch of results on its way into the ledger. Rows are written together; only what an answer told of a
    conversation makes it stop and write what it has, because it changes other deliveries."""

    def __init__(self, unit: Unit, lease: Lease) -> None:
        self._unit = unit
        self._account = lease.account
        self._stored: dict[str, _Stored] = {}
        self._rows: dict[int, rows.Row] = {}  # by key: of two results for one delivery the later one holds
        self._lines: list[rows.Row] = []
        self._begun: list[rows.Row] = []
        self._over: list[tuple[int]] = []
        self._next_line = 1
        self._receipts_wait = False
        self._alike: dict[tuple[Any, ...], _Alike] = {}

    def run(self, outcomes: Sequence[_Outcome]) -> list[str]:
        self._load([outcome.result.delivery.id for outcome in outcomes])
        written = []
        for outcome in outcomes:
            result = outcome.result
            stored = self._stored.get(result.delivery.id)
            if stored is None or stored.state != result.before or stored.account != self._account:
                continue
            if changes.moves_on(result) and self._is_there(stored, result.delivery):
                continue
            self._note(stored, result)
            written.append(result.delivery.id)
            if outcome.learned:
                self._learn(stored.conversation, outcome.learned)
            if outcome.marked_at is not None and result.marks is not None and stored.conversation is not None:
                self._mark(stored.conversation, result.marks, outcome.marked_at)
        self._flush()
        self._count_all()
        if self._receipts_wait:
            apply_waiting(self._unit, [self._stored[id].conversation for id in written])
        return written

    def _load(self, wanted: Sequence[str]) -> None:
        sql, asked = _STORED, (orjson.dumps(wanted).decode(),)
        found, last_line, self._receipts_wait = self._unit.db.execute(sql, asked).fetchone()
        self._stored = {row[0]: _Stored(*row[1:]) for row in orjson.loads(found)}
        self._next_line = (last_line or 0) + 1

    def _is_there(self, stored: _Stored, after: Delivery) -> bool:
        """Whether an earlier call wrote it, of which its caller was not told."""
        sql = "SELECT round, rung, due_at, attempts, attempted_at FROM deliveries WHERE key = ?"
        row: rows.Row = self._unit.db.execute(sql, (stored.key,)).fetchone()
        return row == changes.rung_of(after)

    def _note(self, stored: _Stored, result: Result) -> None:
        after = result.delivery
        before, state = stored.state, str(after.state)
        if before == _SENDING:
            self._over.append((stored.key,))
        if state == _SENDING:
            self._begun.append((stored.key, stored.account, after.sends, micros_or_none(after.rung_at)))
        line = None if result.attempt is None else rows.of_attempt(result.attempt)
        if line is not None:
            self._lines.append((self._next_line, stored.key, stored.last_attempt, *line))
            stored.last_attempt = self._next_line
            self._next_line += 1
        if after.possibly_doubled and not stored.possibly_doubled:
            self._unit.count(stored.broadcast, tally.of_doubt())
        self._count(stored, before, result, line)
        progress = rows.of_progress(after)
        self._rows[stored.key] = (rows.own_state(after), *progress, stored.last_attempt, stored.key)
        stored.state, stored.possibly_doubled = state, after.possibly_doubled

    def _count(self, stored: _Stored, before: str, result: Result, line: rows.Row | None) -> None:
        """Results of one kind add the same: one of each is asked for its deltas."""
        after = result.delivery
        hour = None if after.sent_at is None else micros(after.sent_at) // _HOUR
        tried = None if line is None else line[1:4]
        kind = (stored.broadcast, stored.channel, before, after.state, after.reason, hour, tried, result.new_rung)
        alike = self._alike.get(kind)
        if alike is None:
            self._alike[kind] = _Alike(stored.broadcast, result)
        else:
            alike.times += 1

    def _learn(self, conversation: str | None, reference: Mapping[str, Any]) -> None:
        db = self._unit.db
        row = db.execute("SELECT reference FROM conversations WHERE id = ?", (conversation,)).fetchone()
        if row is not None:
            merged = {**orjson.loads(row[0]), **reference}
            sql = "UPDATE conversations SET reference = ? WHERE id = ?"
            db.execute(sql, (codec.json_text(merged), conversation))

    def _mark(self, conversation: str, state: ConversationState, at: datetime) -> None:
        self._flush()
        for id in mark(self._unit, conversation, state, at):
            if id in self._stored:
                self._stored[id].state = str(DeliveryState.SKIPPED)

    def _flush(self) -> None:
        """An intent that is over is taken away before one that begins is noted."""
        db = self._unit.db
        _OVER.run(db, self._over)
        _INTENTS.run(db, self._begun)
        _MOVED.run(db, [*self._rows.values()])
        _ATTEMPTS.run(db, self._lines)
        self._rows, self._lines, self._begun, self._over = {}, [], [], []

    def _count_all(self) -> None:
        for alike in self._alike.values():
            result = alike.result
            self._unit.count(alike.broadcast, tally.of_move(result.before, result.delivery), alike.times)
            if result.attempt is not None:
                deltas = tally.of_attempt(result.attempt, new_rung=result.new_rung)
                self._unit.count(alike.broadcast, deltas, alike.times)


# --- listing ------------------------------------------------------------------------------------------

ROWS = f"""
    SELECT {rows.DELIVERY}, {rows.RECIPIENT}
    FROM deliveries d INDEXED BY deliveries_in_order
    LEFT JOIN sending s ON s.key = d.key
    LEFT JOIN recipients r ON r.id = d.recipient
    WHERE d.broadcast = :broadcast
    AND (d.position, d.id) > (:position, :id)
    AND (:states IS NULL OR {rows.STATE} IN (SELECT value FROM json_each(:states)))
    AND (:reasons IS NULL OR d.reason IN (SELECT value FROM json_each(:reasons)))
    AND (:channels IS NULL OR d.channel IN (SELECT value FROM json_each(:channels)))
    AND (:q = '' OR instr(r.search, :q))
    ORDER BY d.position, d.id LIMIT :limit OFFSET :offset
"""  # noqa: S608 - our columns


def _wanted(
    filter: DeliveryFilter,
    *,
    behind: tuple[int, str] = _START,
    limit: int = -1,
    offset: int = 0,
) -> dict[str, Any]:
    return {
        "broadcast": filter.broadcast,
        "states": words(filter.states),
        "reasons": words(filter.reasons),
        "channels": words(filter.channels),
        "q": changes.fold(filter.q),
        "position": behind[0],
        "id": behind[1],
        "limit": limit,
        "offset": offset,
    }


def _rows(db: sqlite3.Connection, **wanted: Any) -> list[rows.Row]:
    return db.execute(ROWS, _wanted(**wanted)).fetchall()


def _total(db: sqlite3.Connection, filter: DeliveryFilter) -> int:
    """From the counters where they tell it, so that the first page of a million is not a count of them."""
    if filter.reasons or filter.q:
        (total,) = db.execute(f"SELECT count(*) FROM ({ROWS})", _wanted(filter)).fetchone()  # noqa: S608 - constant
        return int(total)
    total = 0
    for path, count in counters(db, filter.broadcast).items():
        kind, *place = path.split("/")
        if kind == "state" and _asked(filter, *place):
            total += count
    return total


def _asked(filter: DeliveryFilter, channel: str, state: str) -> bool:
    return (not filter.channels or channel in filter.channels) and (not filter.states or state in filter.states)


def _timeline(db: sqlite3.Connection, delivery: str) -> list[Attempt | Event]:
    row = db.execute("SELECT key FROM deliveries WHERE id = ?", (delivery,)).fetchone()
    attempts = db.execute(
        """
        WITH RECURSIVE line (key) AS (
            SELECT last_attempt FROM deliveries WHERE key = ?
            UNION ALL SELECT a.previous FROM line JOIN attempts a ON a.key = line.key
        )
        SELECT ?, a.at, a.round, a.rung, a.outcome, a.detail
        FROM line JOIN attempts a ON a.key = line.key ORDER BY a.key
        """,
        (*(row or (None,)), delivery),
    )
    events = db.execute(
        "SELECT key, ?, type, at, button, detail FROM events WHERE delivery = ? ORDER BY number",
        (delivery, *(row or (None,))),
    )
    return changes.in_time_order(map(rows.attempt, attempts), map(rows.event, events))
