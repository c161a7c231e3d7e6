"""Connections on real sockets: what may follow on one, what must not, and what is closed.

Each runs on the loop of Python and on the one that a host runs on (conftest.py)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bot.channels import connections
from bot.channels.http import Http, HttpSettings, NoAnswer, NoConnection, Reply

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A raw server on loopback that serves `answer` for each request of a connection, and counts."""

    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.accepted = 0
        self.open = 0
        self.heads: list[bytes] = []
        self._answer = answer
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=tls)
        port = self._listening.sockets[0].getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    async def stop(self) -> None:
        self._listening.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.accepted += 1
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.heads.append(head)
                    await reader.readexactly(
                        int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                    )
                    await self._answer(reader, writer)
        finally:
            self.open -= 1
            writer.close()


Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start(
            answer: bytes | Answer = OK, *, close: bool = False, tls: ssl.SSLContext | None = None
        ) -> Server:
            async def written(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                assert isinstance(answer, bytes)
                writer.write(answer)
                await writer.drain()
                if close:
                    raise ConnectionResetError

            server = Server(written if isinstance(answer, bytes) else answer)
            await server.start(tls)
            stack.push_async_callback(server.stop)
            return server

        yield start


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in the kernel
            await asyncio.sleep(0.005)


# --- one after the other ------------------------------------------------------------------------------


async def test_a_connection_is_kept_for_the_next_exchange(http: Http, serve: Start) -> None:
    """Ten exchanges, one connection."""
    server = await serve()
    for _ in range(10):
        assert await http.post_json(server.url, b"{}") == Reply(200, b"{}")
    assert server.accepted == 1


async def test_exchanges_at_the_same_time_have_connections_of_their_own(http: Http, serve: Start) -> None:
    server = await serve()
    await asyncio.gather(*(http.post_json(server.url, b"{}") for _ in range(5)))
    assert server.accepted == 5


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_a_connection_is_not_kept_against_the_servers_word(http: Http, serve: Start, answer: bytes) -> None:
    """Whatever is sent on one that is about to close may be lost."""
    server = await serve(answer)
    for _ in range(2):
        assert await http.post_json(server.url, b"{}") == Reply(200, b"{}")
    assert server.accepted == 2


async def test_a_connection_that_is_not_kept_is_closed(http: Http, serve: Start) -> None:
    """Whether or not the server does what it said."""
    server = await serve(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
    await http.post_json(server.url, b"{}")
    await _until(lambda: server.open == 0)


async def test_a_second_answer_to_one_request_is_not_taken_for_the_next_ones(http: Http, serve: Start) -> None:
    """Else every later send would be recorded with the answer of another person's."""
    extra = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n{}"
    server = await serve(OK + extra)
    for _ in range(3):
        assert await http.post_json(server.url, b"{}") == Reply(200, b"{}")
    assert server.accepted == 3


async def test_an_answer_that_nobody_asked_for_closes_the_connection(http: Http, serve: Start) -> None:
    """It came while the connection was idle."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 408 Too Late\r\nContent-Length: 0\r\n\r\n")

    server = await serve(answer)
    await http.post_json(server.url, b"{}")
    await _until(lambda: server.open == 0)
    assert await http.post_json(server.url, b"{}") == Reply(200, b"{}")


async def test_two_servers_do_not_share_connections(http: Http, serve: Start) -> None:
    one, other = await serve(), await serve(b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n")
    for _ in range(2):
        assert await http.post_json(one.url, b"{}") == Reply(200, b"{}")
        assert await http.post_json(other.url, b"{}") == Reply(201, b"")
    assert (one.accepted, other.accepted) == (1, 1)


async def test_an_idle_connection_is_closed_before_the_server_would(
    http: Http, serve: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.05)
    server = await serve()
    await asyncio.gather(*(http.post_json(server.url, b"{}") for _ in range(3)))
    await _until(lambda: server.open == 0)


async def test_a_connection_in_use_is_not_taken_for_an_idle_one(
    http: Http, serve: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it was idle long before."""
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.1)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) > 1:
            await asyncio.sleep(0.3)
        writer.write(OK)

    server = await serve(answer)
    for _ in range(2):
        assert await http.post_json(server.url, b"{}") == Reply(200, b"{}")
    assert server.accepted == 1


