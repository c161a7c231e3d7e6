"""Graph's presence in our words, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from broadcast.errors import PresenceUnavailable
from broadcast.model import PresenceState
from broadcast.ports import PresenceProvider
from presence.graph import BATCH, GraphPresence, state_of

ANN = "0A1B2C3D-0000-4000-8000-000000000001"
BEN = "0a1b2c3d-0000-4000-8000-000000000002"


class Tokens:
    def __init__(self) -> None:
        self.left = ["first", "second"]

    async def bearer(self, refused: str | None = None) -> str | None:
        if self.left and self.left[0] == refused:
            self.left.pop(0)
        return self.left[0] if self.left else None


class Graph:
    """Answers as told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status, self.headers = 200, dict[str, str]()
        self.answer: bytes | None = None
        self.people: list[dict[str, Any]] = []
        self.refused: set[str] = set()
        self.asked: list[tuple[str, Any]] = []
        self.hang = False
        self.url = ""

    async def serve(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.asked.append((request.path, orjson.loads(raw) if raw else dict(request.query)))
        if self.hang:
            assert request.transport is not None
            request.transport.abort()
        if request.headers["Authorization"].removeprefix("Bearer ") in self.refused:
            return web.json_response({}, status=401)
        body = orjson.dumps({"value": self.people}) if self.answer is None else self.answer
        return web.Response(status=self.status, body=body, headers=self.headers)


@pytest.fixture
async def graph() -> AsyncIterator[Graph]:
    served = Graph()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", served.serve)
    async with TestServer(app) as listening:
        served.url = str(listening.make_url("/graph"))
        yield served


@pytest.fixture
async def presence(graph: Graph) -> AsyncIterator[GraphPresence]:
    provider = GraphPresence(Tokens(), url=graph.url, connect_seconds=2.0, total_seconds=2.5)
    yield provider
    await provider.close()


@pytest.mark.parametrize(
    ("availability", "activity", "state"),
    [
        ("Available", "Available", PresenceState.AVAILABLE),
        ("AvailableIdle", "Inactive", PresenceState.AVAILABLE),
        ("available", "OutOfOffice", PresenceState.AVAILABLE),
        ("Away", "Away", PresenceState.AWAY),
        ("BeRightBack", "BeRightBack", PresenceState.AWAY),
        ("Busy", "Busy", PresenceState.BUSY),
        ("BusyIdle", "Inactive", PresenceState.BUSY),
        ("Busy", "InAConferenceCall", PresenceState.BUSY),
        ("Busy", "InACall", PresenceState.DO_NOT_DISTURB),
        ("Busy", "InAMeeting", PresenceState.DO_NOT_DISTURB),
        ("Available", "inameeting", PresenceState.DO_NOT_DISTURB),
        ("DoNotDisturb", "Presenting", PresenceState.DO_NOT_DISTURB),
        ("Available", "UrgentInterruptionsOnly", PresenceState.DO_NOT_DISTURB),
        ("DONOTDISTURB", "DoNotDisturb", PresenceState.DO_NOT_DISTURB),
        ("Offline", "Offline", PresenceState.OFFLINE),
        ("Available", "OffWork", PresenceState.OFFLINE),
        ("OffWork", "", PresenceState.OFFLINE),
        ("PresenceUnknown", "PresenceUnknown", PresenceState.UNKNOWN),
        ("Levitating", "Levitating", PresenceState.UNKNOWN),
        (None, None, PresenceState.UNKNOWN),
        (7, ["x"], PresenceState.UNKNOWN),
    ],
)
def test_words(availability: object, activity: object, state: PresenceState) -> None:
    """What somebody does goes before their availability; case does not matter; the list is open."""
    assert state_of({"availability": availability, "activity": activity}) is state


async def test_one_request_for_a_whole_batch(presence: GraphPresence, graph: Graph) -> None:
    """Asked in lower case, answered by the ids as they were given; nobody Graph leaves out is left out."""
    port: PresenceProvider = presence
    assert (port.batch, port.prefetch) == (650, True)
    graph.people = [{"id": ANN.lower(), "availability": "Busy", "activity": "Busy"}, "odd", {"id": None}]  # type: ignore[list-item]  # what a broken server might say
    ids = [ANN, BEN, *(f"0a1b2c3d-0000-4000-9000-{number:012}" for number in range(BATCH - 2))]
    states = await port.states(ids)
    assert set(states) == set(ids)
    assert (states[ANN], states[BEN]) == (PresenceState.BUSY, PresenceState.UNKNOWN)
    ((path, asked),) = graph.asked
    assert path == "/graph/v1.0/communications/getPresencesByUserId"
    assert sorted(asked["ids"]) == sorted(id.lower() for id in ids)


async def test_one_more_is_a_fault_of_ours(presence: GraphPresence) -> None:
    with pytest.raises(ValueError, match="650"):
        await presence.states(["x"] * (BATCH + 1))


async def test_ids_that_are_none_spoil_no_batch(presence: GraphPresence, graph: Graph) -> None:
    """Graph refuses a whole batch for one of them."""
    graph.people = [{"id": BEN, "availability": "Away", "activity": "Away"}]
    assert await presence.states(["29:ann", BEN]) == {"29:ann": PresenceState.UNKNOWN, BEN: PresenceState.AWAY}
    assert graph.asked[0][1] == {"ids": [BEN]}
    assert await presence.states(["29:ann"]) == {"29:ann": PresenceState.UNKNOWN}
    assert await presence.states([]) == {}
    assert len(graph.asked) == 1


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"Retry-After": "7"}, timedelta(seconds=7)),
        (429, {}, None),
        (503, {"Retry-After": "2"}, timedelta(seconds=2)),
        (
            429,
            {"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"},
            timedelta(seconds=30),
        ),
        (429, {"Retry-After": "soon"}, None),
        (429, {"Retry-After": "9" * 30}, None),
        (500, {}, None),
        (403, {}, None),
        (400, {}, None),
        (302, {"Location": "http://127.0.0.1:1/"}, None),
    ],
)
async def test_failures(
    presence: GraphPresence, graph: Graph, status: int, headers: dict[str, str], wait: timedelta | None
) -> None:
    """A provider that fails is not `unknown`; its own word on when to come back is kept."""
    graph.status, graph.headers = status, headers
    with pytest.raises(PresenceUnavailable, match=str(status)) as caught:
        await presence.states([ANN])
    assert caught.value.wait == wait
    assert len(graph.asked) == 1


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"{}", b'{"value": 7}', b" " * (5 * 1024 * 1024)])
async def test_answers_that_are_none(presence: GraphPresence, graph: Graph, answer: bytes) -> None:
    graph.answer = answer
    with pytest.raises(PresenceUnavailable):
        await presence.states([ANN])


