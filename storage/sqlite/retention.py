"""What goes when it is old: deliveries with their stories, and what repeats are told by.

Rows are removed in short transactions, so that sends which are recorded meanwhile wait for some milliseconds. Old
keys are looked for in the lane of lists: an index by age would cost at every write what is needed once an hour.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson

from broadcast.model import Broadcast, BroadcastStatus
from storage.codec import BROADCAST, micros
from storage.sqlite.base import Base, words
from storage.sqlite.lanes import Unit

_FINISHED = "json_extract(doc, '$.finished_at')"
#: As documents have them: UTC, so that their texts are in the order of the instants.
OUTLIVED = f"""
    SELECT id, doc FROM broadcasts
    WHERE status IN (SELECT value FROM json_each(:statuses))
    AND {_FINISHED} < :before
    AND NOT coalesce(json_extract(doc, '$.removal_done'), 0)
    AND ({_FINISHED}, id) > (:finished, :id)
    ORDER BY {_FINISHED}, id LIMIT :limit
"""  # noqa: S608 - our columns

#: Those whose row says `planned` are planned or in flight (see the schema).
_ENDED = """
    SELECT key, last_attempt FROM deliveries INDEXED BY deliveries_in_order
    WHERE broadcast = ? AND state <> 'planned' ORDER BY position, id LIMIT ?
"""
#: Each line names the one before it.
_REMOVE_LINES = """
    WITH RECURSIVE line (key) AS (
        SELECT value FROM json_each(?)
        UNION ALL
        SELECT a.previous FROM line JOIN attempts a ON a.key = line.key WHERE a.previous IS NOT NULL
    )
    DELETE FROM attempts WHERE key IN (SELECT key FROM line)
"""

#: What is noted with its instant: how it is found, and removed if it is still as old.
_NOTED = (
    (
        "SELECT account, key FROM inbound WHERE at < ? LIMIT ?",
        "DELETE FROM inbound WHERE account = ? AND key = ? AND at < ?",
    ),
    ("SELECT key FROM answers WHERE at < ? LIMIT ?", "DELETE FROM answers WHERE key = ? AND at < ?"),
    ("SELECT number FROM waiting WHERE at < ? LIMIT ?", "DELETE FROM waiting WHERE number = ? AND at < ?"),
)


class Retention(Base):
    async def outlived(
        self,
        statuses: Collection[BroadcastStatus],
        *,
        finished_before: datetime,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Broadcast]:
        wanted = {
            "statuses": words(statuses) or "[]",
            "before": _text(finished_before),
            "finished": "" if after is None else _text(after[0]),
            "id": "" if after is None else after[1],
            "limit": limit,
        }
        return await self._list(lambda db: [BROADCAST.decode(id, doc) for id, doc in db.execute(OUTLIVED, wanted)])

    async def remove_deliveries(self, broadcast: str, limit: int) -> int:
        return await self._write(lambda unit: _remove(unit.db, broadcast, limit))

    async def forget(self, before: datetime, limit: int) -> int:
        moment = micros(before)
        found = await self._list(lambda db: [db.execute(find, (moment, limit)).fetchall() for find, _ in _NOTED])
        return await self._write(lambda unit: _forget(unit, found, moment)) if any(found) else 0


def _text(instant: datetime) -> str:
    """As a document has it."""
    return str(orjson.loads(orjson.dumps(instant)))


def _remove(db: sqlite3.Connection, broadcast: str, limit: int) -> int:
    marked = "SELECT json_extract(doc, '$.deliveries_removed_at') IS NOT NULL FROM broadcasts WHERE id = ?"
    if db.execute(marked, (broadcast,)).fetchone() != (1,):
        return 0
    found = db.execute(_ENDED, (broadcast, limit)).fetchall()
    keys = _listed(key for key, _ in found)
    db.execute(_REMOVE_LINES, (_listed(line for _, line in found if line is not None),))
    db.execute("DELETE FROM events WHERE delivery IN (SELECT value FROM json_each(?))", (keys,))
    db.execute("DELETE FROM deliveries WHERE key IN (SELECT value FROM json_each(?))", (keys,))
    return len(found)


def _forget(unit: Unit, found: Sequence[Sequence[Sequence[Any]]], moment: int) -> int:
    """A key that was forgotten and noted again since it was found stays."""
    forgotten = 0
    for (_, remove), rows in zip(_NOTED, found, strict=True):
        forgotten += unit.db.executemany(remove, [(*row, moment) for row in rows]).rowcount if rows else 0
    return forgotten


def _listed(values: Iterable[int]) -> str:
    return orjson.dumps([*values]).decode()
