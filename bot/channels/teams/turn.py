"""What one activity says to us (PLATFORMS A1, A6, A7): who did what, and how to reach them from now on."""

from __future__ import annotations

import hashlib
import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from bot.channels.teams.account import Reference, TeamsAccount
from bot.channels.teams.cards import PAYLOAD
from broadcast.model import ChannelName, EventType, Receipt
from broadcast.ports import Inbound, Person, Said

Json = Mapping[str, Any]

#: How a pressed Action.Execute is answered: a word shown below the card, which stays as it is.
PRESSED_ANSWER = {"statusCode": 200, "type": "application/vnd.microsoft.activity.message", "value": "OK"}


@dataclass
class Turn:
    """One activity, being read. `now` stands in where the activity tells no time, `digest` (of the body) where it
    has no id. What was found is in `inbound`, `receipts` and `answer` (the body an invoke is answered with)."""

    account: TeamsAccount
    raw: Json
    now: datetime
    digest: str
    inbound: list[Inbound] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    answer: Json | None = None

    # What people do

    def message(self) -> None:
        """Words, or a pressed Action.Submit: that is a message with a value."""
        payload = _payload(self.raw.get("value"))
        if payload is not None:
            self._note(Said.PRESSED, payload)
        elif words := self._words():
            self._note(Said.TEXT, words)
        else:
            self.seen()

    def invoked(self) -> None:
        """A pressed Action.Execute; other invokes mean nothing."""
        if self.raw.get("name") != "adaptiveCard/action":
            return
        self.answer = PRESSED_ANSWER
        payload = _payload(_of(_of(self.raw, "value"), "action").get("data"))
        if payload is None:
            self.seen()
        else:
            self._note(Said.PRESSED, payload)

    def installed(self) -> None:
        """In a team the one who installed is not the one who subscribed: they only showed up."""
        self._note(Said.SUBSCRIBED if self._is_personal else Said.SEEN)

    def removed(self) -> None:
        """From the person's own chats; a team that removes the bot shuts nobody out."""
        if self._is_personal:
            self._note(Said.BLOCKED)

    def members_added(self) -> None:
        """People who can be reached from now on. Installing is told a second time by ``installationUpdate``, and
        subscribing happens there: somebody who installs is greeted once."""
        added: list[Json] = [member for member in _list(self.raw, "membersAdded") if isinstance(member, dict)]
        people = [member for member in added if not self._is_bot(member)]
        for member in people or ([_of(self.raw, "from")] if added else []):
            self._note(Said.SEEN, who=member)

    def seen(self) -> None:
        """Reacted, or sent what we do not read."""
        self._note(Said.SEEN)

    def read(self, receipt: object) -> None:
        """Everything up to the named message is read (PLATFORMS A6); told of 1:1 chats only."""
        last = receipt.get("lastReadMessageId") if isinstance(receipt, dict) else None
        user_id = _user_id(_of(self.raw, "from"))
        if last is None or user_id is None:
            return
        read = EventType.READ
        self.receipts.append(Receipt(self.account.key, user_id, read, str(last), self._at, up_to=True))

    # What they are noted with

    def _note(self, said: Said, text: str = "", who: Json | None = None) -> None:
        whose = _of(self.raw, "from") if who is None else who
        user_id = _user_id(whose)
        if user_id is None:
            return
        noted = Inbound(
            key=self._key(user_id),
            account=self.account.key,
            channel=ChannelName.TEAMS,
            person=self._person(user_id, whose),
            said=said,
            at=self._at,
            text=text,
            reference=self._reference(whose).as_json(),
        )
        self.inbound.append(noted)

    def _key(self, user_id: str) -> str:
        """Message ids are milliseconds: unique in a conversation only."""
        where = f"{_text(_of(self.raw, 'conversation'), 'id')} {user_id}"
        id = _text(self.raw, "id") or self.digest
        return f"{self.raw.get('type')}:{id}:{hashlib.blake2b(where.encode(), digest_size=9).hexdigest()}"

    @cached_property
    def _at(self) -> datetime:
        try:
            at = datetime.fromisoformat(str(self.raw.get("timestamp")))
        except ValueError:
            return self.now
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)

    @cached_property
    def _is_personal(self) -> bool:
        conversation = _of(self.raw, "conversation")
        kind = conversation.get("conversationType")
        return kind == "personal" if kind else not conversation.get("isGroup")

    def _is_bot(self, member: Json) -> bool:
        id = _text(member, "id")
        return id is None or id.startswith("28:") or id == _text(_of(self.raw, "recipient"), "id")

    def _person(self, user_id: str, whose: Json) -> Person:
        first, last = _names(whose)
        if whose is not _of(self.raw, "from") and _user_id(_of(self.raw, "from")) != user_id:
            return Person(user_id, first_name=first, last_name=last)  # locale and zone are the sender's
        client = self._client
        return Person(
            user_id=user_id,
            first_name=first,
            last_name=last,
            email=_text(whose, "email"),
            locale=_text(client, "locale") or _text(self.raw, "locale"),
            timezone=_zone(_text(client, "timezone")) or _zone(_text(self.raw, "localTimezone")),
            country=_text(client, "country"),
        )

    def _reference(self, whose: Json) -> Reference:
        """The service address is kept only if it is an allowed one: our token will go there."""
        service_url = _text(self.raw, "serviceUrl")
        conversation = _of(self.raw, "conversation")
        tenant = _text(_of(_of(self.raw, "channelData"), "tenant"), "id") or _text(conversation, "tenantId")
        bot_id = _text(_of(self.raw, "recipient"), "id")
        return Reference(
            service_url=service_url if service_url and self.account.allows(service_url) else None,
            conversation_id=_text(conversation, "id") if self._is_personal else None,
            tenant_id=tenant,
            bot_id=bot_id,
            user_id=_text(whose, "id"),
        )

    @cached_property
    def _client(self) -> Json:
        return next((one for one in self._entities if one.get("type") == "clientInfo"), {})

    def _words(self) -> str:
        """The text without the bot's own name, which a team's members have to put before it."""
        text = _text(self.raw, "text") or ""
        me = _text(_of(self.raw, "recipient"), "id")
        for entity in self._entities:
            named = _text(entity, "text")
            if named and entity.get("type") == "mention" and _of(entity, "mentioned").get("id") == me:
                text = text.replace(named, " ")
        return text.replace("\xa0", " ").strip()

    @property
    def _entities(self) -> Iterable[Json]:
        return (one for one in _list(self.raw, "entities") if isinstance(one, dict))


