"""What a worker that died left in flight, settled by whoever takes the account over.

As a rule that is the next engine, which goes on to send. Where nobody drives the account any more, it is retention,
which only settles.
"""

from __future__ import annotations

import structlog

from broadcast import attempts
from broadcast.campaigns import Broadcasts, every
from broadcast.model import BroadcastStatus, Delivery, DeliveryState
from broadcast.ports import Clock, Lease, Result, Store

log = structlog.get_logger()


class Recovery:
    """Each step may be done again from its beginning, by whoever holds the lease by then. What writes under the
    lease raises `LeaseLost` where it is held no more."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._broadcasts = Broadcasts(store, clock)

    async def settle(self, lease: Lease) -> None:
        """All of a takeover but the sending."""
        withheld = [await self.withheld(one.id) for one in await self.recover(lease)]
        if results := [result for result in withheld if result is not None]:
            await self._store.record(lease, results)
        await self.cancel_rest()
        for running in await every(self._store, BroadcastStatus.RUNNING):  # it may have been the last of one
            await self._broadcasts.settle(running.id)

    async def recover(self, lease: Lease) -> list[Delivery]:
        """Records what becomes of each delivery in flight on the account; answers those that are planned again.
        They passed by whatever happened meanwhile: some may be `withheld`."""
        now = self._clock.now()
        results = []
        for due in await self._store.in_flight(lease):
            broadcast = await self._broadcasts.get(due.delivery.broadcast)
            results.append(attempts.recovered(due.delivery, broadcast, now))
        if results:
            log.warning("recovered", action="recovered", account=lease.account, deliveries=len(results))
            await self._store.record(lease, results)
        return [result.delivery for result in results if result.delivery.state is DeliveryState.PLANNED]

    async def withheld(self, id: str) -> Result | None:
        """What ends a planned delivery that may not be sent any more; ``None`` for every other."""
        stored = await self._store.delivery(id)
        if stored is None or stored.state is not DeliveryState.PLANNED:
            return None
        recipient = await self._store.recipient(stored.recipient)
        found = await self._store.conversations_of(stored.recipient)
        conversation = next((one for one in found if one.id == stored.conversation), None)
        broadcast = await self._broadcasts.get(stored.broadcast)
        if recipient is None or conversation is None:
            return None
        return attempts.withheld(stored, recipient, conversation, broadcast, self._clock.now())

    async def cancel_rest(self) -> None:
        """Cancels what stopped broadcasts have planned still: who was to withhold it may have died before."""
        for stopped in await every(self._store, BroadcastStatus.STOPPED):
            await self._broadcasts.cancel_rest(stopped)
