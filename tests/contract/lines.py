"""One line per channel, as the contract suite needs it: our account on this side, the sandbox with one person on
the other, real HTTP in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import aiohttp
from aiohttp import web

from bot.channels.http import Http, HttpSettings
from bot.channels.teams import TeamsAccount, TeamsChannel, TeamsInbound
from bot.channels.telegram import TelegramAccount, TelegramChannel, TelegramInbound
from bot.channels.viber import ViberAccount, ViberChannel, ViberInbound
from bot.channels.webhook import Received
from broadcast.model import ChannelName, Conversation, Receipt
from broadcast.ports import Channel, Inbound
from sandbox.server import Sandbox
from sandbox.settings import Behaviour, SandboxSettings
from sandbox.settings import Channel as Simulated
from tests.channels.clocks import StillClock

#: Nothing listens here.
NOWHERE = "http://127.0.0.1:9"
PATHS = {
    ChannelName.TEAMS: "/api/messages",
    ChannelName.TELEGRAM: "/webhooks/telegram/default",
    ChannelName.VIBER: "/webhooks/viber/default",
}


class Checked(Channel, Protocol):
    """A channel that can say whether it is connected."""

    async def check(self) -> str | None: ...


class Intake(Protocol):
    """The way in of an account."""

    async def receive(self, headers: Mapping[str, str], body: bytes) -> Received: ...

    async def close(self) -> None: ...


@dataclass
class Line:
    """`callbacks` are headers and body of all that the platform posted, `received` what was made of each."""

    name: ChannelName
    sandbox: Sandbox
    channel: Checked
    intake: Intake
    revoked: Checked
    unreachable: Checked
    secrets: tuple[str, ...]
    person: str = ""
    callbacks: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    _welcomed: int = 0

    @property
    def inbound(self) -> list[Inbound]:
        return [inbound for received in self.received for inbound in received.inbound]

    @property
    def receipts(self) -> list[Receipt]:
        return [receipt for received in self.received for receipt in received.receipts]

    async def take(self, request: web.Request) -> web.Response:
        """What the host does with a callback."""
        body = await request.read()
        self.callbacks.append((request.headers, body))
        received = await self.intake.receive(request.headers, body)
        self.received.append(received)
        return web.Response(status=received.status, body=received.body, content_type=received.content_type)

    async def act(self, act: str, **args: Any) -> list[int | None]:
        """Has the person do something; the statuses that the callbacks about it were answered with."""
        done = await self.control("POST", f"/sandbox/people/{self.person}/acts", {"act": act, **args})
        return [one["status"] for one in done["callbacks"]]

    async def fault(self, kind: str, **args: Any) -> None:
        """Has the platform go wrong from now on."""
        await self.control("POST", "/sandbox/faults", {"channel": self.name.value, "kind": kind, **args})

    async def got(self) -> list[dict[str, Any]]:
        """What the person has got since they started (Viber welcomes them with a message)."""
        found = await self.control("GET", f"/sandbox/messages?person={self.person}&since_seq={self._welcomed}")
        items: list[dict[str, Any]] = found["items"]
        return items

    async def started(self) -> Conversation:
        """The conversation as it is known once the person began it."""
        await self.act("start")
        self._welcomed = max((message["seq"] for message in await self.got()), default=0)
        return self.conversation()

    def conversation(self) -> Conversation:
        """What all the inbounds so far tell of it."""
        reference = {key: value for inbound in self.inbound for key, value in inbound.reference.items()}
        return Conversation(
            "cnv_1", self.channel.account, self.name, "rcp_1", self.inbound[-1].person.user_id, reference
        )

    def stranger(self) -> Conversation:
        """The conversation with the person as a directory would name it, who never began one."""
        known = self.sandbox.world.directory.people[self.person]
        names = {
            ChannelName.TEAMS: known.entra_id,
            ChannelName.TELEGRAM: str(known.telegram_id),
            ChannelName.VIBER: known.viber_id,
        }
        return Conversation("cnv_1", self.channel.account, self.name, "rcp_1", names[self.name])

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the sandbox's own interface."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.sandbox.url + path, json=body) as response,
        ):
            said = await response.json()
            assert response.ok, said
            return said


def _http() -> Http:
    return Http(HttpSettings(connect=1.0, total=5.0))


def _teams(sandbox: Sandbox) -> Line:
    env = sandbox.env()
    account = TeamsAccount(
        key="teams/default",
        app_id=env["CLARION_TEAMS_APP_ID"],
        app_password=env["CLARION_TEAMS_APP_PASSWORD"],
        tenant_id=env["CLARION_TEAMS_TENANT_ID"],
        login_url=env["CLARION_TEAMS_LOGIN_URL"],
        openid_url=env["CLARION_TEAMS_OPENID_URL"],
        service_hosts=(env["CLARION_TEAMS_SERVICE_URLS"], NOWHERE),
        service_url=env["CLARION_TEAMS_SERVICE_URLS"],
    )
    return Line(
        name=ChannelName.TEAMS,
        sandbox=sandbox,
        channel=TeamsChannel(account, http=_http()),
        intake=TeamsInbound(account, StillClock(), http=_http()),
        revoked=TeamsChannel(replace(account, app_password="revoked-password"), http=_http()),
        unreachable=TeamsChannel(replace(account, login_url=NOWHERE, service_url=NOWHERE), http=_http()),
        secrets=(account.app_password, "revoked-password"),
    )


def _telegram(sandbox: Sandbox) -> Line:
    env = sandbox.env()
    account = TelegramAccount(
        "telegram/default", env["CLARION_TELEGRAM_TOKEN"], api_url=env["CLARION_TELEGRAM_API_URL"]
    )
    return Line(
        name=ChannelName.TELEGRAM,
        sandbox=sandbox,
        channel=TelegramChannel(account, http=_http()),
        intake=TelegramInbound(account, StillClock(), http=_http()),
        revoked=TelegramChannel(replace(account, token="1:REVOKED"), http=_http()),
        unreachable=TelegramChannel(replace(account, api_url=NOWHERE), http=_http()),
        secrets=(account.token, account.secret, "1:REVOKED"),
    )


def _viber(sandbox: Sandbox) -> Line:
    env = sandbox.env()
    account = ViberAccount(
        "viber/default", env["CLARION_VIBER_TOKEN"], env["CLARION_VIBER_NAME"], api_url=env["CLARION_VIBER_API_URL"]
    )
    return Line(
        name=ChannelName.VIBER,
        sandbox=sandbox,
        channel=ViberChannel(account, http=_http()),
        intake=ViberInbound(account, StillClock(), http=_http()),
        revoked=ViberChannel(replace(account, token="revoked-token"), http=_http()),
        unreachable=ViberChannel(replace(account, api_url=NOWHERE), http=_http()),
        secrets=(account.token, "revoked-token"),
    )


LINES: Mapping[ChannelName, Callable[[Sandbox], Line]] = {
    ChannelName.TEAMS: _teams,
    ChannelName.TELEGRAM: _telegram,
    ChannelName.VIBER: _viber,
}


@asynccontextmanager
async def line(name: ChannelName) -> AsyncIterator[Line]:
    """A line with its account registered and its person a stranger yet."""
    settings = SandboxSettings(people={Simulated(name.value): 1}, behaviour=Behaviour(auto=False))
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox(settings).serve())
        made = LINES[name](sandbox)
        [made.person] = sandbox.world.directory.people
        for end in (made.channel, made.revoked, made.unreachable, made.intake):
            stack.push_async_callback(end.close)
        url = await _host(stack, made)
        await _connect(made, url)
        made.callbacks.clear()
        made.received.clear()
        yield made


async def _host(stack: AsyncExitStack, made: Line) -> str:
    app = web.Application()
    app.router.add_post(PATHS[made.name], made.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


async def _connect(made: Line, url: str) -> None:
    """Teams has no call for it: an administrator enters the address."""
    connect: Callable[[str], Awaitable[str | None]] | None = getattr(made.intake, "connect", None)
    if connect is not None:
        assert await connect(url) is None
        return
    for app_id in made.sandbox.teams.endpoints:
        made.sandbox.teams.endpoints[app_id] = url + PATHS[made.name]
