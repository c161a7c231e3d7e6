"""Bot Connector and sign-in, over HTTP and through botbuilder's token check."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from botframework.connector.auth import ChannelValidation, JwtTokenValidation, SimpleCredentialProvider

from sandbox.settings import SandboxSettings
from sandbox.teams import ERRORS, MAX_ACTIVITY
from tests.sandbox.conftest import EPOCH, QUIET, TEAMS, Bot, World, living

ME = "teams-00001"
CARD = {
    "type": "AdaptiveCard",
    "version": "1.5",
    "body": [
        {"type": "TextBlock", "text": "Hello"},
        {"type": "Image", "url": "https://a.example/p.png", "altText": "alt"},
        {"type": "ActionSet", "actions": [{"type": "Action.Submit", "title": "Later", "data": {"b": "later"}}]},
    ],
    "actions": [
        {"type": "Action.OpenUrl", "title": "Open", "url": "https://a.example"},
        {"type": "Action.Execute", "title": "Do", "verb": "do", "data": {"b": "do"}},
    ],
}
ATTACHMENT = {"contentType": "application/vnd.microsoft.card.adaptive", "content": CARD}


async def installed(world: World) -> str:
    """Let the first person install the app; gives the path of the chat."""
    await world.act(ME, "start")
    return f"/{world.contact(ME).chat}"


def create(member: str) -> dict[str, Any]:
    """The body that opens a 1:1 chat."""
    return {
        "bot": {"id": f"28:{TEAMS.app_id}"},
        "members": [{"id": member}],
        "channelData": {"tenant": {"id": TEAMS.tenant_id}},
        "isGroup": False,
    }


@pytest.mark.parametrize(
    ("field", "value", "status", "error"),
    [
        ("client_id", "nobody", 401, "invalid_client"),
        ("client_secret", "wrong", 401, "invalid_client"),
        ("scope", "https://else.example/.default", 400, "invalid_scope"),
        ("grant_type", "password", 400, "unsupported_grant_type"),
    ],
)
async def test_sign_in_refused(world: World, field: str, value: str, status: int, error: str) -> None:
    """Wrong credentials are refused in Entra's form."""
    form = {
        "grant_type": "client_credentials",
        "client_id": TEAMS.app_id,
        "client_secret": TEAMS.password,
        "scope": "https://api.botframework.com/.default",
        field: value,
    }
    got, body = await world.call("POST", f"/login/{TEAMS.tenant_id}/oauth2/v2.0/token", data=form)
    assert (got, body["error"]) == (status, error)
    assert body["error_description"].startswith(f"AADSTS{body['error_codes'][0]}: ")


async def test_bearer_is_checked(world: World) -> None:
    """Without a token, with a token for Graph and with a revoked one the connector answers 401."""
    path = "/teams/v3/conversations"
    graph = await world.token("https://graph.microsoft.com/.default")
    mine = await world.token()
    await world.call("POST", "/sandbox/teams/tokens:revoke")
    for token in ("", graph, mine):
        status, _ = await world.call("POST", path, {}, headers={"Authorization": f"Bearer {token}"})
        assert status == 401


async def test_create_needs_install(world: World) -> None:
    """A chat cannot be opened with somebody who has not installed the app."""
    status, body = await world.teams("POST", "", create(world.person(ME).entra_id))
    assert (status, body["error"]["code"]) == (403, "ForbiddenOperationException")


@pytest.mark.parametrize("by", ["entra_id", "teams_user_id"])
async def test_create(world: World, by: str) -> None:
    """A chat is opened by Entra object id or by the bot's own id for the person, always the same chat."""
    chat = await installed(world)
    status, body = await world.teams("POST", "", create(getattr(world.person(ME), by)))
    assert (status, body["id"]) == (201, chat[1:])


async def test_create_with_nobody(world: World) -> None:
    """A chat with an unknown person is a bad argument."""
    status, body = await world.teams("POST", "", create("29:nobody"))
    assert (status, body["error"]["code"]) == (400, "Bad Argument")


async def test_send_ids_increase(world: World) -> None:
    """Ids are milliseconds since 1970, strictly increasing in a conversation."""
    chat = await installed(world)
    ids = []
    for _ in range(3):
        status, body = await world.teams("POST", f"{chat}/activities", {"type": "message", "text": "x"})
        assert status == 201
        ids.append(int(body["id"]))
    assert ids == sorted(set(ids))
    assert abs(ids[0] / 1000 - world.sandbox.world.clock.seconds()) < 10


