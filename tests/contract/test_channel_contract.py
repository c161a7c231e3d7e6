"""What every channel must do, over real HTTP against the simulated platforms (broadcast/ports.py, `Channel`)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
import structlog

from bot.channels.telegram import Mode, TelegramAccount, TelegramInbound
from broadcast.model import (
    Answer,
    BadContent,
    ChannelName,
    ConversationState,
    Delivery,
    EventType,
    Faulty,
    Holds,
    Media,
    MediaType,
    Never,
    Sent,
    StopAccount,
    Throttled,
    Unknown,
)
from broadcast.ports import Channel, Content, Inbound, ReadyButton, Said
from broadcast.tracking import Press, covers, payload
from tests.channels.clocks import NOW, StillClock
from tests.contract.lines import Line, line

TEAMS, TELEGRAM, VIBER = ChannelName.TEAMS, ChannelName.TELEGRAM, ChannelName.VIBER

TEXTS = (
    "Hello",
    "<b>bold</b> & <script>x</script> &amp;",
    "_under_ *star* [link](x) `code` ~wave~ #1",
    "emoji 😀👩‍👩‍👧 and é",
    "שלום עולם و مرحبا",
    "two\nlines\n\nand a gap",
    "1. not a list\n- nor this",
)
NOTHING_KNOWN: dict[ChannelName, dict[str, Any]] = {
    TEAMS: {"type": "hologram"},
    TELEGRAM: {"message": {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "private"}, "hologram": {}}},
    VIBER: {"event": "hologram"},
}


@pytest.fixture(params=[TEAMS, TELEGRAM, VIBER], ids=str)
async def on(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    """The line of each channel in turn."""
    async with line(request.param) as made:
        yield made


def _starts(inbound: Inbound) -> bool:
    """Whether somebody asks for messages, in the way of their platform: an installation or the word."""
    return inbound.said is Said.SUBSCRIBED or (inbound.said is Said.TEXT and inbound.text == "/start")


# --- out ----------------------------------------------------------------------------------------------


async def test_it_says_what_it_is(on: Line) -> None:
    """Name, account and features agree with the platform."""
    channel: Channel = on.channel
    assert (channel.name, channel.account) == (on.name, f"{on.name}/default")
    assert channel.features.rate > 0
    assert channel.features.text_limit > 1000
    assert channel.features.reports_read == (on.name is not TELEGRAM)
    assert channel.features.reports_delivered == (on.name is VIBER)


async def test_a_text_arrives_as_it_was_written(on: Line) -> None:
    """Whatever looks like markup is text, in every script."""
    to = await on.started()
    for text in TEXTS[:3] if on.name is TELEGRAM else TEXTS:  # more at once is too many for one chat
        answer = await on.channel.send(to, Content(text))
        assert isinstance(answer, Sent), answer
        message = (await on.got())[-1]
        assert (message["text"], message["message_id"]) == (text, answer.message_id)


@pytest.mark.parametrize("text", TEXTS[3:])
async def test_every_text_arrives_on_telegram(text: str) -> None:
    """The rest of the texts, each in a chat of its own."""
    async with line(TELEGRAM) as on:
        to = await on.started()
        assert isinstance(await on.channel.send(to, Content(text)), Sent)
        assert (await on.got())[-1]["text"] == text


async def test_a_picture_arrives_with_its_text(on: Line) -> None:
    """Both in one message."""
    picture = Media(MediaType.PICTURE, "https://x.example/banner.png", "Benefits week")
    answer = await on.channel.send(await on.started(), Content("See <this> & that", (picture,)))
    [message] = await on.got()
    assert isinstance(answer, Sent)
    assert (message["text"], message["message_id"]) == ("See <this> & that", answer.message_id)
    assert [medium["url"] for medium in message["media"]] == [picture.url]


async def test_buttons_arrive_and_a_press_comes_back(on: Line) -> None:
    """A link opens its address; a reply brings back its payload, pressed by that person."""
    to = await on.started()
    carried = payload(Press("dlv_1", "later"))
    buttons = (ReadyButton("Enrol", url="https://x.example/r/t"), ReadyButton("Later", payload=carried))
    assert isinstance(await on.channel.send(to, Content("Hi", buttons=buttons)), Sent)
    [message] = await on.got()
    assert [(one["type"], one["label"]) for one in message["buttons"]] == [("link", "Enrol"), ("reply", "Later")]
    assert message["buttons"][0]["url"] == "https://x.example/r/t"
    assert await on.act("press", button="Later") == [200]
    pressed = on.inbound[-1]
    assert (pressed.said, pressed.text, pressed.person.user_id) == (Said.PRESSED, carried, to.user_id)


async def test_a_later_send_finds_the_same_person(on: Line) -> None:
    """What an answer taught of the conversation leads to the same chat."""
    to = await on.started()
    for text in ("one", "two"):
        assert isinstance(await on.channel.send(to, Content(text)), Sent)
    assert [message["text"] for message in await on.got()] == ["one", "two"]


async def test_message_ids_differ(on: Line) -> None:
    """Each message has its own id, and ids grow where receipts need it."""
    to = await on.started()
    ids = []
    for text in ("one", "two"):
        answer = await on.channel.send(to, Content(text))
        assert isinstance(answer, Sent)
        ids.append(int(answer.message_id))
    assert ids == sorted(set(ids))


# --- what the answers mean ----------------------------------------------------------------------------


async def test_somebody_who_blocked_is_never_written_to(on: Line) -> None:
    """Said as the platform knows it."""
    to = await on.started()
    await on.act("block")
    answer = await on.channel.send(to, Content("Hi"))
    assert isinstance(answer, Never)
    assert answer.marks is (ConversationState.UNSUBSCRIBED if on.name is VIBER else ConversationState.BLOCKED)
    assert await on.got() == []


async def test_somebody_who_never_started_cannot_be_written_to(on: Line) -> None:
    """A directory may know people who do not know the bot."""
    assert isinstance(await on.channel.send(on.stranger(), Content("Hi")), Never)


@pytest.mark.parametrize("seconds", [7, None])
async def test_too_many_requests_say_how_long_and_how_far(on: Line, seconds: int | None) -> None:
    """Teams and Telegram hold the account and may name a wait, Viber holds the conversation and names none."""
    to = await on.started()
    await on.fault("throttle", retry_after=seconds)
    answer = await on.channel.send(to, Content("Hi"))
    assert isinstance(answer, Throttled)
    assert answer.holds is (Holds.CONVERSATION if on.name is VIBER else Holds.ACCOUNT)
    if seconds is not None and on.name is not VIBER:
        assert answer.wait == timedelta(seconds=seconds)
    if on.name is VIBER:
        assert answer.wait is None


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_fault_of_the_platform_is_one(on: Line, status: int) -> None:
    """5xx: nothing was accepted."""
    to = await on.started()
    await on.fault("status", status=status)
    assert isinstance(await on.channel.send(to, Content("Hi")), Faulty)
    assert await on.got() == []


async def test_a_refused_connection_is_a_fault(on: Line) -> None:
    """Nothing was sent."""
    assert isinstance(await on.unreachable.send(on.stranger(), Content("Hi")), Faulty)


async def test_a_lost_answer_is_unknown_and_not_repeated(on: Line) -> None:
    """The person has the message once; nobody here can know."""
    to = await on.started()
    await on.fault("drop", after_effect=True)
    assert isinstance(await on.channel.send(to, Content("Hi")), Unknown)
    assert [message["text"] for message in await on.got()] == ["Hi"]


async def test_content_beyond_the_platform_is_bad(on: Line) -> None:
    """Far too long a text is the message's fault, not the conversation's."""
    answer = await on.channel.send(await on.started(), Content("x" * 60_000))
    assert isinstance(answer, BadContent)
    assert await on.got() == []


async def test_half_a_character_is_bad_content(on: Line) -> None:
    """A lone surrogate can be in a text and in no request."""
    assert isinstance(await on.channel.send(await on.started(), Content("\ud83d")), BadContent)


async def test_a_revoked_token_stops_the_account(on: Line) -> None:
    """No delivery can succeed, and the check says so in words."""
    to = await on.started()
    assert isinstance(await on.revoked.send(to, Content("Hi")), StopAccount)
    assert await on.revoked.check()


async def test_a_good_account_is_connected(on: Line) -> None:
    """The check has nothing to say."""
    assert await on.channel.check() is None


async def test_an_unreachable_platform_is_told(on: Line) -> None:
    """The check says so in words."""
    assert await on.unreachable.check()


# --- in -----------------------------------------------------------------------------------------------


async def test_a_start_names_the_person(on: Line) -> None:
    """Whoever starts can be written to with what the callbacks told."""
    to = await on.started()
    assert any(_starts(inbound) for inbound in on.inbound)
    assert {inbound.account for inbound in on.inbound} == {f"{on.name}/default"}
    assert {inbound.channel for inbound in on.inbound} == {on.name}
    assert isinstance(await on.channel.send(to, Content("Hi")), Sent)


async def test_stop_comes_back_as_it_was_written(on: Line) -> None:
    """The word is the domain's to read."""
    await on.started()
    assert await on.act("stop") == [200]
    assert (on.inbound[-1].said, on.inbound[-1].text) == (Said.TEXT, "STOP")