def _of(json: Json, name: str) -> Json:
    """The object of that name; an empty one where there is none."""
    value = json.get(name)
    return value if isinstance(value, dict) else {}


def _list(json: Json, name: str) -> list[Any]:
    value = json.get(name)
    return value if isinstance(value, list) else []


def _text(json: Json, name: str) -> str | None:
    value = json.get(name)
    return value if isinstance(value, str) and value else None


def _payload(value: object) -> str | None:
    """Ours, among whatever inputs and cards of others put into a value."""
    payload = value.get(PAYLOAD) if isinstance(value, dict) else None
    return payload if isinstance(payload, str) else None


def _user_id(user: Json) -> str | None:
    """The Entra object id; emulators may know the ``29:`` id only."""
    return _text(user, "aadObjectId") or _text(user, "objectId") or _text(user, "id")


def _names(user: Json) -> tuple[str | None, str | None]:
    """First and last name. Most activities tell the display name only: ``Ann Ash``, or ``Ash, Ann``."""
    given, surname = _text(user, "givenName"), _text(user, "surname")
    if given or surname:
        return given, surname
    name = (_text(user, "name") or "").strip()
    before, comma, after = name.partition(",")
    first, _, last = (f"{after.strip()} {before.strip()}" if comma else name).partition(" ")
    return first or None, last.strip() or None


def _zone(name: str | None) -> str | None:
    """The name, if it is a zone this machine knows."""
    try:
        return zoneinfo.ZoneInfo(name).key if name else None
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None
