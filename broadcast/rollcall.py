"""Who may be written to right now: presence, asked in batches and forgotten after a minute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice

import structlog

from broadcast import attempts, history
from broadcast.errors import PresenceUnavailable, StoreUnavailable
from broadcast.model import Broadcast, ChannelName, PresenceState
from broadcast.ports import Account, Clock, PresenceHistory, PresenceProvider, Result

log = structlog.get_logger()


class AtHand(ABC):
    """A `PresenceProvider` that knows without asking anybody, as a simulation does: it is asked at the very moment
    of each attempt."""

    batch = 1
    prefetch = False

    @abstractmethod
    def state(self, user_id: str) -> PresenceState:
        """The state right now."""

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, PresenceState]:
        return {user_id: self.state(user_id) for user_id in user_ids}


class RollCall:
    """What is known of presence on one account. Only the last state of a person, for as long as it may be used:
    presence is personal. Without a provider everybody is allowed: the channel tells none."""

    def __init__(
        self, provider: PresenceProvider | None, *, account: Account, clock: Clock, retry: timedelta
    ) -> None:
        self._provider = provider
        self._at_hand = provider if isinstance(provider, AtHand) else None
        self._channel: ChannelName = account.channel
        self._account = account.key
        self._clock = clock
        self._retry = retry
        self._known: dict[str, tuple[PresenceState, datetime]] = {}
        self._prune_at = 0
        self._asking: set[str] = set()
        self._minutes = history.Minutes(account.channel)
        #: How many people are worth asking at once: a call's worth, and no more than can be written to before
        #: the answer is stale.
        self.worth_asking = (
            1
            if provider is None
            else min(provider.batch, max(1, int(account.rate * attempts.FRESH.total_seconds())))
        )

    @property
    def prefetches(self) -> bool:
        """Whether asking for people who are due soon costs nothing."""
        return self._provider is not None and self._provider.prefetch

    def allows(self, broadcast: Broadcast, user_id: str, now: datetime) -> bool | None:
        """Whether this person may be written to now; ``None`` while nobody has told."""
        if self._provider is None or not attempts.asks_presence(broadcast, self._channel):
            return True
        known = self._known.get(user_id)
        if known is not None and now - known[1] <= attempts.FRESH:
            return attempts.allows(broadcast, self._channel, known[0])
        if self._at_hand is None:
            return None
        state = self._at_hand.state(user_id)
        self._learn({user_id: state}, now)
        return attempts.allows(broadcast, self._channel, state)

    def unasked(self, user_ids: Iterable[str], most: int) -> list[str]:
        """Up to `most` of these, each once, without those who are being asked already."""
        return list(islice((id for id in dict.fromkeys(user_ids) if id not in self._asking), most))

    def begin(self, user_ids: Sequence[str]) -> None:
        """Notes that these are being asked; `ask` has to follow."""
        self._asking.update(user_ids)

    async def ask(self, user_ids: Sequence[str]) -> Mapping[str, datetime]:
        """Asks the provider. Answers who could not be told, and when to ask for them again: that uses no rung."""
        states: Mapping[str, PresenceState] = {}
        wait = self._retry
        try:
            if self._provider is not None:
                states = await self._provider.states(user_ids)
        except PresenceUnavailable as error:
            log.warning("presence", action="presence_failed", account=self._account, detail=str(error))
            wait = error.wait or wait
        except Exception as error:  # a provider that breaks its promise delays its people, not the loop
            log.exception("presence", action="presence_broke", account=self._account, detail=type(error).__name__)
        finally:
            self._asking.difference_update(user_ids)
        now = self._clock.now()
        self._learn(states, now)
        return {id: now + wait for id in user_ids if id not in states}

    # --- what presence was like -----------------------------------------------------------------------

    def count(self, result: Result, user_id: str) -> None:
        """Counts the answer that the first attempt of a delivery went by (`history`)."""
        attempt, known = result.attempt, self._known.get(user_id)
        if attempt is None or known is None or not history.is_first(attempt, new_rung=result.new_rung):
            return
        if attempt.at - known[1] <= attempts.FRESH:
            self._minutes.count(known[0], attempt.at)

    async def keep(self, seen: PresenceHistory, *, over: bool = False) -> None:
        """Adds what was counted to the history, once a minute or when it is `over`. Where the store cannot take it
        these counts are dropped: what presence is like shows in those that follow."""
        if not over and not self._minutes.are_over(self._clock.now()):
            return
        if counts := self._minutes.take():
            try:
                await seen.add_presence(counts)
            except StoreUnavailable as error:
                log.warning("presence", action="presence_not_kept", account=self._account, detail=str(error))

    def _learn(self, states: Mapping[str, PresenceState], now: datetime) -> None:
        if len(self._known) > self._prune_at:  # as many forgotten as were learned since: a little each time
            self._known = {id: known for id, known in self._known.items() if now - known[1] <= attempts.FRESH}
            self._prune_at = 2 * len(self._known) + 4 * self.worth_asking
        self._known.update((id, (state, now)) for id, state in states.items())
