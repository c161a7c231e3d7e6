"""Connections to a platform: HTTP/1.1 over asyncio's transports, read by httptools, kept between exchanges.

Whether a request may have reached the other side is what decides if it may go out again, so the moment it is handed
to the transport is this file's to know (docs/decisions/0015). Before it: `NotConnected`. From it on: `NoReply`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

#: Platforms close what is idle after a minute or so; we close first, so that no request meets a close.
IDLE_SECONDS = 15.0
#: Of what stands before a body, in bytes, and as lines.
_HEAD_LIMIT, _LINES_LIMIT = 64 * 1024, 100
_GZIP_OR_DEFLATE = zlib.MAX_WBITS | 32
_PACKED = {b"gzip", b"x-gzip", b"deflate"}


class NotConnected(Exception):  # noqa: N818 - says what happened
    """Nothing was written."""


class NoReply(Exception):  # noqa: N818 - says what happened
    """The request may have been read, and no answer came that can be."""


class Origin(NamedTuple):
    """Where connections lead."""

    host: str
    port: int
    secure: bool


class Answer(NamedTuple):
    """What came back: `headers` by their names in lower case, `body` as it came, of one over the limit a part."""

    status: int
    headers: Mapping[bytes, bytes]
    body: Sequence[bytes]

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def unpacked(self, limit: int) -> bytes:
        """The body, at most so many bytes of it. Raises `NoReply` for what cannot be unpacked."""
        body = b"".join(self.body)
        if self.headers.get(b"content-encoding", b"").lower() in _PACKED:
            try:
                body = zlib.decompressobj(_GZIP_OR_DEFLATE).decompress(body, limit)
            except zlib.error as error:
                raise NoReply("an answer that cannot be unpacked") from error
        return body[:limit]


class Connection(asyncio.Protocol):
    """One connection, for one exchange at a time. Of a body it reads little more than the limit, in bytes."""

    def __init__(self, body_limit: int) -> None:
        self.idle_since = 0.0
        self._limit = body_limit
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._over: asyncio.Future[Answer] | None = None
        self._reusable = False
        self._begin()

    def _begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = self._head_size = 0
        self._in_body = False

    @property
    def reusable(self) -> bool:
        """Whether another exchange may follow: the last one ended where it said, and nobody has closed since."""
        return self._reusable and self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, seconds: float) -> Answer:
        """Writes it and waits for the whole answer. Raises `NoReply`; whatever raises closes the connection."""
        if self._transport is None or self._transport.is_closing():
            raise NotConnected("the connection was closed")
        self._reusable = False
        self._over = self._loop.create_future()
        self._transport.write(request)
        timer = self._loop.call_later(seconds, self._fail, "no answer in time")
        try:
            return await self._over
        finally:
            timer.cancel()
            self._over = None
            if not self._reusable:
                self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self, *, reusable: bool) -> None:
        if self._over is not None and not self._over.done():
            self._reusable = reusable
            self._over.set_result(Answer(self._parser.get_status_code(), self._headers, self._body))

    def _fail(self, why: str) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(NoReply(why))

    # --- what the transport tells ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._over is None or self._over.done():  # nobody asked
            self._reusable = False
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._reusable = False
            self._fail("an answer that is not HTTP")
        if not self._in_body:
            self._head_size += len(data)
            if self._head_size > _HEAD_LIMIT:
                self._fail("an answer without a beginning")

    def connection_lost(self, error: Exception | None) -> None:
        lasts_until_closed = b"content-length" not in self._headers and b"transfer-encoding" not in self._headers
        if self._in_body and lasts_until_closed and error is None:
            self._end(reusable=False)
        self._fail("the connection was closed")

    # --- what the parser tells ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._reusable = False  # a second answer to one request would be taken for that to the next
        self._begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        if len(self._headers) > _LINES_LIMIT:
            self._fail("an answer without a beginning")

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_body(self, part: bytes) -> None:
        if self._size <= self._limit:
            self._body.append(part)
            self._size += len(part)
            if self._size > self._limit:
                self._end(reusable=False)

    def on_message_complete(self) -> None:
        self._in_body = False
        if self._parser.get_status_code() >= 200:  # else the answer itself follows
            self._end(reusable=self._parser.should_keep_alive())


class Connections:
    """Those of one account: `most` in use at once, the others kept until they were idle for 15 s. `patience` is for
    how many seconds a free place is waited for, and again a connection."""

    def __init__(self, *, most: int, patience: float, body_limit: int) -> None:
        self._most = most
        self._patience = patience
        self._body_limit = body_limit
        self._taken = 0
        self._freed = asyncio.Event()
        self._closed = False
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)
        self._in_use: set[Connection] = set()
        self._sweep_at: asyncio.TimerHandle | None = None

    async def take(self, origin: Origin) -> Connection:
        """One that nobody else uses, to be given back. Raises `NotConnected`."""
        await self._place()
        try:
            connection = self._kept(origin) or await self._made(origin)
        except BaseException:
            self._free()
            raise
        self._in_use.add(connection)
        return connection

    def give_back(self, origin: Origin, connection: Connection) -> None:
        self._in_use.discard(connection)
        self._free()
        if self._closed:
            connection.close()
        elif connection.reusable:
            loop = asyncio.get_running_loop()
            connection.idle_since = loop.time()
            self._idle[origin].append(connection)
            if self._sweep_at is None:
                self._sweep_at = loop.call_later(IDLE_SECONDS, self._sweep)

    def close(self) -> None:
        """Ends what is under way too."""
        self._closed = True
        if self._sweep_at is not None:
            self._sweep_at.cancel()
        for connection in (*self._in_use, *(one for kept in self._idle.values() for one in kept)):
            connection.close()
        self._idle.clear()

    async def _place(self) -> None:
        if self._taken >= self._most:
            try:
                async with asyncio.timeout(self._patience):
                    await self._place_freed()
            except TimeoutError:
                raise NotConnected("no free connection in time") from None
        self._taken += 1

    async def _place_freed(self) -> None:
        while self._taken >= self._most:
            self._freed.clear()
            await self._freed.wait()

    def _free(self) -> None:
        self._taken -= 1
        self._freed.set()

    def _kept(self, origin: Origin) -> Connection | None:
        """The one used last."""
        kept = self._idle[origin]
        while kept:
            connection = kept.pop()
            if connection.reusable:
                return connection
        return None

    async def _made(self, origin: Origin) -> Connection:
        self._make_room()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._patience):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._body_limit),
                    origin.host,
                    origin.port,
                    ssl=tls() if origin.secure else None,
                )
        except TimeoutError:
            raise NotConnected("no connection in time") from None
        except (OSError, UnicodeError) as error:  # a name too long for DNS is an error of encoding
            raise NotConnected(_reason(error)) from error
        return connection

    def _make_room(self) -> None:
        """Closes the one idle for longest where there are as many as may be in use."""
        kept = [idle for idle in self._idle.values() if idle]
        if kept and sum(map(len, kept)) + self._taken > self._most:
            min(kept, key=lambda idle: idle[0].idle_since).pop(0).close()

    def _sweep(self) -> None:
        """Closes those that were idle for too long, and comes back for the others."""
        loop = asyncio.get_running_loop()
        for origin, kept in [*self._idle.items()]:
            for connection in kept:
                if connection.idle_since + IDLE_SECONDS <= loop.time():
                    connection.close()
            self._idle[origin] = [connection for connection in kept if connection.reusable]
            if not self._idle[origin]:
                del self._idle[origin]
        first = min((kept[0].idle_since for kept in self._idle.values()), default=None)
        self._sweep_at = None if first is None else loop.call_at(first + IDLE_SECONDS, self._sweep)


@cache
def tls() -> ssl.SSLContext:
    """The system's certificates, or those of `SSL_CERT_FILE`."""
    return ssl.create_default_context()


def _reason(error: OSError | UnicodeError) -> str:
    """The system's own word; never an address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection: {error.reason or 'refused'}"
    if isinstance(error, socket.gaierror):
        return error.strerror or "no such name"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return "no connection"
