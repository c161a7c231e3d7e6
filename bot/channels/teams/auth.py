"""Whether a request comes from Bot Connector (PLATFORMS A10): the token it carries, and the keys behind that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from bot.channels.http import Http, Reply
from bot.channels.teams.account import TeamsAccount

log = structlog.get_logger()

#: Clocks may differ by so many seconds.
SKEW = 300
#: Keys are fetched anew after a day, and used at most five while they cannot be.
KEYS_FRESH = 24 * 3600.0
KEYS_USABLE = 5 * 24 * 3600.0
#: Seconds between two fetches for unknown key ids, and after a fetch that failed.
KEYS_PAUSE = 60.0
#: Tokens found good are remembered until they end: Bot Connector sends the same one for a while.
REMEMBERED = 256

_REQUIRED = ["exp", "iss", "aud"]


class Reason(StrEnum):
    """Why a request is turned away."""

    NO_TOKEN = "no_token"  # noqa: S105 - no header, or not a bearer token
    MALFORMED = "malformed"  # no JSON web token
    ALGORITHM = "algorithm"  # signed with anything but RS256
    UNKNOWN_KEY = "unknown_key"  # the platform does not list the key
    SIGNATURE = "signature"  # the key did not sign this
    EXPIRED = "expired"  # past its end, skew allowed for
    NOT_YET = "not_yet"  # before its beginning
    ISSUER = "issuer"  # issued by somebody else
    AUDIENCE = "audience"  # meant for another bot
    ENDORSEMENT = "endorsement"  # the key does not speak for this channel
    SERVICE_URL = "service_url"  # the token is for another service address than the activity names
    TOO_LARGE = "too_large"  # the body is over the limit
    BODY = "body"  # the body is no activity
    NO_KEYS = "no_keys"  # the platform's keys cannot be had right now: not the sender's fault


#: How each is answered; 403 where not listed.
STATUSES: Mapping[Reason, int] = {
    Reason.NO_TOKEN: 401,
    Reason.MALFORMED: 401,
    Reason.TOO_LARGE: 413,
    Reason.BODY: 400,
    Reason.NO_KEYS: 503,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request turned away."""

    reason: Reason

    @property
    def status(self) -> int:
        """The HTTP status to answer with."""
        return STATUSES.get(self.reason, 403)


@dataclass(frozen=True, slots=True)
class Sender:
    """What a good token vouches for."""

    service_url: str
    endorsements: frozenset[str]

    def speaks_for(self, *, channel_id: object, service_url: object) -> Refusal | None:
        """Whether an activity of this channel and service address may come with the token."""
        if not isinstance(channel_id, str) or channel_id not in self.endorsements:
            return Refusal(Reason.ENDORSEMENT)
        if not isinstance(service_url, str) or not service_url:
            return Refusal(Reason.SERVICE_URL)
        if service_url.rstrip("/") != self.service_url.rstrip("/"):
            return Refusal(Reason.SERVICE_URL)
        return None


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and the channels it speaks for."""

    public: RSAPublicKey
    endorsements: frozenset[str]


@dataclass(slots=True)
class _Known:
    """The keys by key id, when they were fetched, and since when there is a pause; seconds of a monotonic clock."""

    keys: Mapping[str, Key] = field(default_factory=dict)
    at: float | None = None
    paused_at: float | None = None


class Keys:
    """The platform's signing keys: kept a day, fetched again for an unknown key id, but for those not more than
    once a minute; one fetch for all who wait."""

    def __init__(self, http: Http, openid_url: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._http = http
        self._openid_url = openid_url
        self._monotonic = monotonic
        self._known = _Known()
        self._fetching: asyncio.Task[None] | None = None
        #: Grows with every fetch.
        self.version = 0

    async def key(self, id: str) -> Key | Refusal:
        """The key of that id, as far as the platform lists it."""
        if not self._is_fresh(KEYS_FRESH) or id not in self._known.keys:
            await self._fetch()
        if not self._is_fresh(KEYS_USABLE):
            return Refusal(Reason.NO_KEYS)
        return self._known.keys.get(id) or Refusal(Reason.UNKNOWN_KEY)

    def is_fresh(self) -> bool:
        """Whether the keys are those of the last day."""
        return self._is_fresh(KEYS_FRESH)

    async def close(self) -> None:
        """Ends a fetch under way."""
        task = self._fetching
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    def _is_fresh(self, seconds: float) -> bool:
        at = self._known.at
        return at is not None and self._monotonic() - at < seconds

    async def _fetch(self) -> None:
        if self._fetching is None or self._fetching.done():
            paused = self._known.paused_at
            if paused is not None and self._monotonic() - paused < KEYS_PAUSE:
                return
            self._fetching = asyncio.create_task(self._refresh(), name="Bot Connector keys")
        await asyncio.shield(self._fetching)

    async def _refresh(self) -> None:
        was_due = not self._is_fresh(KEYS_FRESH)
        self._known.paused_at = self._monotonic()
        keys = await self._ask()
        if not keys:
            log.warning("no keys", action="teams_keys_failed", openid_url=self._openid_url)
            return
        self._known = _Known(keys, at=self._monotonic(), paused_at=None if was_due else self._known.paused_at)
        self.version += 1

    async def _ask(self) -> Mapping[str, Key]:
        document = await self._get(self._openid_url)
        where = document.get("jwks_uri")
        if not isinstance(where, str):
            return {}
        listed = (await self._get(where)).get("keys")
        entries = listed if isinstance(listed, list) else []
        return {entry["kid"]: key for entry in entries if (key := _key(entry)) is not None}

    async def _get(self, url: str) -> dict[str, Any]:
        match await self._http.request("GET", url):
            case Reply(status=200) as reply if isinstance(document := reply.json(), dict):
                return document
            case _:
                return {}


def _key(entry: object) -> Key | None:
    """A key we can use; the platform may list others beside it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return None
    endorsements = entry.get("endorsements")
    names = frozenset(one for one in endorsements if isinstance(one, str)) if isinstance(endorsements, list) else ()
    try:
        public = RSAAlgorithm.from_jwk(entry)
    except (jwt.InvalidKeyError, ValueError, KeyError, TypeError):
        return None
    return Key(public, frozenset(names)) if isinstance(public, RSAPublicKey) else None


