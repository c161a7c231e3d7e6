"""Plain requests, and how connections are handed over: nobody can tell who answered."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
import pytest

from sandbox.front import Front, Head, Ready, read_head
from sandbox.settings import SandboxSettings
from tests.sandbox.conftest import EPOCH, QUIET, TELEGRAM, VIBER, World, living

HEAD = b"POST /a HTTP/1.1\r\nHost: here\r\nContent-Length: 2"


def request(path: str, body: bytes, *more: str) -> bytes:
    """A request as a client writes it; `more` are headers."""
    head = (f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *more)
    return "\r\n".join((*head, "", "")).encode() + body


def post(method: str, body: bytes, *more: str, kind: str = "application/json") -> bytes:
    """A call of the Bot API."""
    return request(f"/telegram/bot{TELEGRAM.token}/{method}", body, f"Content-Type: {kind}", *more)


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The next answer on a connection, whatever the time of day."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length is not None
    return re.sub(rb"Date: [^\r]*", b"Date: then", head) + await reader.readexactly(int(length[1]))


@asynccontextmanager
async def connected(world: World) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of one's own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(world.sandbox.url.rsplit(":", 1)[1]))
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def exchange(world: World, *requests: bytes) -> list[bytes]:
    """The answers to requests written at once on one connection."""
    async with connected(world) as (reader, writer):
        writer.write(b"".join(requests))
        return [await answer(reader) for _ in requests]


@pytest.mark.parametrize(
    ("method", "body", "kind"),
    [
        ("getMe", b"", "application/json"),
        ("GetMe", b"{}", "application/json"),
        ("getMe", b"a=b", "application/x-www-form-urlencoded"),
        ("setMyCommands", b"commands=%5B%7B%22a%22%3A+1%7D%5D", "application/x-www-form-urlencoded"),
        ("setMyCommands", b"commands=%5B", "application/x-www-form-urlencoded"),
        ("sendMessage", b'{"chat_id":1,"text":"x"}', "application/json"),
        ("sendMessage", b"{", "application/json"),
        ("sendMessage", b"[1]", "application/json"),
        ("sendMessage", b"\xff=1", "application/x-www-form-urlencoded"),
        ("noSuchMethod", b"{}", "application/json"),
        ("getUpdates", b"{}", "application/json"),
        ("sendMessage", b"&".join([b"a=1"] * 1001), "application/x-www-form-urlencoded"),
    ],
)
async def test_both_ways_answer_alike(world: World, method: str, body: bytes, kind: str) -> None:
    """A plain request and one that only aiohttp reads get the same bytes, but for the date."""
    plain, other = post(method, body, kind=kind), post(method, body, "X-Other: 1", kind=kind)
    assert await exchange(world, plain) == await exchange(world, other)


@pytest.mark.parametrize("token", [VIBER.token, "wrong"])
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("get_account_info", b""),
        ("get_account_info", b"{"),
        ("get_online", b'{"ids":["x"]}'),
        ("send_message", b"{}"),
        ("send_message", b" " * 40_000),
        ("set_webhook", b'{"url":""}'),
        ("no_such_method", b"{}"),
    ],
)
async def test_both_ways_of_viber_answer_alike(world: World, method: str, body: bytes, token: str) -> None:
    """It is the same with Viber, whose token is in a header."""
    head = (f"/viber/pa/{method}", body, f"X-Viber-Auth-Token: {token}", "Content-Type: application/json")
    assert await exchange(world, request(*head)) == await exchange(world, request(*head, "X-Other: 1"))


async def test_both_ways_refuse_alike(world: World) -> None:
    """A refusal for too many requests carries Retry-After both ways, and the limit counts both."""
    chat = world.contact("telegram-00001").chat
    await world.act("telegram-00001", "start", wait_seconds=0)
    body = orjson.dumps({"chat_id": chat, "text": "x"})
    answers = await exchange(world, *[post("sendMessage", body)] * 4, post("sendMessage", body, "X-Other: 1"))
    assert [one.split(b" ", 2)[1] for one in answers] == [b"200", b"200", b"200", b"429", b"429"]
    assert answers[3] == answers[4]
    assert b"\r\nRetry-After: 1\r\n" in answers[3]


async def test_both_ways_count(world: World) -> None:
    """Requests are counted as they were spelled, whoever answers."""
    await exchange(world, post("GETME", b""), post("GETME", b"", "X-Other: 1"))
    requests = (await world.get("/sandbox/stats"))["requests"]
    assert {"channel": "telegram", "method": "GETME", "status": 200, "count": 2} in requests


async def test_faults_hit_connections_in_use(world: World) -> None:
    """A fault strikes a connection that was answered at once before."""
    async with connected(world) as (reader, writer):
        writer.write(post("getMe", b""))
        assert b" 200 " in await answer(reader)
        await world.fault(channel="telegram", kind="status", status=503)
        writer.write(post("getMe", b""))
        assert b" 503 " in await answer(reader)


async def test_body_in_pieces(world: World) -> None:
    """A body may come after its head, in pieces."""
    whole = post("sendMessage", b'{"chat_id":1,"text":"x"}')
    async with connected(world) as (reader, writer):
        for begin, end in ((0, -20), (-20, -5), (-5, None)):
            writer.write(whole[begin:end])
            await writer.drain()
            await asyncio.sleep(0.01)  # else they would arrive as one
        assert b"chat not found" in await answer(reader)


async def test_head_in_pieces(world: World) -> None:
    """A head may come in pieces."""
    whole = post("getMe", b"")
    async with connected(world) as (reader, writer):
        writer.write(whole[:30])
        await writer.drain()
        await asyncio.sleep(0.01)  # else they would arrive as one
        writer.write(whole[30:])
        assert b" 200 " in await answer(reader)


async def test_order_of_answers(world: World) -> None:
    """Requests written at once are answered in their order, across the hand-over."""
    methods = ("getMe", "a", "getUpdates", "b", "getMe")
    answers = await exchange(world, *(post(method, b"") for method in methods))
    assert [one.split(b" ", 2)[1] for one in answers] == [b"200", b"404", b"200", b"404", b"200"]


async def test_end_lets_clients_go() -> None:
    """When the sandbox ends, connections are closed on both sides of the hand-over."""
    async with living(SandboxSettings(people=0, epoch=EPOCH, behaviour=QUIET)) as world:
        port = int(world.sandbox.url.rsplit(":", 1)[1])
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for (reader, writer), more in zip(pairs, ((), ("X-Other: 1",)), strict=True):
            writer.write(post("getMe", b"", *more))
            await answer(reader)
    for reader, writer in pairs:
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


class Heir(asyncio.Protocol):
    """Whoever takes over, and what it was given."""

    given = b""

    def data_received(self, data: bytes) -> None:
        self.given += data


@dataclass
class Stage:
    """A front that answers `/at-once` with `body`, its heir, and a client of both."""

    body: bytes
    heir: Heir = field(default_factory=Heir)
    fronts: set[Front] = field(default_factory=set)

    def at_once(self, head: Head, _body: bytes) -> Ready | None:
        """Answer, or leave it to the heir."""
        return Ready(self.body) if head.path == ("at-once",) else None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to it."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Front(self.at_once, lambda: self.heir, self.fronts), "127.0.0.1", 0
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                yield reader, writer
            finally:
                writer.close()
                await writer.wait_closed()


async def test_keeps_what_it_can_answer() -> None:
    """A connection whose requests are all answered at once is not handed over."""
    stage = Stage(b"hi")
    async with stage.client() as (reader, writer):
        writer.write(request("/at-once", b"x") * 3)
        assert [(await answer(reader))[-2:] for _ in range(3)] == [b"hi"] * 3
        assert (len(stage.fronts), stage.heir.given) == (1, b"")


async def test_hands_over_what_is_left() -> None:
    """Only what was not answered is handed over, and all of it."""
    stage = Stage(b"hi")
    left = request("/later", b"x") + request("/at-once", b"x")
    async with stage.client() as (reader, writer):
        writer.write(request("/at-once", b"x") + left)
        await answer(reader)
        assert (len(stage.fronts), stage.heir.given) == (0, left)


async def test_hands_over_once_answers_are_read(world: World) -> None:
    """Whoever takes over need not know of answers that were not read yet, and reads on."""
    stage = Stage(bytes(32 * 1024 * 1024))  # more than the buffers of both sides hold
    async with stage.client() as (reader, writer):
        writer.write(request("/at-once", b"x") + request("/later", b"x"))
        await reader.readuntil(b"\r\n\r\n")
        assert stage.heir.given == b""
        await reader.readexactly(len(stage.body))
        await world.until(lambda: stage.heir.given == request("/later", b"x"))
        writer.write(b"more")
        await world.until(lambda: stage.heir.given.endswith(b"more"))


def test_reads_a_plain_head() -> None:
    """A head tells the path, what the body is and how long."""
    head = read_head(b"POST /a/b:1 HTTP/1.1\r\nCONTENT-TYPE:text/x \r\nContent-Length: 2\r\nconnection: Keep-Alive")
    assert head is not None
    assert (head.path, head.headers["content-type"], head.length) == (("a", "b:1"), "text/x", 2)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello",
        HEAD.replace(b"POST", b"GET"),
        HEAD.replace(b"1.1", b"1.0"),
        HEAD.replace(b"/a", b"/a?b=c"),
        HEAD.replace(b"/a", b"/%61"),
        HEAD.replace(b"/a", b"http://here/a"),
        HEAD.replace(b"Host: here", b"Host : here"),
        HEAD.replace(b"Host: here", b"Host: he\x00re"),
        HEAD.replace(b"Host: here", b"Host: here\nExpect: 100-continue"),
        HEAD.replace(b": 2", b": +2"),
        HEAD.replace(b": 2", b": "),
        HEAD.replace(b": 2", b": 65537"),
        HEAD.replace(b"\r\nContent-Length: 2", b""),
        HEAD + b"\r\nContent-Length: 2",
        HEAD + b"\r\nTransfer-Encoding: chunked",
        HEAD + b"\r\nContent-Encoding: gzip",
        HEAD + b"\r\nExpect: 100-continue",
        HEAD + b"\r\nConnection: close",
        HEAD + b"\r\nConnection: Upgrade",
        HEAD + b"\r\n folded",
        HEAD + b"\r\n",
    ],
)
def test_leaves_the_rest_of_http(raw: bytes) -> None:
    """Whatever is more than plain is not read here."""
    assert read_head(HEAD) is not None
    assert read_head(raw) is None
