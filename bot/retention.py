"""Removing what is old, once an hour: many hosts would, one of them does.

How fast is decided here, and nowhere else: between two pieces there is a breath for whoever sends meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing

import structlog

from broadcast.errors import StoreUnavailable
from broadcast.ports import Lease
from broadcast.retention import Retention, Swept

log = structlog.get_logger(__name__)

#: The lease that lets a process sweep.
LEASE = "clarion/retention"
#: Real seconds between two sweeps, and after one that failed.
EVERY = 3600.0
AGAIN = 60.0
#: Real seconds between two pieces of a sweep: several times as long as a piece takes on SQLite.
BREATH = 0.05


class Sweeper:
    """Sweeps as long as it has the turn."""

    def __init__(
        self, retention: Retention, *, every: float = EVERY, again: float = AGAIN, breath: float = BREATH
    ) -> None:
        self._retention = retention
        self._every = every
        self._again = again
        self._breath = breath

    async def run(self, _lease: Lease) -> None:
        """Until cancelled, at whatever piece it is: the next who sweeps goes on there."""
        while True:
            pause = self._every if await self._swept() else self._again
            await asyncio.sleep(pause)

    async def _swept(self) -> bool:
        """False where it could not come to its end."""
        removed: Counter[str] = Counter()
        try:
            async with aclosing(self._retention.sweep()) as sweep:
                async for piece in sweep:
                    _tell(piece, removed)
                    await asyncio.sleep(self._breath)
        except StoreUnavailable as error:
            log.warning("not removed: the store does not answer", action="retention_failed", detail=str(error))
        except Exception:
            log.exception("not removed", action="retention_failed")
        else:
            return True
        finally:
            if removed[""]:
                log.info("old keys were forgotten", action="keys_forgotten", keys=removed[""])
        return False


def _tell(piece: Swept, removed: Counter[str]) -> None:
    """A line for each broadcast that is folded; what only repeats are told by is told of together."""
    key = piece.broadcast.id if piece.broadcast else ""
    removed[key] += piece.removed
    if piece.broadcast is not None and piece.done:
        log.info(
            "deliveries were removed, the report stays",
            action="broadcast_folded",
            broadcast=piece.broadcast.id,
            finished_at=piece.broadcast.finished_at,
            deliveries=removed[key],
        )
