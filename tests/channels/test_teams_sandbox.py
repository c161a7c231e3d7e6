"""The whole way against the simulated Teams: real sign-in, real signatures, people who answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.channels.http import Http, HttpSettings
from bot.channels.teams import ClientCredentials, TeamsAccount, TeamsChannel, TeamsInbound
from broadcast.errors import PresenceUnavailable
from broadcast.model import (
    BadContent,
    ChannelName,
    Conversation,
    ConversationState,
    Faulty,
    Media,
    MediaType,
    Never,
    PresenceState,
    Receipt,
    Sent,
    StopAccount,
    Throttled,
    Unknown,
)
from broadcast.ports import Content, Inbound, ReadyButton, Said
from presence.graph import GraphPresence
from sandbox.server import Sandbox
from sandbox.settings import Behaviour, Channel, SandboxSettings
from tests.channels.clocks import StillClock

ANN, BEN = "teams-00001", "teams-00002"
CARD = Content(
    "Hello *you*",
    media=(Media(MediaType.PICTURE, "https://intranet.example/banner.png", "Banner"),),
    buttons=(
        ReadyButton("Open", url="https://clarion.example/r/t"),
        ReadyButton("Later", payload="cl:dlv_1:later"),
    ),
)


@dataclass
class World:
    """A sandbox, our endpoint in front of it, and what that heard."""

    sandbox: Sandbox
    account: TeamsAccount
    channel: TeamsChannel
    control: aiohttp.ClientSession
    heard: list[Inbound] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def act(self, person: str, act: str, **args: Any) -> None:
        body = {"act": act, **args}
        async with self.control.post(f"/sandbox/people/{person}/acts", json=body) as response:
            assert response.status == 200, await response.text()

    async def put(self, path: str, **body: Any) -> None:
        method = "PUT" if path.endswith("presence") else "POST"
        async with self.control.request(method, f"/sandbox/{path}", json=body) as response:
            assert response.status < 300, await response.text()

    async def messages(self, person: str) -> list[dict[str, Any]]:
        async with self.control.get("/sandbox/messages", params={"person": person}) as response:
            items: list[dict[str, Any]] = (await response.json())["items"]
            return items

    def conversation(self) -> Conversation:
        """With whoever was heard last."""
        last = self.heard[-1]
        return Conversation(
            "cnv_1", self.account.key, ChannelName.TEAMS, "rcp_1", last.person.user_id, reference=last.reference
        )

    def stranger(self, person: str, **reference: object) -> Conversation:
        """Somebody the directory knows, and we have not met."""
        id = self.sandbox.world.directory.people[person].entra_id
        return Conversation("cnv_2", self.account.key, ChannelName.TEAMS, "rcp_2", id, reference=reference)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    settings = SandboxSettings(people={Channel.TEAMS: 2}, behaviour=Behaviour(auto=False))
    async with Sandbox(settings).serve() as sandbox:
        env = sandbox.env()
        account = TeamsAccount(
            key="teams/default",
            app_id=env["CLARION_TEAMS_APP_ID"],
            app_password=env["CLARION_TEAMS_APP_PASSWORD"],
            tenant_id=env["CLARION_TEAMS_TENANT_ID"],
            login_url=env["CLARION_TEAMS_LOGIN_URL"],
            openid_url=env["CLARION_TEAMS_OPENID_URL"],
            service_hosts=(env["CLARION_TEAMS_SERVICE_URLS"],),
        )
        inbound = TeamsInbound(account, StillClock())
        channel = TeamsChannel(account, http=Http(HttpSettings(connect=2.0, total=4.0)))
        async with aiohttp.ClientSession(sandbox.url) as control:
            world = World(sandbox, account, channel, control)

            async def hear(request: web.Request) -> web.Response:
                received = await inbound.receive(request.headers, await request.read())
                world.heard += received.inbound
                world.receipts += received.receipts
                world.refused += [received.refused] if received.refused else []
                return web.Response(status=received.status, body=received.body, content_type=received.content_type)

            app = web.Application()
            app.router.add_post("/api/messages", hear)
            async with TestServer(app) as endpoint:
                (app_id,) = sandbox.teams.endpoints
                sandbox.teams.endpoints[app_id] = str(endpoint.make_url("/api/messages"))
                yield world
        await inbound.close()
        await channel.close()


async def test_install_write_read_press_leave(world: World) -> None:
    """One person's whole story."""
    assert await world.channel.check() is None
    await world.act(ANN, "start")
    assert [one.said for one in world.heard] == [Said.SEEN, Said.SUBSCRIBED]
    ann = world.sandbox.world.directory.people[ANN]
    person = world.heard[-1].person
    assert (person.user_id, person.first_name, person.timezone) == (ann.entra_id, ann.first_name, ann.timezone)

    to = world.conversation()
    plain, card = await world.channel.send(to, Content("*Hi*\n<b>")), await world.channel.send(to, CARD)
    assert isinstance(plain, Sent)
    assert isinstance(card, Sent)
    first, second = await world.messages(ANN)
    assert (first["message_id"], first["text"]) == (plain.message_id, "*Hi*\n<b>")
    assert (second["message_id"], second["text"]) == (card.message_id, "Hello *you*")
    assert [button["label"] for button in second["buttons"]] == ["Open", "Later"]

    await world.act(ANN, "read")
    assert [(one.message_id, one.up_to) for one in world.receipts] == [(card.message_id, True)]
    await world.act(ANN, "press", button="Later")
    assert (world.heard[-1].said, world.heard[-1].text) == (Said.PRESSED, "cl:dlv_1:later")
    await world.act(ANN, "say", text="STOP")
    assert (world.heard[-1].said, world.heard[-1].text) == (Said.TEXT, "STOP")
    await world.act(ANN, "unsubscribe")
    assert world.heard[-1].said is Said.BLOCKED
    assert await world.channel.send(to, CARD) == Never(ConversationState.BLOCKED, "403 BotNotInConversationRoster")
    assert world.refused == []
    keys = [one.key for one in world.heard]
    assert len(set(keys)) == len(keys)


