"""What is not kept for ever: the deliveries of broadcasts that ended long ago, and what only repeats are told by.

The report needs none of it: it is made of counters that were kept all along (`tally`) and stay. So folding a
broadcast into its report is to say that its deliveries are gone, and then to remove them piece by piece:

    marked (`deliveries_removed_at`)  ->  deliveries removed, some at a time  ->  done (`removal_done`)

From the mark on nobody is shown a part of them as if it were all. Cut off anywhere, the next sweep goes on there;
two who sweep at once remove nothing twice.

What a crash left in flight is settled by whoever drives its account next. An account that was taken out of the
settings is driven by nobody: for the moment that it takes, the sweep does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broadcast import message, report
from broadcast.errors import LeaseLost, StoreUnavailable
from broadcast.model import OPEN_STATES, Broadcast, BroadcastStatus, ButtonType, DeliveryState
from broadcast.ports import Clock, DeliveryFilter, Store
from broadcast.recovery import Recovery

#: Those whose deliveries are folded. One that failed never had any.
FOLDED = frozenset({BroadcastStatus.COMPLETED, BroadcastStatus.STOPPED})
#: Deliveries removed at once: some milliseconds of a writer that sends wait for.
BATCH = 100
#: How long what tells a repeat from something new is kept at least. No platform repeats a callback for longer than
#: a day, and an `Idempotency-Key` holds for one.
REPEATS = timedelta(days=7)
#: Under which name, and for how many real seconds at most, a sweep holds an account that nobody drives. No worker
#: has that name: who asks under the owner's name is given a lease even while it is held.
SETTLER = "clarion/retention"
SETTLES_WITHIN = 5.0
_PAGE = 50


@dataclass(frozen=True, slots=True)
class Swept:
    """One piece of work that was done. `done`: the broadcast is nothing but its counters now."""

    broadcast: Broadcast | None
    removed: int
    done: bool = False


def may_fold(broadcast: Broadcast, tally: Mapping[str, int], before: datetime) -> bool:
    """Whether all that will ever be known of it is counted: it ended before the instant, and so did every delivery
    (a stop leaves those in flight to end by themselves)."""
    if broadcast.status not in FOLDED or broadcast.finished_at is None or broadcast.finished_at >= before:
        return False
    states = report.deliveries(tally)
    return not any(states[state] for state in OPEN_STATES)


def lasting_target(broadcasts: Iterable[Broadcast], button: str) -> str | None:
    """Where a link of that id still leads, though nobody knows any more to whom it went: to the address that it had
    for everybody. ``None`` where that was a person's own, where the broadcasts or channels it may be of differ, and
    for what is no link."""
    told = [
        message.common_target(one)
        for broadcast in broadcasts
        if broadcast.deliveries_removed_at is not None
        for channel in broadcast.audience.channels
        for one in broadcast.message.on(channel).buttons
        if one.id == button and one.type is not ButtonType.REPLY
    ]
    return told[0] if len(set(told)) == 1 else None


class Retention:
    """Removes what is older than `after`. Any number of hosts may sweep at once."""

    def __init__(self, store: Store, clock: Clock, *, after: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._after = after
        self._recovery = Recovery(store, clock)

    async def sweep(self) -> AsyncGenerator[Swept]:
        """Everything that is old by now, the oldest first. Each piece is small, and told before the next begins, so
        that whoever sweeps can let others write in between."""
        now = self._clock.now()
        async for folded in self._fold_all(now - self._after):
            yield folded
        repeated_before = now - max(self._after, REPEATS)
        while forgotten := await self._store.forget(repeated_before, BATCH):
            yield Swept(None, forgotten)

    async def _fold_all(self, before: datetime) -> AsyncIterator[Swept]:
        behind: tuple[datetime, str] | None = None
        while found := await self._store.outlived(FOLDED, finished_before=before, after=behind, limit=_PAGE):
            for broadcast in found:
                if await self._may_fold(broadcast, before):
                    async for folded in self._fold(broadcast):
                        yield folded
            behind = (found[-1].finished_at or before, found[-1].id)

    async def _may_fold(self, broadcast: Broadcast, before: datetime) -> bool:
        tally = await self._store.tally(broadcast.id)
        if report.deliveries(tally)[DeliveryState.SENDING]:
            await self._settle(broadcast.id)
            tally = await self._store.tally(broadcast.id)
        return may_fold(broadcast, tally, before)

    async def _settle(self, broadcast: str) -> None:
        """Settles what the accounts of its deliveries in flight were left with, but where somebody drives them."""
        left = DeliveryFilter(broadcast, states={DeliveryState.SENDING})
        accounts = {one.account async for one, _ in self._store.all_deliveries(left) if one.account is not None}
        for account in sorted(accounts):
            lease = await self._store.acquire_lease(account, SETTLER, SETTLES_WITHIN)
            if lease is None:
                continue
            try:
                with suppress(LeaseLost):  # it took too long, and somebody drives it now
                    await self._recovery.settle(lease)
            finally:
                with suppress(StoreUnavailable):
                    await self._store.release_lease(lease)

    async def _fold(self, broadcast: Broadcast) -> AsyncIterator[Swept]:
        if broadcast.deliveries_removed_at is None:
            broadcast = await self._saved(replace(broadcast, deliveries_removed_at=self._clock.now()))
        while removed := await self._store.remove_deliveries(broadcast.id, BATCH):
            yield Swept(broadcast, removed)
        yield Swept(await self._saved(replace(broadcast, removal_done=True)), 0, done=True)

    async def _saved(self, broadcast: Broadcast) -> Broadcast:
        """No move leads away from where it stands, so that nobody else writes it."""
        await self._store.save_broadcast(broadcast, expected=broadcast.status)
        return broadcast
