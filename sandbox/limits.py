"""Rate limits of the platforms: sliding windows in sandbox time."""

import math
from collections import deque
from collections.abc import Sequence


class Window:
    """At most `limit` events in any `period` seconds."""

    __slots__ = ("_seen", "limit", "period")

    def __init__(self, limit: int, period: float) -> None:
        self.limit = limit
        self.period = period
        self._seen: deque[float] = deque(maxlen=limit)

    def wait(self, now: float) -> float:
        """Seconds until the next event fits; 0 when it fits now."""
        if len(self._seen) < self.limit:
            return 0.0
        return max(0.0, self._seen[0] + self.period - now)

    def note(self, now: float) -> None:
        """An event happened."""
        self._seen.append(now)

    def clear(self) -> None:
        """As if nothing had happened."""
        self._seen.clear()


class Windows:
    """Several windows over the same events, for each of many keys (PLATFORMS A4: per thread)."""

    def __init__(self, steps: Sequence[tuple[int, float]]) -> None:
        self._steps = tuple(steps)
        self._longest = max(limit for limit, _ in steps)
        self._seen: dict[str, list[float]] = {}

    def wait(self, key: str, now: float) -> float:
        """Seconds until the next event of the key fits every window."""
        seen = self._seen.get(key, ())
        waits = (seen[-limit] + period - now for limit, period in self._steps if len(seen) >= limit)
        return max(0.0, *waits, 0.0)

    def note(self, key: str, now: float) -> None:
        """An event of the key happened."""
        seen = self._seen.setdefault(key, [])
        seen.append(now)
        if len(seen) > 2 * self._longest:
            del seen[: -self._longest]

    def forget(self, key: str) -> None:
        """As if nothing had happened for the key."""
        self._seen.pop(key, None)

    def clear(self) -> None:
        """As if nothing had happened."""
        self._seen.clear()


class Trickle:
    """One event every `interval` seconds for each key, with `burst` passing at once."""

    def __init__(self, interval: float, burst: int) -> None:
        self._slack = interval * (burst - 1)
        self._interval = interval
        self._next: dict[str, float] = {}

    def wait(self, key: str, now: float) -> float:
        """Seconds until the next event of the key fits."""
        return max(0.0, self._next.get(key, now) - self._slack - now)

    def note(self, key: str, now: float) -> None:
        """An event of the key happened."""
        self._next[key] = max(self._next.get(key, now), now) + self._interval

    def clear(self) -> None:
        """As if nothing had happened."""
        self._next.clear()


def whole_seconds(wait: float) -> int:
    """A wait as `Retry-After` carries it: whole seconds, at least one."""
    return max(1, math.ceil(wait))
