"""What Telegram tells: from one update to what a person did. Only private chats are a person's."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson
import structlog
from telegram import CallbackQuery, ChatMemberUpdated, Message, MessageReactionUpdated, Update, User
from telegram.constants import ChatMemberStatus, ChatType

from bot.channels.telegram.account import TelegramAccount
from bot.channels.webhook import BODY_LIMIT, Received
from broadcast.model import ChannelName
from broadcast.ports import Inbound, Person, Said

log = structlog.get_logger(__name__)

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


@dataclass(frozen=True, slots=True)
class _Act:
    """Somebody's deed, before it is told in the words of the port."""

    user: User
    said: Said
    at: datetime
    text: str = ""
    start_payload: str | None = None


def refusal(account: TelegramAccount, headers: Mapping[str, str], body: bytes) -> Received | None:
    """Why a callback is not looked at; ``None`` for one that Telegram sent. The secret is compared before anything
    else, in constant time."""
    given = next((value for name, value in headers.items() if name.lower() == SECRET_HEADER.lower()), "")
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
    update = _update(account, data)
    if update is None:
        return Heard()
    act = _act(update, now)
    press = update.callback_query.id if update.callback_query else None
    if act is None or act.user.is_bot:
        return Heard(press=press)
    return Heard(_told(account, update.update_id, act), press)


def _update(account: TelegramAccount, data: object) -> Update | None:
    if not isinstance(data, dict) or not isinstance(data.get("update_id"), int):
        _unreadable(account, "no update_id")
        return None
    try:
        return Update.de_json(data)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        _unreadable(account, type(error).__name__)
        return None


def _unreadable(account: TelegramAccount, why: str) -> None:
    log.warning("an update could not be read", action="telegram_update_unreadable", account=account.key, why=why)


def _act(update: Update, now: datetime) -> _Act | None:
    if update.message:
        return _written(update.message)
    if update.callback_query:
        return _pressed(update.callback_query, now)
    if update.my_chat_member:
        return _membership(update.my_chat_member)
    if update.message_reaction:
        return _reacted(update.message_reaction)
    return None


def _written(message: Message) -> _Act | None:
    user = message.from_user
    if user is None or message.chat.type != ChatType.PRIVATE:
        return None
    text = message.text or message.caption
    if not text:
        return _Act(user, Said.SEEN, message.date)
    return _Act(user, Said.TEXT, message.date, *_words(text))


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


def _pressed(query: CallbackQuery, now: datetime) -> _Act | None:
    """A press carries no time of its own."""
    if query.message is None or query.message.chat.type != ChatType.PRIVATE or query.data is None:
        return None
    return _Act(query.from_user, Said.PRESSED, now, query.data)


def _membership(change: ChatMemberUpdated) -> _Act | None:
    said = _MEMBERSHIP.get(change.new_chat_member.status)
    if said is None or change.chat.type != ChatType.PRIVATE:
        return None
    return _Act(change.from_user, said, change.date)


def _reacted(reaction: MessageReactionUpdated) -> _Act | None:
    if reaction.user is None or reaction.chat.type != ChatType.PRIVATE:
        return None
    return _Act(reaction.user, Said.SEEN, reaction.date)


def _told(account: TelegramAccount, update_id: int, act: _Act) -> Inbound:
    return Inbound(
        key=str(update_id),
        account=account.key,
        channel=ChannelName.TELEGRAM,
        person=_person(act.user),
        said=act.said,
        at=act.at,
        text=act.text,
        start_payload=act.start_payload,
    )


def _person(user: User) -> Person:
    return Person(
        user_id=str(user.id),
        first_name=user.first_name or None,
        last_name=user.last_name or None,
        locale=user.language_code or None,
    )