async def test_card_is_read(world: World) -> None:
    """Text, pictures and buttons of an Adaptive Card are on record."""
    chat = await installed(world)
    await world.teams("POST", f"{chat}/activities", {"type": "message", "attachments": [ATTACHMENT]})
    [item] = (await world.get(f"/sandbox/messages?person={ME}"))["items"]
    assert item["text"] == "Hello"
    assert item["media"][0]["url"] == "https://a.example/p.png"
    assert item["buttons"] == [
        {"type": "reply", "label": "Later", "data": {"b": "later"}},
        {"type": "link", "label": "Open", "url": "https://a.example"},
        {"type": "reply", "label": "Do", "data": {"b": "do"}},
    ]


async def test_text_and_card_are_split(world: World) -> None:
    """Text and attachment in one activity become two messages, and no id comes back."""
    chat = await installed(world)
    activity = {"type": "message", "text": "x", "attachments": [ATTACHMENT]}
    _, body = await world.teams("POST", f"{chat}/activities", activity)
    assert "id" not in body
    assert [item["text"] for item in (await world.get("/sandbox/messages"))["items"]] == ["x", "Hello"]


async def test_update_and_delete(world: World) -> None:
    """A sent activity can be changed and taken back; an unknown one is not found."""
    chat = await installed(world)
    _, sent = await world.teams("POST", f"{chat}/activities", {"type": "message", "text": "one"})
    path = f"{chat}/activities/{sent['id']}"
    assert (await world.teams("PUT", path, {"type": "message", "text": "two"}))[0] == 200
    [item] = (await world.get("/sandbox/messages"))["items"]
    assert (item["text"], item["state"]) == ("two", "edited")
    assert (await world.teams("DELETE", path))[0] == 200
    status, body = await world.teams("DELETE", path)
    assert (status, body["error"]["code"]) == (404, "ActivityNotFoundInConversation")


async def test_size_limit(world: World) -> None:
    """100 KB counts as UTF-16; inline pictures do not count."""
    chat = await installed(world)
    path = f"{chat}/activities"
    room = MAX_ACTIVITY // 2 - len('{"type":"message","text":""}')
    assert (await world.teams("POST", path, {"type": "message", "text": "я" * room}))[0] == 201
    status, body = await world.teams("POST", path, {"type": "message", "text": "я" * (room + 1)})
    assert (status, body["error"]["code"]) == (413, "MessageSizeTooBig")
    picture = "data:image/png;base64," + "A" * MAX_ACTIVITY
    message = {"type": "message", "attachments": [{"contentType": "image/png", "contentUrl": picture}]}
    assert (await world.teams("POST", path, message))[0] == 201


async def test_gone_and_blocked(world: World) -> None:
    """After an uninstall the bot is not in the roster, after a block the person blocks it."""
    chat = await installed(world)
    await world.act(ME, "block")
    status, body = await world.teams("POST", f"{chat}/activities", {"type": "message", "text": "x"})
    assert (status, body["error"]["code"]) == (403, "ConversationBlockedByUser")
    await world.act(ME, "unblock")
    await world.act(ME, "uninstall")
    status, body = await world.teams("POST", f"{chat}/activities", {"type": "message", "text": "x"})
    assert (status, body["error"]["code"]) == (403, "BotNotInConversationRoster")


async def test_unknown_conversation(world: World) -> None:
    """A conversation nobody has is not found."""
    status, body = await world.teams("POST", "/a:none/activities", {"type": "message", "text": "x"})
    assert (status, body["error"]["code"]) == (404, "ConversationNotFound")


async def test_members(world: World) -> None:
    """The roster names the person with object id and e-mail."""
    chat = await installed(world)
    person = world.person(ME)
    _, members = await world.teams("GET", f"{chat}/members")
    assert (members[0]["aadObjectId"], members[0]["email"]) == (person.entra_id, person.email)
    _, member = await world.teams("GET", f"{chat}/members/{person.teams_user_id}")
    assert member == members[0]


