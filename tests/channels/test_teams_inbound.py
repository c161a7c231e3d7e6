"""What activities say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from bot.channels.teams import TeamsInbound
from bot.channels.webhook import Received
from broadcast.model import EventType, Receipt
from broadcast.ports import Inbound, Person, Said
from tests.channels.clocks import NOW, StillClock
from tests.channels.teams_server import ANN, APP_ID, TENANT, TeamsServer, activity

AT = datetime(2026, 3, 27, 14, 0, 0, 123456, tzinfo=UTC)
REFERENCE = {
    "service_url": "https://smba.trafficmanager.net/emea/",
    "conversation_id": "a:1ann",
    "tenant_id": TENANT,
    "bot_id": f"28:{APP_ID}",
    "user_id": "29:ann",
}
OPEN = TeamsServer()
OPEN.url = "https://smba.trafficmanager.net"


@pytest.fixture
async def inbound() -> AsyncIterator[TeamsInbound]:
    """Without verification: that has its own tests."""
    account = OPEN.account(app_id="", service_hosts=("smba.trafficmanager.net",))
    endpoint = TeamsInbound(account, StillClock(), unverified_loopback=True)
    yield endpoint
    await endpoint.close()


async def receive(inbound: TeamsInbound, **changes: Any) -> Received:
    changes = {"serviceUrl": "https://smba.trafficmanager.net/emea/", **changes}
    received = await inbound.receive({}, orjson.dumps(activity(OPEN, **changes)))
    assert (received.status, received.refused) == (200, None)
    return received


async def one(inbound: TeamsInbound, **changes: Any) -> Inbound:
    (noted,) = (await receive(inbound, **changes)).inbound
    return noted


TEAM = {"conversation": {"conversationType": "channel", "isGroup": True, "id": "19:team@thread.tacv2"}}


async def test_words(inbound: TeamsInbound) -> None:
    """Everything a message tells of the person and how to reach them."""
    noted = await one(inbound, text="  stop\n")
    assert (noted.account, noted.channel, noted.said, noted.text, noted.at) == (
        "teams/hr",
        "teams",
        Said.TEXT,
        "stop",
        AT,
    )
    assert noted.person == Person(ANN, "Ann", "Ash", None, "fr-FR", "Europe/Paris", "FR")
    assert noted.reference == REFERENCE


@pytest.mark.parametrize(
    ("changes", "said", "text"),
    [
        ({"value": {"clarion": "cl:dlv_1:later", "input": "x"}, "replyToId": "1"}, Said.PRESSED, "cl:dlv_1:later"),
        ({"value": {"clarion": "cl:dlv_1:later"}, "text": "Later"}, Said.PRESSED, "cl:dlv_1:later"),
        ({"value": {"somebody": "else's card"}}, Said.SEEN, ""),
        ({"value": {"clarion": 7}, "text": "words"}, Said.TEXT, "words"),
        ({"value": "words", "text": ""}, Said.SEEN, ""),
        ({"text": "\xa0help\xa0"}, Said.TEXT, "help"),
        ({"type": "messageReaction", "reactionsAdded": [{"type": "1f440_eyes"}]}, Said.SEEN, ""),
        ({"type": "messageReaction", "reactionsRemoved": [{"type": "like"}]}, Said.SEEN, ""),
        ({"type": "installationUpdate", "action": "add"}, Said.SUBSCRIBED, ""),
        ({"type": "installationUpdate", "action": "add-upgrade"}, Said.SUBSCRIBED, ""),
        ({"type": "installationUpdate", "action": "remove"}, Said.BLOCKED, ""),
        ({"type": "installationUpdate", "action": "remove-upgrade"}, Said.BLOCKED, ""),
        ({"type": "installationUpdate", "action": "add", **TEAM}, Said.SEEN, ""),
        ({"type": "conversationUpdate", "membersAdded": [{"id": f"28:{APP_ID}"}]}, Said.SEEN, ""),
    ],
)
async def test_what_people_do(inbound: TeamsInbound, changes: dict[str, Any], said: Said, text: str) -> None:
    noted = await one(inbound, **changes)
    assert (noted.said, noted.text, noted.person.user_id) == (said, text, ANN)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "installationUpdate", "action": "remove", **TEAM},
        {"type": "installationUpdate", "action": "repainted"},
        {"type": "conversationUpdate", "membersRemoved": [{"id": "29:ann", "aadObjectId": ANN}]},
        {"type": "conversationUpdate", "channelData": {"eventType": "channelCreated"}},
        {"type": "messageUpdate", "channelData": {"eventType": "editMessage"}},
        {"type": "messageDelete", "channelData": {"eventType": "softDeleteMessage"}},
        {"type": "typing"},
        {"type": "endOfConversation"},
        {"type": "event", "name": "application/vnd.microsoft.meetingStart", "value": {"Title": 7}},
        {"type": "event", "name": "something.new"},
        {"type": "invoke", "name": "composeExtension/query", "value": {}},
        {"type": "somethingNew"},
        {"text": "hello", "from": ...},
        {"text": "hello", "from": "ann"},
    ],
)
async def test_what_means_nothing_is_answered_200(inbound: TeamsInbound, changes: dict[str, Any]) -> None:
    received = await receive(inbound, **changes)
    assert (received.inbound, received.receipts, received.body) == ((), (), None)


async def test_installing_is_told_twice_and_heard_once(inbound: TeamsInbound) -> None:
    """Nobody is greeted twice."""
    ann = {"id": "29:ann", "aadObjectId": ANN, "name": "Ann Ash"}
    update = await one(inbound, type="conversationUpdate", id="1", membersAdded=[{"id": f"28:{APP_ID}"}, ann])
    install = await one(inbound, type="installationUpdate", id="2", action="add")
    assert [update.said, install.said] == [Said.SEEN, Said.SUBSCRIBED]
    assert update.reference == install.reference == REFERENCE


async def test_members_of_a_team(inbound: TeamsInbound) -> None:
    """Each can be reached by their own id; the team's conversation is not theirs, nor is the sender's time zone."""
    added = [
        {"id": f"28:{APP_ID}"},
        {"id": "29:ben", "aadObjectId": "ben-id", "givenName": "Ben", "surname": "Bow"},
        {"id": "29:ann", "aadObjectId": ANN, "name": "Ash, Ann"},
        "odd",
    ]
    received = await receive(inbound, type="conversationUpdate", membersAdded=added, **TEAM)
    ben, ann = received.inbound
    assert ben.person == Person("ben-id", "Ben", "Bow")
    assert ann.person == Person(ANN, "Ann", "Ash", None, "fr-FR", "Europe/Paris", "FR")
    assert ben.reference == {
        name: value for name, value in {**REFERENCE, "user_id": "29:ben"}.items() if name != "conversation_id"
    }
    assert ben.key != ann.key


async def test_words_in_a_team(inbound: TeamsInbound) -> None:
    """The bot's name before the words is none of them."""
    mention = {"type": "mention", "text": "<at>HR</at>", "mentioned": {"id": f"28:{APP_ID}", "name": "HR"}}
    other = {"type": "mention", "text": "<at>Ben</at>", "mentioned": {"id": "29:ben"}}
    noted = await one(
        inbound, text="<at>HR</at> stop", entities=[mention, other, "odd", {"type": "mention"}], **TEAM
    )
    assert noted.text == "stop"
    assert "conversation_id" not in noted.reference
    assert noted.person.locale == "en-US"


