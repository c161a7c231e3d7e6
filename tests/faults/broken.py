"""Worlds in which things break: a store, a platform and presence that fail, wait and crash as a seed says.

Chance here is one generator per world, drawn from in the order in which virtual time runs things: the same seed is
the same world for ever. `draw` is asked at every await that touches a port.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from broadcast.errors import PresenceUnavailable, StoreUnavailable
from broadcast.model import (
    Answer,
    BadContent,
    ChannelName,
    Conversation,
    ConversationState,
    Delivery,
    Faulty,
    Holds,
    Never,
    PresenceState,
    Sent,
    StopAccount,
    Throttled,
    Unknown,
)
from broadcast.ports import Content, Features, Lease, Result
from broadcast.virtual_time import VirtualClock
from storage.memory import MemoryStore

T = TypeVar("T")

FEATURES = Features(reports_delivered=False, reports_read=False, rate=1, conversation_limits=(), text_limit=4096)


class Crash(BaseException):
    """The process dies here. No program of ours catches it."""


@dataclass
class Fate:
    """What the seed has in store: how often each kind of trouble comes, until it has been enough."""

    seed: int
    clock: VirtualClock
    trouble: float = 0.15
    crashes: int = 2
    calm_after: datetime | None = None
    meanwhile: Callable[[], Awaitable[None]] | None = None
    chance: random.Random = field(init=False)
    timing: random.Random = field(init=False)  # apart, so that the rest stays as it was
    news: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311 - a test's
        self.timing = random.Random(f"timing {self.seed}")  # noqa: S311 - a test's

    def strikes(self, part: float = 1.0) -> bool:
        """Whether something goes wrong now."""
        calm = self.calm_after is not None and self.clock.now() >= self.calm_after
        return not calm and self.chance.random() < self.trouble * part

    async def delay(self, part: float = 1.0, *, meanwhile: float = 0.05) -> None:
        """Some time goes by; now and then somebody does something in the midst of it."""
        if not self.strikes(part):
            return
        half = timedelta(seconds=self.chance.choice([0.001, 0.03, 0.5, 4.0, 70.0, 700.0]) / 2)
        await self.clock.sleep_until(self.clock.now() + half)
        if self.meanwhile is not None and self.chance.random() < meanwhile:
            await self.meanwhile()
        await self.clock.sleep_until(self.clock.now() + half)

    def news_before(self, instant: datetime) -> None:
        """Now and then somebody does something just before, when what is to follow is prepared already."""
        if self.meanwhile is not None and self.timing.random() < 0.3:
            short = timedelta(seconds=self.timing.choice([0.0, 0.01, 0.03, 0.1, 0.2]))
            self.news.add(asyncio.create_task(self._tell(instant - short, self.meanwhile)))

    async def _tell(self, instant: datetime, act: Callable[[], Awaitable[None]]) -> None:
        await self.clock.sleep_until(instant)
        await act()

    def crash(self, part: float = 0.05) -> None:
        if self.crashes and self.strikes(part):
            self.crashes -= 1
            raise Crash


#: So many calls at one instant are no work.
_SPINS = 100


class BrokenStore:
    """A store around another: each call of the engine may wait, fail before it was done, or be the last one before
    a crash, done or not."""

    def __init__(self, inner: MemoryStore, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate
        self._calls: Counter[datetime] = Counter()
        self.recorded: list[Result] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name == "wait_control":
            return call

        async def broken(*args: Any, **named: Any) -> Any:
            return await self._broken(lambda: call(*args, **named))

        return broken

    async def intend(self, *named: Any, after: Sequence[Result] = (), limits: Mapping[str, int] = {}) -> list[str]:
        async def intend() -> list[str]:
            await self._record(named[0], after)
            return await self._inner.intend(*named, limits=limits)

        granted = await self._broken(intend)
        await self._fate.delay(meanwhile=0.4)
        return granted

    async def record(self, lease: Lease, results: Sequence[Result]) -> list[str]:
        return await self._broken(lambda: self._record(lease, results))

    async def _record(self, lease: Lease, results: Sequence[Result]) -> list[str]:
        written = await self._inner.record(lease, results)
        self.recorded += [result for result in results if result.delivery.id in written]
        return written

    async def _broken(self, call: Callable[[], Awaitable[T]]) -> T:
        self._calls[self._fate.clock.now()] += 1
        assert self._calls[self._fate.clock.now()] < _SPINS, "the engine spins: time stands still for it"
        self._fate.crash()
        await self._fate.delay()
        if self._fate.strikes():
            raise StoreUnavailable("broken on purpose")
        answer = await call()
        self._fate.crash()
        await self._fate.delay()
        return answer


@dataclass(frozen=True)
class Send:
    """One request as the platform saw it. `open`: whether the engine can know what became of it."""

    recipient: str
    at: datetime
    accepted: bool
    answered: Answer | None


def _wait_after(answer: Answer) -> timedelta | None:
    """How long the account waits after it: as long as it says, or in an outage until the first probe."""
    if isinstance(answer, Throttled):
        return answer.wait
    return timedelta(seconds=1) if isinstance(answer, Faulty | Unknown) else None


class BrokenChannel:
    """A platform that answers everything there is, keeps what it accepted, and knows more than it says."""

    features = FEATURES

    def __init__(self, account: str, name: ChannelName, fate: Fate) -> None:
        self.account = account
        self.name = name
        self._fate = fate
        self.sends: list[Send] = []

    async def send(self, to: Conversation, content: Content) -> Answer:
        at = self._fate.clock.now()
        place = len(self.sends)
        self.sends.append(Send(to.recipient, at, accepted=False, answered=None))
        self._fate.crash(1.5)
        answer = self._answer()
        accepted = isinstance(answer, Sent) or (isinstance(answer, Unknown) and self._fate.chance.random() < 0.5)
        self.sends[place] = Send(to.recipient, at, accepted, None)
        await self._fate.delay(2.0, meanwhile=0.4)
        self._fate.crash(1.5)
        self.sends[place] = Send(to.recipient, at, accepted, answer)
        if (wait := _wait_after(answer)) is not None:
            self._fate.news_before(self._fate.clock.now() + wait)
        return answer

    def _answer(self) -> Answer:
        if not self._fate.strikes(2.0):
            return Sent("id")
        seconds = self._fate.chance.choice([None, 0, 1, 5, 600, 7200])
        wait = None if seconds is None else timedelta(seconds=seconds)
        answers: list[Answer] = [
            Throttled(wait, Holds.ACCOUNT),
            Throttled(wait, Holds.CONVERSATION),
            Faulty("503"),
            Faulty("connection"),
            Unknown("timeout"),
            Unknown("timeout"),
            Never(ConversationState.BLOCKED, "blocked"),
            BadContent("400"),
            StopAccount("401"),
        ]
        return self._fate.chance.choice(answers)

    async def close(self) -> None:
        pass


_STATES = [*PresenceState, *[PresenceState.AVAILABLE] * 4]


class BrokenPresence:
    """Presence that changes all the time, fails, waits, and leaves people out."""

    batch = 3

    def __init__(self, fate: Fate, *, prefetch: bool) -> None:
        self.prefetch = prefetch
        self._fate = fate
        self.told: dict[str, list[tuple[datetime, PresenceState]]] = {}

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, PresenceState]:
        await self._fate.delay()
        self._fate.crash()
        if self._fate.strikes():
            raise PresenceUnavailable("broken on purpose")
        now = self._fate.clock.now()
        states = {id: self._fate.chance.choice(_STATES) for id in user_ids if not self._fate.strikes()}
        for id, state in states.items():
            self.told.setdefault(id, []).append((now, state))
        return states


async def ended(task: asyncio.Task[None]) -> BaseException | None:
    """What a task ended with, also where that is a crash."""
    await asyncio.wait({task})
    return None if task.cancelled() else task.exception()


def named(deliveries: Sequence[Delivery]) -> dict[str, Delivery]:
    return {delivery.recipient: delivery for delivery in deliveries}
