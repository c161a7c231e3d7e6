"""What came in: inbound keys, events, receipts."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

from broadcast import tally, tracking
from broadcast.model import Broadcast, Conversation, Delivery, Event, EventType, Receipt
from broadcast.ports import Inbound, Known, Turn
from storage import changes, codec
from storage.arrivals import Arrival, apart
from storage.codec import BROADCAST, micros, micros_or_none
from storage.sqlite import rows
from storage.sqlite.base import Base
from storage.sqlite.batches import Asked, Padded, Rows
from storage.sqlite.lanes import Unit
from storage.sqlite.people import keep_conversations, rows_of, save_recipients, set_unsubscribed
from storage.sqlite.skipping import mark

T = TypeVar("T")

_HOUR = 3_600_000_000  # microseconds


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
    "a.number, i.recipient, d.broadcast, d.key, "
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
_KEYS = Padded("INSERT INTO inbound SELECT * FROM (VALUES", 3, ") WHERE column1 IS NOT NULL")

#: Deliveries with their keys in the ledger, by id.
_Ledger = Mapping[str, tuple[int, Delivery]]


def _take_in(unit: Unit, arrivals: Sequence[Arrival]) -> list[Any]:
    """All that can be decided on one reading are read, decided and written together; then those that are left."""
    answers: list[Any] = []
    while len(answers) < len(arrivals):
        left = arrivals[len(answers) :]
        known, ledger = _known(unit.db, left)
        now = left[: apart(left, known)]
        turns = [
            None if knows is None else (arrival, knows, arrival.decide(knows))
            for arrival, knows in zip(now, known, strict=False)
        ]
        _write_turns(unit, [turn for turn in turns if turn is not None], ledger)
        answers += [None if turn is None else turn[2].answer for turn in turns]
    return answers


def _known(db: sqlite3.Connection, arrivals: Sequence[Arrival]) -> tuple[list[Known | None], _Ledger]:
    """``None``: the key is noted. And the deliveries that were asked for."""
    found = _KNOWN.read(db, [(number, *_asked(arrival)) for number, arrival in enumerate(arrivals)])
    spoken_of = {broadcast for _, _, broadcast, *_ in found if broadcast is not None}
    broadcasts = {id: _broadcast(db, id) for id in spoken_of}
    known: list[Known | None] = [None] * len(arrivals)
    ledger: dict[str, tuple[int, Delivery]] = {}
    for number, named, broadcast, key, *row in found:
        knows = known[number] = rows.known(row, named, broadcasts.get(broadcast))
        if knows.delivery is not None:
            ledger[knows.delivery.id] = key, knows.delivery
    return known, ledger


def _asked(arrival: Arrival) -> rows.Row:
    one = arrival.inbound
    return one.account, one.key, str(one.channel), one.person.user_id, arrival.mail, arrival.delivery


def _broadcast(db: sqlite3.Connection, id: str) -> Broadcast | None:
    row = db.execute("SELECT doc FROM broadcasts WHERE id = ?", (id,)).fetchone()
    return None if row is None else _decoded(id, row[0])


#: Presses are mostly of a few messages. What a text says never changes: no value can be out of date.
_decoded = lru_cache(maxsize=8)(BROADCAST.decode)


def _write_turns(unit: Unit, turns: Sequence[tuple[Arrival, Known, Turn[Any]]], ledger: _Ledger) -> None:
    """Of as many people as there are turns. `ledger` are the deliveries that were read for them."""
    told = [turn.recipient for _, _, turn in turns if turn.recipient is not None]
    if told:
        save_recipients(unit.db, rows_of(told))
    for arrival, _, turn in turns:
        if turn.unsubscribed is not None:
            set_unsubscribed(unit, turn.conversation.recipient, arrival.at if turn.unsubscribed else None)
    _write_conversations(unit.db, [(knows.conversation, turn.conversation) for _, knows, turn in turns])
    for arrival, knows, turn in turns:
        if turn.mark is not None:
            mark(unit, (knows.conversation or turn.conversation).id, turn.mark, arrival.at)
    clicks = [turn.click for _, _, turn in turns if turn.click is not None]
    add_events(unit, clicks, None if _is_stale(ledger, turns) else ledger)
    _KEYS.run(
        unit.db, [(arrival.inbound.account, arrival.inbound.key, micros(arrival.at)) for arrival, _, _ in turns]
    )


def _is_stale(ledger: _Ledger, turns: Sequence[tuple[Arrival, Known, Turn[Any]]]) -> bool:
    """Whether a click is of what was not read, or a turn ended deliveries since."""
    return any(
        turn.unsubscribed is not None
        or turn.mark is not None
        or (turn.click is not None and turn.click.delivery not in ledger)
        for _, _, turn in turns
    )


_SEEN = Padded(
    "UPDATE conversations SET last_seen = v.column2 FROM (VALUES", 2, ") AS v WHERE conversations.id = v.column1"
)


def _write_conversations(
    db: sqlite3.Connection, conversations: Sequence[tuple[Conversation | None, Conversation]]
) -> None:
    """Each as it is stored and as it is given. Mostly of one that is known nothing changes but when it was seen: no
    index has to be looked at then."""
    seen: list[rows.Row] = []
    others: list[Conversation] = []
    for stored, given in conversations:
        if stored is not None and changes.only_seen(stored, given):
            seen.append((stored.id, micros_or_none(given.last_seen)))
        else:
            others.append(_kept(stored, given))
    _SEEN.run(db, seen)
    keep_conversations(db, others)


def _kept(stored: Conversation | None, given: Conversation) -> Conversation:
    if given.reference:
        given = replace(given, reference=codec.json_copy(given.reference))
    return changes.merged(stored, given)


# --- what becomes of messages -------------------------------------------------------------------------

_DELIVERIES = Asked(
    "id",
    f"d.key, {rows.DELIVERY}",
    "FROM asked a CROSS JOIN deliveries d ON d.id = a.id LEFT JOIN sending s ON s.key = d.key",
)
#: Events with one of the keys, and those of the deliveries.
_THERE = Asked(
    "event, delivery",
    "e.key, e.delivery, e.type, e.button",
    "FROM asked a CROSS JOIN events e ON e.key = a.event OR e.delivery = a.delivery",
)
_EVENTS = Padded(
    "INSERT INTO events (key, delivery, type, at, button, detail) SELECT * FROM (VALUES",
    6,
    ") WHERE column1 IS NOT NULL",
)
_MARKED = Padded(
    "UPDATE deliveries SET delivered_at = v.column2, read_at = v.column3, clicked_at = v.column4 FROM (VALUES",
    4,
    ") AS v WHERE deliveries.key = v.column1",
)
_MOVED = """
    UPDATE deliveries SET
        state = ?, reason = ?, ended_at = ?, sent_at = ?, delivered_at = ?, read_at = ?, clicked_at = ?
    WHERE key = ?
