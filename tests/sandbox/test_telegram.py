"""The Bot API, over HTTP and through python-telegram-bot."""

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest
import telegram
from aiohttp import web

from sandbox.settings import SandboxSettings
from sandbox.telegram_errors import ROWS
from tests.sandbox.conftest import EPOCH, QUIET, TELEGRAM, Bot, World, living

ME = "telegram-00001"


async def started(world: World, bot: Bot, **webhook: Any) -> int:
    """Set the webhook, let the first person start, give their chat id."""
    await world.telegram("setWebhook", {"url": f"{bot.url}/tg", **webhook})
    await world.act(ME, "start")
    chat_id: int = world.person(ME).telegram_id
    return chat_id


async def test_unknown_token(world: World) -> None:
    """A token nobody has is answered with 401."""
    status, body = await world.telegram("getMe", token="1:none")
    assert (status, body) == (401, {"ok": False, "error_code": 401, "description": "Unauthorized"})


async def test_unknown_method(world: World) -> None:
    """A method that does not exist is answered with 404."""
    assert (await world.telegram("sendPigeon"))[0] == 404


async def test_get_me(world: World) -> None:
    """The bot's id is the number before the colon of its token."""
    _, body = await world.telegram("getMe")
    assert body["result"]["id"] == 100000001
    assert body["result"]["is_bot"] is True


async def test_message_is_answered_and_recorded(world: World, bot: Bot) -> None:
    """A message is answered as a Message and is on record for its person."""
    chat_id = await started(world, bot)
    keyboard = {
        "inline_keyboard": [[{"text": "Go", "url": "https://a.example"}, {"text": "Ok", "callback_data": "k1"}]]
    }
    _, body = await world.telegram(
        "sendMessage",
        {"chat_id": chat_id, "text": "<b>Hi</b> &amp; bye", "parse_mode": "HTML", "reply_markup": keyboard},
    )
    result = body["result"]
    assert result["text"] == "Hi & bye"
    assert result["entities"] == [{"type": "bold", "offset": 0, "length": 2}]
    assert result["chat"]["id"] == chat_id
    [item] = (await world.get(f"/sandbox/messages?person={ME}"))["items"]
    assert item["text"] == "Hi & bye"
    assert item["message_id"] == str(result["message_id"])
    assert item["buttons"] == [
        {"type": "link", "label": "Go", "url": "https://a.example"},
        {"type": "reply", "label": "Ok", "value": "k1"},
    ]


@pytest.mark.parametrize("form", ["query", "form", "multipart", "json"])
async def test_all_encodings(world: World, bot: Bot, form: str) -> None:
    """Parameters are read from the query, a form, multipart and JSON alike."""
    chat_id = await started(world, bot)
    markup = {"inline_keyboard": [[{"text": "Ok", "callback_data": "k"}]]}
    plain = {"chat_id": str(chat_id), "text": "x", "reply_markup": orjson.dumps(markup).decode()}
    path = f"/telegram/bot{TELEGRAM.token}/sendMessage"
    match form:
        case "query":
            status, _ = await world.call("GET", path, params=plain)
        case "form":
            status, _ = await world.call("POST", path, data=plain)
        case "multipart":
            data = aiohttp.FormData(plain)
            data.add_field("unused", b"1", filename="one.bin")
            status, _ = await world.call("POST", path, data=data)
        case _:
            status, _ = await world.call("POST", path, {**plain, "reply_markup": markup})
    assert status == 200
    [item] = (await world.get("/sandbox/messages"))["items"]
    assert item["buttons"][0]["value"] == "k"


