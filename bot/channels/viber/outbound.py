"""Sending on Viber: one POST a message, over the shared transport."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from bot.channels.http import Http
from bot.channels.viber import answers, messages
from bot.channels.viber.account import ViberAccount
from bot.channels.viber.setup import ViberSetup
from broadcast.model import Answer, BadContent, ChannelName, Conversation, Sent
from broadcast.ports import Content, Features

log = structlog.get_logger(__name__)


class ViberChannel:
    """One bot, as the engine sees it."""

    name = ChannelName.VIBER

    def __init__(self, account: ViberAccount, *, http: Http | None = None) -> None:
        self.account = account.key
        # Both receipts; 500 messages in 10 s in all, 100 an hour to somebody who does not reply (PLATFORMS D1).
        self.features = Features(
            reports_delivered=True,
            reports_read=True,
            rate=account.rate,
            conversation_limits=((100, 3600.0),),
            text_limit=messages.TEXT_LIMIT,
        )
        self._settings = account
        self._http = http or Http()
        self._setup = ViberSetup(account, self._http)
        self._url = account.url("send_message")
        self._headers = account.headers()

    async def send(self, to: Conversation, content: Content) -> Answer:
        """One request. A message with more media than one request holds is sent once its first request is; what
        follows it is tried once and its loss is logged."""
        try:
            made = messages.of(content)
        except messages.Unfit as unfit:
            return BadContent(str(unfit))
        answer = await self._once(to, made.first)
        if made.following and isinstance(answer, Sent):
            await self._follow(to, made.following)
        return answer

    async def check(self) -> str | None:
        """``None`` if Viber knows the bot; else what to do about it."""
        return await self._setup.check()

    async def ask(self, method: str, fields: Mapping[str, object], /) -> Mapping[str, object]:
        """What `presence.viber.ViberPresence` asks through. Raises `PresenceUnavailable`."""
        return await self._setup.ask(method, fields)

    async def close(self) -> None:
        """Ends what is under way."""
        await self._http.close()

    async def _once(self, to: Conversation, fields: messages.Fields) -> Answer:
        try:
            body = messages.body(self._settings, to.user_id, fields)
        except messages.Unfit as unfit:
            return BadContent(str(unfit))
        exchange = await self._http.request("POST", self._url, body, self._headers)
        return answers.meaning(exchange, token=self._settings.token)

    async def _follow(self, to: Conversation, following: tuple[messages.Fields, ...]) -> None:
        for fields in following:
            answer = await self._once(to, fields)
            if not isinstance(answer, Sent):
                log.warning(
                    "a further medium of a message did not go out",
                    action="viber_media_lost",
                    account=self.account,
                    answer=type(answer).__name__,
                    detail=getattr(answer, "detail", ""),
                )
