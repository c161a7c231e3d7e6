"""Who answers a connection: plain requests of bots are answered here, everything else is aiohttp's.

A benchmark of a sender shares its processor with the sandbox, and nearly all it sends is small posts that can be
answered at once. Here they cost a fraction of what they would as requests of aiohttp. The first request of a
connection that is not as plain as that hands the connection over, with all that has arrived and for good, so that
there is one implementation of everything else in HTTP.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple, cast

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

JSON = "application/json; charset=utf-8"
MAX_BODY = 64 * 1024
"""Bytes of a body at most that is waited for here."""
REQUEST = re.compile(rb"POST /([A-Za-z0-9_:/-]*) HTTP/1\.1")
HEADER = re.compile(rb"([A-Za-z-]+):[ \t]*([\x20-\x7e]*)")
PLAIN = {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent",
         "x-viber-auth-token"}  # fmt: skip
"""Headers that change nothing about how a request is read; `connection` only where it says `keep-alive`."""


@dataclass(frozen=True, slots=True)
class Head:
    """What comes before the body of a plain request: the path in its segments, the headers by their names in small
    letters, the length of the body in bytes."""

    path: tuple[str, ...]
    headers: Mapping[str, str]
    length: int


class Ready(NamedTuple):
    """An answer in JSON that nobody has to wait for; `retry_after` in seconds."""

    body: bytes
    status: int = 200
    retry_after: int | None = None

    def response(self) -> web.Response:
        """The same, for aiohttp to send."""
        headers = {"Content-Type": JSON}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return web.Response(status=self.status, body=self.body, headers=headers)

    def wire(self) -> bytes:
        """The same, byte for byte as aiohttp sends it."""
        retry = "" if self.retry_after is None else f"Retry-After: {self.retry_after}\r\n"
        head = (
            f"{_status_line(self.status)}\r\nContent-Type: {JSON}\r\n{retry}"
            f"Content-Length: {len(self.body)}\r\n{_signed(int(time.time()))}\r\n\r\n"
        )
        return head.encode() + self.body


Answer = Callable[[Head, bytes], Ready | None]
"""Answers a head and its body, or leaves them to aiohttp."""


class Front(asyncio.Protocol):
    """One connection until it is handed over; `connections` holds it as long."""

    def __init__(self, answer: Answer, aiohttp: Callable[[], asyncio.Protocol], connections: set["Front"]) -> None:
        self._answer = answer
        self._aiohttp = aiohttp
        self._connections = connections
        self._unread = b""
        self._paused = False
        """The client does not read its answers, and gets no more for now."""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has nothing of asyncio's above it
        self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self)

    def pause_writing(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while self._unread and not self._paused:
            raw, empty_line, rest = self._unread.partition(b"\r\n\r\n")
            head = read_head(raw) if empty_line else None
            if head is not None and len(rest) < head.length:
                return  # the rest of the body is on its way
            ready = None if head is None else self._answer(head, rest[: head.length])
            if head is None or ready is None:
                self._hand_over()
                return
            self._unread = rest[head.length :]
            self._transport.write(ready.wire())

    def close(self) -> None:
        """Let the client go."""
        self._transport.close()

    def _hand_over(self) -> None:
        self._connections.discard(self)
        heir = self._aiohttp()
        self._transport.set_protocol(heir)
        heir.connection_made(self._transport)
        heir.data_received(self._unread)


@lru_cache(maxsize=1024)  # a client's heads differ in the length of the body only
def read_head(raw: bytes) -> Head | None:
    """The head of a plain request; None where there is more, or less, to it."""
    first, *rest = raw.split(b"\r\n")
    line, headers = REQUEST.fullmatch(first), _headers(rest)
    if line is None or headers is None:
        return None
    length = headers.get("content-length", "")
    if not re.fullmatch(r"\d{1,5}", length, re.ASCII) or int(length) > MAX_BODY:
        return None
    if headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return Head(tuple(line[1].decode().split("/")), headers, int(length))


def _headers(lines: list[bytes]) -> Mapping[str, str] | None:
    """By name in small letters; None where one is not plain, or there twice."""
    headers: dict[str, str] = {}
    for one in lines:
        match = HEADER.fullmatch(one)
        name = match[1].decode().lower() if match else ""
        if match is None or name not in PLAIN or name in headers:
            return None
        headers[name] = match[2].decode().rstrip()
    return headers


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {web.Response(status=status).reason}"


@lru_cache(maxsize=1)
def _signed(second: int) -> str:
    """The headers that say who answered, and when (seconds since 1970)."""
    return f"Date: {formatdate(second, usegmt=True)}\r\nServer: {SERVER_SOFTWARE}"
