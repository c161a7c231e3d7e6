"""Virtual time: the engine, unchanged, runs as fast as it can think.

`run` drives a coroutine on an event loop of its own whose clock only moves when nobody has anything left to do:
then it jumps to the earliest moment somebody waits for. Whatever the coroutine awaits has to come from the clock or
from values in memory; real sockets have no place here.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, TypeVar

_T = TypeVar("_T")


@dataclass(slots=True)
class _Timer:
    """Somebody who waits for an instant. Once `done`, nobody does any more."""

    ring: Callable[[], None]
    done: bool = False


class VirtualClock:
    """The `Clock` port in virtual time. It starts at `start` (aware, UTC) and never goes back."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._timers: list[tuple[datetime, int, int, _Timer]] = []
        self._order = count()

    def now(self) -> datetime:
        return self._now

    async def sleep_until(self, instant: datetime, *, rank: int = 0) -> None:
        """Of those who wait for the same instant, a lower rank goes first: the others wake once nobody of it has
        anything left to do."""
        if instant <= self._now:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._timer(instant, lambda: None if waiter.done() else waiter.set_result(None), rank)
        try:
            await waiter
        finally:
            timer.done = True

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        if event.is_set() or (until is not None and until <= self._now):
            await asyncio.sleep(0)
            return event.is_set()
        if until is None:
            return await event.wait()
        await self._wait_until(event, until)
        return event.is_set()

    async def _wait_until(self, event: asyncio.Event, until: datetime) -> None:
        """As `asyncio.timeout` does it: the timer cancels the wait, and the cancellation ends here."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("waiting is for tasks")
        rang = False

        def ring() -> None:
            nonlocal rang
            rang = True
            task.cancel()

        timer = self._timer(until, ring)
        try:
            await event.wait()
        except asyncio.CancelledError:
            if not rang or task.uncancel() > 0:
                raise
        finally:
            timer.done = True

    def _timer(self, instant: datetime, ring: Callable[[], None], rank: int = 0) -> _Timer:
        timer = _Timer(ring)
        heapq.heappush(self._timers, (instant, rank, next(self._order), timer))
        return timer

    def jump(self) -> bool:
        """Moves to the earliest moment somebody waits for and wakes everybody of the lowest rank who waits for
        that moment; False if nobody waits for any."""
        timers = self._timers
        while timers and timers[0][3].done:
            heapq.heappop(timers)
        if not timers:
            return False
        first, rank = timers[0][0], timers[0][1]
        self._now = max(self._now, first)
        while timers and timers[0][0] == first and timers[0][1] == rank:
            timer = heapq.heappop(timers)[3]
            if not timer.done:
                timer.done = True
                timer.ring()
        return True


class Stuck(RuntimeError):  # noqa: N818 - says what happened
    """Everybody waits, and for nothing that time could bring."""


class _JumpingSelector(selectors.DefaultSelector):
    """Where an ordinary loop would sleep, time jumps."""

    clock: VirtualClock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return []  # tasks are ready; from outside nothing comes
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and not self.clock.jump():
            raise Stuck("nothing left to wait for; something waits for an event that nobody will set")
        return ready


def run(clock: VirtualClock, main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Runs `main()` to its end in virtual time. Raises `Stuck` where it would wait for ever."""
    selector = _JumpingSelector()
    selector.clock = clock
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(main())
