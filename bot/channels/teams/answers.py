"""What Bot Connector's answer means (PLATFORMS A5): pure, and suspicious of bodies.

Codes are looked for anywhere in the body's JSON, also in JSON that is packed into a string, because what comes
differs from what is documented; only values that are a code and nothing else count. Without a known code
the status decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType

import orjson

from bot.channels.http import Reply
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

#: The address belongs to another cloud; the same request may go to the right one, once.
WRONG_HOST = "InvalidBotApiHost"

_DEEP_ENOUGH = 8

Meaning = Callable[[str, timedelta | None], Answer]


def _blocked(detail: str, _wait: timedelta | None) -> Answer:
    return Never(ConversationState.BLOCKED, detail)


def _gone(detail: str, _wait: timedelta | None) -> Answer:
    return Never(ConversationState.GONE, detail)


def _bad(detail: str, _wait: timedelta | None) -> Answer:
    return BadContent(detail)


def _stop(detail: str, _wait: timedelta | None) -> Answer:
    return StopAccount(detail)


def _account_waits(detail: str, wait: timedelta | None) -> Answer:
    return Throttled(wait, Holds.ACCOUNT, detail)


def _conversation_waits(detail: str, wait: timedelta | None) -> Answer:
    return Throttled(wait, Holds.CONVERSATION, detail)


def _faulty(detail: str, _wait: timedelta | None) -> Answer:
    return Faulty(detail)


#: By code; of several in one body the first in this order counts.
_BY_CODE: Mapping[str, Meaning] = MappingProxyType(
    {
        "BotNotRegistered": _stop,
        "BotDisabledByAdmin": _stop,
        "NotEnoughPermissions": _stop,
        WRONG_HOST: _stop,  # the other host was tried before this is asked
        "ConversationBlockedByUser": _blocked,
        "MessageWritesBlocked": _blocked,  # blocked or uninstalled: Teams does not tell which
        "BotNotInConversationRoster": _blocked,  # uninstalled: the person acts before it changes
        "ForbiddenOperationException": _gone,  # never installed in the personal scope
        "ConversationNotFound": _gone,
        "ActivityNotFoundInConversation": _gone,
        "MemberNotFoundInConversation": _gone,
        "MessageSizeTooBig": _bad,
        "Throttled": _account_waits,
        "PreconditionFailed": _conversation_waits,
        "Bad Argument": _bad,
        "BadArgument": _bad,
    }
)
_NAMES = {name.lower(): name for name in _BY_CODE}

#: By status, where no code is known. Any 5xx not named is a fault, any other 4xx the content's.
_BY_STATUS: Mapping[int, Meaning] = MappingProxyType(
    {
        401: _stop,
        403: _blocked,
        404: _gone,
        407: _faulty,
        408: _faulty,
        412: _conversation_waits,
        429: _account_waits,
    }
)
#: The statuses under which a code says more than the status does.
_CODE_DECIDES = frozenset({400, 403, 404})
#: The statuses that mark a person, and so are believed only from the platform itself.
_MARKING = frozenset({403, 404})


def answer(reply: Reply) -> Answer:
    """The meaning of the answer to a message that was posted."""
    status = reply.status
    if 200 <= status < 300:
        return _accepted(reply)
    said = code_in(reply)
    detail = f"{status} {said}" if said else str(status)
    if status in _MARKING and said is None and _is_foreign(reply.body):
        return Faulty(f"{status}, not in the platform's words")
    return _meaning(status, said)(detail, reply.retry_after)


def _meaning(status: int, said: str | None) -> Meaning:
    if status in _CODE_DECIDES and said is not None:
        return _BY_CODE[said]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return _bad if 400 <= status < 500 else _faulty


def _accepted(reply: Reply) -> Answer:
    """A message that Teams split comes back without an id (PLATFORMS A2): accepted all the same."""
    body = reply.json() if reply.body else {}
    if not isinstance(body, dict):
        return Unknown(f"{reply.status}, not in the platform's words")
    id = body.get("id")
    return Sent(str(id) if isinstance(id, str | int) else "")


def code_in(reply: Reply) -> str | None:
    """The first known code that the body names."""
    found = {_NAMES[value.lower()] for value in _values(reply.json(), 0) if value.lower() in _NAMES}
    return next((name for name in _BY_CODE if name in found), None)


def _values(node: object, depth: int) -> Iterator[str]:
    """Every text in the JSON, and in JSON inside a text."""
    if depth > _DEEP_ENOUGH:
        return
    match node:
        case dict():
            for value in node.values():
                yield from _values(value, depth + 1)
        case list():
            for value in node:
                yield from _values(value, depth + 1)
        case str():
            yield node
            yield from _packed(node, depth)


def _packed(text: str, depth: int) -> Iterator[str]:
    if not text.lstrip().startswith(("{", "[")):
        return
    try:
        inside = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    yield from _values(inside, depth + 1)


def _is_foreign(body: bytes) -> bool:
    """Whether somebody on the way answered, say a proxy with its page: the platform speaks JSON or is silent."""
    if not body.strip():
        return False
    try:
        return not isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        return True
