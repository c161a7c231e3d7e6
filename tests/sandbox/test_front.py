"""Plain requests, and how connections are handed over: nobody can tell who answered."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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


@pytest.mark.parametrize(("path", "over"), [("at-once", b""), ("later", b"POST /later HTTP/1.1")])
async def test_hands_over_what_is_left(path: str, over: bytes) -> None:
    """Only what was not answered is handed over, and all of it."""
    heir, fronts = Heir(), set[Front]()

    def at_once(head: Head, body: bytes) -> Ready | None:
        return Ready(body) if head.path == ("at-once",) else None

    server = await asyncio.get_running_loop().create_server(
        lambda: Front(at_once, lambda: heir, fronts), "127.0.0.1", 0
    )
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for one in ("at-once", path, "at-once"):
            writer.write(f"POST /{one} HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi".encode())
        answers = [await answer(reader) for _ in range(1 if over else 3)]
        assert all(one.endswith(b"hi") for one in answers)
        assert heir.given.partition(b"\r\n")[0] == over
        assert len(fronts) == (0 if over else 1)
        writer.close()
        await writer.wait_closed()


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
