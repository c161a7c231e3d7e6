"""The world as a whole: faults, control, people left to themselves, start and stop."""

import asyncio
import sys
import time
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from sandbox.acts import Act
from sandbox.control import Control
from sandbox.directory import Standing
from sandbox.faults import FaultKind
from sandbox.server import Sandbox
from sandbox.settings import Behaviour, Channel, PresenceShares, SandboxSettings
from tests.sandbox.conftest import EPOCH, QUIET, TEAMS, TELEGRAM, VIBER, Bot, World, living

ME = "telegram-00001"


async def send(world: World, **more: Any) -> tuple[int, Any]:
    """Send the first person on Telegram a message."""
    world.contact(ME).standing = Standing.ACTIVE
    return await world.telegram("sendMessage", {"chat_id": world.person(ME).telegram_id, "text": "x", **more})


async def count(world: World) -> int:
    """How many messages were received."""
    total: int = (await world.get("/sandbox/messages"))["total"]
    return total


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("kind", ["drop", "timeout"])
async def test_answer_is_lost(world: World, kind: str, after_effect: bool) -> None:
    """The connection ends without an answer; with `after_effect` the message was delivered all the same."""
    await world.fault(channel="telegram", kind=kind, seconds=0.01, after_effect=after_effect, count=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await send(world)
    assert await count(world) == int(after_effect)


async def test_slow(world: World) -> None:
    """A slow answer is the right one, late."""
    await world.fault(channel="telegram", kind="slow", seconds=0.05, count=1)
    begun = time.perf_counter()
    assert (await send(world))[0] == 200
    assert time.perf_counter() - begun >= 0.05


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_status(world: World, status: int) -> None:
    """Any HTTP status can be had, also after the message was delivered."""
    await world.fault(channel="telegram", kind="status", status=status, count=1, after_effect=True)
    assert (await send(world))[0] == status
    assert await count(world) == 1


async def test_throttle_without_wait(world: World) -> None:
    """A throttle need not say how long to wait."""
    await world.fault(channel="telegram", kind="throttle", count=1)
    status, body = await send(world)
    assert (status, "parameters" in body) == (429, False)


async def test_refuse(world: World) -> None:
    """A refusal looks as if the person had blocked the bot, for that person only."""
    await world.fault(channel="telegram", kind="refuse", person=ME)
    assert (await send(world))[0] == 403
    assert {kind.value for kind in FaultKind} == {
        "status", "throttle", "timeout", "drop", "slow", "refuse", "platform_error",
    }  # fmt: skip


async def test_fault_narrowed_by_method_and_count(world: World) -> None:
    """A rule hits its method only, and only so many times."""
    rule = await world.fault(channel="telegram", kind="status", status=500, method="sendMessage", count=2)
    assert (await world.telegram("getMe"))[0] == 200
    assert [(await send(world))[0] for _ in range(3)] == [500, 500, 200]
    [shown] = (await world.get("/sandbox/faults"))["items"]
    assert (shown["id"], shown["hits"]) == (rule["id"], 2)


async def test_fault_ends(world: World) -> None:
    """A rule ends after its sandbox seconds."""
    await world.fault(channel="telegram", kind="status", status=500, seconds_active=60)
    await world.advance(59)
    assert (await send(world))[0] == 500
    await world.advance(1)
    assert (await send(world))[0] == 200


async def test_fault_probability() -> None:
    """A probability hits about so often, and a seed repeats which ones."""
    runs = []
    for _ in range(2):
        async with living(SandboxSettings(seed=3, people=1, behaviour=QUIET, enforce_limits=False)) as world:
            await world.fault(channel="telegram", kind="status", status=500, probability=0.5)
            runs.append([(await world.telegram("getMe"))[0] for _ in range(100)])
    assert runs[0] == runs[1]
    assert 30 < runs[0].count(500) < 70


async def test_fault_is_taken_back(world: World) -> None:
    """Rules can be removed one by one and all at once."""
    rule = await world.fault(channel="telegram", kind="status", status=500)
    assert (await world.call("DELETE", f"/sandbox/faults/{rule['id']}"))[0] == 204
    assert (await world.call("DELETE", f"/sandbox/faults/{rule['id']}"))[0] == 404
    await world.fault(channel="telegram", kind="status", status=500)
    await world.call("DELETE", "/sandbox/faults")
    assert (await send(world))[0] == 200


@pytest.mark.parametrize(
    "body", [{"kind": "none", "channel": "teams"}, {"kind": "drop"}, {"kind": "drop", "channel": "x"}]
)
async def test_bad_fault(world: World, body: dict[str, str]) -> None:
    """A rule that makes no sense is refused."""
    assert (await world.call("POST", "/sandbox/faults", body))[0] == 422


async def test_login_and_graph_faults(world: World) -> None:
    """Sign-in and Graph can fail too."""
    token = await world.token("https://graph.microsoft.com/.default")
    await world.fault(channel="login", kind="status", status=503, count=1)
    status, _ = await world.call("POST", f"/login/{TEAMS.tenant_id}/oauth2/v2.0/token", data={})
    assert status == 503
    await world.fault(channel="graph", kind="status", status=403, count=1)
    status, body = await world.call("GET", "/graph/v1.0/users", headers={"Authorization": f"Bearer {token}"})
    assert (status, body["error"]["code"]) == (403, "Forbidden")


async def test_limits_not_enforced() -> None:
    """Without enforcement a breach is counted, not refused."""
    settings = SandboxSettings(people=1, started=True, behaviour=QUIET, enforce_limits=False, speed=0.001)
    async with living(settings) as world:
        message = {"chat_id": world.person(ME).telegram_id, "text": "x"}
        assert [(await world.telegram("sendMessage", message))[0] for _ in range(6)] == [200] * 6
        [violation] = (await world.get("/sandbox/stats"))["limit_violations"]
        assert (violation["limit"], violation["count"]) == ("chat_per_second", 3)


async def test_messages_are_only_counted() -> None:
    """A sandbox told to forget messages still counts and answers."""
    settings = SandboxSettings(people=1, started=True, behaviour=QUIET, keep_messages=False)
    async with living(settings) as world:
        _, body = await world.telegram("sendMessage", {"chat_id": world.person(ME).telegram_id, "text": "x"})
        assert body["result"]["message_id"] == 1
        page = await world.get("/sandbox/messages")
        assert (page["items"], page["total"]) == ([], 1)


async def test_messages_are_paged() -> None:
    """Pages join without gap or overlap, whatever is asked for."""
    settings = SandboxSettings(people=2, started=True, behaviour=QUIET, enforce_limits=False)
    async with living(settings) as world:
        for number in range(25):
            chat_id = world.person(f"telegram-{number % 2 + 1:05d}").telegram_id
            await world.telegram("sendMessage", {"chat_id": chat_id, "text": str(number)})
        for query, expected in (("", range(25)), (f"&person={ME}", range(0, 25, 2)), ("&channel=viber", ())):
            texts, since = [], 0
            while page := await world.get(f"/sandbox/messages?limit=10&since_seq={since}{query}"):
                if not page["items"]:
                    break
                texts += [item["text"] for item in page["items"]]
                since = page["next_seq"]
            assert texts == [str(number) for number in expected]


async def test_start_everyone(world: World, bot: Bot) -> None:
    """Everybody starts on every channel, through the bots' webhooks."""
    await world.telegram("setWebhook", {"url": f"{bot.url}/tg"})
    await world.viber("set_webhook", {"url": f"{bot.url}/viber"})
    status, body = await world.call("POST", "/sandbox/acts:start_everyone")
    assert status == 200
    assert body == {"people": 9, "active": 9, "callbacks": 15, "refused": 0, "statuses": {"200": 15}}
    assert len(bot.hits) == 16


async def test_add_people(world: World) -> None:
    """People are added by number and by description, with ids of one's choice."""
    _, body = await world.call("POST", "/sandbox/people", {"count": {"teams": 2, "teams,viber": 1}})
    assert [person["channels"] for person in body["items"]] == [["teams"], ["teams"], ["teams", "viber"]]
    wish = {"channel": "telegram", "id": "zoe", "first_name": "Zoe", "telegram_id": 4242, "started": True}
    await world.call("POST", "/sandbox/people", {"people": [{**wish, "availability": "Busy"}]})
    person = await world.get("/sandbox/people/zoe")
    assert (person["availability"], person["accounts"][0]["standing"]) == ("Busy", "active")
    assert (await world.telegram("sendMessage", {"chat_id": 4242, "text": "x"}))[0] == 200
    status, _ = await world.call("POST", "/sandbox/people", {"people": [wish]})
    assert status == 422


async def test_people_are_paged(world: World) -> None:
    """People are listed by channel and page."""
    page = await world.get("/sandbox/people?channel=viber&page=2&per_page=2")
    assert ([one["id"] for one in page["items"]], page["total"]) == (["viber-00003"], 3)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/sandbox/people/nobody", 404),
        ("POST", "/sandbox/people/nobody/acts", 404),
        ("GET", "/sandbox/messages?limit=x", 422),
    ],
)
async def test_control_says_what_is_wrong(world: World, method: str, path: str, status: int) -> None:
    """Mistakes are answered with a status and a title."""
    got, body = await world.call(method, path)
    assert (got, bool(body["title"])) == (status, True)


