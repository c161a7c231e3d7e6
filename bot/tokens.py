"""Bearer tokens of the admin endpoint: shown once, kept as a hash."""

from __future__ import annotations

import hashlib
from enum import StrEnum

from broadcast.ports import ApiToken, Clock, Random, Tokens

#: What every token begins with, so that one that got somewhere it should not be is recognised.
PREFIX = "clr_"
#: The token of the settings, which is what they say for as long as they say it.
BOOTSTRAP = "tok_settings"


class Role(StrEnum):
    """What a token may do; each may all that those before it may."""

    VIEWER = "viewer"  # look
    EDITOR = "editor"  # write campaigns, recipients, lists
    APPROVER = "approver"  # launch and approve
    ADMIN = "admin"  # everything


def hashed(secret: str) -> str:
    """What is kept of a token. A plain hash is enough: a token is 256 bits of chance, not a password."""
    return hashlib.sha256(secret.encode()).hexdigest()


async def issue(store: Tokens, clock: Clock, random: Random, *, role: Role, name: str) -> tuple[ApiToken, str]:
    """A new token and its secret, which is to be had now or never."""
    secret = PREFIX + random.secret()
    token = ApiToken(random.id("tok"), hashed(secret), role.value, name, clock.now())
    await store.save_token(token)
    return token, secret


async def first(store: Tokens, clock: Clock, random: Random, *, given: str | None) -> str | None:
    """Sees to it that somebody can get in: with the admin token of the settings, else with a fresh one where there is
    none at all. Answers the fresh one."""
    if given is not None:
        await store.save_token(ApiToken(BOOTSTRAP, hashed(given), Role.ADMIN.value, "settings", clock.now()))
        return None
    if await store.tokens():
        return None
    _, secret = await issue(store, clock, random, role=Role.ADMIN, name="first")
    return secret
