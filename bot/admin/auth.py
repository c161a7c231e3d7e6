"""Who calls, and what they may: bearer tokens of 256 random bits, of which only the hash is kept.

A fast hash is enough for a secret of that length: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

from broadcast.ports import ApiToken, Clock, Random, Tokens

BOOTSTRAP_ID = "tok_bootstrap"
_LONGEST_TOKEN = 512


class Role(StrEnum):
    """What a token may do; each may do what those before it may."""

    VIEWER = "viewer"  # see everything
    EDITOR = "editor"  # import, write, try, launch, pause, stop
    APPROVER = "approver"  # approve what others wrote
    ADMIN = "admin"  # change accounts and tokens

    def covers(self, needed: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the id of their token."""

    id: str
    role: Role


class Unauthenticated(web.HTTPUnauthorized):
    """No token, or one that is not known."""

    def __init__(self, detail: str) -> None:
        super().__init__(text=detail, headers={"WWW-Authenticate": 'Bearer realm="clarion"'})


def token_hash(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_token(random: Random, clock: Clock, *, role: Role, name: str) -> tuple[str, ApiToken]:
    """A new token: what its owner is shown once, and what is kept."""
    secret = random.secret()
    return secret, ApiToken(random.id("tok"), token_hash(secret), role, name, clock.now())


async def admit(request: web.Request, needed: Role, tokens: Tokens, bootstrap_hash: str | None) -> Principal:
    """Who makes the request. Raises `Unauthenticated`, or 403 where their role is too low."""
    principal = await _known(token_hash(_bearer(request)), tokens, bootstrap_hash)
    if principal is None:
        raise Unauthenticated("this token is not known; ask for a new one, or make one with: clarion token create")
    if not principal.role.covers(needed):
        raise web.HTTPForbidden(text=f"this call needs the role {needed}; the token has {principal.role}")
    return principal


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
        raise Unauthenticated("send the header Authorization: Bearer TOKEN")
    return token


async def _known(hash: str, tokens: Tokens, bootstrap_hash: str | None) -> Principal | None:
    if bootstrap_hash is not None and hmac.compare_digest(hash, bootstrap_hash):
        return Principal(BOOTSTRAP_ID, Role.ADMIN)
    token = await tokens.token_by_hash(hash)
    if token is None or token.role not in list(Role):
        return None
    return Principal(token.id, Role(token.role))