@dataclass(frozen=True, slots=True)
class _Remembered:
    sender: Sender
    ends_at: float
    version: int


class Verifier:
    """Tells requests of Bot Connector to one bot from all others."""

    def __init__(self, account: TeamsAccount, keys: Keys, wall: Callable[[], float] = time.time) -> None:
        self._account = account
        self._keys = keys
        self._wall = wall
        self._good: dict[str, _Remembered] = {}

    async def sender(self, authorization: str | None) -> Sender | Refusal:
        """Who sent it, from the header alone: the body is not looked at before this is settled."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme != "Bearer" or not token:
            return Refusal(Reason.NO_TOKEN)
        if not self._account.app_id:
            return Refusal(Reason.AUDIENCE)
        known = self._remembered(token)
        return known if known is not None else await self._check(token)

    def _remembered(self, token: str) -> Sender | None:
        found = self._good.get(token)
        if found is None:
            return None
        if found.version != self._keys.version or not self._keys.is_fresh() or self._wall() >= found.ends_at:
            del self._good[token]
            return None
        return found.sender

    async def _check(self, token: str) -> Sender | Refusal:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            return Refusal(Reason.MALFORMED)
        if header.get("alg") != "RS256":
            return Refusal(Reason.ALGORITHM)
        kid = header.get("kid")
        key = await self._keys.key(kid) if isinstance(kid, str) else Refusal(Reason.UNKNOWN_KEY)
        if isinstance(key, Refusal):
            return key
        claims = self._claims(token, key)
        if isinstance(claims, Refusal):
            return claims
        return self._remember(token, claims, key)

    def _claims(self, token: str, key: Key) -> dict[str, Any] | Refusal:
        try:
            return jwt.decode(
                token,
                key.public,
                algorithms=["RS256"],
                audience=self._account.app_id,
                issuer=self._account.issuer,
                leeway=SKEW,
                options={"require": _REQUIRED, "strict_aud": True},
            )
        except jwt.InvalidTokenError as error:
            return Refusal(_reason(error))

    def _remember(self, token: str, claims: dict[str, Any], key: Key) -> Sender | Refusal:
        service_url = claims.get("serviceurl")
        if not isinstance(service_url, str):
            return Refusal(Reason.SERVICE_URL)
        sender = Sender(service_url, key.endorsements)
        if len(self._good) >= REMEMBERED:
            self._good.clear()
        self._good[token] = _Remembered(sender, float(claims["exp"]) + SKEW, self._keys.version)
        return sender


#: In order: the first class that fits.
_REASONS: tuple[tuple[type[jwt.InvalidTokenError], Reason], ...] = (
    (jwt.ExpiredSignatureError, Reason.EXPIRED),
    (jwt.ImmatureSignatureError, Reason.NOT_YET),
    (jwt.InvalidIssuedAtError, Reason.NOT_YET),
    (jwt.InvalidAudienceError, Reason.AUDIENCE),
    (jwt.InvalidIssuerError, Reason.ISSUER),
    (jwt.InvalidAlgorithmError, Reason.ALGORITHM),
    (jwt.InvalidSignatureError, Reason.SIGNATURE),
)


def _reason(error: jwt.InvalidTokenError) -> Reason:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return {"iss": Reason.ISSUER, "aud": Reason.AUDIENCE}.get(error.claim, Reason.EXPIRED)
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.MALFORMED)
