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
from datetime import datetime
from itertools import count
from typing import Any, TypeVar

_T = TypeVar("_T")


class VirtualClock:
    """The `Clock` port in virtual time. It starts at `start` (aware, UTC) and never goes back."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._timers: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._order = count()

    def now(self) -> datetime:
        return self._now

    async def sleep_until(self, instant: datetime) -> None:
        if instant <= self._now:
            await asyncio.sleep(0)
            return
        await self._timer(instant)

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        if event.is_set() or (until is not None and until <= self._now):
            await asyncio.sleep(0)
            return event.is_set()
        if until is None:
            return await event.wait()
        timer = self._timer(until)
        happened = asyncio.create_task(event.wait())
        happened.add_done_callback(lambda _: timer.cancel())
        try:
            await asyncio.wait([timer])
        finally:
            timer.cancel()
            happened.cancel()
        return event.is_set()

    def _timer(self, instant: datetime) -> asyncio.Future[None]:
        timer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._timers, (instant, next(self._order), timer))
        return timer

    def jump(self) -> bool:
        """Moves to the earliest moment somebody waits for and wakes everybody who waits for that moment; False
        if nobody waits for any."""
        while self._timers and self._timers[0][2].done():
            heapq.heappop(self._timers)
        if not self._timers:
            return False
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.done():
                timer.set_result(None)
        return True


class Stuck(RuntimeError):  # noqa: N818 - says what happened
    """Everybody waits, and for nothing that time could bring."""


class _JumpingSelector(selectors.DefaultSelector):
    """Where an ordinary loop would sleep, time jumps."""

    clock: VirtualClock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
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
