"""How fast an account may send: evenly spaced, held when the platform says so, gentle to each conversation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broadcast.model import Order

_EPOCH = datetime.min.replace(tzinfo=UTC)

#: A timer may fire this late without costing the account its rate: the next slot is counted from the slot that
#: was due, not from the late send. Under a virtual clock nothing is ever late, and sends are exactly 1/rate apart.
CATCH_UP = timedelta(milliseconds=20)


#: No two sends are further apart, however small the share: about a year.
_LONGEST_INTERVAL = 1e13
_NOTHING = timedelta()


class Pacer:
    """The slots of one account (RULES.md: at least 1/`rate` apart, without bursts). `rate` is messages a second. A
    send that is late by no more than `catch_up` costs none of the rate."""

    def __init__(self, rate: float, catch_up: timedelta = CATCH_UP) -> None:
        if not rate > 0:
            raise ValueError(f"a rate is more than 0 messages a second, not {rate}")
        self.rate = rate
        self.interval = timedelta(microseconds=math.ceil(min(1_000_000 / rate, _LONGEST_INTERVAL)))
        self._catch_up = catch_up
        self._held_until = _EPOCH
        self._slot = _EPOCH

    def slot(self) -> datetime:
        """The earliest instant of the next send; one that is past means at once."""
        return self._slot

    def is_free(self, now: datetime, taken: int) -> bool:
        """Whether one more may go now, beside `taken` others that are about to."""
        return self._counted_from(now) + taken * self.interval <= now

    def come(self, now: datetime) -> int:
        """How many slots have come and may be used now."""
        late = now - self._slot
        return 0 if late < _NOTHING else min(late, self._catch_up) // self.interval + 1

    def follows(self, sends: int) -> datetime:
        """The slot behind those of so many sends that are prepared."""
        return self.slot() + sends * self.interval

    def room(self, until: datetime, now: datetime, sends: int) -> int:
        """How many sends may be prepared beside these, so that the slot of none is later than `until`. What was not
        used before is not made up for."""
        return max(0, (until - max(self.slot(), now)) // self.interval + 1 - sends)

    def take(self, now: datetime, since: datetime = _EPOCH) -> datetime:
        """Uses the next slot for a send that is ready now, and has been `since` then; answers the instant at which
        it may go. The time before it was ready is not made up for."""
        slot = self._slot
        self._slot = max(self._counted_from(now, since) + self.interval, self._held_until)
        return max(slot, now)

    def _counted_from(self, now: datetime, since: datetime = _EPOCH) -> datetime:
        """The slot that the following ones are counted from: time that was not used is lost, but for a moment."""
        slot = max(self._slot, since)
        return slot if now - slot <= self._catch_up else now

    def hold(self, until: datetime) -> None:
        """Nothing before `until`: the platform said so, or an outage is waited out."""
        self._held_until = max(self._held_until, until)
        self._slot = max(self._slot, until)

    def held_until(self, now: datetime) -> datetime | None:
        """Until when the account is held; ``None`` if it is not."""
        return self._held_until if self._held_until > now else None


#: How far a broadcast may lag behind its own rate and make it up: it waits for its turn on the account meanwhile.
_SHARE_CATCH_UP = timedelta(seconds=1)


def shared_out(rate: float | None, planned: Mapping[str, int]) -> dict[str, float]:
    """What each account may send of a broadcast, in messages per second: the campaign's `rate` in proportion to
    what is planned on each, so that all have done at the same time. No rate, no shares."""
    total = sum(planned.values())
    if rate is None:
        return {}
    return {account: rate * number / total for account, number in sorted(planned.items()) if number}


@dataclass(slots=True)
class _Turn:
    """How one broadcast stands to the others on the account."""

    launched: tuple[datetime, str]
    pacer: Pacer | None
    served: float = 0.0


class Turns:
    """Which broadcast of an account sends next: `fair` is whoever was served least, of those that have something
    due and whose own rate allows it; `sequential` is whoever was launched first.

    Time spent with nothing due earns nothing: whoever comes back begins where the others are (start-time fair
    queueing, Goyal, Vin and Cheng 1996)."""

    def __init__(self, order: Order, account: Pacer) -> None:
        self._order = order
        self._account = account
        self._turns: dict[str, _Turn] = {}
        self._reached = 0.0

    def admit(self, broadcast: str, launched_at: datetime, rate: float | None) -> None:
        """Lets it take turns, at most `rate` messages a second. One that is known stays as it is."""
        known = self._turns.get(broadcast)
        if known is None or (known.pacer and known.pacer.rate) != rate:
            pacer = None if rate is None else Pacer(rate, self._catch_up(rate))
            self._turns[broadcast] = _Turn((launched_at, broadcast), pacer, self._reached)

    def _catch_up(self, rate: float) -> timedelta:
        patience = max(_SHARE_CATCH_UP, self._account.interval)
        return max(CATCH_UP, min(patience, Pacer(rate).interval))

    def slot(self, broadcast: str) -> datetime:
        """The earliest instant of its next send by its own rate; one that is past means at once."""
        pacer = self._turns[broadcast].pacer
        return _EPOCH if pacer is None else pacer.slot()

    def has_rate(self, broadcast: str) -> bool:
        """Whether it has a rate of its own."""
        turn = self._turns.get(broadcast)
        return turn is not None and turn.pacer is not None

    def is_free(self, broadcast: str, now: datetime, taken: int) -> bool:
        """Whether its own rate allows one more now, beside `taken` others that are about to go."""
        pacer = self._turns[broadcast].pacer
        return pacer is None or pacer.is_free(now, taken)

    def first(self, free: Sequence[str]) -> str:
        """Whose turn it is; the earlier of two that stand alike."""
        if len(free) == 1:
            return free[0]
        if self._order is Order.SEQUENTIAL:
            return min(free, key=lambda one: self._turns[one].launched)
        return min(free, key=lambda one: (max(self._turns[one].served, self._reached), self._turns[one].served))

    def serve(self, broadcast: str) -> None:
        """It had its turn."""
        turn = self._turns[broadcast]
        self._reached = max(turn.served, self._reached)
        turn.served = self._reached + 1

    def take(self, broadcast: str, now: datetime) -> None:
        """Uses the next slot of its own rate."""
        pacer = self._turns[broadcast].pacer
        if pacer is not None:
            pacer.take(now)

    def keep(self, running: Sequence[str], now: datetime) -> None:
        """Forgets those that run no more, but for the rate that one which comes back still has to keep."""
        self._turns = {id: turn for id, turn in self._turns.items() if id in running or self.slot(id) > now}


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

    def begin(self, conversation: str, at: datetime) -> None:
        """The send that was counted last begins only now."""
        if times := self._sent.get(conversation):
            times[-1] = at

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
