"""Tokens: fetched once for all, renewed ahead, replaced when refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestServer

from bot.channels.http import Http
from bot.channels.teams import ClientCredentials
from bot.channels.teams.token import AHEAD, PAUSE, Granted, Unavailable
from tests.channels.teams_server import Scripted, TeamsServer


class Seconds:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[TeamsServer]:
    teams = TeamsServer()
    async with TestServer(teams.app()) as listening:
        teams.url = str(listening.make_url("")).rstrip("/")
        yield teams


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
async def tokens(server: TeamsServer, seconds: Seconds) -> AsyncIterator[ClientCredentials]:
    http = Http()
    credentials = ClientCredentials(http, server.account(), monotonic=seconds)
    yield credentials
    await credentials.close()
    await http.close()


async def settle(server: TeamsServer, sign_ins: int) -> None:
    """Until the server saw so many sign-ins and their answers arrived."""
    for _ in range(500):
        await asyncio.sleep(0.01)
        if server.sign_ins >= sign_ins:
            break
    await asyncio.sleep(0.05)


async def test_one_sign_in_for_many(tokens: ClientCredentials, server: TeamsServer) -> None:
    grants = await asyncio.gather(*(tokens.grant() for _ in range(50)))
    assert set(grants) == {Granted("token-1")}
    assert await tokens.bearer() == "token-1"
    assert server.sign_ins == 1


async def test_who_stops_waiting_stops_nobody_else(tokens: ClientCredentials, server: TeamsServer) -> None:
    first, second = asyncio.create_task(tokens.grant()), asyncio.create_task(tokens.grant())
    await asyncio.sleep(0)
    first.cancel()
    assert await second == Granted("token-1")
    assert server.sign_ins == 1


async def test_renewal_ahead_of_the_end(tokens: ClientCredentials, server: TeamsServer, seconds: Seconds) -> None:
    """The old token serves while the new one is fetched."""
    assert await tokens.bearer() == "token-1"
    seconds.now += 3599 - AHEAD - 1
    assert await tokens.bearer() == "token-1"
    assert server.sign_ins == 1
    seconds.now += 1
    assert await tokens.bearer() == "token-1"
    await settle(server, 2)
    assert await tokens.bearer() == "token-2"


async def test_a_renewal_that_fails_is_tried_again_later(
    tokens: ClientCredentials, server: TeamsServer, seconds: Seconds
) -> None:
    assert await tokens.bearer() == "token-1"
    server.sign_in_answers = [Scripted(503, b"")]
    seconds.now += 3599 - AHEAD
    assert await tokens.bearer() == "token-1"
    await settle(server, 2)
    seconds.now += PAUSE - 1
    assert await tokens.bearer() == "token-1"
    await asyncio.sleep(0.05)
    assert server.sign_ins == 2
    seconds.now += 1
    assert await tokens.bearer() == "token-1"
    await settle(server, 3)
    assert await tokens.bearer() == "token-3"


async def test_a_token_past_its_end_is_not_given(
    tokens: ClientCredentials, server: TeamsServer, seconds: Seconds
) -> None:
    assert await tokens.bearer() == "token-1"
    seconds.now += 3599
    assert await tokens.bearer() == "token-2"
    server.sign_in_answers = [Scripted(503, b"")]
    seconds.now += 3599
    assert await tokens.grant() == Unavailable("sign-in answered 503, not in its own words")


async def test_a_refused_token_is_replaced_once_for_all_who_had_it(
    tokens: ClientCredentials, server: TeamsServer
) -> None:
    assert await tokens.bearer() == "token-1"
    grants = await asyncio.gather(*(tokens.bearer("token-1") for _ in range(20)))
    assert set(grants) == {"token-2"}
    assert await tokens.bearer("token-1") == "token-2"
    assert server.sign_ins == 2


@pytest.mark.parametrize(("lifetime", "kept"), [("3599", 3000), (10, 7), (None, 200), ("soon", 200)])
async def test_lifetimes(
    tokens: ClientCredentials, server: TeamsServer, seconds: Seconds, lifetime: object, kept: float
) -> None:
    server.lifetime = lifetime
    await tokens.bearer()
    seconds.now += kept
    await tokens.bearer()
    assert server.sign_ins == 1
    seconds.now += 3599
    await tokens.bearer()
    assert server.sign_ins == 2


async def test_another_scope(server: TeamsServer) -> None:
    """Graph's tokens come from the same sign-in."""
    http = Http()
    graph = ClientCredentials(http, server.account(), scope="https://graph.microsoft.com/.default")
    assert await graph.bearer() == "token-1"
    await graph.close()
    await http.close()