@pytest.mark.parametrize(
    ("params", "description"),
    [
        ({"text": ""}, "message text is empty"),
        ({"text": "<b> </b>", "parse_mode": "HTML"}, "message text is empty"),
        ({"text": "x" * 4097}, "message is too long"),
        ({"text": "😀" * 2049}, "message is too long"),
        ({"text": "<b>x", "parse_mode": "HTML"}, "can't parse entities"),
        ({"text": "<p>x</p>", "parse_mode": "HTML"}, "can't parse entities"),
        ({"text": "<b><i>x</b></i>", "parse_mode": "HTML"}, "can't parse entities"),
        ({"text": "1 < 2", "parse_mode": "HTML"}, "can't parse entities"),
        ({"text": "Hi.", "parse_mode": "MarkdownV2"}, "can't parse entities"),
        ({"text": "x", "reply_markup": {"inline_keyboard": [[{"text": "b", "callback_data": "x" * 65}]]}},
         "BUTTON_DATA_INVALID"),
        ({"text": "x", "reply_markup": {"inline_keyboard": [[{"text": "b", "callback_data": ""}]]}},
         "BUTTON_DATA_INVALID"),
        ({"text": "x", "reply_markup": {"inline_keyboard": [[{"text": "b"}]]}}, "Text buttons are unallowed"),
        ({"text": "x", "chat_id": 42}, "chat not found"),
        ({"text": "x", "chat_id": ""}, "chat_id is empty"),
    ],
)  # fmt: skip
async def test_content_faults(world: World, bot: Bot, params: dict[str, Any], description: str) -> None:
    """Content that breaks a rule of C3 is refused with 400 and the platform's words."""
    chat_id = await started(world, bot)
    status, body = await world.telegram("sendMessage", {"chat_id": chat_id, **params})
    assert status == 400
    assert description in body["description"]


async def test_length_counts_after_entities(world: World, bot: Bot) -> None:
    """Tags do not count towards the 4096 characters."""
    chat_id = await started(world, bot)
    text = "<b>" + "x" * 4096 + "</b>"
    assert (await world.telegram("sendMessage", {"chat_id": chat_id, "text": text, "parse_mode": "HTML"}))[0] == 200


async def test_stranger(world: World) -> None:
    """Who never started the bot is not found."""
    status, body = await world.telegram("sendMessage", {"chat_id": world.person(ME).telegram_id, "text": "x"})
    assert (status, body["description"]) == (400, "Bad Request: chat not found")


async def test_blocked(world: World, bot: Bot) -> None:
    """After a block sends are refused and the bot was told `kicked`; after an unblock `member`."""
    chat_id = await started(world, bot)
    await world.act(ME, "block")
    assert bot.bodies()[-1]["my_chat_member"]["new_chat_member"]["status"] == "kicked"
    status, body = await world.telegram("sendMessage", {"chat_id": chat_id, "text": "x"})
    assert (status, body["description"]) == (403, "Forbidden: bot was blocked by the user")
    await world.act(ME, "unblock")
    assert bot.bodies()[-1]["my_chat_member"]["new_chat_member"]["status"] == "member"
    assert (await world.telegram("sendMessage", {"chat_id": chat_id, "text": "x"}))[0] == 200


async def test_webhook_carries_secret(world: World, bot: Bot) -> None:
    """Updates come to the webhook with the secret token."""
    await started(world, bot, secret_token="s3cret_-")
    [hit] = bot.hits
    assert hit.headers["X-Telegram-Bot-Api-Secret-Token"] == "s3cret_-"
    assert hit.body["message"]["text"] == "/start"
    assert hit.body["message"]["from"]["id"] == world.person(ME).telegram_id


async def test_start_payload(world: World, bot: Bot) -> None:
    """A deep link's payload follows /start."""
    await world.telegram("setWebhook", {"url": bot.url})
    answer = await world.act(ME, "start", payload="abc")
    assert answer["status"] == 200
    assert bot.bodies()[0]["message"]["text"] == "/start abc"


async def test_webhook_is_repeated(world: World, bot: Bot) -> None:
    """An update refused by the webhook comes again, with the same id."""
    bot.answer = lambda _hit: web.Response(status=500 if len(bot.hits) == 1 else 200)
    await started(world, bot)
    await world.advance(2)
    await world.until(lambda: len(bot.hits) == 2)
    assert bot.bodies()[0]["update_id"] == bot.bodies()[1]["update_id"]


