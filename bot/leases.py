"""Doing something only while this process holds the lease for it; several processes take turns by themselves.

Leases are about processes and run on real time, whatever the broadcasts' clock says.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import structlog

from broadcast.errors import LeaseLost, StoreUnavailable
from broadcast.ports import Lease, Leases

log = structlog.get_logger(__name__)

_LONGEST_PAUSE = 60.0
#: What ran this long without a failure is taken as sound: the next failure begins with the shortest pause again.
_SOUND_AFTER = 60.0


class Standing(StrEnum):
    """How this process stands to one lease."""

    STARTING = "starting"  # has not asked yet
    HOLDING = "holding"  # works
    STANDING_BY = "standing_by"  # somebody else works; asks again and again
    RECOVERING = "recovering"  # the work failed and begins anew after a pause


@dataclass(frozen=True, slots=True)
class Terms:
    """Real seconds: for how long a lease is taken, how often it is renewed, how often one that others hold is
    asked for. After a death the first and the last of them pass, at most, before somebody else works: together
    they stay below the ten seconds that are promised (docs/operations.md), with more than a second to spare: what
    the dead one left open may have to be ended first."""

    lease: float = 7.5
    renew: float = 2.0
    ask_again: float = 1.0


class Turn:
    """One lease and the work that needs it. `run` never returns by itself: what fails is said, counted and begun
    anew, so that one account's failure is nobody else's.

    Where the store stays away for longer than the lease lasts, the work is ended before others may begin. `fenced`
    work goes on: it does nothing that it has not written under its lease, so that it stands still meanwhile, and
    ends if somebody else took the lease."""

    def __init__(
        self,
        leases: Leases,
        key: str,
        owner: str,
        work: Callable[[Lease], Awaitable[None]],
        *,
        terms: Terms | None = None,
        fenced: bool = False,
    ) -> None:
        self.key = key
        self.standing = Standing.STARTING
        self.failures = 0
        self._leases = leases
        self._owner = owner
        self._work = work
        self._terms = terms or Terms()
        self._fenced = fenced
        self._failed_in_a_row = 0

    async def run(self) -> None:
        """Takes turns until cancelled; then the work is ended and the lease given back."""
        while True:
            try:
                lease = await self._leases.acquire_lease(self.key, self._owner, self._terms.lease)
                if lease is not None:
                    await self._hold(lease)
                self._now(Standing.STANDING_BY)
            except LeaseLost:
                log.warning("the lease was lost", action="lease_lost", account=self.key)
            except StoreUnavailable as error:
                self._now(Standing.STANDING_BY)
                log.warning("the store does not answer", action="store_unavailable", detail=str(error))
            except Exception as error:  # noqa: BLE001 - the outermost edge of the work
                await self._recover(error)
                continue
            await asyncio.sleep(self._terms.ask_again)

    async def _hold(self, lease: Lease) -> None:
        """Works while the lease is renewed; whichever ends first ends the other."""
        self._now(Standing.HOLDING)
        began = asyncio.get_running_loop().time()
        work = asyncio.ensure_future(self._work(lease))
        renewal = asyncio.create_task(self._renew(lease), name=f"{self.key} renews its lease")
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(work)
            await _end(renewal)
            if asyncio.get_running_loop().time() - began > _SOUND_AFTER:
                self._failed_in_a_row = 0
            with suppress(StoreUnavailable):
                await self._leases.release_lease(lease)
        for task in (work, renewal):
            if not task.cancelled():
                task.result()

    async def _renew(self, lease: Lease) -> None:
        """Ends by raising `LeaseLost`. A store that does not answer is asked again while the lease lasts."""
        loop = asyncio.get_running_loop()
        held_until = loop.time() + self._terms.lease
        while True:
            await asyncio.sleep(self._terms.renew)
            asked = loop.time()
            try:
                renewed = await self._renewed(lease)
            except StoreUnavailable:
                renewed = self._fenced or asked < held_until - self._terms.renew
            else:
                held_until = asked + self._terms.lease
            if not renewed:
                raise LeaseLost(f"{self._owner} no longer holds {self.key}")

    async def _renewed(self, lease: Lease) -> bool:
        """One that ran out while nobody could ask is had back by asking for one's own again: the same fence."""
        if await self._leases.renew_lease(lease, self._terms.lease):
            return True
        return self._fenced and lease == await self._leases.acquire_lease(
            lease.account, lease.owner, self._terms.lease
        )

    async def _recover(self, error: Exception) -> None:
        self.failures += 1
        self._failed_in_a_row += 1
        self._now(Standing.RECOVERING)
        pause = min(_LONGEST_PAUSE, 2.0 ** min(self._failed_in_a_row - 1, 10))
        pause *= random.uniform(0.8, 1.2)  # noqa: S311 - spreads restarts, hides nothing
        log.error(
            "failed, and begins anew",
            action="turn_failed",
            account=self.key,
            failures=self.failures,
            pause_seconds=round(pause, 1),
            exc_info=error,
        )
        await asyncio.sleep(pause)

    def _now(self, standing: Standing) -> None:
        if standing is not self.standing:
            self.standing = standing
            log.info("standing changed", action="lease_standing", account=self.key, standing=standing.value)


async def _end(task: asyncio.Future[None]) -> None:
    """Cancels it if it still runs and waits for its end, however often this is cancelled itself."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
