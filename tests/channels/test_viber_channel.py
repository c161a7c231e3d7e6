"""A Viber account against a server on loopback: what it asks for, and what it makes of answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from bot.channels.http import Http, HttpSettings
from bot.channels.viber import ViberAccount, ViberChannel, ViberInbound
from broadcast.errors import PresenceUnavailable
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
    PresenceState,
    Sent,
    Unknown,
)
from broadcast.ports import Channel, Content, ReadyButton, Said
from presence.viber import ViberPresence
from tests.channels.clocks import StillClock
from tests.channels.loopback import LOST, Platform, platform
from tests.channels.test_viber_inbound import callback, signature

TOKEN = "4a-TOP-SECRET"
ANN = Conversation("cnv_1", "viber/news", ChannelName.VIBER, "rcp_1", "01234567890A=")
SENT = (200, {"status": 0, "status_message": "ok", "message_token": 4912661846655238145})
OK = (200, {"status": 0, "status_message": "ok"})
UNSUBSCRIBED = (200, {"status": 6, "status_message": "receiverNotSubscribed"})


@pytest.fixture
async def viber() -> AsyncIterator[Platform]:
    async with platform() as served:
        yield served


@pytest.fixture
def account(viber: Platform) -> ViberAccount:
    return ViberAccount("viber/news", TOKEN, "News", api_url=f"{viber.url}/pa/")


@pytest.fixture
async def channel(account: ViberAccount) -> AsyncIterator[ViberChannel]:
    made = ViberChannel(account, http=Http(HttpSettings(connect=2.0, total=4.0)))
    yield made
    await made.close()


@pytest.fixture
async def inbound(account: ViberAccount) -> AsyncIterator[ViberInbound]:
    made = ViberInbound(account, StillClock(), http=Http(HttpSettings(connect=2.0, total=4.0)))
    yield made
    await made.close()


def test_it_is_a_channel() -> None:
    """The account fits the port and says what Viber can bear: both receipts, 50 a second, 100 an hour to one."""
    channel: Channel = ViberChannel(ViberAccount("viber/news", TOKEN, "News"))
    features = channel.features
    assert (channel.account, channel.name) == ("viber/news", ChannelName.VIBER)
    assert (features.reports_delivered, features.reports_read, features.rate) == (True, True, 50.0)
    assert (features.conversation_limits, features.text_limit) == (((100, 3600.0),), 7000)


async def test_a_text_is_one_request(channel: ViberChannel, viber: Platform) -> None:
    """One POST, the token in its header and nowhere else."""
    viber.says(SENT)
    assert await channel.send(ANN, Content("Hi")) == Sent("4912661846655238145")
    [(path, body)] = viber.asked
    assert path == "/pa/send_message"
    assert body == {"receiver": "01234567890A=", "sender": {"name": "News"}, "type": "text", "text": "Hi"}
    assert viber.headers[0]["X-Viber-Auth-Token"] == TOKEN


@pytest.mark.parametrize(("said", "expected"), [(LOST, Unknown), ((502, b"<html>"), Faulty), (UNSUBSCRIBED, Never)])
async def test_nothing_is_sent_twice(
    channel: ViberChannel, viber: Platform, said: Any, expected: type[Answer]
) -> None:
    """Whatever the answer, or none, the request goes out once."""
    viber.says(said)
    assert isinstance(await channel.send(ANN, Content("Hi")), expected)
    assert len(viber.asked) == 1


@pytest.mark.parametrize(
    "content", [Content("x" * 31_000), Content("\ud800"), Content("t", (), (ReadyButton("B"),))]
)
async def test_what_cannot_be_written_is_not_asked(
    channel: ViberChannel, viber: Platform, content: Content
) -> None:
    """Too long a body, half a surrogate pair and an empty button are the content's fault."""
    assert isinstance(await channel.send(ANN, content), BadContent)
    assert viber.asked == []


