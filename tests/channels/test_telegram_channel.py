"""A Telegram account against a server on loopback: what it asks for, and what it makes of answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
import structlog
from telegram import Bot
from telegram.error import NetworkError, TimedOut
from telegram.request import RequestData

from bot.channels.http import Http, HttpSettings
from bot.channels.telegram import Mode, TelegramAccount, TelegramChannel, TelegramInbound
from bot.channels.telegram.polling import poll
from bot.channels.telegram.request import HttpRequest
from bot.channels.webhook import Received
from broadcast.model import (
    Answer,
    BadContent,
    ChannelName,
    Conversation,
    ConversationState,
    Faulty,
    Media,
    MediaType,
    Never,
    Sent,
    Unknown,
)
from broadcast.ports import Channel, Content, ReadyButton, Said
from tests.channels.clocks import StillClock
from tests.channels.loopback import LOST, Platform, platform
from tests.channels.test_telegram_inbound import message, press

TOKEN = "12:TOP-SECRET"
ANN = Conversation("cnv_1", "telegram/news", ChannelName.TELEGRAM, "rcp_1", "77")
SENT = (200, {"ok": True, "result": {"message_id": 41}})
DONE = (200, {"ok": True, "result": True})
ME = (200, {"ok": True, "result": {"id": 12, "is_bot": True, "first_name": "News", "username": "news_bot"}})
UNAUTHORIZED = (401, {"ok": False, "error_code": 401, "description": "Unauthorized"})
BLOCKED = (403, {"ok": False, "error_code": 403, "description": "Forbidden: bot was blocked by the user"})
UPGRADED = (
    400,
    {
        "ok": False,
        "error_code": 400,
        "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": {"migrate_to_chat_id": -1009},
    },
)


@pytest.fixture
async def telegram() -> AsyncIterator[Platform]:
    async with platform() as served:
        yield served


@pytest.fixture
def account(telegram: Platform) -> TelegramAccount:
    return TelegramAccount("telegram/news", TOKEN, api_url=telegram.url, webhook_secret="hush")


@pytest.fixture
async def channel(account: TelegramAccount) -> AsyncIterator[TelegramChannel]:
    made = TelegramChannel(account, http=Http(HttpSettings(connect=2.0, total=4.0)))
    yield made
    await made.close()


@pytest.fixture
async def inbound(account: TelegramAccount) -> AsyncIterator[TelegramInbound]:
    made = TelegramInbound(account, StillClock(), http=Http(HttpSettings(connect=2.0, total=4.0)))
    yield made
    await made.close()


def test_it_is_a_channel(account: TelegramAccount) -> None:
    """The account fits the port and says what Telegram can bear: no receipts, 30 a second, one a second a chat."""
    channel: Channel = TelegramChannel(account)
    features = channel.features
    assert (channel.account, channel.name) == ("telegram/news", ChannelName.TELEGRAM)
    assert (features.reports_delivered, features.reports_read, features.rate) == (False, False, 30.0)
    assert (features.conversation_limits, features.text_limit) == (((1, 1.0),), 4096)


async def test_a_text_is_one_request(channel: TelegramChannel, telegram: Platform) -> None:
    """One POST, the chat as a number."""
    telegram.says(SENT)
    assert await channel.send(ANN, Content("Hi <b>&_*[ 😀")) == Sent("41")
    assert telegram.asked == [
        (
            f"/bot{TOKEN}/sendMessage",
            {"chat_id": 77, "text": "Hi <b>&_*[ 😀", "link_preview_options": {"is_disabled": True}},
        )
    ]


async def test_a_moved_group_is_written_to_once_more(channel: TelegramChannel, telegram: Platform) -> None:
    """The new id is used at once and handed back to be kept; the next send starts there."""
    telegram.says(UPGRADED, SENT)
    answer = await channel.send(ANN, Content("Hi"))
    assert answer == Sent("41", {"chat_id": -1009})
    await channel.send(replace(ANN, reference={"chat_id": -1009}), Content("Hi"))
    assert [body["chat_id"] for _, body in telegram.asked] == [77, -1009, -1009]


async def test_a_group_that_moves_for_ever_is_gone(channel: TelegramChannel, telegram: Platform) -> None:
    """It is followed once."""
    telegram.says(UPGRADED)
    answer = await channel.send(ANN, Content("Hi"))
    assert isinstance(answer, Never)
    assert answer.marks is ConversationState.GONE
    assert len(telegram.asked) == 2


@pytest.mark.parametrize(("said", "expected"), [(LOST, Unknown), ((502, b"<html>"), Faulty), (BLOCKED, Never)])
async def test_nothing_is_sent_twice(
    channel: TelegramChannel, telegram: Platform, said: Any, expected: type[Answer]
) -> None:
    """Whatever the answer, or none, the request goes out once."""
    telegram.says(said)
    assert isinstance(await channel.send(ANN, Content("Hi")), expected)
    assert len(telegram.asked) == 1


async def test_a_refused_connection_is_a_fault(account: TelegramAccount) -> None:
    """Nothing was sent: it may be tried again."""
    channel = TelegramChannel(replace(account, api_url="http://127.0.0.1:9"))
    assert isinstance(await channel.send(ANN, Content("Hi")), Faulty)
    await channel.close()


@pytest.mark.parametrize(
    "content", [Content("\ud800"), Content("t", buttons=(ReadyButton("B", payload="x" * 65),))]
)
async def test_what_cannot_be_written_is_not_asked(
    channel: TelegramChannel, telegram: Platform, content: Content
) -> None:
    """Half a surrogate pair and too long a payload are the content's fault."""
    assert isinstance(await channel.send(ANN, content), BadContent)
    assert telegram.asked == []


