"""Tracked links: who follows one is counted and sent on, to where the broadcast's own message says.

The token names a delivery and a button and is signed; the target is looked up. Nothing in a request can lead
anywhere that the communications team did not write (docs/decisions/0005).
"""

from __future__ import annotations

import asyncio
import re

import structlog
from aiohttp import web

from bot.tasks import Tasks
from broadcast import launching, message, retention
from broadcast.errors import StoreUnavailable
from broadcast.inbox import Reception
from broadcast.model import Button, ButtonType, Delivery
from broadcast.ports import Random, Store
from broadcast.tracking import Links, Press

log = structlog.get_logger(__name__)

#: Real seconds that somebody who follows a link waits for the click to be stored; it is stored all the same.
PATIENCE = 1.0
MOST_CLICKS = 10_000

#: Programs that fetch what a message links to, to show a preview or to look for harm. `CUBOT` is a telephone.
_PREVIEW = re.compile(
    r"(?<!cu)bot\b|bot[/;]|crawl|spider|preview|facebookexternalhit|whatsapp|slurp|embedly|skypeuri|safelinks"
    r"|microsoft office|ms-office|barracuda|proofpoint|mimecast|headlesschrome",
    re.IGNORECASE,
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>{title}</title><body style='font-family:sans-serif;margin:4rem auto;max-width:32rem'>"
    "<h1>{title}</h1><p>{text}</p></body></html>"
)


class Redirect:
    """``GET /r/{token}``."""

    def __init__(self, store: Store, reception: Reception, links: Links, random: Random) -> None:
        self._store = store
        self._reception = reception
        self._links = links
        self._random = random
        self._clicks = Tasks("clicks", limit=MOST_CLICKS)

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/r/{token}", self._follow, allow_head=True)]

    async def close(self) -> None:
        """Clicks that are being stored get a moment."""
        await self._clicks.close(patience=2.0, grace=1.0)

    async def _follow(self, request: web.Request) -> web.Response:
        press = self._links.read(request.match_info["token"])
        if press is None:
            return _page(404, "No such page", "This link is not one of ours, or it is no longer kept.")
        try:
            target = await self._target(press)
        except StoreUnavailable as error:
            log.warning("a link could not be looked up", action="store_unavailable", detail=str(error))
            return _page(503, "One moment", "This cannot be looked up right now. Please try again in a minute.")
        if target is None:
            return _page(404, "No such page", "This link is no longer kept.")
        if counts(request):
            await self._count(press)
        return web.Response(status=302, headers={**_HEADERS, "Location": target})

    async def _target(self, press: Press) -> str | None:
        delivery = await self._store.delivery(press.delivery)
        if delivery is None:
            return await self._lasting_target(press)
        if delivery.channel is None:
            return None
        button = await self._button(delivery, press.button)
        recipient = await self._store.recipient(delivery.recipient)
        if button is None:
            return None
        return _checked(message.target(button, recipient) if recipient else message.common_target(button))

    async def _lasting_target(self, press: Press) -> str | None:
        """The delivery is not kept any more, its broadcast is. Only a link that we signed comes this far."""
        begins = launching.origin(press.delivery)
        found = await self._store.broadcasts_beginning(begins) if begins else []
        return _checked(retention.lasting_target(found, press.button))

    async def _button(self, delivery: Delivery, id: str) -> Button | None:
        broadcast = await self._store.broadcast(delivery.broadcast)
        if broadcast is None or delivery.channel is None:
            return None
        buttons = broadcast.message.on(delivery.channel).buttons
        return next((one for one in buttons if one.id == id and one.type is not ButtonType.REPLY), None)

    async def _count(self, press: Press) -> None:
        """Waits until the click is stored, but not for long: nobody is kept from the page by our trouble."""
        key = self._random.id("clk")
        stored = self._clicks.start(self._reception.clicked(press, key=key), f"click on {press.delivery}")
        if stored is not None:
            await asyncio.wait({stored}, timeout=PATIENCE)


def _checked(target: str | None) -> str | None:
    """What was stored passed validation once; it is looked at again where it takes effect."""
    return None if list(message.url_faults("url", target)) else target


def counts(request: web.Request) -> bool:
    """Whether a person follows the link: no look ahead, no preview, no scanner that says what it is."""
    purpose = request.headers.get("Sec-Purpose", "") + request.headers.get("Purpose", "")
    agent = request.headers.get("User-Agent", "")
    return request.method == "GET" and "prefetch" not in purpose and not _PREVIEW.search(agent)


def _page(status: int, title: str, text: str) -> web.Response:
    return web.Response(
        status=status, text=_PAGE.format(title=title, text=text), content_type="text/html", headers=_HEADERS
    )
