"""Posting to Teams: what goes out, to whom our token goes, and what the answers make of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestServer

from bot.channels.http import Http, HttpSettings
from bot.channels.teams import TeamsAccount, TeamsChannel
from bot.channels.teams.account import SERVICE_HOSTS
from broadcast.model import (
    BadContent,
    ChannelName,
    ConversationState,
    Faulty,
    Holds,
    Never,
    Sent,
    StopAccount,
    Throttled,
    Unknown,
)
from broadcast.ports import Channel, Content
from tests.channels.teams_server import ANN, APP_ID, TENANT, Scripted, TeamsServer, conversation

HELLO = Content("Hello")
KNOWN = {"conversation_id": "a:1/ann%?", "tenant_id": TENANT, "bot_id": f"28:{APP_ID}", "user_id": "29:ann"}


@pytest.fixture
async def server() -> AsyncIterator[TeamsServer]:
    teams = TeamsServer()
    async with TestServer(teams.app()) as listening:
        teams.url = str(listening.make_url("")).rstrip("/")
        yield teams


@pytest.fixture
async def channel(server: TeamsServer) -> AsyncIterator[TeamsChannel]:
    opened = TeamsChannel(server.account(), http=Http(HttpSettings(connect=2.0, total=4.0)))
    yield opened
    await opened.close()


def known(server: TeamsServer, **changes: object) -> Any:
    return conversation(**{**KNOWN, "service_url": f"{server.url}/teams/", **changes})


def error(status: int, code: str, **headers: str) -> Scripted:
    return Scripted(status, orjson.dumps({"error": {"code": code}}), headers)


async def test_it_is_a_channel(channel: TeamsChannel) -> None:
    port: Channel = channel
    assert (port.account, port.name) == ("teams/hr", ChannelName.TEAMS)
    assert (port.features.reports_delivered, port.features.reports_read, port.features.rate) == (False, True, 30)


async def test_one_request_to_a_known_conversation(channel: TeamsChannel, server: TeamsServer) -> None:
    assert await channel.send(known(server), HELLO) == Sent("1692206589131")
    (got,) = server.got
    assert got.path == "/teams/v3/conversations/a%3A1%2Fann%25%3F/activities"
    assert got.authorization == "Bearer token-1"
    assert got.body["text"] == "Hello"


@pytest.mark.parametrize(("reference", "member"), [({}, ANN), ({"user_id": "29:ann"}, "29:ann")])
async def test_a_conversation_is_made_where_none_is_known(
    channel: TeamsChannel, server: TeamsServer, reference: dict[str, object], member: str
) -> None:
    """By the ``29:`` id, else by the Entra object id; what was learned comes back to be kept."""
    answer = await channel.send(conversation(**reference), HELLO)
    learned = {"service_url": f"{server.url}/emea/", "conversation_id": "a:1new"}
    assert answer == Sent("1692206589131", learned)
    created, posted = server.got
    assert created.body == {
        "bot": {"id": f"28:{APP_ID}"},
        "members": [{"id": member}],
        "channelData": {"tenant": {"id": TENANT}},
        "tenantId": TENANT,
        "isGroup": False,
    }
    assert (created.path, posted.path) == (
        "/teams/v3/conversations",
        "/emea/v3/conversations/a%3A1new/activities",
    )
    server.got.clear()
    assert await channel.send(conversation(**reference, **learned), HELLO) == Sent("1692206589131")
    assert len(server.got) == 1


async def test_a_service_address_of_the_answer_has_to_be_allowed(
    channel: TeamsChannel, server: TeamsServer
) -> None:
    server.creations = [Scripted(body=b'{"id":"a:1new","serviceUrl":"https://evil.example/"}')]
    answer = await channel.send(conversation(), HELLO)
    assert answer == Sent("1692206589131", {"service_url": f"{server.url}/teams/", "conversation_id": "a:1new"})


@pytest.mark.parametrize(
    ("made", "meaning"),
    [
        (
            error(403, "ForbiddenOperationException"),
            Never(ConversationState.GONE, "403 ForbiddenOperationException"),
        ),
        (error(400, "Bad Argument"), BadContent("400 Bad Argument")),
        (
            error(429, "Throttled", **{"Retry-After": "3"}),
            Throttled(timedelta(seconds=3), Holds.ACCOUNT, "429 Throttled"),
        ),
        (Scripted(500), Faulty("500")),
        (Scripted(201, b"{}"), Faulty("201 without a conversation")),
        (Scripted(200, b"<html>"), Faulty("200, not in the platform's words")),
        (Scripted(hang=True), Faulty("the connection was closed (127.0.0.1)")),
    ],
)
async def test_a_conversation_that_could_not_be_made(
    channel: TeamsChannel, server: TeamsServer, made: Scripted, meaning: object
) -> None:
    """No message went out: a lost answer is no mystery here."""
    server.creations = [made]
    assert await channel.send(conversation(), HELLO) == meaning
    assert len(server.got) == 1


async def test_time_outs_before_and_after_writing(
    channel: TeamsChannel, server: TeamsServer, unused_tcp_port: int
) -> None:
    """Nobody there: nothing was accepted. No answer: nobody can know, and it is not sent again."""
    server.posts = [Scripted(hang=True)]
    assert await channel.send(known(server), HELLO) == Unknown("the connection was closed (127.0.0.1)")
    assert len(server.got) == 1
    nowhere = f"http://127.0.0.1:{unused_tcp_port}/"
    account = server.account(service_hosts=(server.url, nowhere))
    elsewhere = TeamsChannel(account)
    answer = await elsewhere.send(known(server, service_url=nowhere), HELLO)
    assert isinstance(answer, Faulty)
    await elsewhere.close()


async def test_a_dead_token_is_replaced_once(channel: TeamsChannel, server: TeamsServer) -> None:
    server.posts = [error(401, "Unauthorized")]
    assert await channel.send(known(server), HELLO) == Sent("1692206589131")
    assert [got.authorization for got in server.got] == ["Bearer token-1", "Bearer token-2"]


async def test_a_token_refused_twice_stops_the_account(channel: TeamsChannel, server: TeamsServer) -> None:
    server.posts = [error(401, "BotNotRegistered")] * 2
    assert await channel.send(known(server), HELLO) == StopAccount("401 BotNotRegistered")
    assert len(server.got) == 2


async def test_the_other_cloud_is_tried_once(channel: TeamsChannel, server: TeamsServer) -> None:
    server.posts = [error(403, "InvalidBotApiHost")]
    answer = await channel.send(known(server), HELLO)
    assert answer == Sent("1692206589131", {"service_url": f"{server.url}/gcc/", "conversation_id": "a:1/ann%?"})
    server.posts = [error(403, "InvalidBotApiHost")] * 2
    assert await channel.send(known(server), HELLO) == StopAccount("403 InvalidBotApiHost")
    assert [got.path.split("/")[1] for got in server.got] == ["teams", "gcc"] * 2


async def test_both_remedies_in_one_send(channel: TeamsChannel, server: TeamsServer) -> None:
    server.posts = [error(401, "x"), error(403, "InvalidBotApiHost"), error(401, "x")]
    assert await channel.send(known(server), HELLO) == StopAccount("401")
    assert len(server.got) == 3


@pytest.mark.parametrize("service_url", ["http://127.0.0.1:1/", "https://evil.example/", "nonsense", 7])
async def test_our_token_goes_to_allowed_hosts_only(
    channel: TeamsChannel, server: TeamsServer, service_url: object
) -> None:
    """Whatever a stored reference says: the account's own address is used instead, and kept."""
    answer = await channel.send(known(server, service_url=service_url), HELLO)
    learned = {"service_url": f"{server.url}/teams/", "conversation_id": "a:1/ann%?"}
    assert answer == Sent("1692206589131", learned)
    assert [got.path.split("/")[1] for got in server.got] == ["teams"]


