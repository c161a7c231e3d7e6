"""Driving the accounts: for each one that can send, whoever holds its lease runs its engine.

Any number of processes may do this on one store: one of them drives an account at a time, the others stand by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import structlog

from bot.accounts import Accounts, ConfiguredAccount, Face
from bot.leases import Standing, Terms, Turn
from bot.tasks import Tasks
from broadcast.campaigns import Broadcasts
from broadcast.engine import Engine, Options, Status
from broadcast.errors import StoreUnavailable
from broadcast.ports import Account, Clock, Lease, Store
from broadcast.tracking import Links

log = structlog.get_logger(__name__)

#: Real seconds that what is in flight may take to end when the host stops; longer, and it counts as cut off.
FINISH = 6.0


class Worker:
    """An engine for every account of this process, each on its own: one that fails is nobody else's failure."""

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        *,
        clock: Clock,
        links: Links,
        owner: str,
        options: Options | None = None,
        terms: Terms | None = None,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._clock = clock
        self._links = links
        self._owner = owner
        self._options = options
        self._terms = terms or Terms()
        self._tasks = Tasks("worker")
        self._engines: dict[str, Engine] = {}
        self._turns: dict[str, Turn] = {}
        self._stopping = False

    def start(self) -> None:
        for key, one in self._accounts.all.items():
            if one.face is None or one.account is None:
                self._tasks.start(self._pause_what_waits_for(one), f"{key} is not connected")
                continue
            drive = partial(self._drive, one.account, one.face)
            turn = self._turns[key] = Turn(self._store, key, self._owner, drive, terms=self._terms, fenced=True)
            self._tasks.start(turn.run(), f"{key} is driven")

    async def stop(self) -> None:
        """Begins nothing more, lets what is in flight end within `FINISH` seconds, gives the leases back."""
        self._stopping = True
        await self._tasks.close(grace=FINISH + 2)

    @property
    def standings(self) -> Mapping[str, Standing]:
        """How this process stands to each account."""
        return {key: turn.standing for key, turn in self._turns.items()}

    @property
    def failures(self) -> int:
        """How often an engine failed and began anew."""
        return sum(turn.failures for turn in self._turns.values())

    @property
    def statuses(self) -> Mapping[str, Status]:
        """What the engines that run here say of their accounts."""
        return {key: engine.status for key, engine in self._engines.items()}

    async def _drive(self, account: Account, face: Face, lease: Lease) -> None:
        """Runs the engine until it is cancelled: it ends at once, or when the host stops with what is in flight."""
        engine = Engine(
            self._store,
            face.channel,
            account=account,
            lease=lease,
            clock=self._clock,
            links=self._links,
            presence=face.presence,
            options=self._options,
        )
        self._engines[account.key] = engine
        running = asyncio.create_task(engine.run(), name=f"engine {account.key}")
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            if self._stopping and not running.done():
                engine.stop()
                await asyncio.wait({running}, timeout=FINISH)
            raise
        finally:
            del self._engines[account.key]
            if not running.done():
                running.cancel()
                await asyncio.wait({running})

    async def _pause_what_waits_for(self, one: ConfiguredAccount) -> None:
        """Broadcasts that have something left for an account without its credential would wait for ever without a
        word. Unless another process drives it: that one has the credential."""
        while True:
            try:
                return await self._pause_unless_driven(one)
            except StoreUnavailable as error:
                log.warning("not paused yet", action="store_unavailable", account=one.key, detail=str(error))
            await asyncio.sleep(self._terms.ask_again)

    async def _pause_unless_driven(self, one: ConfiguredAccount) -> None:
        lease = await self._store.acquire_lease(one.key, self._owner, self._terms.lease)
        if lease is None:
            return
        try:
            await Broadcasts(self._store, self._clock).pause_account(one.key, one.trouble or "is not connected")
        finally:
            with suppress(StoreUnavailable):
                await self._store.release_lease(lease)