async def test_unknown_act(world: World) -> None:
    """An act nobody can do is refused."""
    assert (await world.call("POST", f"/sandbox/people/{ME}/acts", {"act": "fly"}))[0] == 422


async def test_every_act_on_every_channel(world: World, bot: Bot) -> None:
    """Every act can be told to people of every channel, or is refused as not possible; none is an error."""
    await world.telegram("setWebhook", {"url": bot.url})
    await world.viber("set_webhook", {"url": bot.url})
    for channel in Channel:
        for act in Act:
            status, body = await world.call(
                "POST", f"/sandbox/people/{channel}-00001/acts", {"act": act, "body": {"type": "x", "event": "x"}}
            )
            assert status in {200, 409}, (channel, act, body)


async def test_repeated_callback(world: World, bot: Bot) -> None:
    """An act can be told several times at once."""
    await world.telegram("setWebhook", {"url": bot.url})
    answer = await world.act(ME, "say", text="x", times=3)
    assert [one["status"] for one in answer["callbacks"]] == [200] * 3


async def test_follow(world: World, bot: Bot) -> None:
    """Following a link is a GET of its address; the redirect is reported, not followed."""
    bot.answer = lambda _hit: web.Response(status=302, headers={"Location": "https://a.example/"})
    button = {"text": "Open", "url": f"{bot.url}/r/abc"}
    await send(world, reply_markup={"inline_keyboard": [[button]]})
    answer = await world.act(ME, "follow")
    assert (answer["status"], answer["callbacks"][0]["location"]) == (302, "https://a.example/")
    assert [hit.path for hit in bot.hits] == ["/r/abc"]