async def test_thread_limit() -> None:
    """Seven activities a second pass in one thread, the eighth is throttled with Retry-After."""
    settings = SandboxSettings(seed=7, epoch=EPOCH, people=1, started=True, behaviour=QUIET, speed=0.001)
    async with living(settings) as world:
        path = f"/{world.contact(ME).chat}/activities"
        statuses = [(await world.teams("POST", path, {"type": "message", "text": "x"}))[0] for _ in range(8)]
        assert statuses == [201] * 7 + [429]
        await world.advance(2)
        assert (await world.teams("POST", path, {"type": "message", "text": "x"}))[0] == 201


async def test_app_limit() -> None:
    """About 50 requests a second pass for one app."""
    settings = SandboxSettings(seed=7, epoch=EPOCH, people=60, started=True, behaviour=QUIET, speed=0.001)
    async with living(settings) as world:
        headers = {"Authorization": f"Bearer {await world.token()}"}
        statuses = []
        for number in range(60):
            chat = world.contact(f"teams-{number + 1:05d}").chat
            url = f"{world.sandbox.url}/teams/v3/conversations/{chat}/activities"
            async with world.session.post(url, json={"type": "message", "text": "x"}, headers=headers) as response:
                statuses.append(response.status)
                wait = response.headers.get("Retry-After")
        assert statuses == [201] * 55 + [429] * 5
        assert wait == "1"


@pytest.mark.parametrize("code", list(ERRORS))
async def test_every_error_row(world: World, code: str) -> None:
    """Every row of A5 can be provoked; the code is somewhere in the body."""
    chat = await installed(world)
    await world.fault(channel="teams", method="sendToConversation", kind="platform_error", code=code, count=1)
    headers = {"Authorization": f"Bearer {await world.token()}"}
    url = f"{world.sandbox.url}/teams/v3/conversations{chat}/activities"
    async with world.session.post(url, json={"type": "message", "text": "x"}, headers=headers) as response:
        assert response.status == ERRORS[code].status
        assert code in await response.text()


async def test_blocked_writes_are_json_in_a_string(world: World) -> None:
    """MessageWritesBlocked hides its code in a string that holds JSON, beside errorCode 209."""
    chat = await installed(world)
    await world.fault(channel="teams", kind="platform_error", code="MessageWritesBlocked", person=ME)
    status, body = await world.teams("POST", f"{chat}/activities", {"type": "message", "text": "x"})
    assert (status, body["errorCode"], isinstance(body["message"], str)) == (403, 209, True)
    assert '"subCode":"MessageWritesBlocked"' in body["message"]


async def test_install_is_told(world: World, bot: Bot) -> None:
    """Installing sends conversationUpdate and installationUpdate with all that a reference needs."""
    await world.act(ME, "start")
    added, install = bot.bodies()
    assert added["membersAdded"][0]["id"] == f"28:{TEAMS.app_id}"
    assert (install["type"], install["action"]) == ("installationUpdate", "add")
    person = world.person(ME)
    assert install["from"] == {"id": person.teams_user_id, "name": person.name, "aadObjectId": person.entra_id}
    assert install["serviceUrl"] == f"{world.sandbox.url}/teams/"
    assert install["conversation"]["id"].startswith("a:")
    assert install["channelData"]["tenant"]["id"] == TEAMS.tenant_id
    assert install["entities"][0] == {
        "type": "clientInfo",
        "locale": person.locale,
        "country": person.country,
        "platform": "Windows",
        "timezone": person.timezone,
    }


async def test_people_speak(world: World, bot: Bot) -> None:
    """STOP, words, reactions and going arrive as activities."""
    chat = await installed(world)
    _, sent = await world.teams("POST", f"{chat}/activities", {"type": "message", "text": "x"})
    bot.hits.clear()
    await world.act(ME, "stop")
    await world.act(ME, "react", reaction="heart")
    await world.act(ME, "read")
    await world.act(ME, "uninstall")
    stop, reaction, receipt, gone = bot.bodies()
    assert (stop["type"], stop["text"]) == ("message", "STOP")
    assert (reaction["reactionsAdded"], reaction["replyToId"]) == ([{"type": "heart"}], sent["id"])
    assert receipt["name"] == "application/vnd.microsoft.readReceipt"
    assert receipt["value"] == {"lastReadMessageId": sent["id"]}
    assert (gone["type"], gone["action"]) == ("installationUpdate", "remove")


