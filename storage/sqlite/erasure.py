"""Erasing a person: what leads to them goes, what was counted stays."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import orjson

from storage import changes
from storage.sqlite import rows
from storage.sqlite.base import Base
from storage.sqlite.lanes import Unit
from storage.sqlite.skipping import end

#: Where nothing may lead to the person any more. Nothing is in flight to somebody who is not known.
_SILENCE = (
    "DELETE FROM sending WHERE key IN (SELECT value FROM json_each(?))",
    "UPDATE deliveries SET conversation = NULL WHERE key IN (SELECT value FROM json_each(?))",
    "UPDATE events SET detail = NULL WHERE delivery IN (SELECT value FROM json_each(?))",
)
#: Each line names the one before it.
_SILENCE_LINES = """
    WITH RECURSIVE line (key) AS (
        SELECT value FROM json_each(?)
        UNION ALL
        SELECT a.previous FROM line JOIN attempts a ON a.key = line.key WHERE a.previous IS NOT NULL
    )
    UPDATE attempts SET detail = NULL WHERE key IN (SELECT key FROM line)
"""


class Erasure(Base):
    async def erase_recipient(self, id: str, at: datetime) -> bool:
        return await self._write(lambda unit: _erase(unit, id, at))


def _erase(unit: Unit, id: str, at: datetime) -> bool:
    db = unit.db
    planning = db.execute("SELECT id FROM broadcasts WHERE status = 'initializing'").fetchall()
    changes.refuse_planning([broadcast for (broadcast,) in planning])
    if db.execute("SELECT 1 FROM recipients WHERE id = ?", (id,)).fetchone() is None:
        return False
    _erase_deliveries(unit, id, at)
    db.execute(
        """
        DELETE FROM waiting WHERE EXISTS (
            SELECT 1 FROM conversations c
            WHERE c.recipient = ? AND c.account = waiting.account AND c.user_id = waiting.user_id
        )
        """,
        (id,),
    )
    db.execute("DELETE FROM conversations WHERE recipient = ?", (id,))
    db.execute("DELETE FROM recipients WHERE id = ?", (id,))  # its identities and memberships go with it
    unit.raise_control()
    return True


def _erase_deliveries(unit: Unit, recipient: str, at: datetime) -> None:
    sql = f"SELECT {rows.DELIVERY}, d.key, d.last_attempt FROM {rows.LEDGER} WHERE d.recipient = ?"  # noqa: S608 - our columns
    found = unit.db.execute(sql, (recipient,)).fetchall()
    end(unit, map(rows.delivery, found), lambda delivery: changes.erased(delivery, at))
    keys = _listed(key for *_, key, _ in found)
    for statement in _SILENCE:
        unit.db.execute(statement, (keys,))
    unit.db.execute(_SILENCE_LINES, (_listed(line for *_, line in found if line is not None),))


def _listed(values: Iterable[int]) -> str:
    return orjson.dumps([*values]).decode()