async def test_webhook_retry_after(world: World, bot: Bot) -> None:
    """A Retry-After in the webhook's answer is honoured."""
    bot.answer = lambda _hit: web.Response(status=503, headers={"Retry-After": "600"})
    await started(world, bot)
    await world.advance(500)
    await asyncio.sleep(0.01)
    assert len(bot.hits) == 1
    await world.advance(101)
    await world.until(lambda: len(bot.hits) == 2)


async def test_order_is_kept_while_repeating(world: World, bot: Bot) -> None:
    """A person's later updates wait for the one that is being repeated."""
    bot.answer = lambda _hit: web.Response(status=500 if len(bot.hits) <= 2 else 200)
    await world.telegram("setWebhook", {"url": bot.url})
    await world.act(ME, "say", text="one", wait_seconds=0.05)
    await world.act(ME, "say", text="two", wait_seconds=0.05)
    await world.advance(1)
    await world.until(lambda: len(bot.hits) == 2)
    await world.advance(2)
    await world.until(lambda: len(bot.hits) == 4)
    assert [body["message"]["text"] for body in bot.bodies()] == ["one", "one", "one", "two"]


async def test_updates_wait_for_the_webhook(world: World, bot: Bot) -> None:
    """What happened before setWebhook is delivered after it, unless dropped."""
    await world.act(ME, "say", text="early", wait_seconds=0)
    await world.telegram("setWebhook", {"url": bot.url})
    await world.until(lambda: bool(bot.hits))
    await world.telegram("deleteWebhook")
    await world.act(ME, "say", text="lost", wait_seconds=0)
    await world.telegram("setWebhook", {"url": bot.url, "drop_pending_updates": True})
    await world.act(ME, "say", text="late")
    assert [body["message"]["text"] for body in bot.bodies()] == ["early", "late"]


async def test_method_in_the_answer(world: World, bot: Bot) -> None:
    """A method in the webhook's answer is carried out."""
    answer = {"method": "sendMessage", "chat_id": world.person(ME).telegram_id, "text": "welcome"}
    bot.answer = lambda _hit: web.json_response(answer)
    await started(world, bot)
    assert (await world.get("/sandbox/messages"))["items"][0]["text"] == "welcome"


async def test_get_updates(world: World) -> None:
    """Polling gives updates until the offset confirms them."""
    await world.act(ME, "start", wait_seconds=0)
    _, body = await world.telegram("getUpdates")
    [update] = body["result"]
    assert update["message"]["text"] == "/start"
    _, body = await world.telegram("getUpdates", {"offset": update["update_id"] + 1})
    assert body["result"] == []


async def test_long_poll_wakes(world: World) -> None:
    """A long poll ends as soon as there is an update, and the act learns that it was taken."""
    poll = asyncio.create_task(world.telegram("getUpdates", {"timeout": 20}))
    await asyncio.sleep(0.01)
    act = asyncio.create_task(world.act(ME, "start"))
    _, body = await poll
    await world.telegram("getUpdates", {"offset": body["result"][0]["update_id"] + 1})
    assert (await act)["status"] == 200


async def test_get_updates_with_webhook(world: World, bot: Bot) -> None:
    """Polling beside a webhook is a conflict."""
    await world.telegram("setWebhook", {"url": bot.url})
    assert (await world.telegram("getUpdates"))[0] == 409


async def test_two_pollers(world: World) -> None:
    """A second poller ends the first with a conflict."""
    first = asyncio.create_task(world.telegram("getUpdates", {"timeout": 20}))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(world.telegram("getUpdates", {"timeout": 20}))
    assert (await first)[0] == 409
    await world.act(ME, "start", wait_seconds=0)
    assert (await second)[0] == 200


async def test_press_and_answer(world: World, bot: Bot) -> None:
    """A pressed button is a callback query with its data, answered once."""
    chat_id = await started(world, bot)
    keyboard = {"inline_keyboard": [[{"text": "Yes", "callback_data": "y"}, {"text": "No", "callback_data": "n"}]]}
    _, sent = await world.telegram("sendMessage", {"chat_id": chat_id, "text": "?", "reply_markup": keyboard})
    await world.act(ME, "press", button="No")
    query = bot.bodies()[-1]["callback_query"]
    assert query["data"] == "n"
    assert query["message"]["message_id"] == sent["result"]["message_id"]
    assert (await world.telegram("answerCallbackQuery", {"callback_query_id": query["id"]}))[0] == 200
    status, body = await world.telegram("answerCallbackQuery", {"callback_query_id": query["id"]})
    assert (status, body["description"][:28]) == (400, "Bad Request: query is too ol")


