"""Ending planned deliveries from outside the engine: somebody unsubscribed, a conversation closed, a stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from broadcast.model import ConversationState, Delivery, Reason
from storage import changes
from storage.sqlite import rows
from storage.sqlite.lanes import Unit


def mark(unit: Unit, conversation: str, state: ConversationState, at: datetime) -> list[str]:
    """Sets the state; answers the ids of the planned deliveries that ended with it."""
    sql = "UPDATE conversations SET state = ? WHERE id = ?"
    if not unit.db.execute(sql, (str(state), conversation)).rowcount:
        return []
    unit.raise_control()
    if state not in changes.ENDS:
        return []
    return skip_planned(unit, conversation=conversation, reason=changes.ENDS[state], at=at)


def skip_planned(
    unit: Unit, *, recipient: str | None = None, conversation: str | None = None, reason: Reason, at: datetime
) -> list[str]:
    """Skips what is planned for the person or on the conversation; answers the ids."""
    column, value = ("conversation", conversation) if recipient is None else ("recipient", recipient)
    sql = (
        f"SELECT {rows.DELIVERY} FROM {rows.LEDGER} WHERE d.{column} = ? AND d.state = 'planned' AND s.key IS NULL"  # noqa: S608 - our columns
    )
    planned = unit.db.execute(sql, (value,)).fetchall()
    return end(unit, map(rows.delivery, planned), lambda delivery: changes.skipped(delivery, reason, at))


def end(unit: Unit, planned: Iterable[Delivery], ended: Callable[[Delivery], Delivery]) -> list[str]:
    """Writes what `ended` makes of each, with its counters; answers the ids."""
    written = []
    for before in planned:
        after = ended(before)
        write(unit, before, after)
        written.append(before.id)
    return written


def write(unit: Unit, before: Delivery, after: Delivery) -> None:
    """One delivery as it is now, every column of it that moves, with its counters."""
    unit.db.execute(
        """
        UPDATE deliveries SET
            state = ?, reason = ?, round = ?, rung = ?, due_at = ?, attempts = ?, sends = ?, tries = ?,
            throttles = ?, rung_at = ?, attempted_at = ?, ended_at = ?, sent_at = ?, platform_message_id = ?,
            possibly_doubled = ?, delivered_at = ?, read_at = ?, clicked_at = ?
        WHERE id = ?
        """,
        (str(after.state), *rows.of_progress(after), *rows.of_marks(after), after.id),
    )
    unit.count(before.broadcast, changes.move_deltas(before, after))