async def test_idle_connections_to_one_server_make_room_for_another(serve: Start) -> None:
    one, other = await serve(), await serve()
    client = Http(HttpSettings(connections=2))
    await asyncio.gather(*(client.post_json(one.url, b"{}") for _ in range(2)))
    await asyncio.gather(*(client.post_json(other.url, b"{}") for _ in range(2)))
    await _until(lambda: (one.open, other.open) == (0, 2))
    await client.close()


async def test_a_place_that_becomes_free_is_taken_by_who_waits(serve: Start) -> None:
    server = await serve()
    client = Http(HttpSettings(connections=1))
    outcomes = await asyncio.gather(*(client.post_json(server.url, b"{}") for _ in range(20)))
    assert outcomes == [Reply(200, b"{}")] * 20
    assert server.accepted == 1
    await client.close()


async def test_a_failure_to_connect_gives_its_place_back(serve: Start, unused_tcp_port: int) -> None:
    """Else the account would run out of places in an outage, and stay so."""
    server = await serve()
    client = Http(HttpSettings(connections=1))
    assert isinstance(await client.post_json(f"http://127.0.0.1:{unused_tcp_port}", b"{}"), NoConnection)
    assert isinstance(await client.post_json(server.url, b"{}"), Reply)
    await client.close()


async def test_cancelling_gives_the_place_back_and_closes_the_connection(serve: Start) -> None:
    """Its answer, still to come, must not meet the next request."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05 if len(server.heads) == 1 else 0)
        writer.write(b"HTTP/1.1 %d OK\r\nContent-Length: 0\r\n\r\n" % (200 + len(server.heads)))

    server = await serve(answer)
    client = Http(HttpSettings(connections=1))
    first = asyncio.create_task(client.post_json(server.url, b"{}"))
    await _until(lambda: len(server.heads) == 1)
    first.cancel()
    assert await client.post_json(server.url, b"{}") == Reply(202, b"")
    await client.close()


async def test_closing_ends_what_is_under_way(http: Http, serve: Start) -> None:
    async def answer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await serve(answer)
    sending = asyncio.create_task(http.post_json(server.url, b"{}"))
    await _until(lambda: bool(server.heads))
    await http.close()
    assert isinstance(await sending, NoAnswer)


async def test_a_connection_that_is_made_while_closing_is_closed(http: Http, serve: Start) -> None:
    """It would be kept by nobody."""
    server = await serve()
    sending = asyncio.create_task(http.post_json(server.url, b"{}"))
    await asyncio.sleep(0)
    await http.close()
    await sending
    await _until(lambda: server.accepted == 1 and server.open == 0)


# --- what an answer may look like ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", Reply(200, b"{}")),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", Reply(200, b"{}")),  # lasts until the connection closes
        (b"HTTP/1.1 204 OK\r\n\r\n", Reply(204, b"")),
        (b"HTTP/1.1 103 Wait\r\nLink: </a>\r\n\r\n" + OK, Reply(200, b"{}")),
        (b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 429 No\r\nretry-after: 3\r\nContent-Length: 0\r\n\r\n",
         Reply(429, b"", timedelta(seconds=3))),
    ],
)  # fmt: skip
async def test_an_answer_of_any_kind_is_read(http: Http, serve: Start, answer: bytes, reply: Reply) -> None:
    server = await serve(answer, close=True)
    assert await http.post_json(server.url, b"{}") == reply


async def test_an_answer_is_read_however_it_is_cut(http: Http, serve: Start) -> None:
    """Byte by byte."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in OK:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    server = await serve(answer)
    assert await http.post_json(server.url, b"{}") == Reply(200, b"{}")