async def test_a_pressed_execute_is_answered(inbound: TeamsInbound) -> None:
    """The HTTP response is the answer to the invoke (PLATFORMS A7)."""
    action = {"type": "Action.Execute", "verb": "later", "data": {"clarion": "cl:dlv_1:later"}}
    received = await receive(inbound, type="invoke", name="adaptiveCard/action", value={"action": action})
    (noted,) = received.inbound
    assert (noted.said, noted.text) == (Said.PRESSED, "cl:dlv_1:later")
    assert received.content_type == "application/json"
    assert orjson.loads(received.body or b"") == {
        "statusCode": 200,
        "type": "application/vnd.microsoft.activity.message",
        "value": "OK",
    }


@pytest.mark.parametrize("value", [None, 7, {}, {"action": 7}, {"action": {"data": 7}}])
async def test_a_strange_execute_is_answered_too(inbound: TeamsInbound, value: object) -> None:
    received = await receive(inbound, type="invoke", name="adaptiveCard/action", value=value)
    assert [noted.said for noted in received.inbound] == [Said.SEEN]
    assert received.body


def receipt(value: object) -> dict[str, Any]:
    return {"type": "event", "name": "application/vnd.microsoft.readReceipt", "value": value}


@pytest.mark.parametrize("last", ["1692206589131", 1692206589131])
async def test_read(inbound: TeamsInbound, last: object) -> None:
    """Everything up to the message is read."""
    received = await receive(inbound, **receipt({"lastReadMessageId": last}))
    assert received.inbound == ()
    assert received.receipts == (Receipt("teams/hr", ANN, EventType.READ, "1692206589131", AT, up_to=True),)


