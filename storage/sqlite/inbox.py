"""What came in: inbound keys, events, receipts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

from broadcast import tracking
from broadcast.model import Conversation, Delivery, Event, EventType, Receipt
from storage import changes
from storage.codec import micros
from storage.sqlite import rows
from storage.sqlite.base import Base
from storage.sqlite.lanes import Unit
from storage.sqlite.people import conversation_with


class Inbox(Base):
    async def was_seen(self, account: str, key: str) -> bool:
        sql = "SELECT 1 FROM inbound WHERE account = ? AND key = ?"
        return await self._read(lambda db: db.execute(sql, (account, key)).fetchone() is not None)

    async def first_time(self, account: str, key: str, at: datetime) -> bool:
        row = (account, key, micros(at))
        sql = "INSERT OR IGNORE INTO inbound VALUES (?, ?, ?)"
        return await self._write(lambda unit: unit.db.execute(sql, row).rowcount == 1)

    async def add_events(self, events: Sequence[Event]) -> int:
        return await self._write(lambda unit: sum(_add_event(unit, event) for event in events))

    async def add_receipts(self, receipts: Sequence[Receipt]) -> None:
        def run(unit: Unit) -> None:
            for receipt in receipts:
                _add_receipt(unit, receipt)

        await self._write(run)


def _add_event(unit: Unit, event: Event) -> bool:
    """False where the key was there, or the delivery is not known."""
    db = unit.db
    if db.execute("SELECT 1 FROM events WHERE key = ?", (event.key,)).fetchone():
        return False
    sql = f"SELECT {rows.DELIVERY}, d.key FROM {rows.LEDGER} WHERE d.id = ?"  # noqa: S608 - our columns
    row = db.execute(sql, (event.delivery,)).fetchone()
    if row is None:
        return False
    *_, key = row
    _note_event(unit, rows.delivery(row), key, event)
    db.execute(
        "INSERT INTO events (key, delivery, type, at, button, detail) VALUES (?, ?, ?, ?, ?, ?)",
        (event.key, key, str(event.type), micros(event.at), event.button, event.detail),
    )
    return True


def _note_event(unit: Unit, before: Delivery, key: int, event: Event) -> None:
    """Writes what the event means for its delivery and for the counters."""
    earlier = unit.db.execute(
        "SELECT button FROM events WHERE delivery = ? AND type = ?", (key, str(event.type))
    ).fetchall()
    on_button = event.type is EventType.CLICKED and (event.button,) not in earlier
    noted = changes.noted(before, event, first=not earlier, first_on_button=on_button)
    unit.count(before.broadcast, noted.deltas)
    if noted.delivery is not before:
        unit.db.execute(
            """
            UPDATE deliveries SET
                state = ?, reason = ?, ended_at = ?, sent_at = ?, delivered_at = ?, read_at = ?, clicked_at = ?
            WHERE key = ?
            """,
            (*rows.of_outcome(noted.delivery), *rows.of_marks(noted.delivery), key),
        )
    if noted.delivery.state is not before.state:
        unit.db.execute("DELETE FROM sending WHERE key = ?", (key,))


def _add_receipt(unit: Unit, receipt: Receipt) -> None:
    conversation = conversation_with(unit.db, receipt.account, receipt.user_id)
    if conversation is None:
        return
    _apply(unit, receipt, conversation)
    if _has_open(unit.db, conversation):
        unit.db.execute(
            """
            INSERT OR IGNORE INTO waiting (account, user_id, type, message_id, at, up_to, detail)
            VALUES (?, ?, ?, ?, ?, ?, ?)
            """,
            rows.of_receipt(receipt),
        )


def _has_open(db: sqlite3.Connection, conversation: Conversation) -> bool:
    sql = "SELECT 1 FROM deliveries WHERE conversation = ? AND state = 'planned' LIMIT 1"
    return db.execute(sql, (conversation.id,)).fetchone() is not None


def _apply(unit: Unit, receipt: Receipt, conversation: Conversation) -> None:
    """To every delivery it covers, in order of id."""
    sql = f"""
        SELECT {rows.DELIVERY} FROM {rows.LEDGER}
        WHERE d.conversation = ? AND d.platform_message_id IS NOT NULL ORDER BY d.id
    """  # noqa: S608 - our columns
    for row in unit.db.execute(sql, (conversation.id,)).fetchall():
        delivery = rows.delivery(row)
        if tracking.covers(receipt, delivery):
            _add_event(unit, tracking.event_of(receipt, delivery))


def apply_waiting(unit: Unit, conversations: Iterable[str | None]) -> None:
    """What came before the outcomes just recorded on these conversations; forgotten once nothing is open there."""
    if unit.db.execute("SELECT 1 FROM waiting LIMIT 1").fetchone() is None:
        return
    for id in dict.fromkeys(conversations):
        sql = f"SELECT {rows.CONVERSATION} FROM conversations c WHERE id = ?"  # noqa: S608 - our columns
        row = unit.db.execute(sql, (id,)).fetchone()
        if row is not None:
            _apply_waiting(unit, rows.conversation(row))


def _apply_waiting(unit: Unit, conversation: Conversation) -> None:
    who = (conversation.account, conversation.user_id)
    kept = unit.db.execute(
        """
        SELECT account, user_id, type, message_id, at, up_to, detail FROM waiting
        WHERE account = ? AND user_id = ? ORDER BY number
        """,
        who,
    ).fetchall()
    for row in kept:
        _apply(unit, rows.receipt(row), conversation)
    if kept and not _has_open(unit.db, conversation):
        unit.db.execute("DELETE FROM waiting WHERE account = ? AND user_id = ?", who)
