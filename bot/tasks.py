"""Tasks with a name, an owner and an end (whoever starts one here need not watch it)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Tasks:
    """Owns what runs beside: says when something failed, and ends what still runs when it is closed.

    `limit` bounds how many run at once: beyond it `start` refuses, and the caller goes without.
    """

    def __init__(self, name: str, *, limit: int | None = None) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self._limit = limit
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any] | None:
        """Runs it as a task; ``None`` where there are too many already, or all of this has ended."""
        if self._closed or (self._limit is not None and len(self._running) >= self._limit):
            work.close()
            self.counts["dropped"] += 1
            log.warning("too much to do beside", action="task_dropped", owner=self.name, task=name)
            return None
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self, *, patience: float = 0.0, grace: float = 5.0) -> None:
        """Waits `patience` seconds for what runs, then cancels the rest and gives it `grace` seconds to end."""
        self._closed = True
        if self._running and patience > 0:
            await asyncio.wait(self._running, timeout=patience)
        for task in set(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        for task in self._running:
            log.warning("a task did not end", action="task_left", owner=self.name, task=task.get_name())

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self.counts["failed"] += 1
        log.error("a task failed", action="task_failed", owner=self.name, task=task.get_name(), exc_info=error)
