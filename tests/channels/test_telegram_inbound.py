"""What an update says, and that nothing unproven is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from bot.channels.telegram import TelegramAccount
from bot.channels.telegram.updates import Heard, heard, refusal, update_in
from bot.channels.webhook import BODY_LIMIT
from broadcast.model import ChannelName
from broadcast.ports import Inbound, Person, Said
from tests.channels.clocks import NOW

ACCOUNT = TelegramAccount("telegram/news", "12:SECRET", webhook_secret="hush-1")
ANN = {"id": 77, "is_bot": False, "first_name": "Ann", "last_name": "Ash", "language_code": "de"}
CHAT = {"id": 77, "type": "private", "first_name": "Ann"}
GROUP = {"id": -5, "type": "group", "title": "Us"}
BOT = {"id": 12, "is_bot": True, "first_name": "News", "username": "news_bot"}
AT = 1_774_618_020


def message(text: str | None = None, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"message_id": 5, "date": AT, "chat": CHAT, "from": ANN, **fields}
    return {"update_id": 9, "message": body if text is None else {**body, "text": text}}


def press(**fields: Any) -> dict[str, Any]:
    shown = {"message_id": 5, "date": AT, "chat": CHAT, "from": BOT, "text": "t"}
    query = {"id": "q1", "from": ANN, "chat_instance": "i", "message": shown, "data": "cl:dlv_1:b", **fields}
    return {"update_id": 9, "callback_query": query}


def membership(status: str, chat: Mapping[str, Any] = CHAT) -> dict[str, Any]:
    def member(status: str) -> dict[str, Any]:
        return {"user": BOT, "status": status, **({"until_date": 0} if status == "kicked" else {})}

    change = {"chat": chat, "from": ANN, "date": AT, "old_chat_member": member("member")}
    return {"update_id": 9, "my_chat_member": {**change, "new_chat_member": member(status)}}


def said(update: object) -> Inbound | None:
    return heard(ACCOUNT, update, NOW).inbound


@pytest.mark.parametrize("given", [None, "", "hush-2", "hush-1x", "hüsh"])
def test_without_the_secret_nothing_is_read(given: str | None) -> None:
    """A missing or wrong secret is refused before the body is looked at."""
    headers = {} if given is None else {"X-Telegram-Bot-Api-Secret-Token": given}
    received = refusal(ACCOUNT, headers, b"not even json")
    assert received is not None
    assert (received.status, received.refused, received.inbound) == (403, "bad_secret", ())


@pytest.mark.parametrize("name", ["X-Telegram-Bot-Api-Secret-Token", "x-telegram-bot-api-secret-token"])
def test_the_secret_opens(name: str) -> None:
    """The header's name has no case."""
    assert refusal(ACCOUNT, {name: "hush-1"}, b"{}") is None


def test_a_callback_beyond_all_measure_is_refused() -> None:
    """What is longer than the limit is not parsed."""
    received = refusal(ACCOUNT, {"X-Telegram-Bot-Api-Secret-Token": "hush-1"}, b"x" * (BODY_LIMIT + 1))
    assert received is not None
    assert received.status == 413


def test_a_written_text_is_told_with_its_writer() -> None:
    """All that the port has a word for is filled in."""
    assert said(message("Hello <b>&")) == Inbound(
        key="9",
        account="telegram/news",
        channel=ChannelName.TELEGRAM,
        person=Person("77", "Ann", "Ash", locale="de"),
        said=Said.TEXT,
        at=datetime.fromtimestamp(AT, UTC),
        text="Hello <b>&",
    )


@pytest.mark.parametrize(
    ("written", "text", "payload"),
    [
        ("/start", "/start", None),
        ("/start abc_-1", "/start", "abc_-1"),
        ("/start@news_bot abc", "/start", "abc"),
        ("/Start", "/start", None),
        ("/stop", "/stop", None),
        ("/stop@news_bot", "/stop", None),
        ("/stats  9", "/stats  9", None),
        ("STOP", "STOP", None),
        ("/started", "/started", None),
    ],
)
def test_commands_are_words_of_their_own(written: str, text: str, payload: str | None) -> None:
    """START and STOP stand alone whatever the client adds; the payload of a link is kept apart."""
    inbound = said(message(written))
    assert inbound is not None
    assert (inbound.said, inbound.text, inbound.start_payload) == (Said.TEXT, text, payload)


def test_a_caption_is_a_text() -> None:
    """What is written under a picture is written."""
    inbound = said(message(caption="STOP", photo=[]))
    assert inbound is not None
    assert (inbound.said, inbound.text) == (Said.TEXT, "STOP")


def test_a_message_without_words_only_shows_somebody() -> None:
    """A sticker says nothing but that the person is there."""
    inbound = said(message(sticker=None))
    assert inbound is not None
    assert inbound.said is Said.SEEN


