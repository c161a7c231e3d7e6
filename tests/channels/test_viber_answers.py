"""What each status of Viber means for a send (PLATFORMS D4)."""

from __future__ import annotations

from datetime import timedelta

import orjson
import pytest

from bot.channels.http import Exchange, NoAnswer, NoConnection, Reply
from bot.channels.viber.answers import meaning
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


def status(number: int, message: str = "words", *, http: int = 200) -> Reply:
    return Reply(http, orjson.dumps({"status": number, "status_message": message}))


@pytest.mark.parametrize("token", ["4912661846655238145", '"4912661846655238145"', "18446744073709551615"])
def test_an_accepted_message_has_its_token(token: str) -> None:
    """Tokens are 64-bit numbers, or text, and come out as text digit by digit."""
    body = b'{"status":0,"status_message":"ok","message_token":%s,"billing_status":1}' % token.encode()
    assert meaning(Reply(200, body)) == Sent(token.strip('"'))


@pytest.mark.parametrize(
    ("number", "marks"),
    [
        (5, ConversationState.GONE),
        (6, ConversationState.UNSUBSCRIBED),
        (11, ConversationState.GONE),
        (21, ConversationState.GONE),
    ],
)
def test_somebody_who_cannot_be_reached(number: int, marks: ConversationState) -> None:
    """Not registered, not subscribed, no fitting device, a country not served."""
    assert meaning(status(number)) == Never(marks, f"{number} words")


@pytest.mark.parametrize("number", [2, 7, 8, 9, 10, 15, 19, 20, 23, 24])
def test_a_bot_that_cannot_send(number: int) -> None:
    """Token, block, suspension, webhook, authorisation, money."""
    assert meaning(status(number)) == StopAccount(f"{number} words")


@pytest.mark.parametrize("number", [3, 4, 13, 14])
def test_a_message_that_cannot_be_sent(number: int) -> None:
    """Data at fault, or beyond the device."""
    assert meaning(status(number)) == BadContent(f"{number} words")


@pytest.mark.parametrize("number", [1, 16, 17, 18, 22, 25, 99, -1])
def test_a_general_error_is_tried_again(number: int) -> None:
    """What is not listed may pass."""
    assert meaning(status(number)) == Faulty(f"{number} words")


def test_too_many_messages_hold_the_conversation() -> None:
    """Status 12 is about one person, and Viber names no wait."""
    assert meaning(status(12)) == Throttled(None, Holds.CONVERSATION, "12 words")


def test_too_many_requests_hold_the_account() -> None:
    """HTTP 429 comes from in front of the bots."""
    exchange = Reply(429, b"", timedelta(seconds=9))
    assert meaning(exchange) == Throttled(timedelta(seconds=9), Holds.ACCOUNT, "HTTP 429")


@pytest.mark.parametrize(
    ("exchange", "expected"),
    [
        (Reply(500, b""), Faulty),
        (status(0, http=503), Faulty),
        (Reply(302, b""), Faulty),
        (Reply(413, b""), BadContent),
        (Reply(401, b""), StopAccount),
        (Reply(403, b"<html>"), StopAccount),
        (Reply(404, b"<html>"), StopAccount),
        (Reply(200, b"<html>"), Unknown),
        (Reply(200, b"[]"), Unknown),
        (Reply(200, b'{"status":"0"}'), Unknown),
        (status(0), Unknown),
        (NoConnection("refused"), Faulty),
        (NoAnswer("time-out"), Unknown),
    ],
)
def test_what_has_no_readable_status(exchange: Exchange, expected: type[Answer]) -> None:
    """Then HTTP and the network decide; accepted without a token is unknown."""
    assert isinstance(meaning(exchange), expected)


def test_the_token_is_in_no_detail() -> None:
    """Viber's words are scrubbed."""
    assert meaning(status(2, "bad token 4a-SECRET"), token="4a-SECRET") == StopAccount("2 bad token ***")
