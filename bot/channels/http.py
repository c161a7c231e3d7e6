"""The way out that all channels share: one pool of connections per account, and what became of a request.

The line that matters runs between `NoConnection` and `NoAnswer`: after the first the same request may go out
again, after the second it may arrive twice. A request counts as written as soon as it may have been: a kept-alive
connection that the peer closed is dropped from the pool when the close was noticed before the request took it,
and is a `NoAnswer` when it was not, because then nobody can tell whether the request was read first.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import quote, urlsplit

import orjson
from yarl import URL

from bot.channels.connections import Connections, NoReply, NotConnected, Origin

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Of a path: whoever made it has quoted what had to be, in the way the platform wants it.
_AS_IT_STANDS = "!$%&'()*+,/:;=?@[]"
#: Sent with each request. Nothing is asked for that has to be unpacked: answers are short.
_COMMON = "User-Agent: clarion\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """`connect` seconds at most to wait for a free connection, and as many until a new one stands (name, TCP, TLS);
    `total` seconds for the whole exchange, `connections` in use at once, `body_limit` bytes read of an answer,
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
        self._pool: Connections | None = None

    async def post_json(self, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> Exchange:
        """POSTs bytes that already are JSON."""
        return await self.request("POST", url, body, {"Content-Type": "application/json", **(headers or {})})

    async def request(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Exchange:
        """One exchange. Whatever the network does comes back as a value; only cancelling it raises, and leaves the
        outcome unknown."""
        try:
            origin, head = _begun(method, url, tuple((headers or {}).items()))
        except ValueError:  # never its words: they may be the address
            return NoConnection(f"a request that cannot be written ({_host(url)})")
        request = head + b"\r\n" if body is None else b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
        try:
            return await self._exchange(origin, request)
        except NotConnected as error:
            return NoConnection(f"{error} ({origin.host})")
        except NoReply as error:
            return NoAnswer(f"{error} ({origin.host})")

    async def close(self) -> None:
        """Ends what is under way. A later request opens a new pool."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    async def _exchange(self, origin: Origin, request: bytes) -> Reply:
        pool = self._pool = self._pool or self._opened()
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.total
        connection = await pool.take(origin)
        try:
            answer = await connection.exchange(request, until - loop.time())
        finally:
            pool.give_back(origin, connection)
        header = answer.header(b"retry-after")
        wait = None if header is None else retry_after(header, answer.header(b"date"))
        return Reply(answer.status, answer.unpacked(self.settings.body_limit), wait)

    def _opened(self) -> Connections:
        most, patience = self.settings.connections, self.settings.connect
        return Connections(most=most, patience=patience, body_limit=self.settings.body_limit)


@lru_cache(maxsize=256)
def _begun(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> tuple[Origin, bytes]:
    """Where a request goes, and its head without its length. Raises ``ValueError`` for what is no address of a web
    server, and for a header that would begin another one."""
    read = URL(url)
    if read.scheme not in ("http", "https") or not read.raw_host or not read.port:
        raise ValueError("no address of a web server")
    if any(_CONTROL.search(value) for _, value in headers):
        raise ValueError("a control character in a header")
    path = quote(URL(url, encoded=True).raw_path_qs, safe=_AS_IT_STANDS)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"{method} {path} HTTP/1.1\r\nHost: {read.host_port_subcomponent}\r\n{_COMMON}{lines}"
    return Origin(read.raw_host, read.port, read.scheme == "https"), head.encode("ascii")


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