async def test_blocked(world: World) -> None:
    await world.act(ANN, "start")
    await world.act(ANN, "block")
    answer = await world.channel.send(world.conversation(), CARD)
    assert answer == Never(ConversationState.BLOCKED, "403 ConversationBlockedByUser")


async def test_somebody_whose_id_alone_is_known(world: World) -> None:
    """Written to by the Entra object id once the app is installed for them, and not before."""
    refused = await world.channel.send(world.stranger(BEN), CARD)
    assert refused == Never(ConversationState.GONE, "403 ForbiddenOperationException")
    await world.act(BEN, "start")
    answer = await world.channel.send(world.stranger(BEN), CARD)
    assert isinstance(answer, Sent)
    assert answer.reference is not None
    assert answer.reference["conversation_id"] == world.heard[-1].reference["conversation_id"]
    again = await world.channel.send(world.stranger(BEN, **answer.reference), CARD)
    assert isinstance(again, Sent)
    assert again.reference is None


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"kind": "throttle", "retry_after": 3}, Throttled),
        ({"kind": "status", "status": 503}, Faulty),
        ({"kind": "drop"}, Unknown),
        ({"kind": "timeout"}, Unknown),
        ({"kind": "drop", "after_effect": True}, Unknown),
        ({"kind": "refuse"}, Never),
        ({"kind": "platform_error", "code": "MessageWritesBlocked"}, Never),
        ({"kind": "platform_error", "code": "ConversationNotFound"}, Never),
        ({"kind": "platform_error", "code": "BotDisabledByAdmin"}, StopAccount),
        ({"kind": "platform_error", "code": "MessageSizeTooBig"}, BadContent),
        ({"kind": "platform_error", "code": "PreconditionFailed"}, Throttled),
    ],
)
async def test_faults(world: World, fault: dict[str, Any], kind: type) -> None:
    """Each is sent once: none is repeated here."""
    await world.act(ANN, "start")
    await world.put("faults", channel="teams", method="sendToConversation", count=1, **fault)
    assert isinstance(await world.channel.send(world.conversation(), CARD), kind)
    assert len(await world.messages(ANN)) == int(fault.get("after_effect", False))


async def test_new_keys_and_dead_tokens(world: World) -> None:
    """The platform's keys change, and our token is revoked: neither is noticed outside."""
    await world.act(ANN, "start")
    assert isinstance(await world.channel.send(world.conversation(), CARD), Sent)
    await world.put("teams/tokens:revoke")
    assert isinstance(await world.channel.send(world.conversation(), CARD), Sent)
    await world.put("teams/keys:rotate")
    await world.act(ANN, "say", text="hello")
    assert world.heard[-1].text == "hello"
    assert world.refused == []


async def test_no_token_of_ours_goes_through_a_fallen_sign_in(world: World) -> None:
    await world.act(ANN, "start")
    await world.put("faults", channel="login", kind="status", status=503, count=1)
    assert isinstance(await world.channel.send(world.conversation(), CARD), Faulty)
    assert isinstance(await world.channel.send(world.conversation(), CARD), Sent)


async def test_presence(world: World) -> None:
    """By the same ids that activities carry."""
    http = Http()
    tokens = ClientCredentials(http, world.account, scope="https://graph.microsoft.com/.default")
    graph = GraphPresence(tokens, url=world.sandbox.env()["CLARION_GRAPH_URL"])
    people = world.sandbox.world.directory.people
    ann, ben = people[ANN], people[BEN]
    await world.put(f"people/{ANN}/presence", availability="Busy", activity="InAMeeting")
    await world.put(f"people/{BEN}/presence", availability="AvailableIdle")
    assert await graph.states([ann.entra_id, ben.entra_id]) == {
        ann.entra_id: PresenceState.DO_NOT_DISTURB,
        ben.entra_id: PresenceState.AVAILABLE,
    }
    await world.put("faults", channel="graph", kind="throttle", retry_after=9, count=1)
    with pytest.raises(PresenceUnavailable) as caught:
        await graph.states([ann.entra_id])
    assert caught.value.wait is not None
    assert caught.value.wait.total_seconds() == 9
    await asyncio.gather(graph.close(), tokens.close())
    await http.close()
