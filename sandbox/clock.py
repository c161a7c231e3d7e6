"""Sandbox time: people, moments and platform limits run `speed` times faster than the wall."""

import time
from collections.abc import Callable
from datetime import UTC, datetime


class SandboxClock:
    """Starts at `epoch` and runs `speed` sandbox seconds per wall second.

    HTTP time-outs and token lifetimes do not come from here: they are wall time.
    """

    def __init__(self, epoch: datetime, speed: float, wall: Callable[[], float] = time.monotonic) -> None:
        if epoch.tzinfo is None:
            raise ValueError("the epoch needs a time zone")
        if speed <= 0:
            raise ValueError("speed must be above zero")
        self.epoch = epoch.astimezone(UTC)
        self.speed = speed
        self._wall = wall
        self._start = wall()
        self._origin = epoch.timestamp()

    def seconds(self) -> float:
        """Sandbox time now as seconds since 1970."""
        return self._origin + (self._wall() - self._start) * self.speed

    def now(self) -> datetime:
        """Sandbox time now, in UTC."""
        return datetime.fromtimestamp(self.seconds(), UTC)

    def wall_seconds_until(self, instant: float) -> float:
        """Wall seconds until a sandbox instant (seconds since 1970), never negative."""
        return max(0.0, (instant - self.seconds()) / self.speed)

    def advance(self, seconds: float) -> None:
        """Jump forward by sandbox seconds: what a test does instead of sleeping."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._origin += seconds


def iso(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
