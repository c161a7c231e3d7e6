"""What Viber posts to us."""

from __future__ import annotations

from collections.abc import Mapping

from bot.channels.http import Http
from bot.channels.viber import callbacks
from bot.channels.viber.account import ViberAccount
from bot.channels.viber.setup import ViberSetup
from bot.channels.webhook import Received
from broadcast.ports import Clock


class ViberInbound:
    """One account's way in."""

    def __init__(self, account: ViberAccount, clock: Clock, *, http: Http | None = None) -> None:
        self._account = account
        self._clock = clock
        self._http = http or Http()
        self._setup = ViberSetup(account, self._http)

    async def receive(self, headers: Mapping[str, str], body: bytes) -> Received:
        """One callback of the webhook; its signature is proven before anything is read."""
        return callbacks.receive(self._account, headers, body, self._clock.now())

    async def connect(self, public_url: str) -> str | None:
        """Registers the webhook below `public_url`. ``None``, or what to do. The host already listens when this is
        called: Viber tries the address before it answers."""
        return await self._setup.connect(f"{public_url.rstrip('/')}/webhooks/viber/{self._account.name}")

    async def close(self) -> None:
        """Ends what is under way."""
        await self._http.close()
