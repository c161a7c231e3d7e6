"""What each answer of the Bot API means for a send (PLATFORMS C2)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest

from bot.channels.http import Exchange, NoAnswer, NoConnection, Reply
from bot.channels.telegram.answers import Migrated, meaning
from broadcast.model import (
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


def refused(code: int, description: str, **parameters: Any) -> Reply:
    data: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
    if parameters:
        data["parameters"] = parameters
    return Reply(code, orjson.dumps(data))


def test_an_accepted_message_has_its_id() -> None:
    """`ok` with a message id is sent, the id as text."""
    assert meaning(Reply(200, b'{"ok":true,"result":{"message_id":4503599627370495}}')) == Sent("4503599627370495")


@pytest.mark.parametrize(
    ("description", "marks"),
    [
        ("Forbidden: bot was blocked by the user", BLOCKED),
        ("Forbidden: user is deactivated", GONE),
        ("Forbidden: bot can't initiate conversation with a user", GONE),
        ("Forbidden: bot was kicked from the group chat", GONE),
        ("Forbidden: bot was kicked from the supergroup chat", GONE),
        ("Forbidden: bot is not a member of the channel chat", GONE),
        ("Forbidden: the group chat was deleted", GONE),
        ("Forbidden: something new", GONE),
    ],
)
def test_forbidden_ends_the_conversation(description: str, marks: ConversationState) -> None:
    """403 is never worth a second try; blocked is told from gone."""
    assert meaning(refused(403, description)) == Never(marks, description)


@pytest.mark.parametrize(
    ("description", "marks"),
    [
        ("Bad Request: chat not found", GONE),
        ("Bad Request: private chat not found", GONE),
        ("Bad Request: PEER_ID_INVALID", GONE),
        ("bad request: CHAT NOT FOUND", GONE),
        ("Bad Request: not enough rights to send text messages to the chat", BLOCKED),
    ],
)
def test_a_bad_request_about_the_chat_ends_the_conversation(description: str, marks: ConversationState) -> None:
    """A 400 that speaks of the chat is about the chat, in whatever case it is written."""
    assert meaning(refused(400, description)) == Never(marks, description)


@pytest.mark.parametrize(
    "reply",
    [
        refused(400, "Bad Request: can't parse entities: Unsupported start tag"),
        refused(400, "Bad Request: message is too long"),
        refused(400, "Bad Request: wrong HTTP URL specified"),
        refused(400, "Bad Request: failed to get HTTP URL content"),
        refused(400, "Bad Request: wrong type of the web page content"),
        refused(413, "Request Entity Too Large"),
        Reply(413, b"<html>too large</html>"),
    ],
)
def test_other_refusals_of_the_request_are_about_the_content(reply: Reply) -> None:
    """Any other 400, and 413, leaves the conversation alone."""
    assert isinstance(meaning(reply), BadContent)


@pytest.mark.parametrize(
    "reply", [refused(401, "Unauthorized"), refused(404, "Not Found"), Reply(404, b"<html>nothing here</html>")]
)
def test_a_token_that_is_not_known_stops_the_account(reply: Reply) -> None:
    """401 and 404 are about the token."""
    assert isinstance(meaning(reply), StopAccount)


def test_too_many_requests_hold_the_account_as_long_as_told() -> None:
    """429 holds the whole bot for `retry_after` seconds."""
    answer = meaning(refused(429, "Too Many Requests: retry after 17", retry_after=17))
    assert answer == Throttled(timedelta(seconds=17), Holds.ACCOUNT, "Too Many Requests: retry after 17")


def test_too_many_requests_without_a_wait_name_none() -> None:
    """Where Telegram names no wait, none is made up."""
    answer = meaning(refused(429, "Too Many Requests"))
    assert answer == Throttled(None, Holds.ACCOUNT, "Too Many Requests")


def test_a_wait_in_the_header_counts_where_the_body_has_none() -> None:
    """A proxy throttles with `Retry-After` alone."""
    answer = meaning(Reply(429, b"slow down", timedelta(seconds=3)))
    assert answer == Throttled(timedelta(seconds=3), Holds.ACCOUNT, "HTTP 429")


def test_an_upgraded_group_names_its_new_id() -> None:
    """A group that became a supergroup is to be written to elsewhere."""
    reply = refused(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-1001234)
    assert meaning(reply) == Migrated(-1001234)


@pytest.mark.parametrize(
    "exchange",
    [
        refused(500, "Internal Server Error"),
        Reply(502, b"<html>Bad Gateway</html>"),
        Reply(503, b""),
        refused(409, "Conflict: terminated by other getUpdates request"),
        Reply(302, b""),
        NoConnection("refused"),
    ],
)
def test_what_was_not_accepted_for_no_reason_of_ours_is_tried_again(exchange: Exchange) -> None:
    """5xx, an odd proxy and a connection that never stood are faults; 409 stops no send."""
    assert isinstance(meaning(exchange), Faulty)


@pytest.mark.parametrize(
    "exchange",
    [
        NoAnswer("time-out"),
        Reply(200, b"<html>welcome to the hotel network</html>"),
        Reply(200, b'{"ok":true,"result":{}}'),
        Reply(200, b'{"ok":true}'),
    ],
)
def test_an_answer_nobody_can_read_leaves_it_unknown(exchange: Exchange) -> None:
    """What may have been accepted and names no message is unknown."""
    assert isinstance(meaning(exchange), Unknown)


def test_the_token_is_in_no_detail() -> None:
    """A description that repeats the address is scrubbed."""
    answer = meaning(refused(404, "no such path /bot12:SECRET/sendMessage"), token="12:SECRET")
    assert answer == StopAccount("no such path /bot***/sendMessage")
