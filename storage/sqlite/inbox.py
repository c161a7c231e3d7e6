"""What came in: inbound keys, events, receipts."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

from broadcast import tracking
from broadcast.model import Broadcast, Conversation, Delivery, Event, EventType, Receipt
from broadcast.ports import Inbound, Known, Turn
from storage import changes, codec
from storage.arrivals import Arrival, apart
from storage.codec import BROADCAST, micros
from storage.sqlite import rows
from storage.sqlite.base import Base
from storage.sqlite.batches import Asked, Rows
from storage.sqlite.lanes import Unit
from storage.sqlite.people import keep_conversations, rows_of, save_recipients, set_unsubscribed
from storage.sqlite.skipping import mark

T = TypeVar("T")


class Inbox(Base):
    """What webhooks bring is written with what others bring at the same time."""

    async def take_in(
        self, inbound: Inbound, decide: Callable[[Known], Turn[T]], *, at: datetime, delivery: str | None = None
    ) -> T | None:
        arrival = Arrival(inbound, decide, at, delivery)
        answer: T | None = await self._writer.call_together(_take_in, arrival)
        return answer

    async def was_seen(self, account: str, key: str) -> bool:
        sql = "SELECT 1 FROM inbound WHERE account = ? AND key = ?"
        return await self._read(lambda db: db.execute(sql, (account, key)).fetchone() is not None)

    async def first_time(self, account: str, key: str, at: datetime) -> bool:
        row = (account, key, micros(at))
        sql = "INSERT OR IGNORE INTO inbound VALUES (?, ?, ?)"
        return await self._write(lambda unit: unit.db.execute(sql, row).rowcount == 1)

    async def add_events(self, events: Sequence[Event]) -> int:
        return await self._write(lambda unit: add_events(unit, events))

    async def add_receipts(self, receipts: Sequence[Receipt]) -> None:
        if receipts:
            await self._writer.call_together(_add_receipts, receipts)


# --- what people do -----------------------------------------------------------------------------------

_KNOWN = Asked(
    "number, account, key, channel, user_id, email, delivery",
    "a.number, i.recipient, d.broadcast, "
    f"{rows.CONVERSATION}, {rows.RECIPIENT}, {rows.RECIPIENT.replace('r.', 'n.')}, "
    f"{rows.RECIPIENT.replace('r.', 'm.')}, {rows.DELIVERY}",
    """
    FROM asked a
    LEFT JOIN conversations c ON c.account = a.account AND c.user_id = a.user_id
    LEFT JOIN recipients r ON r.id = c.recipient
    LEFT JOIN identities i ON i.channel = a.channel AND i.user_id = a.user_id
    LEFT JOIN recipients n ON n.id = i.recipient AND n.id IS NOT r.id
    LEFT JOIN recipients m ON m.email_folded = a.email
    LEFT JOIN deliveries d ON d.id = a.delivery
    LEFT JOIN sending s ON s.key = d.key
    WHERE a.number IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM inbound k WHERE k.account = a.account AND k.key = a.key)
    """,
)
_KEYS = Rows("INSERT INTO inbound VALUES", 3)


def _take_in(unit: Unit, arrivals: Sequence[Arrival]) -> list[Any]:
    """All that can be decided on one reading are read, decided and written together; then those that are left."""
    answers: list[Any] = []
    while len(answers) < len(arrivals):
        left = arrivals[len(answers) :]
        known = _known(unit.db, left)
        now = left[: apart(left, known)]
        turns = [
            None if knows is None else (arrival, knows, arrival.decide(knows))
            for arrival, knows in zip(now, known, strict=False)
        ]
        _write_turns(unit, [turn for turn in turns if turn is not None])
        answers += [None if turn is None else turn[2].answer for turn in turns]
    return answers


def _known(db: sqlite3.Connection, arrivals: Sequence[Arrival]) -> list[Known | None]:
    """``None``: the key is noted."""
    found = _KNOWN.read(db, [(number, *_asked(arrival)) for number, arrival in enumerate(arrivals)])
    new: dict[int, Known] = {}
    spoken_of = {broadcast for _, _, broadcast, *_ in found if broadcast is not None}
    broadcasts = {id: _broadcast(db, id) for id in spoken_of}
    for number, named, broadcast, *row in found:
        new[number] = rows.known(row, named, broadcasts.get(broadcast))
    return [new.get(number) for number in range(len(arrivals))]


def _asked(arrival: Arrival) -> rows.Row:
    one = arrival.inbound
    return one.account, one.key, str(one.channel), one.person.user_id, arrival.mail, arrival.delivery


def _broadcast(db: sqlite3.Connection, id: str) -> Broadcast | None:
    row = db.execute("SELECT doc FROM broadcasts WHERE id = ?", (id,)).fetchone()
    return None if row is None else _decoded(id, row[0])


#: Presses are mostly of a few messages. What a text says never changes: no value can be out of date.
_decoded = lru_cache(maxsize=8)(BROADCAST.decode)


def _write_turns(unit: Unit, turns: Sequence[tuple[Arrival, Known, Turn[Any]]]) -> None:
    """Of as many people as there are turns."""
    told = [turn.recipient for _, _, turn in turns if turn.recipient is not None]
    if told:
        save_recipients(unit.db, rows_of(told))
    for arrival, _, turn in turns:
        if turn.unsubscribed is not None:
            set_unsubscribed(unit, turn.conversation.recipient, arrival.at if turn.unsubscribed else None)
    kept = [_kept(knows, turn) for _, knows, turn in turns]
    keep_conversations(unit.db, kept)
    for (arrival, _, turn), conversation in zip(turns, kept, strict=True):
        if turn.mark is not None:
            mark(unit, conversation.id, turn.mark, arrival.at)
    add_events(unit, [turn.click for _, _, turn in turns if turn.click is not None])
    keys = [(arrival.inbound.account, arrival.inbound.key, micros(arrival.at)) for arrival, _, _ in turns]
    _KEYS.run(unit.db, keys)


def _kept(known: Known, turn: Turn[Any]) -> Conversation:
    given = turn.conversation
    if given.reference:
        given = replace(given, reference=codec.json_copy(given.reference))
    return changes.merged(known.conversation, given)


# --- what becomes of messages -------------------------------------------------------------------------

_NOTED = Asked("key", "e.key", "FROM events e WHERE e.key IN (SELECT a.key FROM asked a)")
_DELIVERIES = Asked(
    "id",
    f"d.key, {rows.DELIVERY}",
    "FROM asked a CROSS JOIN deliveries d ON d.id = a.id LEFT JOIN sending s ON s.key = d.key",
)
_EARLIER = Asked("key", "e.delivery, e.type, e.button", "FROM asked a CROSS JOIN events e ON e.delivery = a.key")
_EVENTS = Rows("INSERT INTO events (key, delivery, type, at, button, detail) VALUES", 6)
_CHANGED = Rows(
    """
    UPDATE deliveries SET
        state = v.column2, reason = v.column3, ended_at = v.column4, sent_at = v.column5,
        delivered_at = v.column6, read_at = v.column7, clicked_at = v.column8
    FROM (VALUES
    """,
    8,
    ") AS v WHERE deliveries.key = v.column1",
)


def add_events(unit: Unit, events: Sequence[Event], known: Mapping[str, tuple[int, Delivery]] | None = None) -> int:
    """Those whose key is new and whose delivery is there; says how many. `known` are their deliveries with their
    keys, where this transaction has read them already."""
    if not events:
        return 0
    noted = {key for (key,) in _NOTED.read(unit.db, [(event.key,) for event in events])}
    new: dict[str, Event] = {}
    for event in events:
        if event.key not in noted:
            new.setdefault(event.key, event)
    if not new:
        return 0
    wanted = dict.fromkeys(event.delivery for event in new.values())
    return _Noting(unit, _deliveries(unit.db, wanted) if known is None else known).run([*new.values()])


def _deliveries(db: sqlite3.Connection, wanted: Iterable[str]) -> dict[str, tuple[int, Delivery]]:
    found = _DELIVERIES.read(db, [(id,) for id in wanted])
    return {row[0]: (key, rows.delivery(row)) for key, *row in found}


class _Noting:
    """New events on their way to their deliveries, in order."""

    def __init__(self, unit: Unit, known: Mapping[str, tuple[int, Delivery]]) -> None:
        self._unit = unit
        self._known = known
        self._deliveries = {id: delivery for id, (_, delivery) in known.items()}
        self._buttons: dict[tuple[int, str], set[str | None]] = defaultdict(set)
        self._new: list[rows.Row] = []

    def run(self, events: Sequence[Event]) -> int:
        keys = {event.delivery: self._known[event.delivery][0] for event in events if event.delivery in self._known}
        for key, type, button in _EARLIER.read(self._unit.db, [(key,) for key in keys.values()]):
            self._buttons[key, type].add(button)
        for event in events:
            if event.delivery in keys:
                self._note(event, keys[event.delivery])
        self._write()
        return len(self._new)

    def _note(self, event: Event, key: int) -> None:
        before = self._deliveries[event.delivery]
        earlier = self._buttons[key, event.type]
        on_button = event.type is EventType.CLICKED and event.button not in earlier
        noted = changes.noted(before, event, first=not earlier, first_on_button=on_button)
        self._unit.count(before.broadcast, noted.deltas)
        self._deliveries[event.delivery] = noted.delivery
        earlier.add(event.button)
        self._new.append((event.key, key, str(event.type), micros(event.at), event.button, event.detail))

    def _write(self) -> None:
        db = self._unit.db
        _EVENTS.run(db, self._new)
        changed = [
            (key, before, self._deliveries[id])
            for id, (key, before) in self._known.items()
            if self._deliveries[id] is not before
        ]
        _CHANGED.run(db, [(key, *rows.of_outcome(after), *rows.of_marks(after)) for key, _, after in changed])
        settled = [(key,) for key, before, after in changed if after.state is not before.state]
        if settled:
            db.executemany("DELETE FROM sending WHERE key = ?", settled)


# --- what platforms say of messages -------------------------------------------------------------------

_PLACES = Asked(
    "number, account, user_id",
    "a.number, c.id",
    "FROM asked a CROSS JOIN conversations c ON c.account = a.account AND c.user_id = a.user_id",
)
#: What was sent on the conversations asked for.
_SENT = Asked(
    "id",
    f"d.key, {rows.DELIVERY}",
    """
    FROM asked a CROSS JOIN deliveries d ON d.conversation = a.id AND d.platform_message_id IS NOT NULL
    LEFT JOIN sending s ON s.key = d.key ORDER BY d.id
    """,
)
_OPEN = Asked(
    "id",
    "a.id",
    """
    FROM asked a
    WHERE EXISTS (SELECT 1 FROM deliveries d WHERE d.conversation = a.id AND d.state = 'planned')
    """,
)
_WAITING = Rows("INSERT OR IGNORE INTO waiting (account, user_id, type, message_id, at, up_to, detail) VALUES", 7)


def _add_receipts(unit: Unit, calls: Sequence[Sequence[Receipt]]) -> list[None]:
    receipts = [receipt for given in calls for receipt in given]
    who = [(number, receipt.account, receipt.user_id) for number, receipt in enumerate(receipts)]
    spoken = [(receipts[number], place) for number, place in sorted(_PLACES.read(unit.db, who))]
    _apply(unit, spoken)
    still_open = _open(unit.db, [place for _, place in spoken])
    _WAITING.run(unit.db, [rows.of_receipt(receipt) for receipt, place in spoken if place in still_open])
    return [None for _ in calls]


def _apply(unit: Unit, spoken: Sequence[tuple[Receipt, str]]) -> None:
    """Each receipt to every delivery that it covers on its conversation, in order of id."""
    on: dict[str | None, list[Delivery]] = defaultdict(list)
    known: dict[str, tuple[int, Delivery]] = {}
    for key, *row in _SENT.read(unit.db, [(place,) for place in dict.fromkeys(place for _, place in spoken)]):
        delivery = rows.delivery(row)
        known[delivery.id] = key, delivery
        on[delivery.conversation].append(delivery)
    told = [
        tracking.event_of(receipt, delivery)
        for receipt, place in spoken
        for delivery in on[place]
        if tracking.covers(receipt, delivery)
    ]
    add_events(unit, told, known)


def _open(db: sqlite3.Connection, conversations: Iterable[str]) -> set[str]:
    """Those of the conversations on which something is planned or under way."""
    return {id for (id,) in _OPEN.read(db, [(id,) for id in dict.fromkeys(conversations)])}


def apply_waiting(unit: Unit, conversations: Iterable[str | None]) -> None:
    """What came before the outcomes just recorded on these conversations; forgotten once nothing is open there."""
    db = unit.db
    if db.execute("SELECT 1 FROM waiting LIMIT 1").fetchone() is None:
        return
    places = [(id,) for id in dict.fromkeys(conversations) if id is not None]
    kept = sorted(_KEPT.read(db, places), key=itemgetter(0))
    _apply(unit, [(rows.receipt(row), place) for _, place, *row in kept])
    still_open = _open(db, [place for _, place, *_ in kept])
    over = [(number,) for number, place, *_ in kept if place not in still_open]
    db.executemany("DELETE FROM waiting WHERE number = ?", over)


_KEPT = Asked(
    "id",
    "w.number, c.id, w.account, w.user_id, w.type, w.message_id, w.at, w.up_to, w.detail",
    """
    FROM asked a CROSS JOIN conversations c ON c.id = a.id
    CROSS JOIN waiting w ON w.account = c.account AND w.user_id = c.user_id
    """,
)
