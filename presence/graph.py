"""Presence of Entra users from Microsoft Graph (PLATFORMS B): one request for up to 650 people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Protocol

import aiohttp
import orjson
from yarl import URL

from broadcast.errors import PresenceUnavailable
from broadcast.model import PresenceState

#: The most ids that Graph takes in one request.
BATCH = 650
#: An answer about 650 people is about 100 kB; more than this many bytes is none of Graph's.
ANSWER_LIMIT = 4 * 1024 * 1024

# Graph takes GUIDs only and refuses the whole batch for one id that is none.
_GUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)

_P = PresenceState

#: What somebody does says more than their availability (RULES.md, presence). Words in lower case.
BY_ACTIVITY: Mapping[str, PresenceState] = MappingProxyType(
    {
        "presenting": _P.DO_NOT_DISTURB,
        "inacall": _P.DO_NOT_DISTURB,
        "inameeting": _P.DO_NOT_DISTURB,
        "urgentinterruptionsonly": _P.DO_NOT_DISTURB,
        "offwork": _P.OFFLINE,
    }
)
BY_AVAILABILITY: Mapping[str, PresenceState] = MappingProxyType(
    {
        "available": _P.AVAILABLE,
        "availableidle": _P.AVAILABLE,
        "away": _P.AWAY,
        "berightback": _P.AWAY,
        "busy": _P.BUSY,
        "busyidle": _P.BUSY,
        "donotdisturb": _P.DO_NOT_DISTURB,
        "offline": _P.OFFLINE,
        "offwork": _P.OFFLINE,
    }
)


class TokenSource(Protocol):
    """Gives bearer tokens for Graph."""

    async def bearer(self, refused: str | None = None) -> str | None:
        """A token, never the one that Graph `refused`; ``None`` if there is none to be had now."""


class GraphPresence:
    """The presence of people by their Entra object ids.

    `url` is Graph's address, with or without the version. The app needs the application permission
    ``Presence.Read.All``, and for mail look-ups ``User.ReadBasic.All``.
    """

    batch = BATCH
    prefetch = True

    def __init__(
        self,
        tokens: TokenSource,
        *,
        url: str = "https://graph.microsoft.com",
        connect_seconds: float = 5.0,
        total_seconds: float = 30.0,
    ) -> None:
        base = URL(url.rstrip("/"))
        self._base = base if base.name in {"v1.0", "beta"} else base / "v1.0"
        self._tokens = tokens
        self._timeout = aiohttp.ClientTimeout(total=total_seconds, connect=connect_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, PresenceState]:
        """Ids that are no Entra object ids are `unknown` without being asked for."""
        if len(user_ids) > self.batch:
            raise ValueError(f"{len(user_ids)} ids; Graph takes at most {self.batch} at once")
        wanted = sorted({id.lower() for id in user_ids if _GUID.fullmatch(id)})
        found = await self._presences(wanted) if wanted else {}
        return {id: found.get(id.lower(), PresenceState.UNKNOWN) for id in user_ids}

    async def close(self) -> None:
        """Ends what is under way."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _presences(self, ids: list[str]) -> dict[str, PresenceState]:
        where = self._base / "communications" / "getPresencesByUserId"
        answer = await self._ask("POST", where, orjson.dumps({"ids": ids}))
        return {str(one.get("id")).lower(): state_of(one) for one in _values(answer)}

    async def _ask(self, method: str, url: URL, body: bytes | None = None) -> object:
        """Graph's answer. A token it refuses is replaced, once."""
        refused: str | None = None
        while True:
            token = await self._tokens.bearer(refused)
            if token is None:
                raise PresenceUnavailable("no token for Graph")
            status, answer = await self._exchange(method, url, body, token)
            if status != 401:
                return answer
            if refused is not None:
                raise PresenceUnavailable("Graph refuses our token")
            refused = token

    async def _exchange(self, method: str, url: URL, body: bytes | None, token: str) -> tuple[int, object]:
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._open().request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status in {200, 401}:
                    return response.status, await _json(response) if response.status == 200 else None
                raise _unavailable(response)
        except (aiohttp.ClientError, OSError) as error:
            raise PresenceUnavailable(f"Graph could not be asked: {type(error).__name__}") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


def state_of(presence: Mapping[str, Any]) -> PresenceState:
    """Our word for Graph's availability and activity, whatever their case; `unknown` for words we do not know."""
    activity = str(presence.get("activity")).lower()
    availability = str(presence.get("availability")).lower()
    return BY_ACTIVITY.get(activity) or BY_AVAILABILITY.get(availability, PresenceState.UNKNOWN)


def _values(answer: object) -> Iterable[dict[str, Any]]:
    value = answer.get("value") if isinstance(answer, dict) else None
    if not isinstance(value, list):
        raise PresenceUnavailable("Graph answered, but not in its own words")
    return (one for one in value if isinstance(one, dict))


async def _json(response: aiohttp.ClientResponse) -> object:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > ANSWER_LIMIT:
            raise PresenceUnavailable("Graph answered more than it can have to say")
    try:
        return orjson.loads(b"".join(chunks))
    except orjson.JSONDecodeError as error:
        raise PresenceUnavailable("Graph answered, but not in its own words") from error


def _unavailable(response: aiohttp.ClientResponse) -> PresenceUnavailable:
    if response.status == 403:
        return PresenceUnavailable(
            "Graph answered 403: the app needs Presence.Read.All (application) with admin consent"
        )
    wait = _wait(response.headers.get("Retry-After"), response.headers.get("Date"))
    return PresenceUnavailable(f"Graph answered {response.status}", wait=wait)


def _wait(value: str | None, date: str | None) -> timedelta | None:
    """`Retry-After`: seconds, or a date read against the answer's own."""
    if value is None:
        return None
    try:
        if value.strip().isdecimal():
            return timedelta(seconds=int(value))
        since = datetime.now(UTC) if date is None else parsedate_to_datetime(date)
        return max(parsedate_to_datetime(value) - since, timedelta(0))
    except (ValueError, TypeError, OverflowError):
        return None
