"""Everything that is to happen later: one heap, one task."""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable

from sandbox.clock import SandboxClock

logger = logging.getLogger(__name__)

AT_ONCE = 500
"""Acts run in one turn before other tasks get theirs."""


class Agenda:
    """Runs short synchronous acts at sandbox instants; an act that needs HTTP hands it to the callbacks."""

    def __init__(self, clock: SandboxClock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Run `act` once sandbox time (seconds since 1970) reaches `when`."""
        heapq.heappush(self._heap, (when, next(self._order), act))
        if self._heap[0][2] is act:
            self._wake.set()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Run `act` so many sandbox seconds from now."""
        self.at(self._clock.seconds() + seconds, act)

    def look(self) -> None:
        """Look again at what is due, because the clock has jumped."""
        self._wake.set()

    def clear(self) -> None:
        """Forget everything planned."""
        self._heap.clear()

    async def run(self) -> None:
        """Run acts as they fall due, until cancelled."""
        while True:
            self._wake.clear()
            if self._run_due() == AT_ONCE:
                await asyncio.sleep(0)
                continue
            await self._pause()

    def _run_due(self) -> int:
        now = self._clock.seconds()
        done = 0
        while self._heap and self._heap[0][0] <= now and done < AT_ONCE:
            act = heapq.heappop(self._heap)[2]
            done += 1
            try:
                act()
            except Exception:
                # One person's mishap must not stop everybody else's day.
                logger.exception("sandbox_act_failed")
        return done

    async def _pause(self) -> None:
        delay = self._clock.wall_seconds_until(self._heap[0][0]) if self._heap else None
        try:
            async with asyncio.timeout(delay):
                await self._wake.wait()
        except TimeoutError:
            return