async def test_what_follows_a_message_never_undoes_it(channel: ViberChannel, viber: Platform) -> None:
    """The first request decides; a picture that is refused after it is logged without the token."""
    viber.says(SENT, UNSUBSCRIBED)
    picture = Media(MediaType.PICTURE, "https://x.example/a.png")
    with structlog.testing.capture_logs() as logs:
        assert await channel.send(ANN, Content("x" * 513, (picture,))) == Sent("4912661846655238145")
    assert [entry["action"] for entry in logs] == ["viber_media_lost"]
    assert TOKEN not in repr(logs)


async def test_nothing_follows_a_message_that_did_not_go_out(channel: ViberChannel, viber: Platform) -> None:
    """A refused message leaves nothing half said."""
    viber.says(UNSUBSCRIBED)
    picture = Media(MediaType.PICTURE, "https://x.example/a.png")
    answer = await channel.send(ANN, Content("x" * 513, (picture,)))
    assert isinstance(answer, Never)
    assert answer.marks is ConversationState.UNSUBSCRIBED
    assert len(viber.asked) == 1


async def test_callbacks_come_in() -> None:
    """They are proven with the account's own token."""
    body = callback("message_text")
    inbound = ViberInbound(ViberAccount("viber/news", "4a-SECRET", "News"), StillClock())
    assert (await inbound.receive({}, body)).refused == "bad_signature"
    received = await inbound.receive({"X-Viber-Content-Signature": signature(body)}, body)
    assert [told.said for told in received.inbound] == [Said.TEXT]


async def test_a_known_bot_is_connected(channel: ViberChannel, viber: Platform) -> None:
    """`get_account_info` needs nothing but the token."""
    viber.says(OK)
    assert await channel.check() is None
    assert viber.asked == [("/pa/get_account_info", {})]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((200, {"status": 2, "status_message": "invalidAuthToken"}), "admin panel"),
        ((200, {"status": 9, "status_message": "publicAccountSuspended"}), "support"),
        ((200, {"status": 77, "status_message": "odd"}), "status 77 odd"),
        ((404, b"<html>"), "address"),
        (LOST, "reachable"),
    ],
)
async def test_trouble_is_told_with_what_to_do(
    channel: ViberChannel, viber: Platform, said: Any, words: str
) -> None:
    """In words, and without the token."""
    viber.says(said)
    trouble = await channel.check()
    assert trouble is not None
    assert words in trouble
    assert TOKEN not in trouble


async def test_connecting_registers_the_webhook(inbound: ViberInbound, viber: Platform) -> None:
    """Receipts are asked for by name."""
    viber.says(OK)
    assert await inbound.connect("https://clarion.example/") is None
    [(path, body)] = viber.asked
    assert (path, body["url"]) == ("/pa/set_webhook", "https://clarion.example/webhooks/viber/news")
    assert {"delivered", "seen", "failed", "subscribed", "unsubscribed", "conversation_started"} == set(
        body["event_types"]
    )


async def test_a_refused_webhook_is_told(inbound: ViberInbound, viber: Platform) -> None:
    """With what Viber asks of an address."""
    viber.says((200, {"status": 1, "status_message": "invalidUrl"}))
    trouble = await inbound.connect("http://clarion.example")
    assert trouble is not None
    assert "https" in trouble


async def test_presence_asks_through_the_channel(channel: ViberChannel, viber: Platform) -> None:
    """One call for all, over the account's own connections."""
    viber.says((200, {"status": 0, "users": [{"id": "a", "online_status": 0}, {"id": "b", "online_status": 3}]}))
    assert await ViberPresence(channel.ask).states(["a", "b"]) == {"a": PresenceState.AVAILABLE}
    assert viber.asked == [("/pa/get_online", {"ids": ["a", "b"]})]


@pytest.mark.parametrize("said", [(500, b""), (200, b"<html>"), LOST])
async def test_presence_that_fails_says_so(channel: ViberChannel, viber: Platform, said: Any) -> None:
    """A failure is never an answer."""
    viber.says(said)
    with pytest.raises(PresenceUnavailable):
        await ViberPresence(channel.ask).states(["a"])


async def test_a_refused_connection_is_a_fault(account: ViberAccount) -> None:
    """Nothing was sent: it may be tried again."""
    closed = ViberChannel(replace(account, api_url="http://127.0.0.1:9"))
    assert isinstance(await closed.send(ANN, Content("Hi")), Faulty)
    await closed.close()
