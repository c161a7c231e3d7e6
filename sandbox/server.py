"""The sandbox as one server: what it is made of, how it starts and how it stops."""

import asyncio
import contextlib
import gc
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aiohttp import web

from sandbox import draws
from sandbox.acts import Acts
from sandbox.agenda import Agenda
from sandbox.callbacks import Callbacks
from sandbox.clock import SandboxClock
from sandbox.control import Control
from sandbox.crowd import Crowd
from sandbox.directory import Account, Bot, Directory, Standing
from sandbox.faults import Faults
from sandbox.front import Front, Head, Ready
from sandbox.graph import Graph
from sandbox.login import Login
from sandbox.messages import Record
from sandbox.settings import Channel, SandboxSettings, TeamsBot, TelegramBot, ViberBot
from sandbox.stats import Stats
from sandbox.teams import Teams
from sandbox.telegram import Telegram
from sandbox.viber import Viber
from sandbox.welcome import page
from sandbox.world import Platform, World

MAX_UPLOAD = 64 * 1024 * 1024
"""Bytes of a request at most: more than any platform takes, so that the platform's own limit answers."""


class Sandbox:
    """Teams, Telegram and Viber on one port, with people behind them.

        async with Sandbox(SandboxSettings(seed=7)).serve() as sandbox:
            ... sandbox.url ...

    It runs in the event loop it is served in, and leaves nothing behind.
    """

    def __init__(self, settings: SandboxSettings | None = None) -> None:
        self.settings = settings = settings or SandboxSettings()
        clock = SandboxClock(settings.epoch or datetime.now(UTC), settings.speed)
        agenda, stats = Agenda(clock), Stats()
        self.world = World(
            settings=settings,
            clock=clock,
            agenda=agenda,
            directory=Directory(settings),
            record=Record(keep=settings.keep_messages),
            faults=Faults(settings.seed, clock),
            stats=stats,
            callbacks=Callbacks(
                clock=clock,
                agenda=agenda,
                stats=stats,
                workers=settings.callback_concurrency,
                timeout_seconds=settings.callback_timeout,
            ),
            behaviour=settings.behaviour,
            closing=asyncio.Event(),
        )
        self.login = Login(self.world)
        self.teams = Teams(self.world, self.login)
        self.graph = Graph(self.world, self.login, self.teams)
        self.telegram = Telegram(self.world)
        self.viber = Viber(self.world)
        self.platforms: dict[Channel, Platform] = {
            Channel.TEAMS: self.teams,
            Channel.TELEGRAM: self.telegram,
            Channel.VIBER: self.viber,
        }
        self._quick: dict[str, Platform] = {channel.value: platform for channel, platform in self.platforms.items()}
        self.acts = Acts(self.world, self.platforms)
        self.crowd = Crowd(self.world, self.acts)

    @property
    def url(self) -> str:
        """Where the sandbox is reached, without a slash at the end; empty before it is served."""
        return self.world.url

    @contextlib.asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator["Sandbox"]:
        """Listen while the block runs; port 0 takes a free one."""
        self.world.closing.clear()
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        async with contextlib.AsyncExitStack() as stack:
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            listening = await self._listen(runner, host, port, stack)
            self.world.url = self.settings.public_url or _url(host, listening)
            for name, work in (("agenda", self.world.agenda.run()), ("callbacks", self.world.callbacks.run())):
                task = asyncio.create_task(work, name=f"sandbox-{name}")
                stack.push_async_callback(_end, task)
            # Registered last, so first: whoever is kept waiting is let go before anything else ends.
            stack.callback(self.world.closing.set)
            yield self

    def env(self) -> dict[str, str]:
        """The settings that connect a local Clarion to the first bot of each channel."""
        url, lines = self.url, {}
        for account in self.world.directory.accounts.values():
            if account.first:
                lines.update(_env_of(account.bot, url))
        return lines

    def open_bot(self, channel: Channel, wish: dict[str, Any]) -> Account:
        """Add a bot; credentials not given are made up from its name."""
        account = self.world.directory.open_account(_bot(channel, wish))
        match account.bot:
            case TeamsBot(app_id=app_id, endpoint=endpoint):
                self.teams.endpoints[app_id] = endpoint
            case TelegramBot():
                self.telegram.open(account)
            case ViberBot():
                self.viber.open(account)
        return account

    def reset(self) -> None:
        """Forget messages, faults, pins, counters and everybody's standing; bots and people stay."""
        world = self.world
        world.agenda.clear()
        world.callbacks.clear()
        world.callbacks.log.clear()
        world.record.clear()
        world.faults.clear()
        world.stats.clear()
        world.pins.clear()
        world.behaviour = self.settings.behaviour
        self.graph.reset()
        for platform in self.platforms.values():
            platform.reset()
        for account in world.directory.accounts.values():
            account.sent = 0
            for contact in account.by_person.values():
                contact.standing = Standing.ACTIVE if self.settings.started else Standing.STRANGER

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_UPLOAD)
        app.router.add_routes(self.telegram.routes())
        for part in (self.viber, self.teams, self.login, self.graph, Control(self)):
            app.router.add_routes(part.routes())
        app.router.add_get("/", self._welcome)
        return app

    async def _listen(self, runner: web.AppRunner, host: str, port: int, stack: contextlib.AsyncExitStack) -> int:
        """Take connections until the stack unwinds; gives the port."""
        assert runner.server is not None  # noqa: S101 - set up by the caller
        fronts: set[Front] = set()
        front = partial(Front, self._at_once, runner.server, fronts)
        server = await asyncio.get_running_loop().create_server(front, host, port, backlog=128)
        stack.callback(_close, fronts)
        stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])

    def _at_once(self, head: Head, body: bytes) -> Ready | None:
        platform = self._quick.get(head.path[0])
        return platform.at_once(head, body) if platform else None

    async def _welcome(self, _request: web.Request) -> web.Response:
        return web.Response(text=page(self.url, self.world), content_type="text/html")


