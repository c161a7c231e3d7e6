"""What Telegram tells: from one update to what a person did. Only private chats are a person's."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
import structlog
from telegram import Update
from telegram.constants import ChatMemberStatus, ChatType

from bot.channels.telegram.account import TelegramAccount
from bot.channels.webhook import BODY_LIMIT, Received, header
from broadcast.evolve import maker
from broadcast.model import ChannelName
from broadcast.ports import Inbound, Person, Said

log = structlog.get_logger(__name__)

T = TypeVar("T")

SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - the name of a header

#: What is asked for; Telegram keeps the rest to itself (PLATFORMS C5).
ALLOWED_UPDATES = (
    Update.MESSAGE,
    Update.CALLBACK_QUERY,
    Update.MY_CHAT_MEMBER,
    Update.MESSAGE_REACTION,
)

_MEMBERSHIP: Mapping[str, Said] = {
    ChatMemberStatus.BANNED: Said.BLOCKED,  # "kicked" on the wire: the person blocked the bot
    ChatMemberStatus.MEMBER: Said.SUBSCRIBED,
}


@dataclass(frozen=True, slots=True)
class Heard:
    """What one update holds: a person's deed, if any, and the id of a press that waits to be acknowledged."""

    inbound: Inbound | None = None
    press: str | None = None


@dataclass(slots=True)
class _Act:
    """Somebody's deed, before it is told in the words of the port."""

    user: Mapping[str, Any]
    said: Said
    at: datetime
    text: str = ""
    start_payload: str | None = None


def refusal(account: TelegramAccount, headers: Mapping[str, str], body: bytes) -> Received | None:
    """Why a callback is not looked at; ``None`` for one that Telegram sent. The secret is compared before anything
    else, in constant time."""
    given = header(headers, SECRET_HEADER)
    if not hmac.compare_digest(given.encode(errors="replace"), account.secret.encode()):
        return Received(status=403, refused="bad_secret")
    if len(body) > BODY_LIMIT:
        return Received(status=413, refused="too_large")
    return None


def update_in(body: bytes) -> object:
    """The update in a callback's body, ``None`` where there is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def heard(account: TelegramAccount, data: object, now: datetime) -> Heard:
    """What an update says. One that is unknown, or is not shaped as documented, says nothing."""
    if not isinstance(data, dict) or not isinstance(data.get("update_id"), int):
        return _unreadable(account, "no update_id")
    try:
        return _heard(account, data, now)
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        return _unreadable(account, type(error).__name__)


def _unreadable(account: TelegramAccount, why: str) -> Heard:
    log.warning("an update could not be read", action="telegram_update_unreadable", account=account.key, why=why)
    return Heard()


def _heard(account: TelegramAccount, update: Mapping[str, Any], now: datetime) -> Heard:
    """Read from the JSON itself, and of it only what is needed: to make the library's objects of all of it took
    longer than to store what came of it. Raises where a field is missing or is not what it should be."""
    query = update.get(Update.CALLBACK_QUERY)
    press = _is(str, query["id"]) if query else None
    act = _act(update, now)
    if act is None or _is(bool, act.user["is_bot"]):
        return Heard(press=press)
    return Heard(_told(account, update["update_id"], act), press)


def _is(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"not a {kind.__name__}")
    return value


def _or_none(kind: type[T], value: Any) -> T | None:
    """The value, ``None`` where there is none or it is empty."""
    return _is(kind, value) if value else None


def _act(update: Mapping[str, Any], now: datetime) -> _Act | None:
    if message := update.get(Update.MESSAGE):
        return _written(_is(dict, message))
    if query := update.get(Update.CALLBACK_QUERY):
        return _pressed(_is(dict, query), now)
    if change := update.get(Update.MY_CHAT_MEMBER):
        return _membership(_is(dict, change))
    if reaction := update.get(Update.MESSAGE_REACTION):
        return _reacted(_is(dict, reaction))
    return None


def _is_private(holder: Mapping[str, Any]) -> bool:
    """Whether it was in the chat of one person with the bot."""
    return bool(_is(dict, holder["chat"])["type"] == ChatType.PRIVATE)


def _date(holder: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(holder["date"], UTC)


def _written(message: Mapping[str, Any]) -> _Act | None:
    at, user = _date(message), _or_none(dict, message.get("from"))
    if not _is_private(message) or user is None:
        return None
    text = _or_none(str, message.get("text")) or _or_none(str, message.get("caption"))
    if text is None:
        return _Act(user, Said.SEEN, at)
    return _Act(user, Said.TEXT, at, *_words(text))


def _words(text: str) -> tuple[str, str | None]:
    """The text, and the payload of the link behind a Start. A command may name its bot, and Start is said whether
    or not it carries a payload: both are taken off, so that ``/start`` and ``/stop`` stand alone."""
    if not text.startswith("/"):
        return text, None
    command, _, rest = text.partition(" ")
    command = command.partition("@")[0]
    if command.lower() == "/start":
        return "/start", rest.strip() or None
    return f"{command} {rest}".strip(), None


def _pressed(query: Mapping[str, Any], now: datetime) -> _Act | None:
    """A press carries no time of its own."""
    user, message, data = _is(dict, query["from"]), query.get("message"), query.get("data")
    if not message or data is None or not _is_private(_is(dict, message)):
        return None
    return _Act(user, Said.PRESSED, now, _is(str, data))


def _membership(change: Mapping[str, Any]) -> _Act | None:
    said = _MEMBERSHIP.get(_is(dict, change["new_chat_member"])["status"])
    if said is None or not _is_private(change):
        return None
    return _Act(_is(dict, change["from"]), said, _date(change))


def _reacted(reaction: Mapping[str, Any]) -> _Act | None:
    user = _or_none(dict, reaction.get("user"))
    if user is None or not _is_private(reaction):
        return None
    return _Act(user, Said.SEEN, _date(reaction))


# One of each for every update: see `evolve` on why they are not made by their constructors.
_make_inbound = maker(Inbound)
_make_person = maker(Person)


def _told(account: TelegramAccount, update_id: int, act: _Act) -> Inbound:
    return _make_inbound(
        str(update_id),
        account.key,
        ChannelName.TELEGRAM,
        _person(act.user),
        act.said,
        act.at,
        act.text,
        act.start_payload,
        {},
    )


def _person(user: Mapping[str, Any]) -> Person:
    return _make_person(
        str(_is(int, user["id"])),
        _or_none(str, user["first_name"]),
        _or_none(str, user.get("last_name")),
        None,
        _or_none(str, user.get("language_code")),
        None,
        None,
    )