async def test_leaving_is_told(on: Line) -> None:
    """Uninstalled, blocked or unsubscribed, as the platform has it."""
    await on.started()
    await on.act("uninstall")
    assert on.inbound[-1].said is (Said.UNSUBSCRIBED if on.name is VIBER else Said.BLOCKED)


async def test_coming_back_is_told(on: Line) -> None:
    """Who left and starts again can be written to again."""
    await on.started()
    await on.act("uninstall")
    before = len(on.inbound)
    await on.act("unblock")
    assert any(_starts(inbound) for inbound in on.inbound[before:])
    assert isinstance(await on.channel.send(on.conversation(), Content("Hi")), Sent)


async def test_receipts_are_what_the_features_say(on: Line) -> None:
    """Who reads the newest has read the earlier ones; a channel without receipts sends none."""
    to = await on.started()
    sent = [await on.channel.send(to, Content(text)) for text in ("one", "two")]
    await on.act("read")
    read = [receipt for receipt in on.receipts if receipt.type is EventType.READ]
    assert bool(read) == on.channel.features.reports_read
    assert bool([one for one in on.receipts if one.type is EventType.DELIVERED]) == (
        on.channel.features.reports_delivered
    )
    for receipt in read:
        assert (receipt.account, receipt.user_id) == (on.channel.account, to.user_id)
        assert all(covers(receipt, _delivery(answer)) for answer in sent)


