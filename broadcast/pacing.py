"""How fast an account may send: evenly spaced, held when the platform says so, gentle to each conversation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime.min.replace(tzinfo=UTC)

#: A timer may fire this late without costing the account its rate: the next slot is counted from the slot that
#: was due, not from the late send. Under a virtual clock nothing is ever late, and sends are exactly 1/rate apart.
CATCH_UP = timedelta(milliseconds=20)


class Pacer:
    """The slots of one account (RULES.md: at least 1/`rate` apart, without bursts). `rate` is messages a second."""

    def __init__(self, rate: float) -> None:
        if not rate > 0:
            raise ValueError(f"a rate is more than 0 messages a second, not {rate}")
        self.rate = rate
        self._interval = timedelta(microseconds=math.ceil(1_000_000 / rate))
        self._next = _EPOCH
        self._held_until = _EPOCH

    def slot(self) -> datetime:
        """The earliest instant of the next send; one that is past means at once."""
        return max(self._next, self._held_until)

    def is_free(self, now: datetime, taken: int) -> bool:
        """Whether one more may go now, beside `taken` others that are about to."""
        return self._counted_from(now) + taken * self._interval <= now

    def take(self, now: datetime) -> datetime:
        """Uses the next slot for a send that is ready at `now`; answers the instant at which it may go."""
        slot = self.slot()
        self._next = self._counted_from(now) + self._interval
        return max(slot, now)

    def _counted_from(self, now: datetime) -> datetime:
        """The slot that the following ones are counted from: time that was not used is lost, but for a moment."""
        slot = self.slot()
        return slot if now - slot <= CATCH_UP else now

    def hold(self, until: datetime) -> None:
        """Nothing before `until`: the platform said so, or an outage is waited out."""
        self._held_until = max(self._held_until, until)

    def held_until(self, now: datetime) -> datetime | None:
        """Until when the account is held; ``None`` if it is not."""
        return self._held_until if self._held_until > now else None


class Conversations:
    """What each conversation may still take. `limits` are (count, seconds) pairs (PLATFORMS A4, C1, D1)."""

    def __init__(self, limits: Sequence[tuple[int, float]]) -> None:
        self._limits = tuple((count, timedelta(seconds=seconds)) for count, seconds in limits)
        self._longest = max((span for _, span in self._limits), default=timedelta())
        self._keep = max((count for count, _ in self._limits), default=0)
        self._sent: dict[str, deque[datetime]] = {}
        self._held: dict[str, datetime] = {}
        self._prune_at = 1024

    def earliest(self, conversation: str) -> datetime:
        """When the conversation may be written to next; an instant that is past means at once."""
        times = self._sent.get(conversation, ())
        waits = [times[-count] + span for count, span in self._limits if len(times) >= count]
        return max([*waits, self._held.get(conversation, _EPOCH)], default=_EPOCH)

    def take(self, conversation: str, now: datetime) -> None:
        """Counts a send at `now`."""
        if not self._limits:
            return
        self._prune_if_many(now)
        self._sent.setdefault(conversation, deque(maxlen=self._keep)).append(now)

    def hold(self, conversation: str, until: datetime, now: datetime) -> None:
        """Nothing to this conversation before `until`; a shorter wait never ends a longer one."""
        self._prune_if_many(now)
        self._held[conversation] = max(until, self._held.get(conversation, until))

    def _prune_if_many(self, now: datetime) -> None:
        if len(self._sent) + len(self._held) >= self._prune_at:
            self._prune(now)

    def _prune(self, now: datetime) -> None:
        """Forgets what no limit looks at any more; its cost is spread over as many sends as are kept."""
        self._sent = {key: times for key, times in self._sent.items() if now - times[-1] < self._longest}
        self._held = {key: until for key, until in self._held.items() if until > now}
        self._prune_at = max(1024, 2 * (len(self._sent) + len(self._held)))


#: This many failures in a row on different recipients are an outage (RULES.md).
OUTAGE_AFTER = 5
_LONGEST_PROBE = 60.0


@dataclass(frozen=True, slots=True)
class Health:
    """What the latest answers say of the platform behind an account: a value, moved by `failed` and `answered`.

    In an outage the account holds and probes with one send at a time; what it holds uses up no tries.
    """

    failing: tuple[str, ...] = ()
    probes: int | None = None

    @property
    def outage(self) -> bool:
        return self.probes is not None

    def failed(self, recipient: str) -> Health:
        """After a 5xx, a time-out or a connection error on this recipient."""
        if self.probes is not None:
            return Health(self.failing, self.probes + 1)
        failing = self.failing if recipient in self.failing else (*self.failing, recipient)
        return Health(failing, 0 if len(failing) >= OUTAGE_AFTER else None)

    def answered(self) -> Health:
        """After any other answer: the platform is there."""
        return WELL

    def probe_after(self) -> timedelta:
        """How long an outage is held before the next probe: 1 s, then twice as long up to a minute."""
        return timedelta(seconds=min(_LONGEST_PROBE, 2.0 ** min(self.probes or 0, 10)))


WELL = Health()
