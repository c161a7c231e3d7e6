"""A sandbox whose people wait to be told, a bot that remembers what it was sent, and a client for both."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from sandbox.server import Sandbox
from sandbox.settings import Behaviour, SandboxSettings, TeamsBot, TelegramBot, ViberBot

Json = dict[str, Any]
EPOCH = datetime(2026, 3, 24, 9, 0, tzinfo=UTC)
QUIET = Behaviour(auto=False)
TELEGRAM = TelegramBot()
VIBER = ViberBot()
TEAMS = TeamsBot()


@dataclass
class Hit:
    """One call of the bot's webhook."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Json:
        """The call as JSON."""
        parsed: Json = orjson.loads(self.raw)
        return parsed


@dataclass
class Bot:
    """A web server that takes callbacks, answers what it is told to, and remembers."""

    url: str = ""
    hits: list[Hit] = field(default_factory=list)
    answer: Callable[[Hit], web.Response] = lambda _hit: web.Response(status=200)

    async def handle(self, request: web.Request) -> web.Response:
        """Take a callback."""
        hit = Hit(request.path, dict(request.headers), await request.read())
        self.hits.append(hit)
        return self.answer(hit)

    def bodies(self) -> list[Json]:
        """Everything received, as JSON."""
        return [hit.body for hit in self.hits]


@contextlib.asynccontextmanager
async def serving(bot: Bot) -> AsyncIterator[Bot]:
    """Let a bot listen."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", bot.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    bot.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield bot
    finally:
        await runner.cleanup()


@dataclass
class World:
    """The sandbox and a client for it."""

    sandbox: Sandbox
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """One request; the status and the JSON of the answer (or its text)."""
        if body is not None:
            options["json"] = body
        async with self.session.request(method, self.sandbox.url + path, **options) as response:
            raw = await response.read()
            try:
                return response.status, orjson.loads(raw) if raw else None
            except orjson.JSONDecodeError:
                return response.status, raw.decode()

    async def get(self, path: str) -> Any:
        """What a path answers, which must be a success."""
        status, body = await self.call("GET", path)
        assert status == 200, (status, body)
        return body

    async def act(self, person: str, act: str, **args: Any) -> Json:
        """Let a person do something."""
        status, body = await self.call("POST", f"/sandbox/people/{person}/acts", {"act": act, **args})
        assert status == 200, (status, body)
        parsed: Json = body
        return parsed

    async def fault(self, **rule: Any) -> Json:
        """Let something go wrong."""
        status, body = await self.call("POST", "/sandbox/faults", rule)
        assert status == 201, (status, body)
        parsed: Json = body
        return parsed

    async def advance(self, seconds: float) -> None:
        """Move the sandbox's clock."""
        await self.call("POST", "/sandbox/clock:advance", {"seconds": seconds})

    async def telegram(self, method: str, params: Any = None, token: str = TELEGRAM.token) -> tuple[int, Any]:
        """Call the Bot API."""
        return await self.call("POST", f"/telegram/bot{token}/{method}", params or {})

    async def viber(self, method: str, body: Any, token: str = VIBER.token) -> Json:
        """Call Viber."""
        status, answer = await self.call("POST", f"/viber/pa/{method}", body, headers={"X-Viber-Auth-Token": token})
        assert status == 200, (status, answer)
        parsed: Json = answer
        return parsed

    async def token(self, scope: str = "https://api.botframework.com/.default") -> str:
        """Sign a Teams bot in."""
        form = {
            "grant_type": "client_credentials",
            "client_id": TEAMS.app_id,
            "client_secret": TEAMS.password,
            "scope": scope,
        }
        status, body = await self.call("POST", f"/login/{TEAMS.tenant_id}/oauth2/v2.0/token", data=form)
        assert status == 200, body
        return str(body["access_token"])

    async def teams(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Call the connector, signed in."""
        headers = {"Authorization": f"Bearer {await self.token()}"}
        return await self.call(method, f"/teams/v3/conversations{path}", body, headers=headers)

    async def graph(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Call Graph, signed in."""
        headers = {"Authorization": f"Bearer {await self.token('https://graph.microsoft.com/.default')}"}
        return await self.call(method, f"/graph/v1.0{path}", body, headers=headers)

    def person(self, person: str) -> Any:
        """Somebody, as the sandbox knows them."""
        return self.sandbox.world.directory.people[person]

    def contact(self, person: str) -> Any:
        """Somebody as the first bot of their channel sees them."""
        return self.sandbox.world.directory.contacts_of(person)[0]

    async def until(self, true: Callable[[], bool]) -> None:
        """Let the loop turn until something holds."""
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110 - what is awaited is on the other side of HTTP
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def living(settings: SandboxSettings) -> AsyncIterator[World]:
    """A sandbox with settings of its own."""
    async with Sandbox(settings).serve() as sandbox, aiohttp.ClientSession() as session:
        yield World(sandbox, session)


@pytest.fixture
async def bot() -> AsyncIterator[Bot]:
    """A bot that takes everything."""
    async with serving(Bot()) as one:
        yield one


@pytest.fixture
async def world(bot: Bot) -> AsyncIterator[World]:
    """Three strangers on each channel, who do nothing of their own accord."""
    settings = SandboxSettings(
        seed=7, epoch=EPOCH, people=3, behaviour=QUIET, teams_endpoint=f"{bot.url}/api/messages"
    )
    async with living(settings) as one:
        yield one
