"""What we post to Teams."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from urllib.parse import quote

import orjson

from bot.channels.http import Http, NoAnswer, NoConnection, Reply
from bot.channels.teams import answers, cards
from bot.channels.teams.account import Reference, TeamsAccount, reference_of
from bot.channels.teams.token import ClientCredentials, Granted, Refused
from broadcast.model import Answer, BadContent, ChannelName, Conversation, Faulty, Sent, StopAccount, Unknown
from broadcast.ports import Content, Features

#: For one conversation, as Teams counts them: (messages, seconds) (PLATFORMS A4).
CONVERSATION_LIMITS = ((7, 1.0), (8, 2.0), (60, 30.0), (1800, 3600.0))
#: 80 KB of UTF-16, so that a card around the text stays below the 100 KB that Teams takes (PLATFORMS A8).
TEXT_LIMIT = 40_000


class _Remedy(Enum):
    """What may cure a refusal, each tried once in a send; the refused request left no trace."""

    NEW_TOKEN = auto()
    OTHER_HOST = auto()


@dataclass(frozen=True, slots=True)
class _Where:
    """A service address, and the conversation there once it is known."""

    service_url: str
    conversation_id: str | None


class TeamsChannel:
    """One app registration, as the engine sees it."""

    name = ChannelName.TEAMS

    def __init__(
        self, account: TeamsAccount, *, http: Http | None = None, tokens: ClientCredentials | None = None
    ) -> None:
        self.account = account.key
        self.features = Features(
            reports_delivered=False,
            reports_read=True,
            rate=account.rate,
            conversation_limits=CONVERSATION_LIMITS,
            text_limit=TEXT_LIMIT,
        )
        self._settings = account
        self._http = http or Http()
        self._tokens = tokens or ClientCredentials(self._http, account)

    async def send(self, to: Conversation, content: Content) -> Answer:
        """One request, and one before it where the 1:1 chat is not known yet."""
        try:
            body = cards.activity(content)
        except orjson.JSONEncodeError:
            return BadContent("the text cannot be written as UTF-8")
        known = reference_of(to)
        where = _Where(self._service_url(known), known.conversation_id)
        if where.conversation_id is None:
            found = await self._create(to, known, where)
            if not isinstance(found, _Where):
                return found
            where = found
        answer, where = await self._post(where, body)
        return _learned(answer, known, where)

    async def check(self) -> str | None:
        """``None`` if the account can sign in; else what to do about it."""
        if not self._settings.app_id:
            return None
        grant = await self._tokens.grant()
        return None if isinstance(grant, Granted) else grant.detail

    async def close(self) -> None:
        """Ends what is under way."""
        await self._tokens.close()
        await self._http.close()

    def _service_url(self, known: Reference) -> str:
        """The person's own, unless it is not (or no longer) an allowed one."""
        url = known.service_url
        return url if url is not None and self._settings.allows(url) else self._settings.home

    async def _create(self, to: Conversation, known: Reference, where: _Where) -> _Where | Answer:
        """The 1:1 chat with the person. Teams makes one and gives the same again, so that a lost answer here costs
        nothing: no message was sent."""
        answer, where, reply = await self._exchange(where, "v3/conversations", self._members(to, known))
        if isinstance(answer, Unknown):
            return Faulty(answer.detail)
        if not isinstance(answer, Sent) or reply is None:
            return answer
        body = reply.json()
        made = body if isinstance(body, dict) else {}
        if not answer.message_id:
            return Faulty(f"{reply.status} without a conversation")
        service_url = made.get("serviceUrl")
        if isinstance(service_url, str) and self._settings.allows(service_url):
            where = replace(where, service_url=service_url)
        return replace(where, conversation_id=answer.message_id)

    def _members(self, to: Conversation, known: Reference) -> bytes:
        tenant = known.tenant_id or self._settings.tenant_id
        return orjson.dumps(
            {
                "bot": {"id": known.bot_id or self._settings.bot_id},
                "members": [{"id": known.user_id or to.user_id}],
                "channelData": {"tenant": {"id": tenant}},
                "tenantId": tenant,
                "isGroup": False,
            }
        )

    async def _post(self, where: _Where, body: bytes) -> tuple[Answer, _Where]:
        path = f"v3/conversations/{quote(where.conversation_id or '', safe='')}/activities"
        answer, where, _ = await self._exchange(where, path, body)
        return answer, where

    async def _exchange(self, where: _Where, path: str, body: bytes) -> tuple[Answer, _Where, Reply | None]:
        """Posts with our token, and again after each remedy that fits the refusal; says where it ended up."""
        untried = set(_Remedy)
        if not self._settings.allows(self._settings.gcc_service_url):
            untried.remove(_Remedy.OTHER_HOST)
        refused: str | None = None
        while True:
            token = await self._bearer(refused)
            if isinstance(token, Faulty | StopAccount):
                return token, where, None
            reply = await self._once(where, path, body, token)
            if not isinstance(reply, Reply):
                return reply, where, None
            remedy = _remedy(reply)
            if remedy is None or remedy not in untried:
                return answers.answer(reply), where, reply
            untried.remove(remedy)
            if remedy is _Remedy.NEW_TOKEN:
                refused = token
            else:
                where = replace(where, service_url=self._settings.gcc_service_url)

    async def _once(self, where: _Where, path: str, body: bytes, token: str) -> Reply | Faulty | Unknown:
        if not self._settings.allows(where.service_url):
            return Faulty("the service address is not an allowed one")
        url = f"{where.service_url.rstrip('/')}/{path}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        match await self._http.post_json(url, body, headers):
            case Reply() as reply:
                return reply
            case NoConnection(detail):
                return Faulty(detail)
            case NoAnswer(detail):
                return Unknown(detail)

    async def _bearer(self, refused: str | None) -> str | Faulty | StopAccount:
        """A token; an empty one for local emulators, which ask for none."""
        if not self._settings.app_id:
            return ""
        match await self._tokens.grant(refused):
            case Granted(token):
                return token
            case Refused(detail):
                return StopAccount(detail)
            case unavailable:
                return Faulty(unavailable.detail)


def _remedy(reply: Reply) -> _Remedy | None:
    if reply.status == 401:
        return _Remedy.NEW_TOKEN
    if reply.status == 403 and answers.code_in(reply) == answers.WRONG_HOST:
        return _Remedy.OTHER_HOST
    return None


def _learned(answer: Answer, known: Reference, where: _Where) -> Answer:
    """What a send that went through tells beyond what was known."""
    if not isinstance(answer, Sent):
        return answer
    if (where.service_url, where.conversation_id) == (known.service_url, known.conversation_id):
        return answer
    learned = Reference(service_url=where.service_url, conversation_id=where.conversation_id)
    return replace(answer, reference=learned.as_json())