async def test_follow_stays_here(world: World) -> None:
    """A link to elsewhere is not fetched."""
    await send(world, reply_markup={"inline_keyboard": [[{"text": "Open", "url": "https://a.example/"}]]})
    assert (await world.call("POST", f"/sandbox/people/{ME}/acts", {"act": "follow"}))[0] == 409


async def test_callbacks_log(world: World, bot: Bot) -> None:
    """What bots were told is listed with what they answered."""
    await world.act("teams-00001", "start")
    items = (await world.get("/sandbox/callbacks?person=teams-00001"))["items"]
    assert [(one["event"], one["status"], one["try"]) for one in items] == [
        ("conversationUpdate", 200, 1),
        ("installationUpdate add", 200, 1),
    ]


async def test_teams_endpoint(world: World, bot: Bot) -> None:
    """Where activities go can be changed, for Teams has no call for it."""
    await world.call("PUT", "/sandbox/teams/endpoint", {"app_id": TEAMS.app_id, "url": f"{bot.url}/other"})
    await world.act("teams-00001", "start")
    assert {hit.path for hit in bot.hits} == {"/other"}


async def test_unreachable_bot(world: World) -> None:
    """A bot that does not listen is reported, not an error."""
    await world.call("PUT", "/sandbox/teams/endpoint", {"url": "http://127.0.0.1:9/"})
    answer = await world.act("teams-00001", "start")
    assert answer["status"] is None
    assert answer["callbacks"][0]["error"]