async def test_submit(world: World, bot: Bot) -> None:
    """Action.Submit arrives as a message with its data and the card's id."""
    chat = await installed(world)
    _, sent = await world.teams("POST", f"{chat}/activities", {"type": "message", "attachments": [ATTACHMENT]})
    await world.act(ME, "press", button="Later")
    pressed = bot.bodies()[-1]
    assert (pressed["type"], pressed["value"], pressed["replyToId"]) == ("message", {"b": "later"}, sent["id"])
    assert "text" not in pressed


async def test_execute(world: World, bot: Bot) -> None:
    """Action.Execute arrives as an invoke, and the bot's answer is kept."""
    chat = await installed(world)
    await world.teams("POST", f"{chat}/activities", {"type": "message", "attachments": [ATTACHMENT]})
    reply = {"statusCode": 200, "type": "application/vnd.microsoft.activity.message", "value": "Done"}
    bot.answer = lambda _hit: web.json_response(reply)
    answer = await world.act(ME, "press", button="Do")
    invoke = bot.bodies()[-1]
    assert (invoke["name"], invoke["value"]["action"]["verb"]) == ("adaptiveCard/action", "do")
    assert answer["callbacks"][0]["body"] == reply


async def test_stranger_cannot_speak(world: World) -> None:
    """Who has not installed the app cannot write to it."""
    status, _ = await world.call("POST", f"/sandbox/people/{ME}/acts", {"act": "say", "text": "x"})
    assert status == 409


async def test_raw_event(world: World, bot: Bot) -> None:
    """Any activity can be sent, signed like the others."""
    await installed(world)
    await world.act(ME, "raw", body={"type": "event", "name": "never/heard"})
    assert bot.bodies()[-1]["name"] == "never/heard"
    assert bot.hits[-1].headers["Authorization"].startswith("Bearer ")


async def validate(world: World, header: str, service_url: str) -> Any:
    """What botbuilder makes of a token; it blocks, so it gets a thread and a loop of its own."""
    provider = SimpleCredentialProvider(TEAMS.app_id, TEAMS.password)

    def check() -> Any:
        return asyncio.run(JwtTokenValidation.validate_auth_header(header, provider, "", "msteams", service_url))

    return await asyncio.to_thread(check)


@pytest.fixture
def openid(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let botbuilder ask the sandbox for keys."""
    address = f"{world.sandbox.url}/botframework/.well-known/openidconfiguration"
    monkeypatch.setattr(ChannelValidation, "open_id_metadata_endpoint", address)


@pytest.mark.usefixtures("openid")
async def test_botbuilder_accepts_the_token(world: World, bot: Bot) -> None:
    """An independent check accepts the signature, issuer, audience, service URL and endorsement."""
    await world.act(ME, "start")
    hit = bot.hits[0]
    identity = await validate(world, hit.headers["Authorization"], hit.body["serviceUrl"])
    assert identity.is_authenticated


@pytest.mark.usefixtures("openid")
@pytest.mark.parametrize(
    "claims",
    [{"aud": "another"}, {"iss": "https://else.example"}, {"exp": 1}, {"serviceurl": "https://else.example"}],
)
async def test_botbuilder_refuses_forgeries(world: World, claims: dict[str, Any]) -> None:
    """Tokens with a wrong claim can be had for tests, and are refused."""
    _, body = await world.call("POST", "/sandbox/teams/tokens:forge", {"claims": claims})
    with pytest.raises(Exception, match=r"(?i)unauthorized|expired|token|audience|claim"):
        await validate(world, f"Bearer {body['token']}", f"{world.sandbox.url}/teams/")


async def test_keys_rotate(world: World, bot: Bot) -> None:
    """After a rotation only the new key is listed, and new tokens name it."""
    before = (await world.get("/botframework/.well-known/keys"))["keys"]
    kid = (await world.call("POST", "/sandbox/teams/keys:rotate"))[1]["kid"]
    after = (await world.get("/botframework/.well-known/keys"))["keys"]
    assert [key["kid"] for key in after] == [kid]
    assert before[0]["kid"] != kid
    assert after[0]["endorsements"] == ["msteams"]
