"""The clocks of a running Clarion: real time, or real time run faster for demonstrations."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

#: A wait is looked at again after so many real seconds: the machine may have slept, or its clock been set.
LONGEST_NAP = 60.0


class HostClock(ABC):
    """A `Clock` that can also say how far an instant lies ahead in real time, for what only knows that."""

    @abstractmethod
    def now(self) -> datetime:
        """The instant it is, aware and in UTC."""

    @abstractmethod
    def real_seconds(self, instant: datetime) -> float:
        """How many real seconds pass until the instant; negative once it is past."""

    async def sleep_until(self, instant: datetime) -> None:
        """Returns at `instant` or, if that is past, at the next turn of the loop."""
        await self.wait(asyncio.Event(), instant)

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        """Waits for the event, at most until the instant (``None``: for ever). True if the event is set."""
        if until is None:
            return await event.wait()
        while not event.is_set() and (left := self.real_seconds(until)) > 0:
            try:
                async with asyncio.timeout(min(left, LONGEST_NAP)):
                    await event.wait()
            except TimeoutError:
                continue
        if not event.is_set():
            await asyncio.sleep(0)
        return event.is_set()


class RealClock(HostClock):
    """The machine's own."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def real_seconds(self, instant: datetime) -> float:
        return (instant - self.now()).total_seconds()


class ScaledClock(HostClock):
    """Begins at `epoch` when it is made and runs `speed` times as fast as real time."""

    def __init__(self, epoch: datetime, speed: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        if speed <= 0:
            raise ValueError(f"speed is {speed}; time runs forward only")
        if epoch.tzinfo is None:
            raise ValueError(f"{epoch} has no time zone")
        self.speed = speed
        self._epoch = epoch.astimezone(UTC)
        self._monotonic = monotonic
        self._began = monotonic()

    def now(self) -> datetime:
        return self._epoch + timedelta(seconds=(self._monotonic() - self._began) * self.speed)

    def real_seconds(self, instant: datetime) -> float:
        return (instant - self.now()).total_seconds() / self.speed
