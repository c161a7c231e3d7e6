"""What Telegram tells us, by its webhook or by being asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from bot.channels.http import Http
from bot.channels.telegram import updates
from bot.channels.telegram.account import TelegramAccount
from bot.channels.telegram.polling import HOLD, poll
from bot.channels.telegram.setup import TelegramSetup
from bot.channels.webhook import Received
from broadcast.ports import Clock, Inbound

log = structlog.get_logger(__name__)

#: How long `close` waits for acknowledgements, in seconds.
_LAST_MOMENT = 3.0
#: More presses than this waiting for their acknowledgement go without one: their buttons spin out.
_MOST_FOLLOW_UPS = 1000


class TelegramInbound:
    """One account's way in. Presses are acknowledged to Telegram by tasks of their own; `close` waits for them."""

    def __init__(self, account: TelegramAccount, clock: Clock, *, http: Http | None = None) -> None:
        self._account = account
        self._clock = clock
        self._http = http or Http()
        # A question is held open longer than a request may take, and on a connection of its own.
        self._polling = Http(replace(self._http.settings, total=HOLD + 15.0, connections=1))
        self._setup = TelegramSetup(account, self._http)
        self._follow_ups: set[asyncio.Task[None]] = set()

    async def receive(self, headers: Mapping[str, str], body: bytes) -> Received:
        """One callback of the webhook; its secret is compared before anything is read."""
        refused = updates.refusal(self._account, headers, body)
        return refused or self._hear([updates.update_in(body)])

    def poll(self) -> AsyncGenerator[Received, None]:
        """The same from asking, in polling mode: batch after batch, for ever. A batch is confirmed to Telegram when
        the next one is asked for, so store it before. Close or cancel the generator to end it."""
        return poll(self._account, self._polling, self._clock, self._hear)

    async def connect(self, public_url: str) -> str | None:
        """Registers the webhook below `public_url` (or none in polling mode) and the command menu. ``None``, or
        what to do. The host already listens when this is called."""
        return await self._setup.connect(f"{public_url.rstrip('/')}/webhooks/telegram/{self._account.name}")

    async def close(self) -> None:
        """Gives acknowledgements under way a moment to end, then closes the connections."""
        if self._follow_ups:
            _, late = await asyncio.wait(self._follow_ups, timeout=_LAST_MOMENT)
            for task in late:
                task.cancel()
        await self._polling.close()
        await self._http.close()

    def _hear(self, found: Iterable[Any]) -> Received:
        now = self._clock.now()
        inbound: list[Inbound] = []
        for update in found:
            heard = updates.heard(self._account, update, now)
            if heard.inbound:
                inbound.append(heard.inbound)
            if heard.press and len(self._follow_ups) < _MOST_FOLLOW_UPS:
                self._follow_up(heard.press)
        return Received(inbound=tuple(inbound))

    def _follow_up(self, press: str) -> None:
        task = asyncio.create_task(self._acknowledge(press), name=f"{self._account.key} acknowledges a press")
        self._follow_ups.add(task)
        task.add_done_callback(self._follow_ups.discard)

    async def _acknowledge(self, press: str) -> None:
        """A press that stays unacknowledged only spins a while; one that was too late is no fault."""
        trouble = await self._setup.acknowledge(press)
        if trouble:
            log.info(
                "a press was not acknowledged",
                action="telegram_press_unacknowledged",
                account=self._account.key,
                detail=trouble,
            )
