"""Where platforms call us. Nothing is read before it is verified, nothing is answered before it is stored."""

from __future__ import annotations

from collections import Counter
from functools import partial
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from bot.accounts import Accounts, ConfiguredAccount
from bot.channels.webhook import BODY_LIMIT, Received
from bot.intake import Deed, Intake
from bot.settings import is_loopback
from broadcast.errors import StoreUnavailable
from broadcast.model import ChannelName

log = structlog.get_logger(__name__)

#: Seconds after which a platform may try again, where it asks.
_RETRY_AFTER = "5"


class Webhooks:
    """The callbacks of every account."""

    def __init__(self, accounts: Accounts, intake: Intake) -> None:
        self.refused: Counter[str] = Counter()
        """How many were turned away, by ``account reason``."""
        self._accounts = accounts
        self._intake = intake

    def routes(self) -> list[web.RouteDef]:
        known = self._accounts.all.items()
        return [
            web.post("/api/messages", self._teams),
            # Each by its own address: it is looked up, where a pattern would be tried on every callback.
            *(web.post(f"/webhooks/{key}", partial(self._received, one=one)) for key, one in known),
            web.post("/webhooks/{channel:teams|telegram|viber}/{name}", self._named),
        ]

    async def _teams(self, request: web.Request) -> web.StreamResponse:
        """The address of the only Teams account, or of the one called default."""
        teams = [one for one in self._accounts.all.values() if one.settings.channel is ChannelName.TEAMS]
        named = [one for one in teams if one.settings.name == "default"]
        found = named or teams
        if len(found) == 1:
            return await self._received(request, found[0])
        if found:
            return _plain(404, "There are several Teams accounts: use /webhooks/teams/NAME.")
        return _plain(404, "There is no Teams account: set CLARION_TEAMS_APP_ID.")

    async def _named(self, request: web.Request) -> web.StreamResponse:
        key = f"{request.match_info['channel']}/{request.match_info['name']}"
        one = self._accounts.all.get(key)
        return _plain(404, "There is no such account.") if one is None else await self._received(request, one)

    async def _received(self, request: web.Request, one: ConfiguredAccount) -> web.StreamResponse:
        if one.face is None:
            return self._refuse(request, one, Received(503, refused="not_connected"))
        if one.open and not _from_this_machine(request):
            return self._refuse(request, one, Received(403, refused="not_from_this_machine"))
        body = await _body(request)
        if body is None:
            return self._refuse(request, one, Received(413, refused="too_large"))
        received = await one.face.inlet.receive(request.headers, body)
        if received.refused is not None:
            return self._refuse(request, one, received)
        try:
            deeds = await self._intake.take(received)
        except StoreUnavailable as error:
            log.warning("not stored", action="store_unavailable", account=one.key, detail=str(error))
            return _plain(503, "The store does not answer; try again.", retry_after=_RETRY_AFTER)
        return await self._respond(request, received, deeds)

    async def _respond(self, request: web.Request, received: Received, deeds: list[Deed]) -> web.StreamResponse:
        """The platform's answer first, then people's: some show messages in the order they were sent."""
        response = web.Response(status=received.status, body=received.body)
        if received.body is not None:
            response.content_type = received.content_type
        try:
            if any(deed.is_answered for deed in deeds):
                await response.prepare(request)
                await response.write_eof()
        finally:
            self._intake.answer(deeds)
        return response

    def _refuse(self, request: web.Request, one: ConfiguredAccount, received: Received) -> web.Response:
        self.refused[f"{one.key} {received.refused}"] += 1
        log.warning(
            "turned away",
            action="webhook_refused",
            account=one.key,
            reason=received.refused,
            status=received.status,
            remote=request.remote,
            count=self.refused[f"{one.key} {received.refused}"],
        )
        return web.Response(status=received.status)


async def _body(request: web.Request) -> bytes | None:
    """The whole body; ``None`` for one that is too large, of which no more than the limit is read."""
    if (request.content_length or 0) > BODY_LIMIT:
        return None
    body = await request.content.readany()  # nearly always all of it
    while not request.content.at_eof():
        if len(body) > BODY_LIMIT:
            return None
        body += await request.content.readany()
    return None if len(body) > BODY_LIMIT else body


def _from_this_machine(request: web.Request) -> bool:
    """Whether a program on this machine asks. A page in its browser is none: it can neither name us by a loopback
    address from another site's name, nor send JSON without asking first."""
    host = urlsplit(f"//{request.host}").hostname or ""
    return (
        is_loopback(request.remote or "")
        and is_loopback(host)
        and request.content_type == "application/json"
        and "Origin" not in request.headers
    )


def _plain(status: int, text: str, *, retry_after: str | None = None) -> web.Response:
    return web.Response(status=status, text=text, headers={"Retry-After": retry_after} if retry_after else None)
