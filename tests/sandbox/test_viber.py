"""Viber's REST API, over HTTP and through viberbot."""

import hashlib
import hmac
from typing import Any

import pytest
from aiohttp import web
from viberbot import Api, BotConfiguration
from viberbot.api.viber_requests import (
    ViberConversationStartedRequest,
    ViberDeliveredRequest,
    ViberFailedRequest,
    ViberMessageRequest,
    ViberSeenRequest,
    ViberSubscribedRequest,
    ViberUnsubscribedRequest,
)

from sandbox.settings import SandboxSettings
from sandbox.viber_messages import STATUSES
from tests.sandbox.conftest import EPOCH, QUIET, VIBER, Bot, World, living

ME = "viber-00001"
SENDER = {"name": "Bot"}


async def subscribed(world: World, bot: Bot) -> str:
    """Set the webhook, let the first person subscribe, give their id."""
    await world.viber("set_webhook", {"url": f"{bot.url}/viber"})
    await world.act(ME, "start")
    bot.hits.clear()
    return str(world.person(ME).viber_id)


def text(receiver: str, words: str = "x", **more: Any) -> dict[str, Any]:
    """A text message."""
    return {"receiver": receiver, "type": "text", "sender": SENDER, "text": words, **more}


async def test_wrong_token(world: World) -> None:
    """A wrong token is status 2 under HTTP 200."""
    assert (await world.viber("get_account_info", {}, token="none"))["status"] == 2


async def test_set_webhook_calls_back(world: World, bot: Bot) -> None:
    """set_webhook calls the address at once, signed."""
    assert (await world.viber("set_webhook", {"url": bot.url}))["status"] == 0
    [hit] = bot.hits
    assert hit.body["event"] == "webhook"
    expected = hmac.new(VIBER.token.encode(), hit.raw, hashlib.sha256).hexdigest()
    assert hit.headers["X-Viber-Content-Signature"] == expected


async def test_set_webhook_refused(world: World, bot: Bot) -> None:
    """An address that does not answer 200 is not registered."""
    bot.answer = lambda _hit: web.Response(status=404)
    answer = await world.viber("set_webhook", {"url": bot.url})
    assert (answer["status"], answer["status_message"]) == (1, "invalidUrl")


async def test_webhook_first(world: World) -> None:
    """Without a webhook nothing can be sent."""
    assert (await world.viber("send_message", text(world.person(ME).viber_id)))["status"] == 10


async def test_send(world: World, bot: Bot) -> None:
    """A message has a token of 19 digits and is on record with its buttons."""
    receiver = await subscribed(world, bot)
    buttons = [
        {"ActionType": "reply", "ActionBody": "later", "Text": "Later"},
        {"ActionType": "open-url", "ActionBody": "https://a.example", "Text": "Open"},
    ]
    answer = await world.viber("send_message", text(receiver, keyboard={"Type": "keyboard", "Buttons": buttons}))
    assert answer["status"] == 0
    assert len(str(answer["message_token"])) == 19
    [item] = (await world.get("/sandbox/messages"))["items"]
    assert item["message_id"] == str(answer["message_token"])
    assert item["buttons"] == [
        {"type": "reply", "label": "Later", "value": "later"},
        {"type": "link", "label": "Open", "url": "https://a.example"},
    ]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"receiver": "nobody"}, 5),
        ({"receiver": ""}, 4),
        ({"text": ""}, 4),
        ({"sender": {}}, 4),
        ({"text": "x" * 7001}, 3),
        ({"tracking_data": "x" * 4001}, 3),
        ({"sender": {"name": "x" * 29}}, 3),
        ({"type": "pigeon"}, 3),
        ({"type": "picture"}, 4),
        ({"type": "picture", "media": "https://a.example/p.png", "text": "x" * 513}, 3),
        ({"type": "video", "media": "https://a.example/v.mp4", "size": 27 * 1024 * 1024}, 3),
        ({"type": "file", "media": "https://a.example/f", "size": 1}, 4),
        ({"type": "rich_media", "rich_media": {"Buttons": []}}, 13),
        ({"min_api_version": 99}, 13),
        ({"filler": "x" * 31_000}, 3),
    ],
)
async def test_content_faults(world: World, bot: Bot, change: dict[str, Any], status: int) -> None:
    """Content that breaks a rule of D3 has its status, always under HTTP 200."""
    receiver = await subscribed(world, bot)
    assert (await world.viber("send_message", {**text(receiver), **change}))["status"] == status


