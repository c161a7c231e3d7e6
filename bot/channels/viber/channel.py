"""A Viber account as the host uses it: sends, receives, checks and registers itself."""

from __future__ import annotations

from collections.abc import Mapping

from bot.channels.http import Http, HttpSettings
from bot.channels.viber import inbound, outbound
from bot.channels.viber.account import ViberAccount
from bot.channels.viber.setup import ViberSetup
from bot.channels.webhook import Received
from broadcast.model import Answer, ChannelName, Conversation
from broadcast.ports import Clock, Content


class ViberChannel:
    """One bot on Viber. It owns its connections: `close` ends them. `http` sets time-outs and their number."""

    name = ChannelName.VIBER

    def __init__(self, settings: ViberAccount, *, clock: Clock, http: HttpSettings | None = None) -> None:
        self.account = settings.key
        self.features = outbound.features(settings)
        self._settings = settings
        self._clock = clock
        self._http = Http(http)
        self._sender = outbound.ViberSender(settings, self._http)
        self._setup = ViberSetup(settings, self._http)

    async def send(self, to: Conversation, content: Content) -> Answer:
        """See `Channel.send`."""
        return await self._sender.send(to, content)

    async def receive(self, headers: Mapping[str, str], body: bytes) -> Received:
        """One callback of the webhook."""
        return inbound.receive(self._settings, headers, body, self._clock.now())

    async def check(self) -> str | None:
        """``None`` if the account is connected, otherwise what to do about it."""
        return await self._setup.check()

    async def connect(self, public_url: str) -> str | None:
        """Registers the webhook below `public_url`. ``None``, or what to do. The host already listens when this is
        called: Viber tries the address before it answers."""
        return await self._setup.connect(f"{public_url.rstrip('/')}/webhooks/viber/{self._settings.name}")

    async def ask(self, method: str, fields: Mapping[str, object]) -> Mapping[str, object]:
        """What `presence.viber.ViberPresence` asks through. Raises `PresenceUnavailable`."""
        return await self._setup.ask(method, fields)

    async def close(self) -> None:
        await self._http.close()