@pytest.mark.parametrize(
    "line", [b"X-Long: " + b"x" * 100_000, b"".join(b"X-%d: 1\r\n" % number for number in range(1000))]
)
async def test_an_answer_that_does_not_come_to_the_point_is_no_answer(
    http: Http, serve: Start, line: bytes
) -> None:
    """Memory is not filled by a beginning without end."""
    server = await serve(b"HTTP/1.1 200 OK\r\n" + line)
    began = asyncio.get_running_loop().time()
    assert isinstance(await http.post_json(server.url, b"{}"), NoAnswer)
    assert asyncio.get_running_loop().time() - began < http.settings.total / 2


async def test_a_change_of_protocol_is_no_answer(http: Http, serve: Start) -> None:
    server = await serve(b"HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n....")
    assert isinstance(await http.post_json(server.url, b"{}"), NoAnswer)


async def test_a_connection_that_closes_after_an_answer_without_a_body_is_no_answer(
    http: Http, serve: Start
) -> None:
    """What was answered to the request before is not the answer to this one."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) > 1:
            raise ConnectionResetError
        writer.write(b"HTTP/1.1 204 OK\r\n\r\n")

    server = await serve(answer)
    assert await http.post_json(server.url, b"{}") == Reply(204, b"")
    assert isinstance(await http.post_json(server.url, b"{}"), NoAnswer)
    assert server.accepted == 1


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\n\r\n{"])
async def test_a_connection_that_breaks_off_is_no_answer(http: Http, serve: Start, part: bytes) -> None:
    """Reset, not closed: what lasts until the close has not ended."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(part)
        await asyncio.sleep(0.02)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await asyncio.sleep(1)

    server = await serve(answer)
    assert isinstance(await http.post_json(server.url, b"{}"), NoAnswer)


# --- what a request may look like ---------------------------------------------------------------------


async def test_a_request_names_the_host_and_the_whole_path(http: Http, serve: Start) -> None:
    """What an address must not hold as it stands is quoted, what is quoted stays so."""
    server = await serve()
    await http.request("GET", f"{server.url}/v3/conversations/a%3a1%2F2;x=y:/ä b?q=1#part", headers={"X-Own": "1"})
    head = server.heads[0].decode()
    assert head.startswith("GET /v3/conversations/a%3a1%2F2;x=y:/%C3%A4%20b?q=1 HTTP/1.1\r\n")
    assert f"\r\nHost: {server.url.removeprefix('http://')}\r\n" in head
    assert "\r\nX-Own: 1\r\n" in head


@pytest.mark.parametrize("value", ["a\r\nX-Other: 1", "a\nb", "a\x00", "ä"])
async def test_a_header_cannot_begin_another(http: Http, serve: Start, value: str) -> None:
    """Nothing is written."""
    server = await serve()
    assert isinstance(await http.request("GET", server.url, headers={"X-Own": value}), NoConnection)
    assert server.accepted == 0


# --- TLS ----------------------------------------------------------------------------------------------


def _certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of nobody's for 127.0.0.1, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context


async def test_a_certificate_that_nobody_vouches_for_is_no_connection(
    http: Http, serve: Start, tmp_path: Path
) -> None:
    """The reason is told."""
    server = await serve(tls=_certificate(tmp_path)[1])
    outcome = await http.post_json(server.url, b"{}")
    assert isinstance(outcome, NoConnection)
    assert "certificate is not trusted" in outcome.detail


async def test_a_certificate_of_the_named_file_is_trusted(
    http: Http, serve: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SSL_CERT_FILE` names an authority of one's own; the connection is kept as any other."""
    path, context = _certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    connections.tls.cache_clear()
    try:
        server = await serve(tls=context)
        for _ in range(2):
            assert await http.post_json(server.url, b"{}") == Reply(200, b"{}")
        assert server.accepted == 1
    finally:
        connections.tls.cache_clear()