@pytest.mark.parametrize("value", [None, 7, {}, []])
async def test_a_strange_receipt_is_none(inbound: TeamsInbound, value: object) -> None:
    assert (await receive(inbound, **receipt(value))).receipts == ()


@pytest.mark.parametrize(
    "service_url",
    [
        "https://evil.example/",
        "https://smba.trafficmanager.net.evil.example/",
        "https://smba.trafficmanager.net@evil.example/",
        "https://evil.example\\@smba.trafficmanager.net/",
        "https://user:pass@smba.trafficmanager.net/",
        "https://smba.trafficmanager.net:8443/",
        "http://smba.trafficmanager.net/",
        "//smba.trafficmanager.net/",
        "ftp://smba.trafficmanager.net/",
        "https://[bad",
        "",
        7,
    ],
)
async def test_a_service_address_that_is_not_allowed_is_not_kept(
    inbound: TeamsInbound, service_url: object
) -> None:
    """The words count, the address does not."""
    noted = await one(inbound, text="hello", serviceUrl=service_url)
    assert noted.text == "hello"
    assert "service_url" not in noted.reference


async def test_keys_are_stable_and_tell_things_apart(inbound: TeamsInbound) -> None:
    """What is delivered again has the same key; two people can get the same message id in one millisecond."""
    variants: list[dict[str, Any]] = [
        {"text": "hello"},
        {"text": "hello", "id": "1692206589132"},
        {"text": "hello", "conversation": {"id": "a:1ben"}, "from": {"id": "29:ben", "aadObjectId": "ben-id"}},
        {"type": "messageReaction"},
        {"text": "hello", "id": ...},
        {"text": "hello!", "id": ...},
    ]
    first = [(await one(inbound, **variant)).key for variant in variants]
    await asyncio.sleep(0)
    assert [(await one(inbound, **variant)).key for variant in variants] == first
    assert len(set(first)) == len(variants)


@pytest.mark.parametrize(
    ("timestamp", "at"),
    [
        ("2026-03-27T15:00:00+01:00", datetime(2026, 3, 27, 14, tzinfo=UTC)),
        ("2026-03-27T14:00:00", datetime(2026, 3, 27, 14, tzinfo=UTC)),
        ("soon", NOW),
        (None, NOW),
    ],
)
async def test_instants(inbound: TeamsInbound, timestamp: object, at: datetime) -> None:
    noted = await one(inbound, text="hello", timestamp=timestamp)
    assert (noted.at, noted.at.tzinfo) == (at, UTC)


@pytest.mark.parametrize(
    ("user", "first", "last"),
    [
        ({"name": "Ann"}, "Ann", None),
        ({"name": "Ann van der Ash"}, "Ann", "van der Ash"),
        ({"name": "van der Ash, Ann"}, "Ann", "van der Ash"),
        ({"name": ""}, None, None),
        ({"name": 7}, None, None),
        ({"name": "x", "givenName": "Ann", "surname": "Ash"}, "Ann", "Ash"),
    ],
)
async def test_names(inbound: TeamsInbound, user: dict[str, Any], first: str | None, last: str | None) -> None:
    noted = await one(inbound, text="hello", **{"from": {"id": "29:ann", "aadObjectId": ANN, **user}})
    assert (noted.person.first_name, noted.person.last_name) == (first, last)


@pytest.mark.parametrize("zone", ["Europe/Pariss", "../../etc/passwd", "", 7, "/etc/localtime"])
async def test_a_zone_nobody_knows_is_not_told(inbound: TeamsInbound, zone: object) -> None:
    noted = await one(inbound, text="hello", entities=[{"type": "clientInfo", "timezone": zone}])
    assert noted.person.timezone is None


async def test_an_emulator_that_knows_no_object_ids(inbound: TeamsInbound) -> None:
    noted = await one(inbound, text="hello", **{"from": {"id": "29:ann"}, "conversation": {"id": "a:1ann"}})
    assert (noted.person.user_id, noted.reference["conversation_id"]) == ("29:ann", "a:1ann")
