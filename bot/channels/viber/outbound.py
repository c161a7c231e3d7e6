"""Sending on Viber: one POST a message, over the shared transport."""

from __future__ import annotations

import structlog
from yarl import URL

from bot.channels.http import Http
from bot.channels.viber import answers, content
from bot.channels.viber.account import ViberAccount
from broadcast.model import Answer, BadContent, ChannelName, Conversation, Sent
from broadcast.ports import Content, Features

log = structlog.get_logger(__name__)

NAME = ChannelName.VIBER


class ViberSender:
    """The `send` of a Viber account."""

    def __init__(self, account: ViberAccount, http: Http) -> None:
        self._account = account
        self._http = http
        self._url = URL(account.url("send_message"))
        self._headers = headers(account)

    async def send(self, to: Conversation, message: Content) -> Answer:
        """See `Channel.send`. A message with more media than one request holds is sent once its first request is;
        what follows it is tried once and its loss is logged."""
        try:
            messages = content.messages(message)
        except content.Unfit as unfit:
            return BadContent(str(unfit))
        answer = await self._once(to, messages.first)
        if messages.following and isinstance(answer, Sent):
            await self._follow(to, messages.following)
        return answer

    async def _once(self, to: Conversation, fields: content.Fields) -> Answer:
        try:
            body = content.body(self._account, to.user_id, fields)
        except content.Unfit as unfit:
            return BadContent(str(unfit))
        exchange = await self._http.request("POST", self._url, body, self._headers)
        return answers.meaning(exchange, token=self._account.token)

    async def _follow(self, to: Conversation, following: tuple[content.Fields, ...]) -> None:
        for fields in following:
            answer = await self._once(to, fields)
            if not isinstance(answer, Sent):
                log.warning(
                    "a further medium of a message did not go out",
                    action="viber_media_lost",
                    account=self._account.key,
                    answer=type(answer).__name__,
                    detail=getattr(answer, "detail", ""),
                )


def headers(account: ViberAccount) -> dict[str, str]:
    """What every request carries."""
    return {"Content-Type": "application/json", "X-Viber-Auth-Token": account.token}


def features(account: ViberAccount) -> Features:
    """Both receipts; 500 messages in 10 s in all, 100 an hour to somebody who does not reply (PLATFORMS D1)."""
    return Features(
        reports_delivered=True,
        reports_read=True,
        rate=account.rate,
        conversation_limits=((100, 3600.0),),
        text_limit=content.TEXT_LIMIT,
    )
