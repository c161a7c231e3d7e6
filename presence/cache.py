"""Asking once for many who ask, and not again within a minute (RULES.md, presence). In memory only: presence
is personal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broadcast.model import PresenceState
from broadcast.ports import Clock, PresenceProvider

#: An answer may be this old, and not a moment older.
USABLE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Known:
    """A state, and when it was asked for. ``None``: the provider could not tell it this time."""

    state: PresenceState | None
    at: datetime

    def is_usable(self, now: datetime) -> bool:
        """Up to and including 60 s old."""
        return now - self.at <= USABLE


class Shared:
    """A provider for several who ask at once: it shares calls in flight and what is known for a minute.

    A call goes on when whoever began it stops waiting, for others may wait too.
    """

    def __init__(self, provider: PresenceProvider, clock: Clock) -> None:
        self.batch = provider.batch
        self.prefetch = provider.prefetch
        self._provider = provider
        self._clock = clock
        self._known: dict[str, Known] = {}  # roughly oldest first
        self._asked: dict[str, asyncio.Task[Mapping[str, Known]]] = {}

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, PresenceState]:
        """As the provider's, for ids that nobody asked for in the last minute; the others cost nothing."""
        now = self._clock.now()
        self._forget_old(now)
        known = {id: one for id in user_ids if (one := self._known.get(id)) is not None and one.is_usable(now)}
        missing = [id for id in dict.fromkeys(user_ids) if id not in known]
        self._ask([id for id in missing if id not in self._asked], now)
        for call in {self._asked[id] for id in missing}:
            known |= await asyncio.shield(call)
        return {id: one.state for id in user_ids if (one := known.get(id)) is not None and one.state is not None}

    async def close(self) -> None:
        """Ends the calls in flight. The provider is its owner's to close."""
        calls = set(self._asked.values())
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)

    def _forget_old(self, now: datetime) -> None:
        while self._known:
            oldest = next(iter(self._known))
            if self._known[oldest].is_usable(now):
                return
            del self._known[oldest]

    def _ask(self, ids: Sequence[str], at: datetime) -> None:
        if not ids:
            return
        call = asyncio.create_task(self._call(ids, at), name=f"presence of {len(ids)}")
        call.add_done_callback(lambda done: self._settle(ids, done))
        self._asked |= dict.fromkeys(ids, call)

    async def _call(self, ids: Sequence[str], at: datetime) -> Mapping[str, Known]:
        states = await self._provider.states(ids)
        return {id: Known(states.get(id), at) for id in ids}

    def _settle(self, ids: Iterable[str], call: asyncio.Task[Mapping[str, Known]]) -> None:
        for id in ids:
            self._asked.pop(id, None)
        if call.cancelled() or call.exception() is not None:
            return  # whoever waits is told; the next one asks anew
        for id, one in call.result().items():
            self._known.pop(id, None)  # to the end of the line
            if one.state is not None:
                self._known[id] = one
