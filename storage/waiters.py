"""Whoever waits for a control write in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress


class Waiters:
    """Those who wait for the control version to move on."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Makes all of them look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def moved_on(self, seen: int, look: Callable[[], Awaitable[int]], patience: Callable[[], float]) -> int:
        """The version once it is not `seen` any more. It is looked for when somebody wakes, and whenever so many
        real seconds went by without it."""
        while True:
            changed = self._changed  # taken before the look, so that a write in between is not missed
            version = await look()
            if version != seen:
                return version
            with suppress(TimeoutError):  # not `wait_for`, which loses a cancellation that meets a change
                async with asyncio.timeout(patience()):
                    await changed.wait()