async def test_edit_and_delete(world: World, bot: Bot) -> None:
    """Edits and deletions show in the record; editing to the same is refused, a second deletion too."""
    chat_id = await started(world, bot)
    _, sent = await world.telegram("sendMessage", {"chat_id": chat_id, "text": "one"})
    target = {"chat_id": chat_id, "message_id": sent["result"]["message_id"]}
    assert (await world.telegram("editMessageText", {**target, "text": "two"}))[1]["result"]["text"] == "two"
    status, body = await world.telegram("editMessageText", {**target, "text": "two"})
    assert (status, "not modified" in body["description"]) == (400, True)
    [item] = (await world.get("/sandbox/messages"))["items"]
    assert (item["text"], item["state"]) == ("two", "edited")
    assert (await world.telegram("deleteMessage", target))[0] == 200
    assert (await world.telegram("deleteMessage", target))[0] == 400
    assert (await world.get("/sandbox/messages"))["items"][0]["state"] == "deleted"


async def test_old_messages_stay(world: World, bot: Bot) -> None:
    """After 48 hours a message cannot be deleted."""
    chat_id = await started(world, bot)
    _, sent = await world.telegram("sendMessage", {"chat_id": chat_id, "text": "one"})
    await world.advance(48 * 3600 + 1)
    status, _ = await world.telegram(
        "deleteMessage", {"chat_id": chat_id, "message_id": sent["result"]["message_id"]}
    )
    assert status == 400


async def test_photo_by_file_id(world: World, bot: Bot) -> None:
    """A file id that came back can be sent again; others are refused."""
    chat_id = await started(world, bot)
    _, sent = await world.telegram(
        "sendPhoto", {"chat_id": chat_id, "photo": "https://a.example/p.png", "caption": "c"}
    )
    file_id = sent["result"]["photo"][-1]["file_id"]
    assert (await world.telegram("sendPhoto", {"chat_id": chat_id, "photo": file_id}))[0] == 200
    assert (await world.telegram("sendPhoto", {"chat_id": chat_id, "photo": "AgAC-unknown"}))[0] == 400
    status, body = await world.telegram("sendPhoto", {"chat_id": chat_id, "photo": file_id, "caption": "x" * 1025})
    assert (status, body["description"]) == (400, "Bad Request: message caption is too long")


async def test_bot_limit() -> None:
    """About 30 messages a second pass for one bot, then 429 says how long to wait."""
    settings = SandboxSettings(seed=7, epoch=EPOCH, people=40, started=True, behaviour=QUIET, speed=0.001)
    async with living(settings) as world:
        statuses = []
        for number in range(40):
            chat_id = world.person(f"telegram-{number + 1:05d}").telegram_id
            status, body = await world.telegram("sendMessage", {"chat_id": chat_id, "text": "x"})
            statuses.append(status)
        assert statuses == [200] * 33 + [429] * 7
        assert body["parameters"] == {"retry_after": 1}
        assert body["description"] == "Too Many Requests: retry after 1"
        await world.advance(1)
        assert (await world.telegram("sendMessage", {"chat_id": chat_id, "text": "x"}))[0] == 200
        stats = await world.get("/sandbox/stats")
        assert stats["most_sends_in_a_second"]["telegram/default"] == 33
        assert stats["limit_violations"][0]["count"] == 7


