"""Time and chance as these tests want them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import count

NOW = datetime(2026, 3, 26, 15, 2, 11, tzinfo=UTC)


class StillClock:
    """Stands at `NOW` until it is moved; whoever sleeps wakes at once."""

    def __init__(self) -> None:
        self._now = NOW

    def now(self) -> datetime:
        return self._now

    def move(self, by: timedelta) -> None:
        self._now += by

    async def sleep_until(self, instant: datetime) -> None:
        self._now = max(self._now, instant)

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        if until is None:
            return await event.wait()
        await self.sleep_until(until)
        return event.is_set()


class Counted:
    """Ids and secrets by number, so that tests can name them."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers)}"

    def seed(self) -> int:
        return 7

    def secret(self) -> str:
        return f"secret-{next(self._numbers)}".ljust(43, "x")
