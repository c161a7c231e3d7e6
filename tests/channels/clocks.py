"""A clock for channels' tests: it stands still, and sleeping moves it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

NOW = datetime(2026, 3, 27, 13, 27, tzinfo=UTC)


class StillClock:
    def __init__(self) -> None:
        self.at = NOW
        self.slept: list[timedelta] = []

    def now(self) -> datetime:
        return self.at

    async def sleep_until(self, instant: datetime) -> None:
        self.slept.append(instant - self.at)
        self.at = max(self.at, instant)
        await asyncio.sleep(0)

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        if until is not None:
            await self.sleep_until(until)
        return event.is_set()
