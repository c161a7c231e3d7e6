"""The shared way out: what can be repeated is told apart from what cannot."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta

import pytest

from bot.channels.http import Http, HttpSettings, NoAnswer, NoConnection, Reply, retry_after, scrub

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Server = Callable[[Serve], Awaitable[str]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Starts a raw TCP server on loopback; answers its address."""
    serving: set[asyncio.Task[None]] = set()
    async with AsyncExitStack() as stack:

        async def start(serve: Serve) -> str:
            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                serving.add(_this_task())
                try:
                    with suppress(ConnectionError, asyncio.IncompleteReadError):
                        await serve(reader, writer)
                finally:
                    writer.close()
                    with suppress(ConnectionError):
                        await writer.wait_closed()

            listening = await asyncio.start_server(connected, "127.0.0.1", 0)
            stack.push_async_callback(listening.wait_closed)
            stack.callback(listening.close)
            return f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"

        yield start
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
    await reader.readexactly(length)


def _answers(answer: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(answer)
        await writer.drain()

    return serve


async def test_an_answer_is_a_value(http: Http, server: Server) -> None:
    """Any status is a reply, with body and wait."""
    url = await server(_answers(b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}'))
    reply = await http.post_json(url, b"{}")
    assert reply == Reply(429, b'{"a":1}', timedelta(seconds=7))
    assert isinstance(reply, Reply)
    assert reply.json() == {"a": 1}


async def test_nobody_listening_is_no_connection(http: Http, server: Server, unused_tcp_port: int) -> None:
    outcome = await http.post_json(f"http://127.0.0.1:{unused_tcp_port}/secret-path", b"{}")
    assert isinstance(outcome, NoConnection)
    assert "secret" not in outcome.detail
    assert "127.0.0.1" in outcome.detail


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://127.0.0.1/", "http://", "http://[bad", "http://127.0.0.1:99999/"]
)
async def test_no_address_is_no_connection(http: Http, url: str) -> None:
    assert isinstance(await http.post_json(url, b"{}"), NoConnection)


async def test_a_name_nobody_knows_is_no_connection(http: Http) -> None:
    assert isinstance(await http.post_json("http://name.invalid/", b"{}"), NoConnection)


async def test_plain_text_where_tls_was_expected_is_no_connection(http: Http, server: Server) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(OK)

    url = await server(serve)
    assert isinstance(await http.post_json(url.replace("http:", "https:"), b"{}"), NoConnection)


async def test_a_tls_handshake_without_end_is_no_connection(http: Http, server: Server) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    url = await server(serve)
    assert isinstance(await http.post_json(url.replace("http:", "https:"), b"{}"), NoConnection)


async def test_no_free_connection_in_time_is_no_connection(server: Server) -> None:
    """What waits for a place in the pool was never written."""
    arrived = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        await _request(reader)
        arrived += 1
        await reader.read()

    url = await server(serve)
    client = Http(HttpSettings(connect=0.2, total=1.5, connections=1))
    outcomes = await asyncio.gather(client.post_json(url, b"{}"), client.post_json(url, b"{}"))
    await client.close()
    assert [type(outcome) for outcome in outcomes] == [NoAnswer, NoConnection]
    assert arrived == 1


async def test_silence_after_the_request_is_no_answer(http: Http, server: Server) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert isinstance(await http.post_json(await server(serve), b"{}"), NoAnswer)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 20",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
        b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 50\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
async def test_a_broken_answer_is_no_answer(http: Http, server: Server, answer: bytes) -> None:
    """The request was read; whether it was obeyed nobody can know."""
    assert isinstance(await http.post_json(await server(_answers(answer)), b"{}"), NoAnswer)


async def test_a_post_goes_out_once(http: Http, server: Server) -> None:
    """A kept-alive connection that closes instead of answering: not sent again by itself."""
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await _request(reader)
        seen += 1
        writer.write(OK)
        await _request(reader)
        seen += 1

    url = await server(serve)
    assert isinstance(await http.post_json(url, b"{}"), Reply)
    assert isinstance(await http.post_json(url, b"{}"), NoAnswer)
    assert seen == 2


async def test_a_connection_closed_while_idle_is_replaced(http: Http, server: Server) -> None:
    """A close noticed before the request costs nothing."""
    url = await server(_answers(OK))
    for _ in range(3):
        assert isinstance(await http.post_json(url, b"{}"), Reply)
        await asyncio.sleep(0.02)


async def test_redirects_are_not_followed(http: Http, server: Server) -> None:
    url = await server(_answers(b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"))
    assert await http.request("GET", url) == Reply(302, b"")


async def test_cookies_are_not_kept(http: Http, server: Server) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    url = (await server(serve)).replace("127.0.0.1", "localhost")
    await http.request("GET", url)
    await http.request("GET", url)
    assert len(heads) == 2
    assert not any(b"cookie" in head.lower() for head in heads)


@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_is_cut_at_the_limit(http: Http, server: Server, packed: bool) -> None:
    """However small it was packed."""
    body = gzip.compress(b"x" * 1_000_000) if packed else b"x" * 1_000_000
    head = b"HTTP/1.1 200 OK\r\n" + (b"Content-Encoding: gzip\r\n" if packed else b"")
    url = await server(_answers(head + b"Content-Length: %d\r\n\r\n" % len(body) + body))
    assert await http.post_json(url, b"{}") == Reply(200, b"x" * 1000)


async def test_cancelling_raises(http: Http, server: Server) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    sending = asyncio.create_task(http.post_json(await server(serve), b"{}"))
    await asyncio.sleep(0.05)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_cancelling_raises_whatever_came_back_at_that_moment(http: Http, server: Server) -> None:
    """A cancellation that meets the answer is not lost; whoever polls in a loop would never end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await _request(reader)
            writer.write(OK)

    url = await server(serve)
    kept = 0
    for turns in range(400):
        sending = asyncio.create_task(http.post_json(url, b"{}"))
        for _ in range(turns % 100):
            await asyncio.sleep(0)
        if sending.cancel():
            kept += 1
            with pytest.raises(asyncio.CancelledError):
                await sending
    assert kept


async def test_closing_twice_and_sending_after(http: Http, server: Server) -> None:
    url = await server(_answers(OK))
    await http.close()
    await http.close()
    assert isinstance(await http.post_json(url, b"{}"), Reply)


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("120", None, 120),
        (" 3 ", None, 3),
        ("0", None, 0),
        ("1.5", None, 1.5),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 30),
        ("Wed, 21 Oct 2026 07:27:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None, 0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", "Wed, 21 Oct 2026 07:28:00 GMT", 30),
        ("soon", None, None),
        ("-5", None, None),
        ("", None, None),
        ("9" * 400, None, None),
        ("nan", None, None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "garbage", None),
    ],
)
def test_retry_after(value: str, date: str | None, seconds: float | None) -> None:
    """Seconds or a date; what is neither is not told."""
    assert retry_after(value, date) == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize(("connect", "total"), [(5, 5), (0, 30), (5, 5.5), (10, 3)])
def test_time_outs_that_could_strike_in_the_wrong_order(connect: float, total: float) -> None:
    with pytest.raises(ValueError, match="total"):
        HttpSettings(connect=connect, total=total)


def test_scrubbing() -> None:
    assert scrub("https://api/bot1:AB/send failed for 1:AB", "1:AB", "") == "https://api/bot***/send failed for ***"
