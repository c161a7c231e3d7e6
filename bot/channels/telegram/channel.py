"""A Telegram account as the host uses it: sends, receives, checks and registers itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from bot.channels.http import Http, HttpSettings
from bot.channels.telegram import inbound, outbound
from bot.channels.telegram.account import TelegramAccount
from bot.channels.telegram.polling import HOLD, poll
from bot.channels.telegram.setup import TelegramSetup
from bot.channels.webhook import Received
from broadcast.model import Answer, ChannelName, Conversation
from broadcast.ports import Clock, Content

log = structlog.get_logger(__name__)

#: How long `close` waits for acknowledgements, in seconds.
_LAST_MOMENT = 3.0
#: More presses than this waiting for their acknowledgement go without one: their buttons spin out.
_MOST_FOLLOW_UPS = 1000


class TelegramChannel:
    """One bot on Telegram. It owns its connections: `close` ends them.

    `http` sets time-outs and the number of connections; asking for updates holds a connection of its own open.
    """

    name = ChannelName.TELEGRAM

    def __init__(self, settings: TelegramAccount, *, clock: Clock, http: HttpSettings | None = None) -> None:
        self.account = settings.key
        self.features = outbound.features(settings)
        self._settings = settings
        self._clock = clock
        self._http = Http(http)
        self._polling = Http(replace(self._http.settings, total=HOLD + 15.0, connections=1))
        self._sender = outbound.TelegramSender(settings, self._http)
        self._setup = TelegramSetup(settings, self._http)
        self._follow_ups: set[asyncio.Task[None]] = set()

    async def send(self, to: Conversation, content: Content) -> Answer:
        """See `Channel.send`."""
        return await self._sender.send(to, content)

    async def receive(self, headers: Mapping[str, str], body: bytes) -> Received:
        """One callback of the webhook. A press is acknowledged to the platform by a task of its own."""
        refused = inbound.refusal(self._settings, headers, body)
        return refused or self._hear([inbound.update_in(body)])

    def poll(self) -> AsyncGenerator[Received, None]:
        """The same from asking, in polling mode; store a batch before asking for the next."""
        return poll(self._settings, self._polling, self._clock, self._hear)

    async def check(self) -> str | None:
        """``None`` if the account is connected, otherwise what to do about it."""
        return await self._setup.check()

    async def connect(self, public_url: str) -> str | None:
        """Registers the webhook below `public_url` (or none in polling mode) and the command menu. ``None``, or
        what to do. The host already listens when this is called."""
        return await self._setup.connect(f"{public_url.rstrip('/')}/webhooks/telegram/{self._settings.name}")

    @property
    def username(self) -> str | None:
        """The bot's own name for links such as ``https://t.me/NAME?start=…``; known after `check`."""
        return self._setup.username

    async def close(self) -> None:
        """Gives acknowledgements under way a moment to end, then closes the connections."""
        if self._follow_ups:
            _, late = await asyncio.wait(self._follow_ups, timeout=_LAST_MOMENT)
            for task in late:
                task.cancel()
        await self._polling.close()
        await self._http.close()

    def _hear(self, updates: Iterable[Any]) -> Received:
        now = self._clock.now()
        heard = [inbound.heard(self._settings, update, now) for update in updates]
        for one in heard:
            if one.press and len(self._follow_ups) < _MOST_FOLLOW_UPS:
                self._follow_up(one.press)
        return Received(inbound=tuple(one.inbound for one in heard if one.inbound))

    def _follow_up(self, press: str) -> None:
        task = asyncio.create_task(self._acknowledge(press), name=f"{self.account} acknowledges a press")
        self._follow_ups.add(task)
        task.add_done_callback(self._follow_ups.discard)

    async def _acknowledge(self, press: str) -> None:
        """A press that stays unacknowledged only spins a while; one that was too late is no fault."""
        trouble = await self._setup.acknowledge(press)
        if trouble:
            log.info(
                "a press was not acknowledged",
                action="telegram_press_unacknowledged",
                account=self.account,
                detail=trouble,
            )