"""


def add_events(unit: Unit, events: Sequence[Event], known: _Ledger | None = None) -> int:
    """Those whose key is new and whose delivery is there; says how many. `known` are their deliveries with their
    keys, where this transaction has read them already."""
    if not events:
        return 0
    ledger = _deliveries(unit.db, dict.fromkeys(event.delivery for event in events)) if known is None else known
    return _Noting(unit, ledger).run([event for event in events if event.delivery in ledger])


def _deliveries(db: sqlite3.Connection, wanted: Iterable[str]) -> dict[str, tuple[int, Delivery]]:
    found = _DELIVERIES.read(db, [(id,) for id in wanted])
    return {row[0]: (key, rows.delivery(row)) for key, *row in found}


class _Noting:
    """New events on their way to their deliveries, in order."""

    def __init__(self, unit: Unit, ledger: _Ledger) -> None:
        self._unit = unit
        self._ledger = ledger
        self._after: dict[str, Delivery] = {}
        self._there: set[str] = set()
        self._buttons: dict[tuple[int, str], set[str | None]] = defaultdict(set)
        self._new: list[rows.Row] = []
        self._alike: dict[tuple[Any, ...], tuple[Delivery, Event]] = {}
        self._counts: dict[tuple[Any, ...], int] = defaultdict(int)

    def run(self, events: Sequence[Event]) -> int:
        """Of known deliveries."""
        asked = [(event.key, self._ledger[event.delivery][0]) for event in events]
        for event_key, key, type, button in _THERE.read(self._unit.db, asked):
            self._there.add(event_key)
            self._buttons[key, type].add(button)
        for event in events:
            if event.key not in self._there:
                self._note(event)
        self._write()
        self._count()
        return len(self._new)

    def _note(self, event: Event) -> None:
        key, read = self._ledger[event.delivery]
        before = self._after.get(event.delivery, read)
        after = self._after[event.delivery] = tracking.applied(before, event)
        earlier = self._buttons[key, event.type]
        at = micros(event.at)
        hour, on_button = at // _HOUR, event.button not in earlier
        kind = (before.broadcast, before.channel, event.type, event.button, hour, not earlier, on_button)
        self._alike.setdefault(kind, (before, event))
        self._counts[kind] += 1
        if after.state is not before.state:
            self._unit.count(before.broadcast, changes.move_deltas(before, after))
        earlier.add(event.button)
        self._there.add(event.key)
        self._new.append((event.key, key, str(event.type), at, event.button, event.detail))

    def _write(self) -> None:
        db = self._unit.db
        _EVENTS.run(db, self._new)
        changed = [(*self._ledger[id], after) for id, after in self._after.items()]
        same = [(key, after) for key, before, after in changed if after.state is before.state]
        _MARKED.run(db, [(key, *rows.of_marks(after)) for key, after in same])
        for key, before, after in changed:
            if after.state is not before.state:
                db.execute(_MOVED, (*rows.of_outcome(after), *rows.of_marks(after), key))
                db.execute("DELETE FROM sending WHERE key = ?", (key,))

    def _count(self) -> None:
        """Events of one kind add the same: one of each is asked for its deltas."""
        for kind, (delivery, event) in self._alike.items():
            first, on_button = kind[-2], event.type is EventType.CLICKED and kind[-1]
            deltas = tally.of_event(delivery, event, first=first, first_on_button=on_button)
            self._unit.count(delivery.broadcast, deltas, times=self._counts[kind])


# --- what platforms say of messages -------------------------------------------------------------------

#: Where a person is on an account, whether something is planned or under way there, and what was sent there: a row
#: for each delivery, or one without.
_PLACES = Asked(
    "account, user_id",
    "c.id, EXISTS (SELECT 1 FROM deliveries o WHERE o.conversation = c.id AND o.state = 'planned'), "  # noqa: S608 - our columns
    f"a.account, a.user_id, d.key, {rows.DELIVERY}",
    """
    FROM asked a CROSS JOIN conversations c ON c.account = a.account AND c.user_id = a.user_id
    LEFT JOIN deliveries d ON d.conversation = c.id AND d.platform_message_id IS NOT NULL
    LEFT JOIN sending s ON s.key = d.key
    """,
)
_WAITING = Rows("INSERT OR IGNORE INTO waiting (account, user_id, type, message_id, at, up_to, detail) VALUES", 7)


@dataclass(slots=True)
class _Place:
    """A conversation that receipts speak of: whether something is planned or under way on it, and what was sent, by
    id, with its key."""

    is_open: bool
    sent: dict[str, tuple[int, Delivery]] = field(default_factory=dict)


def _add_receipts(unit: Unit, calls: Sequence[Sequence[Receipt]]) -> list[None]:
    receipts = [receipt for given in calls for receipt in given]
    places = _places(unit.db, receipts)
    spoken = [receipt for receipt in receipts if _whose(receipt) in places]
    _apply(unit, spoken, places)
    _WAITING.run(unit.db, [rows.of_receipt(receipt) for receipt in spoken if places[_whose(receipt)].is_open])
    return [None for _ in calls]


def _whose(receipt: Receipt) -> tuple[str, str]:
    return receipt.account, receipt.user_id


def _places(db: sqlite3.Connection, receipts: Iterable[Receipt]) -> dict[tuple[str, str], _Place]:
    """By account and person."""
    found: dict[tuple[str, str], _Place] = {}
    for _, is_open, account, user_id, key, *row in _PLACES.read(db, [*dict.fromkeys(map(_whose, receipts))]):
        place = found.get((account, user_id))
        if place is None:
            place = found[account, user_id] = _Place(bool(is_open))
        if key is not None:
            place.sent[row[0]] = key, rows.delivery(row)
    return found


def _apply(unit: Unit, receipts: Iterable[Receipt], places: Mapping[tuple[str, str], _Place]) -> None:
    """Each receipt to every delivery that it covers on its conversation, in order of id."""
    told = [
        tracking.event_of(receipt, delivery)
        for receipt in receipts
        for _, (_, delivery) in sorted(places[_whose(receipt)].sent.items())
        if tracking.covers(receipt, delivery)
    ]
    add_events(unit, told, {id: kept for place in places.values() for id, kept in place.sent.items()})


def apply_waiting(unit: Unit, conversations: Iterable[str | None]) -> None:
    """What came before the outcomes just recorded on these conversations; forgotten once nothing is open there."""
    db = unit.db
    if db.execute("SELECT 1 FROM waiting LIMIT 1").fetchone() is None:
        return
    wanted = [(id,) for id in dict.fromkeys(conversations) if id is not None]
    kept = [(number, rows.receipt(row)) for number, *row in sorted(_KEPT.read(db, wanted), key=itemgetter(0))]
    places = _places(db, [receipt for _, receipt in kept])
    _apply(unit, [receipt for _, receipt in kept], places)
    over = [(number,) for number, receipt in kept if not places[_whose(receipt)].is_open]
    db.executemany("DELETE FROM waiting WHERE number = ?", over)


_KEPT = Asked(
    "id",
    "w.number, w.account, w.user_id, w.type, w.message_id, w.at, w.up_to, w.detail",
    """
    FROM asked a CROSS JOIN conversations c ON c.id = a.id
    CROSS JOIN waiting w ON w.account = c.account AND w.user_id = c.user_id
    """,
)