@pytest.mark.parametrize("code", [code for code in STATUSES if code])
async def test_every_status(world: World, bot: Bot, code: int) -> None:
    """Every status of D4 can be provoked."""
    receiver = await subscribed(world, bot)
    await world.fault(channel="viber", method="send_message", kind="platform_error", code=code, count=1)
    answer = await world.viber("send_message", text(receiver))
    assert (answer["status"], answer["status_message"]) == (code, STATUSES[code])


async def test_100_unanswered() -> None:
    """After 100 messages in an hour without a reply comes status 12; a reply resets it."""
    settings = SandboxSettings(seed=7, epoch=EPOCH, people=1, started=True, behaviour=QUIET, speed=0.001)
    async with living(settings) as world:
        world.sandbox.viber._bots[VIBER.token].url = "http://127.0.0.1:9/"  # noqa: SLF001 - no bot needed here
        receiver = world.person(ME).viber_id
        statuses = [(await world.viber("send_message", text(receiver)))["status"] for _ in range(101)]
        assert statuses == [0] * 100 + [12]
        await world.act(ME, "say", text="Hi", wait_seconds=0)
        assert (await world.viber("send_message", text(receiver)))["status"] == 0
        await world.advance(3601)
        assert (await world.viber("send_message", text(receiver)))["status"] == 0


async def test_broadcast(world: World, bot: Bot) -> None:
    """One token for all, a list of who failed, placeholders filled in."""
    receiver = await subscribed(world, bot)
    body = {"type": "text", "sender": SENDER, "text": "Hi replace_me_with_user_name"}
    stranger = world.person("viber-00002").viber_id
    answer = await world.viber("broadcast_message", {**body, "broadcast_list": [receiver, stranger, "nobody"]})
    assert [(one["receiver"], one["status"]) for one in answer["failed_list"]] == [(stranger, 6), ("nobody", 5)]
    [item] = (await world.get("/sandbox/messages"))["items"]
    assert (item["text"], item["message_id"]) == (f"Hi {world.person(ME).name}", str(answer["message_token"]))
    assert (await world.viber("broadcast_message", {**body, "broadcast_list": ["x"] * 301}))["status"] == 3


async def test_online(world: World, bot: Bot) -> None:
    """Presence is told for subscribers, at most 100 at once."""
    receiver = await subscribed(world, bot)
    stranger = world.person("viber-00002").viber_id
    for word, expected in (
        ("Available", 0),
        ("Offline", 1),
        ("Undisclosed", 2),
        ("TryLater", 3),
        ("Unavailable", 4),
    ):
        await world.call("PUT", f"/sandbox/people/{ME}/presence", {"availability": word})
        answer = await world.viber("get_online", {"ids": [receiver, stranger]})
        assert [one["online_status"] for one in answer["users"]] == [expected, 4]
    assert (await world.viber("get_online", {"ids": ["x"] * 101}))["status"] == 3


async def test_user_details_twice(world: World, bot: Bot) -> None:
    """Details of a user are given twice in twelve hours."""
    receiver = await subscribed(world, bot)
    statuses = [(await world.viber("get_user_details", {"id": receiver}))["status"] for _ in range(3)]
    assert statuses == [0, 0, 12]
    await world.advance(12 * 3600 + 1)
    answer = await world.viber("get_user_details", {"id": receiver})
    assert answer["user"]["name"] == world.person(ME).name


async def test_account_info(world: World, bot: Bot) -> None:
    """The account says how many are subscribed."""
    await subscribed(world, bot)
    assert (await world.viber("get_account_info", {}))["subscribers_count"] == 1


async def test_welcome(world: World, bot: Bot) -> None:
    """The answer to conversation_started is shown as the welcome message."""
    await world.viber("set_webhook", {"url": bot.url})
    bot.answer = lambda _hit: web.json_response({"type": "text", "text": "Welcome", "sender": SENDER})
    await world.act(ME, "start", payload="ctx")
    assert bot.bodies()[1]["context"] == "ctx"
    assert [item["text"] for item in (await world.get("/sandbox/messages"))["items"]] == ["Welcome"]


