"""Every row of PLATFORMS A5, and bodies that differ from it."""

from __future__ import annotations

from datetime import timedelta

import orjson
import pytest

from bot.channels.http import Reply
from bot.channels.teams.answers import answer
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

BLOCKED, GONE = ConversationState.BLOCKED, ConversationState.GONE


def error(code: str) -> bytes:
    return orjson.dumps({"error": {"code": code, "message": "Words for people."}})


PACKED = orjson.dumps(
    {"errorCode": 209, "message": orjson.dumps({"subCode": "MessageWritesBlocked", "errorCode": 209}).decode()}
)


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (400, error("Bad Argument"), BadContent("400 Bad Argument")),
        (400, error("BadSyntax"), BadContent("400")),
        (401, error("BotNotRegistered"), StopAccount("401 BotNotRegistered")),
        (401, b"", StopAccount("401")),
        (403, error("BotDisabledByAdmin"), StopAccount("403 BotDisabledByAdmin")),
        (403, error("BotNotInConversationRoster"), Never(BLOCKED, "403 BotNotInConversationRoster")),
        (403, error("ConversationBlockedByUser"), Never(BLOCKED, "403 ConversationBlockedByUser")),
        (403, PACKED, Never(BLOCKED, "403 MessageWritesBlocked")),
        (403, error("ForbiddenOperationException"), Never(GONE, "403 ForbiddenOperationException")),
        (403, error("InvalidBotApiHost"), StopAccount("403 InvalidBotApiHost")),
        (403, error("NotEnoughPermissions"), StopAccount("403 NotEnoughPermissions")),
        (403, error("SomethingNew"), Never(BLOCKED, "403")),
        (403, b"", Never(BLOCKED, "403")),
        (404, error("ConversationNotFound"), Never(GONE, "404 ConversationNotFound")),
        (404, error("ActivityNotFoundInConversation"), Never(GONE, "404 ActivityNotFoundInConversation")),
        (404, error("conversationnotfound"), Never(GONE, "404 ConversationNotFound")),
        (404, b"", Never(GONE, "404")),
        (412, error("PreconditionFailed"), Throttled(None, Holds.CONVERSATION, "412 PreconditionFailed")),
        (413, error("MessageSizeTooBig"), BadContent("413 MessageSizeTooBig")),
        (413, b"<html>too large</html>", BadContent("413")),
        (429, error("Throttled"), Throttled(None, Holds.ACCOUNT, "429 Throttled")),
        (500, error("ServiceError"), Faulty("500")),
        (502, b"<html>", Faulty("502")),
        (503, b"", Faulty("503")),
        (504, b"{", Faulty("504")),
        # Codes found elsewhere, and words that only look like one.
        (400, error("ConversationNotFound"), Never(GONE, "400 ConversationNotFound")),
        (
            403,
            orjson.dumps({"x": [{"y": "ConversationBlockedByUser"}]}),
            Never(BLOCKED, "403 ConversationBlockedByUser"),
        ),
        (403, orjson.dumps({"message": "not a ForbiddenOperationException, says the text"}), Never(BLOCKED, "403")),
        (500, error("ConversationBlockedByUser"), Faulty("500 ConversationBlockedByUser")),
        # Somebody on the way answered: nobody is marked for that.
        (403, b"<html>blocked by your proxy</html>", Faulty("403, not in the platform's words")),
        (404, b"<html>nothing here</html>", Faulty("404, not in the platform's words")),
        (302, b"", Faulty("302")),
        (407, b"", Faulty("407")),
        (408, b"", Faulty("408")),
        (418, b"", BadContent("418")),
        # Accepted.
        (201, b'{"id":"1692206589131"}', Sent("1692206589131")),
        (200, b'{"id":1692206589131}', Sent("1692206589131")),
        (201, b"{}", Sent("")),
        (202, b"", Sent("")),
        (200, b"<html>sign in to the wireless network</html>", Unknown("200, not in the platform's words")),
    ],
)
def test_rows(status: int, body: bytes, meaning: Answer) -> None:
    """Classified by what to do next; codes first where they say more than the status."""
    assert answer(Reply(status, body)) == meaning


def test_the_platforms_wait_is_kept() -> None:
    wait = timedelta(seconds=7)
    assert answer(Reply(429, b"", wait)) == Throttled(wait, Holds.ACCOUNT, "429")
    assert answer(Reply(412, b"", wait)) == Throttled(wait, Holds.CONVERSATION, "412")


def test_of_several_codes_the_gravest_counts() -> None:
    body = orjson.dumps({"error": {"code": "ConversationNotFound", "inner": {"code": "BotDisabledByAdmin"}}})
    assert answer(Reply(403, body)) == StopAccount("403 BotDisabledByAdmin")


def test_json_without_end_does_not_hurt() -> None:
    """Neither nested lists nor JSON packed into JSON again and again."""
    packed = '"x"'
    for _ in range(12):
        packed = orjson.dumps({"message": packed}).decode()
    assert answer(Reply(403, packed.encode())) == Never(BLOCKED, "403")
    assert answer(Reply(403, b'{"a":' + b"[" * 500 + b"]" * 500 + b"}")) == Never(BLOCKED, "403")
