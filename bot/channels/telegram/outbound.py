"""Sending on Telegram: one POST a message, straight over the shared transport, read from the raw answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from telegram.constants import MessageLimit

from bot.channels.http import Http
from bot.channels.telegram import answers, calls
from bot.channels.telegram.account import TelegramAccount
from bot.channels.telegram.setup import TelegramSetup
from broadcast.model import Answer, BadContent, ChannelName, Conversation, Never, Sent
from broadcast.model import ConversationState as State
from broadcast.ports import Content, Features

log = structlog.get_logger(__name__)

_JSON = {"Content-Type": "application/json"}
_METHODS = ("sendMessage", "sendPhoto", "sendVideo", "sendDocument")


class TelegramChannel:
    """One bot, as the engine sees it."""

    name = ChannelName.TELEGRAM

    def __init__(self, account: TelegramAccount, *, http: Http | None = None) -> None:
        self.account = account.key
        # Bots get no receipts; about 30 messages a second in all and one a second into a chat (PLATFORMS C1).
        self.features = Features(
            reports_delivered=False,
            reports_read=False,
            rate=account.rate,
            conversation_limits=((1, 1.0),),
            text_limit=int(MessageLimit.MAX_TEXT_LENGTH),
        )
        self._settings = account
        self._http = http or Http()
        self._setup = TelegramSetup(account, self._http)
        self._urls = {method: account.url(method) for method in _METHODS}

    async def send(self, to: Conversation, content: Content) -> Answer:
        """One request. A message with more media than one call holds is sent once its first call is; what follows
        is tried once and its loss is logged."""
        try:
            made = calls.of(content)
        except calls.Unfit as unfit:
            return BadContent(str(unfit))
        answer = await self._deliver(_chat(to), made.first)
        if made.following and isinstance(answer, Sent):
            await self._follow(answer, to, made.following)
        return answer

    async def check(self) -> str | None:
        """``None`` if Telegram knows the bot; else what to do about it."""
        return await self._setup.check()

    @property
    def username(self) -> str | None:
        """The bot's own name for links such as ``https://t.me/NAME?start=…``; known once a `check` found nothing
        amiss."""
        return self._setup.username

    async def close(self) -> None:
        """Ends what is under way."""
        await self._http.close()

    async def _deliver(self, chat: int | str, call: calls.Call) -> Answer:
        answer = await self._once(chat, call)
        if not isinstance(answer, answers.Migrated):
            return answer
        # A refusal: nothing was accepted under the old id, so sending under the new one is no repeat.
        moved = answer.chat_id
        answer = await self._once(moved, call)
        if isinstance(answer, Sent):
            return Sent(answer.message_id, {"chat_id": moved})
        return Never(State.GONE, "the group moved twice") if isinstance(answer, answers.Migrated) else answer

    async def _once(self, chat: int | str, call: calls.Call) -> Answer | answers.Migrated:
        try:
            body = orjson.dumps({"chat_id": chat, **call.fields})
        except TypeError as error:
            return BadContent(f"cannot be written as JSON: {error}")
        exchange = await self._http.request("POST", self._urls[call.method], body, _JSON)
        return answers.meaning(exchange, token=self._settings.token)

    async def _follow(self, sent: Sent, to: Conversation, following: tuple[calls.Call, ...]) -> None:
        chat = _moved(sent.reference) or _chat(to)
        for call in following:
            answer = await self._once(chat, call)
            if not isinstance(answer, Sent):
                log.warning(
                    "a further medium of a message did not go out",
                    action="telegram_media_lost",
                    account=self.account,
                    method=call.method,
                    answer=type(answer).__name__,
                    detail=getattr(answer, "detail", ""),
                )


def _moved(reference: Mapping[str, Any] | None) -> int | str | None:
    return None if reference is None else reference.get("chat_id")


def _chat(to: Conversation) -> int | str:
    """The chat to write to: what was learned of a moved group, else the person's own id, which is their chat's."""
    chat = to.reference.get("chat_id", to.user_id)
    text = str(chat)
    return int(text) if text.removeprefix("-").isdecimal() else text
