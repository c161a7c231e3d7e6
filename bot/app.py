"""The one place where everything meets: from settings to a running Clarion."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial

import structlog
from aiohttp import web

from bot import accounts, greeting
from bot.accounts import Accounts
from bot.admin import PREFIX, admin_app
from bot.admin.auth import Role, new_token, token_hash
from bot.admin.services import AdminServices, Connection, Pace
from bot.chance import SystemChance
from bot.clock import HostClock, RealClock
from bot.commands.desk import CommandDesk
from bot.forecast import Forecasts, telling
from bot.health import Health
from bot.intake import Intake
from bot.leases import Turn
from bot.listening import listen, port_of
from bot.redirect import Redirect
from bot.retention import LEASE as RETENTION
from bot.retention import Sweeper
from bot.secret import kept_secret
from bot.settings import Settings
from bot.tasks import Tasks
from bot.triggers import LEASE, Triggers
from bot.webhooks import Webhooks
from bot.worker import Worker
from broadcast.campaigns import Broadcasts, Campaigns
from broadcast.engine import Options
from broadcast.errors import StoreUnavailable
from broadcast.forecast import Preparing
from broadcast.inbox import Reception
from broadcast.launching import Launching
from broadcast.model import ChannelName
from broadcast.ports import Features, Random, Store
from broadcast.recipients import Recipients
from broadcast.retention import Retention
from broadcast.tracking import Links
from storage.errors import CannotOpen
from storage.open import open_store

log = structlog.get_logger(__name__)

#: Real seconds from the wish to stop until everything has ended.
STOP_WITHIN = 9.5
#: Bytes of the largest request that is read at all: a file of recipients.
LARGEST_REQUEST = 64 * 1024 * 1024
#: Real seconds that start-up waits for what the platforms say before it tells how accounts stand.
FIRST_LOOK = 4.0
#: Real seconds between two tries to open a store that does not answer.
OPEN_AGAIN = 1.0


class Host:
    """One process of Clarion. `engine` and `web` say which halves of it run; `say` is told what a person who
    starts it wants to read. Once `stopping` is set, a start waits no longer for its store."""

    store: Store
    accounts: Accounts
    worker: Worker | None = None

    def __init__(
        self,
        settings: Settings,
        *,
        clock: HostClock | None = None,
        random: Random | None = None,
        engine: bool = True,
        web: bool = True,
        options: Options | None = None,
        say: Callable[[str], None] = lambda _: None,
        stopping: asyncio.Event | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock or RealClock()
        self.random = random or SystemChance()
        self._engine = engine
        self._web = web
        self._options = options
        self._say = say
        self._stopping = stopping or asyncio.Event()
        self._tasks = Tasks("host")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Host]:
        """Runs while the context lasts. Raises `ClarionError`, in words, where it cannot start."""
        stack = AsyncExitStack()
        try:
            await self._start(stack)
            yield self
        finally:
            await _closed(stack)

    @property
    def reporting(self) -> Mapping[ChannelName, Features]:
        """What each channel can tell."""
        return {account.channel: account.features for account in self.accounts.usable.values()}

    # --- start ----------------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack) -> None:
        listener = self._listener(stack) if self._web else None
        self.store = await self._opened()
        stack.push_async_callback(self.store.close)
        secret = kept_secret(self.settings, self.random)
        links = Links(secret=secret, public_url=self.settings.links_url)
        self.accounts = accounts.opened(self.settings, self.clock, stack)
        owner = self.random.id("own")
        stack.push_async_callback(self._tasks.close, grace=2.0)
        if listener is not None:
            await self._serve(listener, secret, links, owner, stack)
        self._start_triggers(owner)
        if self._engine:
            self._start_worker(links, owner, stack)

    async def _opened(self) -> Store:
        """The store, as soon as it answers: a database may come later than its clients, or change hands as they
        start. What a person has to mend is raised at once."""
        told = False
        while True:
            try:
                return await open_store(self.settings.store)
            except CannotOpen:
                raise
            except StoreUnavailable as error:
                if self._stopping.is_set():
                    raise
                log.warning("the store does not answer", action="store_unavailable", detail=str(error))
                if not told:
                    self._say(f"{error}; waiting for it")
                    told = True
            with suppress(TimeoutError):
                async with asyncio.timeout(OPEN_AGAIN):
                    await self._stopping.wait()

    def _listener(self, stack: AsyncExitStack) -> socket.socket:
        listener = listen(self.settings.host, self.settings.port)
        stack.callback(listener.close)
        self.settings = self.settings.model_copy(update={"port": port_of(listener)})
        return listener

    def _start_triggers(self, owner: str) -> None:
        hold = timedelta(minutes=self.settings.hold_late_start_minutes)
        launching = Launching(self.store, self.clock, self.accounts.usable, hold_late_start=hold)
        campaigns = Campaigns(self.store, self.clock, self.random, self.accounts.usable)
        triggers = Triggers(self.store, campaigns, launching, self.clock)
        self._tasks.start(Turn(self.store, LEASE, owner, triggers.run).run(), "starts of broadcasts")
        if self.settings.retention_days:
            after = timedelta(days=self.settings.retention_days)
            sweeper = Sweeper(Retention(self.store, self.clock, after=after))
            self._tasks.start(Turn(self.store, RETENTION, owner, sweeper.run).run(), "removal of what is old")

    def _start_worker(self, links: Links, owner: str, stack: AsyncExitStack) -> None:
        self.worker = Worker(
            self.store, self.accounts, clock=self.clock, links=links, owner=owner, options=self._options
        )
        stack.push_async_callback(self.worker.stop)
        self.worker.start()

    # --- the web half ---------------------------------------------------------------------------------

    async def _serve(
        self, listener: socket.socket, secret: str, links: Links, owner: str, stack: AsyncExitStack
    ) -> None:
        campaigns = Campaigns(self.store, self.clock, self.random, self.accounts.usable)
        reception = Reception(self.store, self.clock, self.random)
        forecasts = self._forecasts(campaigns, stack)
        intake = Intake(reception, self.accounts, self._desk(campaigns, forecasts, secret))
        stack.push_async_callback(intake.close)
        redirect = Redirect(self.store, reception, links, self.random)
        stack.push_async_callback(redirect.close)
        webhooks = Webhooks(self.accounts, intake)
        health = Health(self.store, self.accounts, webhooks, lambda: self.worker.standings if self.worker else {})
        token = await self._first_token()
        app = self._application(webhooks, redirect, health, self._admin(campaigns, forecasts))
        await _started(app, listener, stack)
        self._connect(intake, owner)  # after that: a platform may call before it answers
        await self._greet(token)

    def _forecasts(self, campaigns: Campaigns, stack: AsyncExitStack) -> Forecasts:
        tells = telling(self.accounts)
        forecasts = Forecasts(Preparing(self.store, self.clock, campaigns, self.accounts.usable, tells), self.clock)
        stack.push_async_callback(forecasts.close)
        return forecasts

    def _desk(self, campaigns: Campaigns, forecasts: Forecasts, secret: str) -> CommandDesk:
        return CommandDesk(
            self.store,
            campaigns,
            clock=self.clock,
            secret=secret,
            admins=self.settings.admins,
            accounts=self.accounts.usable,
            foretell=forecasts.soon,
        )

    def _application(
        self, webhooks: Webhooks, redirect: Redirect, health: Health, admin: web.Application
    ) -> web.Application:
        app = web.Application(client_max_size=LARGEST_REQUEST)
        for part in (webhooks, redirect, health):
            app.router.add_routes(part.routes())
        app.add_subapp(PREFIX, admin)
        app.on_response_prepare.append(_unsigned)
        return app

    def _admin(self, campaigns: Campaigns, forecasts: Forecasts) -> web.Application:
        given = self.settings.admin_token
        return admin_app(
            AdminServices(
                store=self.store,
                clock=self.clock,
                campaigns=campaigns,
                broadcasts=Broadcasts(self.store, self.clock),
                recipients=Recipients(self.store, self.clock, self.random),
                accounts=self.accounts.shown,
                foretell=forecasts.of,
                full_forecasts=forecasts.full,
                schedule=self.settings.defaults.schedule,
                connection=self._connection,
                pace=self._pace,
                bootstrap_hash=token_hash(given.get_secret_value()) if given else None,
            )
        )

    def _connection(self, key: str) -> Connection | None:
        one = self.accounts.all.get(key)
        if one is None:
            return None
        engine = self.worker.statuses.get(key) if self.worker else None
        if engine is not None and engine.trouble is not None:
            return Connection(connected=False, detail=engine.trouble)
        return Connection(one.connected if one.known.is_set() else None, one.trouble)

    def _pace(self, key: str) -> Pace | None:
        status = self.worker.statuses.get(key) if self.worker else None
        if status is None:
            return None
        now = self.clock.now()
        return Pace(status.achieved_rate(now), status.waiting_until, status.achieved_rates(now))

    async def _first_token(self) -> str | None:
        """A fresh admin token where there is no way in yet."""
        if self.settings.admin_token is not None or await self.store.tokens():
            return None
        secret, token = new_token(self.random, self.clock, role=Role.ADMIN, name="first")
        await self.store.save_token(token)
        return secret

    def _connect(self, intake: Intake, owner: str) -> None:
        for one in self.accounts.all.values():
            self._tasks.start(one.keep_connected(), f"{one.key} is kept connected")
            if one.face is not None and one.face.poll is not None:
                turn = Turn(self.store, f"{one.key}/updates", owner, partial(intake.fetch, one))
                self._tasks.start(turn.run(), f"{one.key} is asked for updates")

    async def _greet(self, token: str | None) -> None:
        for line in greeting.address(self.settings, token):
            self._say(line)
        await self.accounts.known(within=FIRST_LOOK)
        for line in greeting.accounts(self.settings, self.accounts):
            self._say(line)


async def _started(app: web.Application, listener: socket.socket, stack: AsyncExitStack) -> None:
    # No access log: addresses of links and callbacks hold what must not be written down.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.5, handle_signals=False)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener).start()


async def _unsigned(_request: web.Request, response: web.StreamResponse) -> None:
    """Nobody needs to know which versions run here."""
    response.headers["Server"] = "clarion"


async def _closed(stack: AsyncExitStack) -> None:
    """Ends everything in order, but not later than `STOP_WITHIN`: what is left open by then is as safe as after a
    crash, since every intent is written before it is acted on."""
    closing = asyncio.create_task(stack.aclose(), name="stopping")
    done, _ = await asyncio.wait({closing}, timeout=STOP_WITHIN)
    if done:
        return closing.result()
    closing.cancel()
    log.error("did not end in time", action="stop_cut_short", seconds=STOP_WITHIN)
    return None
