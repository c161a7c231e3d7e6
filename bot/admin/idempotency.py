"""`Idempotency-Key`: the same key and body within a day gives the first answer again.

A key is one caller's, for one address. Two calls with it at the same time are one after the other within a process.
What ended in a fault of ours (5xx) is not kept, so that it can be tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from weakref import WeakValueDictionary

import orjson
import structlog
from aiohttp import web

from bot.admin.auth import Principal
from broadcast.errors import Fault, Invalid, StoreUnavailable
from broadcast.ports import Clock, Tokens

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT_FOR = timedelta(hours=24)
MAX_KEY = 255

log = structlog.get_logger(__name__)

Act = Callable[[], Awaitable[web.Response]]


class Answers:
    """The first answers, kept in the store."""

    def __init__(self, tokens: Tokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def once(self, request: web.Request, by: Principal, digest: str, act: Act) -> web.Response:
        """What `act` answers, or answered the first time. Without a key it just acts. Raises `Invalid` for a key
        that came with another body."""
        given = request.headers.get(HEADER)
        if given is None:
            return await act()
        key = _scoped(_checked(given), request, by)
        async with self._under_way.setdefault(key, asyncio.Lock()):
            return await self._first(key, digest, act)

    async def _first(self, key: str, digest: str, act: Act) -> web.Response:
        known = await self._tokens.remembered_answer(key, self._clock.now() - KEPT_FOR)
        if known is not None:
            fingerprint, answer = known
            if fingerprint != digest:
                raise Invalid([Fault(HEADER, "was used with another body; take a new key for a new call")])
            return _unpacked(answer)
        response = await act()
        if response.status < 500:
            await self._keep(key, digest, response)
        return response

    async def _keep(self, key: str, digest: str, response: web.Response) -> None:
        """What was done is done: where it cannot be noted, its caller hears of it all the same."""
        try:
            await self._tokens.remember_answer(key, digest, _packed(response), self._clock.now())
        except StoreUnavailable:
            log.warning("an answer was not kept for its key", action="answer_not_kept", status=response.status)


def _checked(key: str) -> str:
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise Invalid([Fault(HEADER, f"is 1 to {MAX_KEY} printable characters")])
    return key


def _scoped(key: str, request: web.Request, by: Principal) -> str:
    """Of fixed length, whatever the key and the address are."""
    text = "\x1f".join((by.id, request.method, request.path, key))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _packed(response: web.Response) -> bytes:
    body = response.body if isinstance(response.body, bytes) else b""
    return orjson.dumps({"status": response.status, "type": response.content_type, "body": body.decode()})


def _unpacked(answer: bytes) -> web.Response:
    kept = orjson.loads(answer)
    return web.Response(
        status=kept["status"],
        body=kept["body"].encode(),
        content_type=kept["type"],
        headers={REPLAYED: "true"},
    )
