"""What is done once at the start: does the token hold, where do updates go, which commands does the menu show."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import orjson
from telegram import Bot
from telegram.error import BadRequest, InvalidToken, TelegramError

from bot.channels.http import Http, Reply, scrub
from bot.channels.telegram.account import Mode, TelegramAccount
from bot.channels.telegram.request import HttpRequest
from bot.channels.telegram.updates import ALLOWED_UPDATES

#: What the menu offers (PLATFORMS E). Names of 1 to 32 of a-z, 0-9 and _.
COMMANDS = (
    ("start", "Receive messages"),
    ("stop", "Receive no more messages"),
    ("help", "What this bot does"),
)

# At DEBUG the library writes every call with its parameters, the webhook's secret among them.
logging.getLogger("telegram.Bot").setLevel(logging.INFO)


class TelegramSetup:
    """Checks and registers one bot. `username` is known after a `check` that found nothing amiss."""

    def __init__(self, account: TelegramAccount, http: Http) -> None:
        request = HttpRequest(http)
        self._account = account
        self._http = http
        self._bot = Bot(account.token, base_url=account.base_url, request=request, get_updates_request=request)
        self.username: str | None = None

    async def check(self) -> str | None:
        """``None`` if Telegram knows the bot, otherwise what to do about it."""
        return await self._tried(self._identify)

    async def connect(self, webhook: str) -> str | None:
        """Has updates sent to the address `webhook`, or in polling mode kept until asked for; sets the menu.
        ``None``, or what to do."""
        register = self._keep_updates if self._account.mode is Mode.POLLING else lambda: self._send_updates(webhook)
        return await self._tried(register) or await self._tried(self._set_menu)

    async def acknowledge(self, press: str) -> str | None:
        """Stops the spinner on a pressed button. ``None``, or why it could not be. One for every press, hence
        straight over the transport."""
        body = orjson.dumps({"callback_query_id": press})
        answer = await self._http.post_json(self._account.url("answerCallbackQuery"), body)
        if not isinstance(answer, Reply):
            return answer.detail
        data = answer.json()
        said = data if isinstance(data, dict) else {}
        if said.get("ok") is True:
            return None
        why = str(said.get("description") or f"HTTP {answer.status}")
        return scrub(why, self._account.token, self._account.secret)

    async def _identify(self) -> None:
        self.username = (await self._bot.get_me()).username

    async def _send_updates(self, webhook: str) -> None:
        await self._bot.set_webhook(webhook, allowed_updates=ALLOWED_UPDATES, secret_token=self._account.secret)

    async def _keep_updates(self) -> None:
        await self._bot.delete_webhook(drop_pending_updates=False)

    async def _set_menu(self) -> None:
        await self._bot.set_my_commands(COMMANDS)

    async def _tried(self, step: Callable[[], Awaitable[object]]) -> str | None:
        try:
            await step()
        except TelegramError as error:
            return scrub(self._mend(error), self._account.token, self._account.secret)
        return None

    def _mend(self, error: TelegramError) -> str:
        who = self._account.key
        match error:
            case InvalidToken():
                return f"{who}: Telegram does not know the token; take the current one from @BotFather"
            case BadRequest():  # a subclass of NetworkError, hence first
                return f"{who}: Telegram refuses this ({error.message}); a webhook needs a public https address"
        return f"{who}: {self._account.api_url} could not be used ({error.message}); is it reachable from here?"