def test_a_press_brings_its_payload_and_waits_for_an_answer() -> None:
    """The data of the button is the text; the id of the query is kept to acknowledge it."""
    told = heard(ACCOUNT, press(), NOW)
    assert told.press == "q1"
    assert told.inbound is not None
    assert (told.inbound.said, told.inbound.text, told.inbound.at) == (Said.PRESSED, "cl:dlv_1:b", NOW)


def test_a_press_below_a_message_too_old_to_show_counts() -> None:
    """Telegram shows a message that is gone as one of date 0."""
    inbound = said(press(message={"chat": CHAT, "message_id": 5, "date": 0}))
    assert inbound is not None
    assert inbound.said is Said.PRESSED


def test_a_press_in_a_group_is_acknowledged_only() -> None:
    """Nobody's conversation is made of it, but the button must not spin."""
    shown = {"message_id": 5, "date": AT, "chat": GROUP, "from": BOT, "text": "t"}
    assert heard(ACCOUNT, press(message=shown), NOW) == Heard(press="q1")


@pytest.mark.parametrize(("status", "expected"), [("kicked", Said.BLOCKED), ("member", Said.SUBSCRIBED)])
def test_blocking_and_coming_back_are_told(status: str, expected: Said) -> None:
    """`my_chat_member` of a private chat is about the person."""
    inbound = said(membership(status))
    assert inbound is not None
    assert (inbound.said, inbound.at) == (expected, datetime.fromtimestamp(AT, UTC))


def test_a_reaction_shows_somebody() -> None:
    """A reaction is a sign of life."""
    reaction = {"chat": CHAT, "message_id": 5, "user": ANN, "date": AT, "old_reaction": [], "new_reaction": []}
    inbound = said({"update_id": 9, "message_reaction": reaction})
    assert inbound is not None
    assert inbound.said is Said.SEEN


@pytest.mark.parametrize(
    "update",
    [
        message("hi", chat=GROUP),
        message("hi", **{"from": BOT}),
        membership("kicked", GROUP),
        membership("left"),
        {"update_id": 9},
        {"update_id": 9, "poll_of_the_future": {"id": 1}},
        {"update_id": 9, "edited_message": message("hi")["message"]},
        {"update_id": 9, "message": "odd"},
        {"update_id": 9, "message": {"message_id": 1}},
        {"update_id": 9, "message": {"message_id": 1, "date": "soon", "chat": CHAT, "from": ANN}},
        message("hi", date=None),
        message("hi", **{"from": {"id": 77}}),
        message("hi", **{"from": {**ANN, "id": "77"}}),
        message("hi", **{"from": {**ANN, "first_name": 5}}),
        message("hi", date=10**20),
        message(text=None, caption=5),
        press(id=None),
        press(data=7),
        {"update_id": 9, "callback_query": "q1"},
        {"update_id": 9, "callback_query": {"id": "q1"}},
        {"update_id": 9, "my_chat_member": {"new_chat_member": {"status": ["kicked"]}}},
        {"update_id": 9, "callback_query": []},
        {"update_id": "9"},
        {},
        [],
        None,
    ],
)
def test_what_is_nobodys_or_not_understood_says_nothing(update: object) -> None:
    """Groups, bots, unknown updates and broken ones bring nothing and raise nothing."""
    assert heard(ACCOUNT, update, NOW) == Heard()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
def test_a_body_that_is_no_json_holds_no_update(body: bytes) -> None:
    """A broken body is no update."""
    assert update_in(body) is None


def test_a_repeat_has_the_same_key() -> None:
    """The key is Telegram's own id of the update."""
    update = orjson.dumps(message("hi"))
    assert said(update_in(update)) == said(update_in(update))


def test_a_bot_without_a_secret_gets_one_of_its_own() -> None:
    """Callbacks are proven even where no secret was configured; each token has another."""
    one, other = TelegramAccount("telegram/a", "1:A"), TelegramAccount("telegram/b", "2:B")
    assert len(one.secret) == 64
    assert one.secret != other.secret


@pytest.mark.parametrize("change", [{"token": ""}, {"webhook_secret": "not allowed!"}, {"rate": 0.0}])
def test_an_account_that_cannot_work_is_not_made(change: dict[str, Any]) -> None:
    """Nonsense is refused where it is configured."""
    with pytest.raises(ValueError, match="telegram/news"):
        TelegramAccount(**{"key": "telegram/news", "token": "1:A", **change})


def test_an_account_does_not_show_its_secrets() -> None:
    """Whoever prints or logs an account gives nothing away."""
    assert "SECRET" not in repr(ACCOUNT)
    assert "hush" not in repr(ACCOUNT)
