"""The way out that all channels share: one pooled session per account, and what became of a request as a value.

The line that matters runs between `NoConnection` and `NoAnswer`: after the first the same request may go out
again, after the second it may arrive twice. A request counts as written as soon as it may have been: a kept-alive
connection that the peer closed is dropped from the pool when the close was noticed before the request took it,
and is a `NoAnswer` when it was not, because then nobody can tell whether the request was read first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")

#: Raised before a byte of the request is written: name resolution, refusal, TLS, no free connection in time, an
#: address that is none.
_BEFORE_WRITING = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
#: Everything else that the world can do to a request: whatever comes later than the above.
_AFTER_WRITING = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """`connect` seconds until a connection stands (waiting for a free one, name, TCP, TLS), `total` seconds for
    the whole exchange, `connections` open at once, `body_limit` bytes read of an answer, unpacked."""

    connect: float = 5.0
    total: float = 30.0
    connections: int = 100
    body_limit: int = 1024 * 1024

    def __post_init__(self) -> None:
        # Longer time-outs are rounded up to whole seconds; the total one must never strike while connecting.
        if not 0 < self.connect <= self.total - 1:
            raise ValueError(f"total ({self.total} s) must be at least a second above connect ({self.connect} s)")


@dataclass(frozen=True, slots=True)
class Reply:
    """The server answered. `retry_after` is its own word on when to come back, if it gave one. Of a body longer
    than the limit only the first bytes are here."""

    status: int
    body: bytes
    retry_after: timedelta | None = None

    def json(self) -> object:
        """The body as JSON, ``None`` where it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


@dataclass(frozen=True, slots=True)
class NoConnection:
    """Nothing was sent, so nothing was accepted."""

    detail: str


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The request may have been read, and no answer came: nobody can know."""

    detail: str


Exchange = Reply | NoConnection | NoAnswer


class Http:
    """Sends requests over one pool of connections; opens it with the first one, in the running loop.

    Redirects are not followed and cookies are not kept. A POST goes out once; aiohttp repeats GET, PUT and DELETE
    once on a connection that turns out to be closed, which is harmless for what they do. Details name the kind of
    failure and the host, never the address, which may hold a secret.
    """

    def __init__(self, settings: HttpSettings | None = None) -> None:
        self.settings = settings or HttpSettings()
        self._session: aiohttp.ClientSession | None = None

    async def post_json(self, url: str | URL, body: bytes, headers: Mapping[str, str] | None = None) -> Exchange:
        """POSTs bytes that already are JSON."""
        return await self.request("POST", url, body, {"Content-Type": "application/json", **(headers or {})})

    async def request(
        self, method: str, url: str | URL, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Exchange:
        """One exchange. Whatever the network does comes back as a value; only cancelling it raises, and leaves the
        outcome unknown."""
        try:
            async with self._open().request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return await self._reply(response)
        except _BEFORE_WRITING as error:
            return NoConnection(_detail(error, url))
        except _AFTER_WRITING as error:
            return NoAnswer(_detail(error, url))

    async def close(self) -> None:
        """Ends what is under way. A later request opens a new pool."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.settings.connections),
                timeout=aiohttp.ClientTimeout(total=self.settings.total, connect=self.settings.connect),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _reply(self, response: aiohttp.ClientResponse) -> Reply:
        status = response.status
        try:
            body = await _read(response, self.settings.body_limit)
        except _AFTER_WRITING:
            if status < 300:
                raise
            body = b""  # a refusal is one without its explanation too
        header = response.headers.get("Retry-After")
        wait = None if header is None else retry_after(header, response.headers.get("Date"))
        return Reply(status, body, wait)


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, cut at the limit, however small it was packed."""
    content = response.content
    first = await content.readany()
    if content.at_eof() and len(first) <= limit:
        return first
    chunks, size = [first], len(first)
    while size <= limit and (chunk := await content.readany()):
        chunks.append(chunk)
        size += len(chunk)
    if size > limit:
        response.close()
    return b"".join(chunks)[:limit]


def _detail(error: BaseException, url: str | URL) -> str:
    kind = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, OSError):
        kind = f"{kind}: {type(error.os_error).__name__} {error.os_error.errno}"
    return f"{kind} ({_host(url)})"


def _host(url: str | URL) -> str:
    try:
        return URL(url).host or "no host"
    except ValueError:
        return "no host"


def retry_after(value: str, date: str | None = None) -> timedelta | None:
    """`Retry-After`: seconds, or an HTTP date, read against the answer's own `Date` where it has one. ``None`` for
    what is neither."""
    try:
        if _SECONDS.fullmatch(value.strip()):
            return timedelta(seconds=float(value))
        until = _instant(value)
        since = datetime.now(UTC) if date is None else _instant(date)
        return max(until - since, timedelta(0))
    except (ValueError, OverflowError):
        return None


def _instant(value: str) -> datetime:
    instant = parsedate_to_datetime(value)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def scrub(text: str, *secrets: str) -> str:
    """The text without the secrets: for whatever of a platform's own words goes to a log or a person."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text