def _delivery(answer: Answer) -> Delivery:
    assert isinstance(answer, Sent)
    return Delivery("dlv_1", "brd_1", "rcp_1", 0, TEAMS, "a", "c", platform_message_id=answer.message_id)


async def test_nothing_unproven_is_taken(on: Line) -> None:
    """A true body without its proof, or with another's, brings nothing."""
    await on.started()
    headers, body = on.callbacks[-1]
    forged = {
        name: "x" + value[1:] if name not in {"Host", "Content-Type"} else value for name, value in headers.items()
    }
    for given in ({}, forged):
        received = await on.intake.receive(given, body)
        assert received.status in {401, 403}
        assert received.refused
        assert (received.inbound, received.receipts) == ((), ())


async def test_what_nobody_knows_yet_is_answered_well(on: Line) -> None:
    """An event of the future is taken with 200 and says nothing."""
    await on.started()
    before = len(on.inbound)
    assert await on.act("raw", body=NOTHING_KNOWN[on.name]) == [200]
    assert on.inbound[before:] == []


async def test_a_repeated_callback_has_the_same_key(on: Line) -> None:
    """Platforms repeat themselves; each deed has a key of its own."""
    await on.started()
    await on.act("say", text="one")
    await on.act("say", text="one")
    again = [await on.intake.receive(headers, body) for headers, body in on.callbacks]
    keys = [inbound.key for received in again for inbound in received.inbound]
    assert keys == [inbound.key for inbound in on.inbound]
    assert len(set(keys)) == len(keys)


async def test_asking_brings_what_the_webhook_would() -> None:
    """Telegram's updates are the same when they are asked for, and a press is acknowledged."""
    async with line(TELEGRAM) as on:
        to = await on.started()
        button = ReadyButton("Later", payload=payload(Press("dlv_1", "later")))
        await on.channel.send(to, Content("Hi", buttons=(button,)))
        assert isinstance(on.intake, TelegramInbound)
        account = TelegramAccount(
            "telegram/default",
            on.sandbox.env()["CLARION_TELEGRAM_TOKEN"],
            api_url=on.sandbox.env()["CLARION_TELEGRAM_API_URL"],
            mode=Mode.POLLING,
        )
        polling = TelegramInbound(account, StillClock())
        assert await polling.connect("") is None
        await on.act("say", text="one", wait_seconds=0)
        await on.act("press", wait_seconds=0)
        async with aclosing(polling.poll()) as batches:
            told = (await anext(batches)).inbound
        assert [(one.said, one.text) for one in told] == [(Said.TEXT, "one"), (Said.PRESSED, button.payload)]
        await polling.close()
        assert len(on.sandbox.telegram.answers("default")) == 1


async def test_instants_are_aware_and_in_utc(on: Line) -> None:
    """Whatever the platform calls time."""
    await on.started()
    await on.act("say", text="one")
    assert {inbound.at.utcoffset() for inbound in on.inbound} == {timedelta(0)}
    assert all(abs(inbound.at - NOW) < timedelta(days=36_500) for inbound in on.inbound)


async def test_no_secret_is_ever_logged(on: Line, caplog: pytest.LogCaptureFixture) -> None:
    """Neither ours nor the libraries' logs hold a token, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        to = await on.started()
        await on.channel.check()
        for kind, args in (("status", {"status": 502}), ("drop", {"after_effect": False})):
            await on.fault(kind, count=1, **args)
            await on.channel.send(to, Content("Hi"))
        for broken in (on.revoked, on.unreachable):
            answer = await broken.send(to, Content("Hi"))
            caplog.messages.append(str(answer))
            caplog.messages.append(str(await broken.check()))
        await on.intake.receive({}, b"{}")
    said = "\n".join([repr(logs), *caplog.messages, *(str(record.args) for record in caplog.records)])
    assert [secret for secret in on.secrets if secret in said] == []