async def test_env(world: World) -> None:
    """The environment names every address and credential."""
    lines = dict(line.split("=", 1) for line in (await world.get("/sandbox/env")).split())
    url = world.sandbox.url
    assert lines["CLARION_TELEGRAM_TOKEN"] == TELEGRAM.token
    assert lines["CLARION_VIBER_TOKEN"] == VIBER.token
    assert lines["CLARION_TEAMS_APP_ID"] == TEAMS.app_id
    assert lines["CLARION_TEAMS_SERVICE_URLS"] == f"{url}/teams/"
    assert lines["CLARION_GRAPH_URL"] == f"{url}/graph/v1.0"
    assert (await world.call("GET", lines["CLARION_TEAMS_OPENID_URL"].removeprefix(url)))[0] == 200


async def test_welcome_page(world: World) -> None:
    """The page at / says what this is."""
    assert "Sandbox" in await world.get("/")


async def test_more_bots(world: World) -> None:
    """A second bot has its own credentials, its own strangers and its own ids for people."""
    for channel in Channel:
        status, made = await world.call("POST", "/sandbox/bots", {"channel": channel, "name": "second"})
        assert status == 201, made
        contacts = world.sandbox.world.directory.contacts_of(f"{channel}-00001")
        assert len(contacts) == 2
        assert (contacts[0].user_id == contacts[1].user_id) == (channel is Channel.TELEGRAM)
    _, made = await world.call("GET", "/sandbox/bots")
    token = next(one["token"] for one in made["items"] if one["name"] == "second" and one["channel"] == "telegram")
    assert (await world.telegram("getMe", token=token))[0] == 200
    assert (await world.call("POST", "/sandbox/bots", {"channel": "viber", "name": "second"}))[0] == 422


async def test_behaviour_is_set(world: World) -> None:
    """Behaviour is read and changed while it runs."""
    shares = {"available": 0.0, "away": 1.0, "busy": 0.0, "do_not_disturb": 0.0}
    _, body = await world.call("PUT", "/sandbox/behaviour", {"read": 0.5, "at_work": shares, "off_work": shares})
    assert body["read"] == 0.5
    assert world.sandbox.world.behaviour.at_work == PresenceShares(0.0, 1.0, 0.0, 0.0)
    assert (await world.get("/sandbox/people/teams-00001"))["availability"] == "Away"
    assert (await world.call("PUT", "/sandbox/behaviour", {"nonsense": 1}))[0] == 422


async def test_reset(world: World, bot: Bot) -> None:
    """A reset leaves bots and people, and nothing of what happened."""
    await send(world)
    await world.fault(channel="telegram", kind="drop")
    await world.act("teams-00001", "start")
    assert (await world.call("POST", "/sandbox/reset"))[0] == 204
    assert await count(world) == 0
    stats = await world.get("/sandbox/stats")
    assert (stats["requests"], stats["people"]) == ([], 9)
    assert (await world.get("/sandbox/people/teams-00001"))["accounts"][0]["standing"] == "stranger"
    assert (await world.act("teams-00001", "start"))["status"] == 200


