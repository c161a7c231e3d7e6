"""The counters as they are read: what all slots of a broadcast hold together."""

from __future__ import annotations

from collections import Counter

from broadcast import report
from storage.mongo.connection import Access, Unit, path


async def counters(db: Access, broadcast: str) -> dict[str, int]:
    """Each transaction counts in one slot, whole: their sum is what the ledger holds."""
    total: Counter[str] = Counter()
    for slot in await db.all("tally", {"broadcast": broadcast}):
        total.update({path(name): int(count) for name, count in slot["counts"].items()})
    return {name: count for name, count in total.items() if count}


async def begun(unit: Unit, broadcast: str) -> int:
    """How many of the broadcast are begun (`report.begun`), with what this transaction adds. Whoever asks writes a
    slot that counts nothing: of two transactions that ask at once one begins anew, and counts what the other began.
    """
    asked = {"$inc": {"asked": 1}, "$setOnInsert": {"broadcast": broadcast, "counts": {}}}
    await unit.update("tally", {"_id": f"{broadcast}#begun"}, asked, upsert=True)
    return report.begun(await counters(unit, broadcast)) + report.begun(unit.counted(broadcast))
