"""What an answer of the REST API means for a send, by what to do next (PLATFORMS D4).

HTTP is 200 nearly always: the number `status` in the body decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

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

OK = 0
TOO_MANY_REQUESTS = 12

#: At most so many characters of Viber's own words are passed on.
_DETAIL = 300


def _never(marks: ConversationState) -> Callable[[str], Answer]:
    return lambda detail: Never(marks, detail)


_GONE = _never(ConversationState.GONE)

#: What each status other than 0 and 12 asks for. What is not listed is a general error: try again.
MEANINGS: Mapping[int, Callable[[str], Answer]] = MappingProxyType(
    {
        2: StopAccount,  # invalidAuthToken
        3: BadContent,  # badData
        4: BadContent,  # missingData
        5: _GONE,  # receiverNotRegistered
        6: _never(ConversationState.UNSUBSCRIBED),  # receiverNotSubscribed
        7: StopAccount,  # publicAccountBlocked
        8: StopAccount,  # publicAccountNotFound
        9: StopAccount,  # publicAccountSuspended
        10: StopAccount,  # webhookNotSet
        11: _GONE,  # receiverNoSuitableDevice
        13: BadContent,  # apiVersionNotSupported
        14: BadContent,  # incompatibleWithVersion
        15: StopAccount,  # publicAccountNotAuthorized
        19: StopAccount,  # cannotSendBroadcast
        20: StopAccount,  # broadcastNotAllowed
        21: _GONE,  # unsupportedCountry
        23: StopAccount,  # freeMessagesExceeded
        24: StopAccount,  # noBalance
    }
)


def meaning(exchange: Exchange, *, token: str = "") -> Answer:
    """What became of a send. `token` is kept out of every detail."""
    match exchange:
        case NoConnection(detail):
            return Faulty(detail)
        case NoAnswer(detail):
            return Unknown(detail)
    data = exchange.json()
    if exchange.status < 500 and isinstance(data, dict) and isinstance(data.get("status"), int):
        return _by_status(exchange, data, token)
    return _by_http(exchange)


def _by_status(reply: Reply, data: Mapping[str, object], token: str) -> Answer:
    status = data["status"]
    if status == OK:
        return _accepted(data.get("message_token"))
    detail = scrub(f"{status} {data.get('status_message') or ''}".strip(), token)[:_DETAIL]
    if status == TOO_MANY_REQUESTS:
        # Too many to this person within an hour without a reply (PLATFORMS D1). Viber names no wait.
        return Throttled(reply.retry_after, Holds.CONVERSATION, detail)
    return MEANINGS.get(int(str(status)), Faulty)(detail)


def _accepted(message_token: object) -> Answer:
    """Tokens are numbers of 19 digits: text from here on."""
    if isinstance(message_token, bool) or not isinstance(message_token, int | str):
        return Unknown("accepted without a message token")
    return Sent(str(message_token))


def _by_http(reply: Reply) -> Answer:
    detail = f"HTTP {reply.status}"
    match reply.status:
        case 401 | 403 | 404:
            return StopAccount(detail)
        case 413:
            return BadContent(detail)
        case 429:
            return Throttled(reply.retry_after, Holds.ACCOUNT, detail)
        case accepted if accepted < 300:
            return Unknown("accepted, with an unreadable answer")
    return Faulty(detail)
