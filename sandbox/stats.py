"""Counters of what the sandbox was asked and how it answered."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Peak:
    """The biggest number of events in any one second of sandbox time, sliding."""

    most: int = 0
    _seen: deque[float] = field(default_factory=deque)

    def note(self, now: float) -> None:
        """An event happened."""
        seen = self._seen
        seen.append(now)
        while seen[0] <= now - 1.0:
            seen.popleft()
        self.most = max(self.most, len(seen))


@dataclass
class Stats:
    """Requests per channel, method and status; sends per account; limits broken; callbacks."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    violations: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Channel, account, limit."""
    peaks: dict[tuple[str, str], Peak] = field(default_factory=dict)
    callbacks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Channel, outcome."""
    follows: int = 0

    def sent(self, channel: str, account: str, now: float) -> None:
        """A message went through an account."""
        peak = self.peaks.get((channel, account))
        if peak is None:
            peak = self.peaks[channel, account] = Peak()
        peak.note(now)

    def as_json(self) -> dict[str, Any]:
        """As `/sandbox/stats` shows it, but for what others know."""
        return {
            "requests": [
                {"channel": channel, "method": method, "status": status, "count": count}
                for (channel, method, status), count in sorted(self.requests.items())
            ],
            "limit_violations": [
                {"channel": channel, "account": account, "limit": limit, "count": count}
                for (channel, account, limit), count in sorted(self.violations.items())
            ],
            "most_sends_in_a_second": {
                f"{channel}/{account}": peak.most for (channel, account), peak in sorted(self.peaks.items())
            },
            "links_followed": self.follows,
        }

    def clear(self) -> None:
        """Start counting anew."""
        self.requests.clear()
        self.violations.clear()
        self.peaks.clear()
        self.callbacks.clear()
        self.follows = 0
