"""What an answer of the Bot API means for a send, by what to do next (PLATFORMS C2).

Telegram tells the reasons behind 400 and 403 apart by their description alone, so that is compared, in lower case
and by what it contains. What is not listed falls back on the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bot.channels.http import Exchange, NoAnswer, NoConnection, Reply, scrub
from broadcast.model import (
    Answer,
    BadContent,
    ConversationState,
    Faulty,
    Holds,
    Never,
    Sent,
    StopAccount,
    Throttled,
    Unknown,
)

#: At most so many characters of Telegram's own words are passed on.
_DETAIL = 300

_BLOCKED, _GONE = ConversationState.BLOCKED, ConversationState.GONE

#: What a 400 or 403 says about the conversation. First match wins; any other 403 is `gone`, any other 400 is about
#: the content.
_ABOUT_THE_CHAT: tuple[tuple[str, ConversationState], ...] = (
    ("bot was blocked by the user", _BLOCKED),
    ("user_is_blocked", _BLOCKED),
    ("not enough rights to send", _BLOCKED),
    ("have no rights to send", _BLOCKED),
    ("chat_write_forbidden", _BLOCKED),
    ("chat not found", _GONE),
    ("user not found", _GONE),
    ("user is deactivated", _GONE),
    ("input_user_deactivated", _GONE),
    ("peer_id_invalid", _GONE),
    ("chat_id_invalid", _GONE),
    ("chat_id is empty", _GONE),
    ("can't initiate conversation", _GONE),
    ("bot was kicked", _GONE),
    ("is not a member", _GONE),
    ("group chat was deleted", _GONE),
    ("group chat was deactivated", _GONE),
)


@dataclass(frozen=True, slots=True)
class Migrated:
    """The group has become a supergroup: send there instead, once, and keep its id."""

    chat_id: int


def meaning(exchange: Exchange, *, token: str = "") -> Answer | Migrated:
    """What became of a send. `token` is kept out of every detail."""
    if isinstance(exchange, NoConnection):
        return Faulty(exchange.detail)
    if isinstance(exchange, NoAnswer):
        return Unknown(exchange.detail)
    data = exchange.json()
    if isinstance(data, dict):
        if data.get("ok") is True:
            return _accepted(data.get("result"))
        return _refused(exchange, data, token)
    return (
        _refused(exchange, {}, token) if exchange.status >= 300 else Unknown("accepted, with an unreadable answer")
    )


def _accepted(result: object) -> Answer:
    message_id = result.get("message_id") if isinstance(result, dict) else None
    return Unknown("accepted without a message id") if message_id is None else Sent(str(message_id))


def _refused(reply: Reply, data: Mapping[str, Any], token: str) -> Answer | Migrated:
    code = data.get("error_code")
    code = code if isinstance(code, int) else reply.status
    given = data.get("parameters")
    parameters = given if isinstance(given, dict) else {}
    detail = scrub(str(data.get("description") or f"HTTP {reply.status}"), token)[:_DETAIL]
    if code == 429:
        return Throttled(_wait(parameters, reply), Holds.ACCOUNT, detail)
    if code == 400 and isinstance(parameters.get("migrate_to_chat_id"), int):
        return Migrated(parameters["migrate_to_chat_id"])
    return _by_code(code, detail)


def _by_code(code: int, detail: str) -> Answer:
    match code:
        case 400 | 403:
            return _about_the_chat(code, detail)
        case 401 | 404:
            return StopAccount(detail)
        case 413:
            return BadContent(detail)
    # 5xx; and what speaks of neither chat, content nor token: a proxy in between, 409 of a second getUpdates.
    return Faulty(detail)


def _about_the_chat(code: int, detail: str) -> Answer:
    words = detail.lower()
    for part, marks in _ABOUT_THE_CHAT:
        if part in words:
            return Never(marks, detail)
    return Never(_GONE, detail) if code == 403 else BadContent(detail)


def _wait(parameters: Mapping[str, Any], reply: Reply) -> timedelta | None:
    seconds = parameters.get("retry_after")
    if isinstance(seconds, int | float) and seconds >= 0:
        return timedelta(seconds=seconds)
    return reply.retry_after