async def test_a_forged_host_never_gets_our_token(server: TeamsServer) -> None:
    """Not even where the account's fallback is at fault."""
    thief = TeamsServer()
    async with TestServer(thief.app()) as listening:
        thief.url = str(listening.make_url("")).rstrip("/")
        account = server.account(gcc_service_url=f"{thief.url}/gcc/")
        channel = TeamsChannel(account)
        server.posts = [error(403, "InvalidBotApiHost")]
        server.creations = [Scripted(body=orjson.dumps({"id": "a:1", "serviceUrl": f"{thief.url}/teams/"}))]
        answer = await channel.send(conversation(service_url=f"{thief.url}/teams/"), HELLO)
        assert answer == StopAccount("403 InvalidBotApiHost")
        await channel.close()
    assert server.got
    assert thief.got == []


async def test_words_that_cannot_be_written(channel: TeamsChannel, server: TeamsServer) -> None:
    assert isinstance(await channel.send(known(server), Content("\ud800")), BadContent)
    assert server.got == []


async def test_cancelling(channel: TeamsChannel, server: TeamsServer) -> None:
    sending = asyncio.create_task(channel.send(known(server), HELLO))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


# --- signing in ---------------------------------------------------------------------------------------


async def test_sign_in_that_is_refused_stops_the_account(server: TeamsServer) -> None:
    """And says what to do, without the password."""
    channel = TeamsChannel(server.account(app_password="wrong"))
    answer = await channel.send(known(server), HELLO)
    assert isinstance(answer, StopAccount)
    assert "the app password is wrong" in answer.detail
    assert await channel.check() == answer.detail
    assert "wrong" not in answer.detail.replace("the app password is wrong", "")
    assert server.got == []
    await channel.close()