async def test_what_follows_a_message_never_undoes_it(channel: TelegramChannel, telegram: Platform) -> None:
    """The first call decides; a further medium that is refused is logged without the token."""
    telegram.says(SENT, BLOCKED)
    media = (Media(MediaType.PICTURE, "https://x.example/a.png"), Media(MediaType.FILE, "https://x.example/a.pdf"))
    with structlog.testing.capture_logs() as logs:
        assert await channel.send(ANN, Content("t", media)) == Sent("41")
    assert [entry["action"] for entry in logs] == ["telegram_media_lost"]
    assert TOKEN not in repr(logs)


async def test_nothing_follows_a_message_that_did_not_go_out(channel: TelegramChannel, telegram: Platform) -> None:
    """A refused message leaves nothing half said."""
    telegram.says(BLOCKED)
    media = (Media(MediaType.FILE, "https://x.example/a.pdf"),) * 2
    assert isinstance(await channel.send(ANN, Content("t", media)), Never)
    assert len(telegram.asked) == 1


async def test_a_press_is_acknowledged_beside(inbound: TelegramInbound, telegram: Platform) -> None:
    """The platform's callback does not wait for the acknowledgement; closing does."""
    telegram.says(DONE)
    received = await inbound.receive({"X-Telegram-Bot-Api-Secret-Token": "hush"}, orjson.dumps(press()))
    assert [told.said for told in received.inbound] == [Said.PRESSED]
    assert telegram.asked == []
    await inbound.close()
    assert telegram.asked == [(f"/bot{TOKEN}/answerCallbackQuery", {"callback_query_id": "q1"})]


async def test_an_acknowledgement_that_fails_only_spins(inbound: TelegramInbound, telegram: Platform) -> None:
    """It is noted, and the press counts all the same."""
    telegram.says((400, {"ok": False, "error_code": 400, "description": "Bad Request: query is too old"}))
    with structlog.testing.capture_logs() as logs:
        received = await inbound.receive({"X-Telegram-Bot-Api-Secret-Token": "hush"}, orjson.dumps(press()))
        await inbound.close()
    assert len(received.inbound) == 1
    assert [entry["action"] for entry in logs] == ["telegram_press_unacknowledged"]


async def test_an_unproven_callback_brings_nothing(inbound: TelegramInbound, telegram: Platform) -> None:
    """Neither an inbound nor a follow-up."""
    received = await inbound.receive({}, orjson.dumps(press()))
    assert (received.status, received.refused) == (403, "bad_secret")
    assert (received.inbound, telegram.asked) == ((), [])


async def test_a_known_bot_is_connected(channel: TelegramChannel, telegram: Platform) -> None:
    """`check` learns the bot's name for links."""
    telegram.says(ME)
    assert await channel.check() is None
    assert channel.username == "news_bot"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (UNAUTHORIZED, "@BotFather"),
        ((404, {"ok": False, "error_code": 404, "description": "Not Found"}), "@BotFather"),
        ((502, b"<html>"), "reachable"),
        (LOST, "reachable"),
    ],
)
async def test_trouble_is_told_with_what_to_do(
    channel: TelegramChannel, telegram: Platform, said: Any, words: str
) -> None:
    """In words, and without the token."""
    telegram.says(said)
    trouble = await channel.check()
    assert trouble is not None
    assert words in trouble
    assert TOKEN not in trouble


async def test_connecting_registers_webhook_and_menu(inbound: TelegramInbound, telegram: Platform) -> None:
    """Address, secret and wanted updates are explicit, and waiting updates are kept."""
    telegram.says(DONE)
    assert await inbound.connect("https://clarion.example/") is None
    (webhook, registered), (menu, commands) = telegram.asked
    assert (webhook, menu) == (f"/bot{TOKEN}/setWebhook", f"/bot{TOKEN}/setMyCommands")
    assert registered == {
        "url": "https://clarion.example/webhooks/telegram/news",
        "secret_token": "hush",
        "allowed_updates": ["message", "callback_query", "my_chat_member", "message_reaction"],
    }
    assert [one["command"] for one in commands["commands"]] == ["start", "stop", "help"]