async def test_writing_subscribes_silently(world: World, bot: Bot) -> None:
    """Who writes is subscribed, without a `subscribed` event."""
    await world.viber("set_webhook", {"url": bot.url})
    await world.act(ME, "say", text="Hi")
    assert [body["event"] for body in bot.bodies()] == ["webhook", "message"]
    assert (await world.viber("send_message", text(world.person(ME).viber_id)))["status"] == 0


async def test_seen_once(world: World, bot: Bot) -> None:
    """Reading several messages gives one `seen`, for the newest; reading again gives none."""
    receiver = await subscribed(world, bot)
    tokens = [(await world.viber("send_message", text(receiver)))["message_token"] for _ in range(2)]
    await world.act(ME, "read")
    await world.act(ME, "read")
    told = [(body["event"], body["message_token"]) for body in bot.bodies()]
    assert told == [("delivered", tokens[0]), ("delivered", tokens[1]), ("seen", tokens[1])]


async def test_tracking_data_comes_back_once(world: World, bot: Bot) -> None:
    """Tracking data returns with the next reply only; the text is the ActionBody."""
    receiver = await subscribed(world, bot)
    keyboard = {"Type": "keyboard", "Buttons": [{"ActionType": "reply", "ActionBody": "yes", "Text": "Yes!"}]}
    await world.viber("send_message", text(receiver, tracking_data="t1", keyboard=keyboard))
    await world.act(ME, "press")
    await world.act(ME, "say", text="more")
    first, second = (body["message"] for body in bot.bodies())
    assert (first["text"], first["tracking_data"]) == ("yes", "t1")
    assert "tracking_data" not in second


async def test_unsubscribed(world: World, bot: Bot) -> None:
    """After unsubscribing sends have status 6."""
    receiver = await subscribed(world, bot)
    await world.act(ME, "unsubscribe")
    assert bot.bodies()[0]["event"] == "unsubscribed"
    assert (await world.viber("send_message", text(receiver)))["status"] == 6


async def test_event_filter(world: World, bot: Bot) -> None:
    """Events not asked for do not come, the unconditional ones do."""
    await world.viber("set_webhook", {"url": bot.url, "event_types": []})
    await world.act(ME, "start")
    await world.viber("send_message", text(world.person(ME).viber_id))
    await world.act(ME, "read")
    assert [body["event"] for body in bot.bodies()] == ["webhook", "subscribed"]


async def test_callbacks_are_repeated(world: World, bot: Bot) -> None:
    """A refused callback comes again after 10, 60 and 300 seconds."""
    await subscribed(world, bot)
    bot.answer = lambda _hit: web.Response(status=500)
    await world.act(ME, "say", text="Hi")
    for number, seconds in enumerate((10, 60, 300), start=2):
        await world.advance(seconds - 1)
        assert len(bot.hits) == number - 1
        await world.advance(1)
        await world.until(lambda count=number: len(bot.hits) == count)  # type: ignore[misc]  # mypy infers no type for a lambda with a default
    assert len({hit.raw for hit in bot.hits}) == 1


async def test_viberbot_reads_the_callbacks(world: World, bot: Bot) -> None:
    """An independent client verifies the signatures and understands the events."""
    await world.viber("set_webhook", {"url": bot.url})
    await world.act(ME, "start", payload="ctx")
    await world.viber("send_message", text(world.person(ME).viber_id))
    await world.act(ME, "read")
    await world.act(ME, "fail", reason="too old")
    await world.act(ME, "say", text="Hi")
    await world.act(ME, "unsubscribe")
    api = Api(BotConfiguration(VIBER.token, "Bot", ""))
    kinds = []
    for hit in bot.hits[1:]:
        assert api.verify_signature(hit.raw, hit.headers["X-Viber-Content-Signature"])
        kinds.append(type(api.parse_request(hit.raw)))
    assert kinds == [
        ViberConversationStartedRequest,
        ViberSubscribedRequest,
        ViberDeliveredRequest,
        ViberSeenRequest,
        ViberFailedRequest,
        ViberMessageRequest,
        ViberUnsubscribedRequest,
    ]