async def test_nobody_there(presence: GraphPresence, graph: Graph, unused_tcp_port: int) -> None:
    graph.hang = True
    with pytest.raises(PresenceUnavailable, match="ServerDisconnected"):
        await presence.states([ANN])
    elsewhere = GraphPresence(Tokens(), url=f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(PresenceUnavailable, match="ClientConnector"):
        await elsewhere.states([ANN])
    await elsewhere.close()


async def test_a_refused_token_is_replaced_once(presence: GraphPresence, graph: Graph) -> None:
    graph.refused = {"first"}
    assert await presence.states([ANN]) == {ANN: PresenceState.UNKNOWN}
    assert len(graph.asked) == 2
    graph.refused = {"second", "third"}
    presence_with_more = GraphPresence(Tokens(), url=graph.url)
    graph.refused = {"first", "second"}
    with pytest.raises(PresenceUnavailable, match="refuses"):
        await presence_with_more.states([ANN])
    await presence_with_more.close()


async def test_no_token(graph: Graph) -> None:
    tokens = Tokens()
    tokens.left = []
    provider = GraphPresence(tokens, url=graph.url)
    with pytest.raises(PresenceUnavailable, match="no token"):
        await provider.states([ANN])
    assert graph.asked == []
    await provider.close()


@pytest.mark.parametrize("suffix", ["", "/", "/v1.0", "/v1.0/"])
async def test_the_address_with_or_without_version(graph: Graph, suffix: str) -> None:
    provider = GraphPresence(Tokens(), url=graph.url + suffix)
    await provider.states([ANN])
    assert graph.asked[0][0] == "/graph/v1.0/communications/getPresencesByUserId"
    await provider.close()