@pytest.mark.parametrize(
    "answer",
    [Scripted(503, b""), Scripted(429, b"{}"), Scripted(200, b"<html>"), Scripted(200, b"{}"), Scripted(hang=True)],
)
async def test_sign_in_that_fails_for_now(channel: TeamsChannel, server: TeamsServer, answer: Scripted) -> None:
    server.sign_in_answers = [answer, answer]
    assert isinstance(await channel.send(known(server), HELLO), Faulty)
    assert "sign-in" in (await channel.check() or "")
    assert await channel.check() is None
    assert server.got == []


async def test_a_local_emulator_is_sent_no_token(server: TeamsServer) -> None:
    channel = TeamsChannel(server.account(app_id=""))
    assert await channel.send(known(server), HELLO) == Sent("1692206589131")
    assert await channel.check() is None
    assert server.got[0].authorization is None
    assert server.sign_ins == 0
    await channel.close()


# --- the account --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "url", "verdict"),
    [
        ("smba.example", "https://smba.example/emea/", True),
        ("smba.example", "https://SMBA.example:443/emea/", True),
        ("smba.example", "https://smba.example./", True),
        ("smba.example", "https://smba.example:444/", False),
        ("smba.example", "http://smba.example/", False),
        ("smba.example", "https://x.smba.example/", False),
        ("smba.example:444", "https://smba.example:444/", True),
        ("smba.example:444", "https://smba.example/", False),
        ("http://smba.example", "http://smba.example/teams", True),
        ("http://smba.example", "https://smba.example/teams", False),
        ("http://smba.example:8080/teams", "http://smba.example:8080/other", True),
        ("127.0.0.1", "http://127.0.0.1:5000/", True),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/", True),
        ("127.0.0.1:5000", "http://127.0.0.1:5001/", False),
        ("localhost", "http://localhost:5000/", True),
        ("localhost", "ftp://localhost/", False),
        ("[::1]:5000", "http://[::1]:5000/", True),
        ("127.0.0.1", "http://127.0.0.1@evil.example/", False),
    ],
)
def test_allowed_hosts(allowed: str, url: str, verdict: bool) -> None:
    account = TeamsAccount("teams/hr", service_hosts=(*SERVICE_HOSTS, allowed))
    assert account.allows(url) is verdict


@pytest.mark.parametrize("changes", [{"rate": 51.0}, {"rate": 0.0}, {"service_url": "https://evil.example/"}])
def test_settings_that_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="teams/hr"):
        TeamsAccount("teams/hr", **changes)


@pytest.mark.parametrize(
    ("settings", "home"),
    [
        ({}, "https://smba.trafficmanager.net/teams/"),
        ({"service_hosts": ("localhost", "http://127.0.0.1:8090/teams/")}, "http://127.0.0.1:8090/teams/"),
        ({"service_url": "https://smba.trafficmanager.net/emea/"}, "https://smba.trafficmanager.net/emea/"),
    ],
)
def test_where_people_live_of_whom_nothing_is_known(settings: dict[str, Any], home: str) -> None:
    assert TeamsAccount("teams/hr", **settings).home == home


def test_the_password_is_not_shown() -> None:
    assert "hunter2" not in repr(TeamsAccount("teams/hr", app_password="hunter2"))