async def lively(
    behaviour: Behaviour, bot: Bot, channel: Channel
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Send thirty people one message each, let a day pass; gives the record and the bot's callbacks."""
    settings = SandboxSettings(
        seed=5, epoch=EPOCH, people=30, started=True, behaviour=behaviour, enforce_limits=False,
        teams_endpoint=bot.url,
    )  # fmt: skip
    async with living(settings) as world:
        await world.telegram("setWebhook", {"url": bot.url})
        await world.viber("set_webhook", {"url": bot.url})
        bot.hits.clear()
        for number in range(1, 31):
            await message_to(world, f"{channel}-{number:05d}", f"{bot.url}/r/{number}")
        agenda, callbacks = world.sandbox.world.agenda, world.sandbox.world.callbacks
        for _ in range(6):
            await world.advance(4 * 3600)
            await world.until(lambda: callbacks.pending == 0)
        assert len(agenda) == 0
        return (await world.get("/sandbox/messages"))["items"], (await world.get("/sandbox/callbacks"))["items"]


async def message_to(world: World, person: str, url: str) -> None:
    """Send somebody a link button and a reply button."""
    contact = world.contact(person)
    match contact.account.channel:
        case Channel.TELEGRAM:
            rows = [[{"text": "Open", "url": url}, {"text": "Later", "callback_data": "later"}]]
            params = {"chat_id": contact.user_id, "text": "x", "reply_markup": {"inline_keyboard": rows}}
            await world.telegram("sendMessage", params)
        case Channel.VIBER:
            buttons = [
                {"ActionType": "open-url", "ActionBody": url},
                {"ActionType": "reply", "ActionBody": "later"},
            ]
            body = {"receiver": contact.user_id, "type": "text", "text": "x", "sender": {"name": "Bot"}}
            await world.viber("send_message", {**body, "keyboard": {"Type": "keyboard", "Buttons": buttons}})
        case _:
            actions = [{"type": "Action.OpenUrl", "url": url}, {"type": "Action.Submit", "data": {"b": 1}}]
            card = {"type": "AdaptiveCard", "body": [], "actions": actions}
            attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
            await world.teams(
                "POST", f"/{contact.chat}/activities", {"type": "message", "attachments": [attachment]}
            )


@pytest.mark.parametrize("channel", list(Channel))
async def test_people_do_what_is_likely(bot: Bot, channel: Channel) -> None:
    """With every probability at one, everybody reads and follows the link."""
    eager = Behaviour(read=1.0, follow=1.0, stop=0.0, block=0.0, react=0.0)
    items, _ = await lively(eager, bot, channel)
    assert all(item["read_at"] for item in items)
    assert {hit.path for hit in bot.hits if hit.path.startswith("/r/")} == {
        f"/r/{number}" for number in range(1, 31)
    }


@pytest.mark.parametrize("channel", list(Channel))
async def test_people_press(bot: Bot, channel: Channel) -> None:
    """Who does not follow may press the reply button."""
    items, callbacks = await lively(
        Behaviour(read=1.0, follow=0.0, press=1.0, stop=0, block=0, react=0), bot, channel
    )
    events = [one["event"] for one in callbacks]
    kind = "callback_query" if channel is Channel.TELEGRAM else "message"
    assert (len(items), events.count(kind)) == (30, 30)


async def test_a_run_repeats(bot: Bot) -> None:
    """The same seed makes the same people do the same things."""
    runs = []
    for _ in range(2):
        _, callbacks = await lively(Behaviour(), bot, Channel.VIBER)
        runs.append(sorted((one["person"], one["event"]) for one in callbacks))
        bot.hits.clear()
    assert runs[0] == runs[1]
    assert len({event for _, event in runs[0]}) >= 3


async def test_quiet_people_do_nothing(bot: Bot) -> None:
    """Without `auto` nothing happens by itself."""
    _, callbacks = await lively(QUIET, bot, Channel.VIBER)
    assert [one["event"] for one in callbacks] == ["webhook"]


async def test_stops_while_somebody_waits() -> None:
    """Stopping lets go of hanging requests and long polls at once, and leaves no task behind."""
    async with aiohttp.ClientSession() as session:
        async with Sandbox(SandboxSettings(people=1)).serve() as sandbox:
            world = World(sandbox, session)
            await world.fault(channel="telegram", method="getMe", kind="timeout", seconds=600)
            hanging = asyncio.create_task(world.telegram("getMe"))
            polling = asyncio.create_task(world.telegram("getUpdates", {"timeout": 50}))
            await asyncio.sleep(0.02)
            begun = time.perf_counter()
        assert time.perf_counter() - begun < 2
        await asyncio.gather(hanging, polling, return_exceptions=True)
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not {name for name in names if name.startswith("sandbox")}


async def test_two_sandboxes_side_by_side() -> None:
    """Two sandboxes in one loop know nothing of each other."""
    async with living(SandboxSettings(people=1)) as one, living(SandboxSettings(people=2)) as two:
        assert one.sandbox.url != two.sandbox.url
        assert (await one.get("/sandbox/stats"))["people"] == 3
        assert (await two.get("/sandbox/stats"))["people"] == 6


@pytest.mark.parametrize(("open_to_all", "status"), [(False, 403), (True, 200)])
async def test_control_is_for_this_machine(open_to_all: bool, status: int) -> None:
    """Another machine is turned away from /sandbox unless that was asked for."""
    sandbox = Sandbox(SandboxSettings(people=0, control_from_anywhere=open_to_all))
    route = next(one for one in Control(sandbox).routes() if one.path == "/sandbox/clock")
    transport = Mock()
    transport.get_extra_info.return_value = ("192.0.2.7", 5000)
    request = make_mocked_request("GET", "/sandbox/clock", transport=transport)
    assert (await route.handler(request)).status == status


async def test_slow_calls_that_wait_themselves(world: World, bot: Bot) -> None:
    """Faults also hit the calls that wait: getUpdates and set_webhook."""
    await world.fault(channel="telegram", method="GETUPDATES", kind="slow", seconds=0.01)
    assert (await world.telegram("getUpdates"))[0] == 200
    await world.fault(channel="viber", method="set_webhook", kind="slow", seconds=0.01)
    assert (await world.viber("set_webhook", {"url": bot.url}))["status"] == 0


async def test_many_people_are_told_at_once_each_in_order(world: World, bot: Bot) -> None:
    """What a bot is told of one person keeps its order, however many people speak."""
    await world.telegram("setWebhook", {"url": bot.url})
    people = [f"telegram-{number:05d}" for number in (1, 2, 3)]
    for number in range(20):
        for person in people:
            await world.act(person, "say", text=str(number), wait_seconds=0)
    await world.until(lambda: len(bot.hits) == 60)
    for person in people:
        mine = [
            one["message"]
            for one in bot.bodies()
            if one["message"]["from"]["id"] == world.person(person).telegram_id
        ]
        assert [int(message["text"]) for message in mine] == list(range(20))


async def test_runs_alone() -> None:
    """`python -m sandbox` says where it listens, answers, and ends cleanly when told to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "sandbox", "--port", "0", "--people", "1", "--started",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    url = line.split()[2]
    async with aiohttp.ClientSession() as session, session.get(f"{url}/sandbox/clock") as response:
        assert response.status == 200
    process.terminate()
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")


async def test_nonsense_is_refused_not_an_error(world: World, bot: Bot) -> None:
    """Parameters of the wrong kind get the platform's own refusal."""
    await send(world)
    chat_id = world.person(ME).telegram_id
    markup = {"inline_keyboard": ["x"]}
    assert (await world.telegram("sendMessage", {"chat_id": chat_id, "text": "x", "reply_markup": markup}))[
        0
    ] == 400
    await world.viber("set_webhook", {"url": bot.url})
    await world.act("viber-00001", "start")
    message = {
        "receiver": world.person("viber-00001").viber_id,
        "type": "text",
        "text": "x",
        "sender": {"name": "B"},
    }
    assert (await world.viber("send_message", {**message, "keyboard": "x"}))["status"] == 3
    assert (await world.viber("send_message", {**message, "min_api_version": "x"}))["status"] == 3
    assert (await world.teams("POST", "", {"members": [{"id": "x"}], "channelData": "x"}))[0] == 400


async def test_unreadable_message_is_on_record(world: World) -> None:
    """What a platform takes unread does not break the record."""
    await world.act("teams-00001", "start")
    path = f"/{world.contact('teams-00001').chat}/activities"
    assert (await world.teams("POST", path, {"type": "message", "attachments": ["x"]}))[0] == 201
    [item] = (await world.get("/sandbox/messages"))["items"]
    assert (item["text"], item["raw"]["attachments"]) == ("", ["x"])