def _close(fronts: set[Front]) -> None:
    for front in tuple(fronts):
        front.close()


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://{shown}:{port}"


def _env_of(bot: Bot, url: str) -> dict[str, str]:
    match bot:
        case TeamsBot():
            return {
                "CLARION_TEAMS_APP_ID": bot.app_id,
                "CLARION_TEAMS_APP_PASSWORD": bot.password,
                "CLARION_TEAMS_TENANT_ID": bot.tenant_id,
                "CLARION_TEAMS_LOGIN_URL": f"{url}/login",
                "CLARION_TEAMS_OPENID_URL": f"{url}/botframework/.well-known/openidconfiguration",
                "CLARION_TEAMS_SERVICE_URLS": f"{url}/teams/",
                "CLARION_GRAPH_URL": f"{url}/graph/v1.0",
            }
        case TelegramBot():
            return {"CLARION_TELEGRAM_TOKEN": bot.token, "CLARION_TELEGRAM_API_URL": f"{url}/telegram"}
        case ViberBot():
            return {
                "CLARION_VIBER_TOKEN": bot.token,
                "CLARION_VIBER_NAME": bot.title,
                "CLARION_VIBER_API_URL": f"{url}/viber/pa",
            }


def _bot(channel: Channel, wish: dict[str, Any]) -> Bot:
    name = str(wish["name"])
    mark = draws.token("bot", channel, name, size=24).hex()
    match channel:
        case Channel.TEAMS:
            made = {"app_id": str(uuid.UUID(mark[:32])), "password": f"sandbox-{mark[32:]}"}
            return TeamsBot(**{**made, **wish})
        case Channel.TELEGRAM:
            number = 200_000_000 + int(mark[:6], 16)
            return TelegramBot(**{"token": f"{number}:SANDBOX-{mark[:27]}", "username": f"{name}_bot", **wish})
        case Channel.VIBER:
            return ViberBot(**{"token": "-".join((mark[:16], mark[16:32], mark[32:])), "title": name, **wish})


def run(settings: SandboxSettings, host: str = "127.0.0.1", port: int = 8090) -> None:
    """Serve until interrupted: what `clarion sandbox` and `python -m sandbox` do."""
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve_on(settings, host, port))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one."""
    try:
        import uvloop  # noqa: PLC0415 - not made for every system
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve_on(settings: SandboxSettings, host: str, port: int) -> None:
    async with Sandbox(settings).serve(host, port) as sandbox:
        # Many people live as long as the process does: the garbage collector need not visit them again and again.
        gc.freeze()
        print(f"Sandbox on {sandbox.url} (settings for Clarion: {sandbox.url}/sandbox/env)", flush=True)  # noqa: T201 - said to whoever started it
        stop = asyncio.Event()
        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
