"""Bearer tokens by client credentials (PLATFORMS A10): for Bot Connector, and for Graph with another scope."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import structlog

from bot.channels.http import Http, NoAnswer, NoConnection, Reply
from bot.channels.teams.account import TeamsAccount

log = structlog.get_logger()

#: A token is renewed in the background this many seconds ahead of its end, or at three quarters of a short life.
AHEAD = 300.0
#: After a background renewal that failed, this many seconds pass before the next.
PAUSE = 10.0
#: A token that does not say how long it lives is trusted for so many seconds.
SHORT_LIFE = 300.0

_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}

#: What to do about Entra's refusals, by the number it gives them.
_MENDS = {
    7000215: "the app password is wrong: copy the secret's value, not its id",
    7000222: "the app password has expired: make a new one in Entra",
    700016: "the app id is not known in this tenant: check app id and tenant id",
    90002: "the tenant does not exist: check the tenant id",
    70011: "the scope is not valid: check the addresses of the platform",
}


@dataclass(frozen=True, slots=True)
class Granted:
    """A token to send along."""

    token: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The credentials are at fault: nothing works until somebody mends them. `detail` says how."""

    detail: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Sign-in failed for now."""

    detail: str


Grant = Granted | Refused | Unavailable


@dataclass(frozen=True, slots=True)
class _Held:
    token: str
    renew_at: float
    ends_at: float


class ClientCredentials:
    """The token of one app for one scope: kept, renewed ahead of its end, fetched once for all who wait.

    Seconds are those of a monotonic clock: tokens live in real time, whatever the broadcast's clock says.
    """

    def __init__(
        self,
        http: Http,
        account: TeamsAccount,
        *,
        scope: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._account = account
        self._scope = scope or account.scope
        self._monotonic = monotonic
        self._held: _Held | None = None
        self._fetching: asyncio.Task[Grant] | None = None
        self._not_before = 0.0

    async def grant(self, refused: str | None = None) -> Grant:
        """A token; never the one that a service `refused`."""
        held, now = self._held, self._monotonic()
        if held is not None and held.token != refused and now < held.ends_at:
            if now >= held.renew_at and now >= self._not_before:
                self._fetch()
            return Granted(held.token)
        # Shielded: who stops waiting does not stop the others' wait.
        return await asyncio.shield(self._fetch())

    async def bearer(self, refused: str | None = None) -> str | None:
        """The same for who only needs to know whether there is one."""
        grant = await self.grant(refused)
        return grant.token if isinstance(grant, Granted) else None

    async def close(self) -> None:
        """Ends a renewal under way."""
        task = self._fetching
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    def _fetch(self) -> asyncio.Task[Grant]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._renew(), name=f"token {self._account.key}")
        return self._fetching

    async def _renew(self) -> Grant:
        grant = await self._ask()
        if not isinstance(grant, Granted):
            self._not_before = self._monotonic() + PAUSE
            log.warning("no token", action="teams_token_failed", account=self._account.key, detail=grant.detail)
        return grant

    async def _ask(self) -> Grant:
        account = self._account
        form = {
            "grant_type": "client_credentials",
            "client_id": account.app_id,
            "client_secret": account.app_password,
            "scope": self._scope,
        }
        url = f"{account.login_url.rstrip('/')}/{quote(account.tenant_id, safe='')}/oauth2/v2.0/token"
        match await self._http.request("POST", url, urlencode(form).encode(), _FORM):
            case Reply() as reply:
                return self._read(reply)
            case NoConnection(detail) | NoAnswer(detail):
                return Unavailable(f"sign-in could not be reached: {detail}")

    def _read(self, reply: Reply) -> Grant:
        answer = reply.json()
        if not isinstance(answer, dict):
            return Unavailable(f"sign-in answered {reply.status}, not in its own words")
        token = answer.get("access_token")
        if reply.status == 200 and isinstance(token, str) and token:
            self._keep(token, _seconds(answer.get("expires_in")))
            return Granted(token)
        if reply.status in {400, 401, 403} and isinstance(answer.get("error"), str):
            return Refused(_mend(answer))
        return Unavailable(f"sign-in answered {reply.status}")

    def _keep(self, token: str, lifetime: float) -> None:
        now = self._monotonic()
        self._held = _Held(
            token, renew_at=now + max(lifetime - AHEAD, lifetime * 0.75), ends_at=now + lifetime * 0.95
        )


def _seconds(value: object) -> float:
    try:
        return max(float(value), 0.0) if isinstance(value, int | float | str) else SHORT_LIFE
    except ValueError:
        return SHORT_LIFE


def _mend(answer: dict[str, object]) -> str:
    codes = answer.get("error_codes")
    numbers = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
    advice = next((_MENDS[code] for code in numbers if code in _MENDS), "check app id, app password and tenant id")
    named = "".join(f" AADSTS{code}" for code in numbers)
    return f"sign-in refused ({answer['error']}{named}): {advice}"