async def test_chat_limit() -> None:
    """Three messages to one chat pass at once, then one a second."""
    settings = SandboxSettings(seed=7, epoch=EPOCH, people=1, started=True, behaviour=QUIET, speed=0.001)
    async with living(settings) as world:
        message = {"chat_id": world.person(ME).telegram_id, "text": "x"}
        assert [(await world.telegram("sendMessage", message))[0] for _ in range(4)] == [200, 200, 200, 429]
        await world.advance(1)
        assert [(await world.telegram("sendMessage", message))[0] for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("name", list(ROWS))
async def test_every_error_row(world: World, bot: Bot, name: str) -> None:
    """Every row of C2 can be provoked, with its exact words."""
    chat_id = await started(world, bot)
    await world.fault(channel="telegram", method="sendMessage", kind="platform_error", code=name, count=1)
    status, body = await world.telegram("sendMessage", {"chat_id": chat_id, "text": "x"})
    assert (status, body["error_code"], body["description"]) == (ROWS[name][0], *ROWS[name])
    assert ("migrate_to_chat_id" in body.get("parameters", {})) == (name == "upgraded")
    assert (await world.telegram("sendMessage", {"chat_id": chat_id, "text": "x"}))[0] == 200


async def test_commands(world: World) -> None:
    """Commands are kept, and checked against the rules of C3."""
    commands = [{"command": "stop", "description": "Stop"}]
    assert (await world.telegram("setMyCommands", {"commands": commands}))[0] == 200
    assert (await world.telegram("getMyCommands"))[1]["result"] == commands
    assert (await world.telegram("setMyCommands", {"commands": [{"command": "Stop!", "description": "x"}]}))[
        0
    ] == 400


async def test_python_telegram_bot(world: World, bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """An independent client understands the answers."""
    # Its older way to give a wait is deprecated, and warnings are errors here.
    monkeypatch.setenv("PTB_TIMEDELTA", "1")
    chat_id = await started(world, bot)
    client = telegram.Bot(TELEGRAM.token, base_url=f"{world.sandbox.url}/telegram/bot")
    async with client:
        assert client.username == TELEGRAM.username
        markup = telegram.InlineKeyboardMarkup([[telegram.InlineKeyboardButton("Ok", callback_data="k")]])
        sent = await client.send_message(chat_id, "<i>Hello</i>", parse_mode="HTML", reply_markup=markup)
        assert (sent.text, sent.chat.id) == ("Hello", chat_id)
        assert sent.entities[0].type == "italic"
        photo = await client.send_photo(chat_id, photo=b"\x89PNG....", caption="c")
        assert photo.caption == "c"
        await client.edit_message_text("Bye", chat_id, sent.message_id)
        assert await client.delete_message(chat_id, photo.message_id)
        info = await client.get_webhook_info()
        assert info.url == f"{bot.url}/tg"
        await client.get_chat(chat_id)
        media = [
            telegram.InputMediaPhoto("https://a.example/1.png"),
            telegram.InputMediaPhoto("https://a.example/2.png"),
        ]
        await world.advance(10)
        assert len(await client.send_media_group(chat_id, media)) == 2
        await world.act(ME, "block")
        with pytest.raises(telegram.error.Forbidden):
            await client.send_message(chat_id, "x")
        with pytest.raises(telegram.error.BadRequest):
            await client.send_message(42, "x")
        await world.fault(channel="telegram", kind="throttle", retry_after=7, count=1)
        with pytest.raises(telegram.error.RetryAfter):
            await client.send_message(chat_id, "x")


async def test_python_telegram_bot_reads_updates(world: World, bot: Bot) -> None:
    """An independent client understands the updates."""
    chat_id = await started(
        world, bot, allowed_updates=["message", "callback_query", "my_chat_member", "message_reaction"]
    )
    keyboard = {"inline_keyboard": [[{"text": "Ok", "callback_data": "k"}]]}
    await world.telegram("sendMessage", {"chat_id": chat_id, "text": "?", "reply_markup": keyboard})
    for act in ("press", "react", "block"):
        await world.act(ME, act)
    updates = [telegram.Update.de_json(body, None) for body in bot.bodies()]
    assert updates[0].message is not None
    assert updates[1].callback_query is not None
    assert updates[1].callback_query.data == "k"
    assert updates[2].message_reaction is not None
    assert updates[3].my_chat_member is not None
    assert updates[3].my_chat_member.new_chat_member.status == "kicked"