async def test_a_refused_webhook_is_told(inbound: TelegramInbound, telegram: Platform) -> None:
    """The menu is not tried after it."""
    refusal = "Bad Request: bad webhook: An HTTPS URL must be provided for webhook"
    telegram.says((400, {"ok": False, "error_code": 400, "description": refusal}))
    trouble = await inbound.connect("http://clarion.example")
    assert trouble is not None
    assert "https" in trouble
    assert len(telegram.asked) == 1


async def test_polling_takes_the_webhook_away(account: TelegramAccount, telegram: Platform) -> None:
    """Telegram allows one of the two; what waits is not dropped."""
    telegram.says(DONE)
    inbound = TelegramInbound(replace(account, mode=Mode.POLLING), StillClock())
    assert await inbound.connect("") is None
    await inbound.close()
    assert telegram.asked[0] == (f"/bot{TOKEN}/deleteWebhook", {"drop_pending_updates": False})


def updates(*found: Any) -> tuple[int, Any]:
    return 200, {"ok": True, "result": list(found)}


async def _batches(inbound: TelegramInbound, wanted: int) -> list[Received]:
    """So many batches; closing the iterator before the next question."""
    batches: list[Received] = []
    stream = inbound.poll()
    async for batch in stream:
        batches.append(batch)
        if len(batches) == wanted:
            break
    await stream.aclose()
    return batches


async def test_polling_confirms_what_was_taken(inbound: TelegramInbound, telegram: Platform) -> None:
    """The first question has no offset, the next confirms the batch before it; a broken update stops nothing."""
    telegram.says(updates(message("one"), {"update_id": 12, "message": "odd"}), updates(message("two")))
    first, second = await _batches(inbound, 2)
    assert [told.text for told in (*first.inbound, *second.inbound)] == ["one", "two"]
    assert [body.get("offset") for _, body in telegram.asked] == [None, 13]


async def test_what_was_not_taken_comes_again(inbound: TelegramInbound, telegram: Platform) -> None:
    """A new loop asks from the start: what was not confirmed is told again, under the same key."""
    telegram.says(updates(message("one")))
    [before], [after] = await _batches(inbound, 1), await _batches(inbound, 1)
    assert before.inbound[0].key == after.inbound[0].key
    assert [body.get("offset") for _, body in telegram.asked] == [None, None]


async def test_a_polled_press_is_acknowledged_too(inbound: TelegramInbound, telegram: Platform) -> None:
    """Both ways in have the same courtesies."""
    telegram.says(updates(press()), DONE)
    await _batches(inbound, 1)
    await inbound.close()
    assert telegram.asked[-1][0].endswith("/answerCallbackQuery")


async def test_polling_waits_faults_out(account: TelegramAccount, telegram: Platform) -> None:
    """Longer after each fault, exactly as long as told, and from the start after a success; 409 says what to do."""
    throttled = {"ok": False, "error_code": 429, "description": "slow", "parameters": {"retry_after": 7}}
    conflict = {"ok": False, "error_code": 409, "description": "Conflict: terminated by other getUpdates request"}
    telegram.says((502, b"<html>"), LOST, (409, conflict), (429, throttled), updates(message("one")))
    clock, http = StillClock(), Http(HttpSettings(connect=2.0, total=4.0))
    with structlog.testing.capture_logs() as logs:
        stream = poll(account, http, clock, lambda found: Received(status=len(found)), hold=0)
        assert (await anext(stream)).status == 1
    await stream.aclose()
    await http.close()
    assert [slept / timedelta(seconds=1) for slept in clock.slept] == [1, 2, 4, 7]
    assert {entry["action"] for entry in logs} == {"telegram_polling_failed"}
    assert "webhook" in logs[2]["mend"]
    assert TOKEN not in repr(logs)


async def test_polling_ends_when_cancelled(account: TelegramAccount, telegram: Platform) -> None:
    """Also while it waits for an answer."""
    telegram.says(updates())
    inbound = TelegramInbound(account, StillClock())
    task = asyncio.create_task(_batches(inbound, 1))
    await telegram.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await inbound.close()


async def test_the_library_speaks_over_our_transport(account: TelegramAccount, telegram: Platform) -> None:
    """python-telegram-bot's own methods work unchanged over the shared transport."""
    telegram.says(ME)
    http = Http()
    request = HttpRequest(http)
    async with Bot(TOKEN, base_url=account.base_url, request=request, get_updates_request=request) as bot:
        assert bot.username == "news_bot"
    await http.close()


async def test_the_library_hears_what_the_network_did(account: TelegramAccount, telegram: Platform) -> None:
    """Never connected and never answered are different errors of the library's."""
    http = Http(HttpSettings(connect=2.0, total=4.0))
    request = HttpRequest(http)
    telegram.says(LOST)
    with pytest.raises(TimedOut):
        await request.post(account.url("getMe"), RequestData())
    with pytest.raises(NetworkError, match="Connection refused"):
        await request.post("http://127.0.0.1:9/bot12:X/getMe", RequestData())
    assert request.read_timeout == 4.0
    await http.close()
