"""The way out that all channels share: one pooled client per account, and what became of a request as a value.

The line that matters runs between `NoConnection` and `NoAnswer`: after the first the same request may go out
again, after the second it may arrive twice. A request counts as written as soon as it may have been: a kept-alive
connection that the peer closed is dropped from the pool when the close was noticed before the request took it,
and is a `NoAnswer` when it was not, because then nobody can tell whether the request was read first.

The exchange itself runs beside the interpreter, in pyreqwest's own thread (docs/decisions/0011).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import orjson
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, DetailedPyreqwestError, PoolTimeoutError, PyreqwestError
from pyreqwest.response import Response

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")

#: Raised before a byte of the request is written: no free connection in time, an address that is none.
_BEFORE_WRITING = (PoolTimeoutError, BuilderError)
#: What stands among the causes of a failure to connect: name resolution, refusal, TLS, all that took too long. The
#: kinds of pyreqwest's errors do not tell: a connection that closes instead of answering is a `ConnectError` too.
#: Were the words to change, such a failure would be taken for the worse one, never for the better.
_WHILE_CONNECTING = "client error (Connect)"
#: Platforms close what is idle after a minute or so; we close first, so that no request meets a close.
_IDLE = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """`connect` seconds at most to wait for a free connection, and as many until a new one stands (name, TCP, TLS);
    `total` seconds for the whole exchange, `connections` open at once, `body_limit` bytes read of an answer,
    unpacked."""

    connect: float = 5.0
    total: float = 30.0
    connections: int = 100
    body_limit: int = 1024 * 1024

    def __post_init__(self) -> None:
        # The total one must never strike before a request is written.
        if not 0 < 2 * self.connect <= self.total:
            raise ValueError(f"total ({self.total} s) must be at least twice connect ({self.connect} s)")


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
    """Sends requests over one pool of connections; opens it with the first one.

    Nothing is repeated, redirects are not followed, cookies are not kept, proxies of the environment are not used.
    Details name the kind of failure and the host, never the address, which may hold a secret.
    """

    def __init__(self, settings: HttpSettings | None = None) -> None:
        self.settings = settings or HttpSettings()
        self._client: Client | None = None

    async def post_json(self, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> Exchange:
        """POSTs bytes that already are JSON."""
        return await self.request("POST", url, body, {"Content-Type": "application/json", **(headers or {})})

    async def request(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Exchange:
        """One exchange. Whatever the network does comes back as a value; only cancelling it raises, and leaves the
        outcome unknown."""
        task = asyncio.current_task()
        cancelled_before = task.cancelling() if task else 0
        outcome = await self._exchange(method, url, body, headers)
        if task and task.cancelling() > cancelled_before:  # pyreqwest drops a cancellation that meets an answer
            raise asyncio.CancelledError
        return outcome

    async def close(self) -> None:
        """Ends what is under way. A later request opens a new pool."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _open(self) -> Client:
        if self._client is None:
            connect = timedelta(seconds=self.settings.connect)
            self._client = (
                ClientBuilder()
                .max_connections(self.settings.connections)
                .pool_timeout(connect)
                .connect_timeout(connect)
                .timeout(timedelta(seconds=self.settings.total))
                .pool_idle_timeout(_IDLE)
                .follow_redirects(enable=False)
                .no_proxy()
                .build()
            )
        return self._client

    async def _exchange(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> Exchange:
        try:
            request = self._open().request(method, url)
            if headers:
                request = request.headers(headers)
            if body is not None:
                request = request.body_bytes(body)
            async with request.build_streamed() as response:
                return await self._reply(response)
        except PyreqwestError as error:
            return _failure(error, url)
        except ValueError as error:  # the address cannot even be read
            return NoConnection(f"{error} ({_host(url)})")

    async def _reply(self, response: Response) -> Reply:
        body = bytes(await response.body_reader.read(self.settings.body_limit) or b"")
        header = response.get_header("Retry-After")
        wait = None if header is None else retry_after(header, response.get_header("Date"))
        return Reply(response.status, body, wait)


def _failure(error: PyreqwestError, url: str) -> NoConnection | NoAnswer:
    causes = (error.details["causes"] or []) if isinstance(error, DetailedPyreqwestError) else []
    messages = [cause["message"] for cause in causes]
    # The last cause is the system's own word. The kind is not told: see above. Nor is what may be an address.
    reason = messages[-1] if messages and "/" not in messages[-1] else "the request failed"
    detail = f"{reason} ({_host(url)})"
    unwritten = isinstance(error, _BEFORE_WRITING) or _WHILE_CONNECTING in messages
    return NoConnection(detail) if unwritten else NoAnswer(detail)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "no host"
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
