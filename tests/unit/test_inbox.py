"""What people do, and what follows: who they are, whether they may be written to, what they pressed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broadcast import inbox
from broadcast.errors import Conflict
from broadcast.inbox import Reception
from broadcast.model import (
    Audience,
    BroadcastStatus,
    Button,
    ButtonType,
    ChannelName,
    Conversation,
    ConversationState,
    Delivery,
    DeliveryState,
    EventType,
    Message,
    Reason,
    Receipt,
    Recipient,
)
from broadcast.ports import Inbound, Person, Said
from broadcast.tracking import Press, payload
from tests.storage import builders
from tests.unit.office import ACCOUNTS, NOW, TEAMS, TELEGRAM, VIBER, Crash, Office, Shaky, shaky

MINUTE = timedelta(minutes=1)


async def conversation(office: Office, name: str, account: str = TELEGRAM) -> Conversation:
    found = await office.store.conversation(account, name)
    assert found is not None
    return found


async def everybody(office: Office) -> list[Recipient]:
    return [recipient for recipient, _ in await office.store.audience(Audience(), after="", limit=100)]


# --- who it is ----------------------------------------------------------------------------------------


async def test_somebody_new_becomes_a_recipient_with_a_conversation() -> None:
    """With everything the platform tells."""
    office = Office()
    person = Person("77", "Ann", "Ash", "ann@example.com", "fr", "Europe/Paris", "FR")
    handled = await office.does("77", Said.SUBSCRIBED, person=person, reference={"chat": 7})
    [ann] = await everybody(office)
    assert handled is not None
    assert handled.recipient == ann
    assert ann == Recipient(
        ann.id,
        None,
        "ann@example.com",
        "Ann",
        "Ash",
        "fr",
        "Europe/Paris",
        "FR",
        identities={ChannelName.TELEGRAM: "77"},
        created_at=NOW,
    )
    known = await conversation(office, "77")
    assert (known.recipient, known.state) == (ann.id, ConversationState.REACHABLE)
    assert (known.last_seen, known.reference) == (NOW, {"chat": 7})


async def test_what_the_directory_says_stays() -> None:
    """A platform fills in what is missing, and corrects nothing."""
    office = Office()
    await office.hire("ann")
    await office.does("ann", Said.SEEN, person=Person("ann", "Annie", "Ash", locale="fr"))
    ann = await office.person("ann")
    assert (ann.first_name, ann.last_name, ann.locale) == ("Ann", "Ash", "fr")


async def test_whoever_the_directory_names_by_id_is_not_made_twice() -> None:
    """Imported first, writing later."""
    office = Office()
    listed = Recipient("rcp_ann", identities={ChannelName.TEAMS: "object-id"})
    await office.store.save_recipients([listed])
    handled = await office.does("object-id", Said.SUBSCRIBED, account=TEAMS)
    assert handled is not None
    assert handled.recipient == listed
    assert await everybody(office) == [listed]


async def test_whoever_the_directory_names_by_mail_learns_their_id() -> None:
    """So that the next account of the channel knows them too."""
    office = Office()
    await office.store.save_recipients([Recipient("rcp_ann", email="Ann@Example.com")])
    await office.does(
        "object-id", Said.SUBSCRIBED, account=TEAMS, person=Person("object-id", email="ann@example.com")
    )
    [ann] = await everybody(office)
    assert (ann.id, ann.identities) == ("rcp_ann", {ChannelName.TEAMS: "object-id"})


async def test_a_channel_id_beats_a_mail() -> None:
    """The id is the platform's own word on who it is; a mail may have gone to somebody else."""
    office = Office()
    await office.store.save_recipients(
        [
            Recipient("rcp_ann", identities={ChannelName.TEAMS: "ann"}),
            Recipient("rcp_ben", email="post@example.com", identities={ChannelName.TEAMS: "ben"}),
        ]
    )
    handled = await office.does("ann", Said.SEEN, account=TEAMS, person=Person("ann", email="post@example.com"))
    assert handled is not None
    assert (handled.recipient.id, handled.recipient.email) == ("rcp_ann", None)


async def test_a_mail_of_somebody_else_keeps_nobody_out() -> None:
    """They are known without it."""
    office = Office()
    await office.hire("ann")
    await office.store.save_recipients([Recipient("rcp_ben", email="ben@example.com")])
    await office.does("ann", Said.SEEN, person=Person("ann", last_name="Ash", email="ben@example.com"))
    ann = await office.person("ann")
    assert (ann.last_name, ann.email) == ("Ash", None)


async def test_whoever_says_stop_is_heard_although_their_record_cannot_be_kept() -> None:
    """Their channel id was given to somebody else by an import: the opt-out counts all the same."""
    office = Office()
    await office.hire("ann")
    ann = await office.person("ann")
    await office.store.save_recipients(
        [replace(ann, identities={}), Recipient("rcp_ben", identities={ChannelName.TELEGRAM: "ann"})]
    )
    handled = await office.says("ann", "STOP", person=Person("ann", last_name="Ash"))
    assert handled is not None
    assert handled.recipient.id == "rcp_ann"
    assert (await office.person("ann")).unsubscribed_at == NOW


async def test_whoever_was_erased_starts_anew() -> None:
    """Their conversation is still there, their record is not; nothing points nowhere."""
    office = Office()
    await office.store.save_conversations([builders.conversation("ann", TELEGRAM, user_id="ann")])
    handled = await office.does("ann", Said.SEEN)
    assert handled is not None
    assert await everybody(office) == [handled.recipient]
    assert (await conversation(office, "ann")).recipient == handled.recipient.id


async def test_two_callbacks_of_somebody_new_make_one_person() -> None:
    """Subscribing and writing come at once, and are worked on at once."""
    office = Office()
    reception = Reception(shaky(office.store), office.clock, office.chance)
    person = Person("77", "Ann", email="ann@example.com")
    words = [office.word("77", said, person=person) for said in (Said.SUBSCRIBED, Said.SEEN, Said.TEXT)]
    handled = await asyncio.gather(*map(reception.inbound, words))
    [ann] = await everybody(office)
    assert {one.recipient.id for one in handled if one} == {ann.id}
    assert (await conversation(office, "77")).recipient == ann.id
    assert ann.email == "ann@example.com"


async def test_somebody_whom_nobody_can_store_is_refused() -> None:
    """The platform repeats it, and then they are there. Nothing is noted as done."""

    class Refusing(Shaky):
        async def take_in(self, *_: object, **__: object) -> None:
            raise Conflict("taken")

    office = Office()
    reception = Reception(Refusing(office.store), office.clock, office.chance)  # type: ignore[arg-type]  # by duck
    word = office.word("77", Said.TEXT, text="STOP")
    with pytest.raises(Conflict):
        await reception.inbound(word)
    assert await office.reception.inbound(word) is not None


# --- once ---------------------------------------------------------------------------------------------


async def test_a_callback_counts_once() -> None:
    """However often the platform repeats it, one answer is given."""
    office = Office()
    word = office.word("ann", Said.TEXT, text="HELP")
    assert await office.reception.inbound(word) is not None
    assert await office.reception.inbound(word) is None


async def test_a_repeat_undoes_nothing_that_was_said_since() -> None:
    """They stopped and came back; the platform tells of the stop once more."""
    office = Office()
    await office.hire("ann")
    stop = office.word("ann", Said.TEXT, text="STOP")
    await office.reception.inbound(stop)
    await office.says("ann", "START")
    await office.reception.inbound(stop)
    assert (await office.person("ann")).unsubscribed_at is None


async def test_a_callback_that_is_repeated_while_it_is_worked_on_is_answered_once() -> None:
    """Two tasks, one key."""
    office = Office()
    await office.hire("ann")
    reception = Reception(shaky(office.store), office.clock, office.chance)
    word = office.word("ann", Said.TEXT, text="STOP")
    answers = await asyncio.gather(*(reception.inbound(word) for _ in range(3)))
    assert len([one for one in answers if one is not None]) == 1


async def test_whoever_is_answered_is_reached_by_all_that_is_known() -> None:
    """A callback may tell a part of what it takes to write to somebody."""
    office = Office()
    await office.does("ann", Said.SEEN, reference={"url": "https://one.example", "chat": 7})
    handled = await office.does("ann", Said.SEEN, reference={"url": "https://two.example"})
    assert handled is not None
    assert handled.conversation.reference == {"url": "https://two.example", "chat": 7}


async def test_the_same_key_on_another_account_is_another_callback() -> None:
    """Platforms number each for themselves."""
    office = Office()
    assert await office.does("ann", Said.SEEN, key="1") is not None
    assert await office.does("ann", Said.SEEN, key="1", account=VIBER) is not None


# --- words --------------------------------------------------------------------------------------------

STOPS = (
    "STOP",
    "StopAll",
    "unsubscribe",
    "cancel",
    "End",
    "quit",
    "optout",
    "Opt-Out",
    "opt out",
    "revoke",
    "/stop",
)


@pytest.mark.parametrize(
    "text", [*STOPS, "  stop\n", "\u200fSTOP\u200e", "\uff33\uff34\uff2f\uff30", "\u00a0stop", "stop\ufeff"]
)
async def test_a_stop_word_ends_it(text: str) -> None:
    """Any case, trimmed, and whatever marks a keyboard puts around it (PLATFORMS E)."""
    office = Office()
    await office.hire("ann")
    handled = await office.says("ann", text)
    assert handled is not None
    assert (handled.answer, handled.command) == (inbox.STOPPED, None)
    assert (await office.person("ann")).unsubscribed_at == NOW


@pytest.mark.parametrize(
    "text", ["Stop texting me", "STOP.", "s t o p", "don't stop", "stop stop", "", " ", "/stopp", "endless"]
)
async def test_anything_more_is_no_stop_word(text: str) -> None:
    """The whole message only; what is left may be a command, and goes to whoever reads them."""
    office = Office()
    await office.hire("ann")
    handled = await office.says("ann", text)
    assert handled is not None
    assert (handled.answer, handled.command) == (None, text.strip())
    assert (await office.person("ann")).unsubscribed_at is None


@pytest.mark.parametrize("text", ["START", "/start", " unstop "])
async def test_a_start_word_brings_them_back(text: str) -> None:
    """And says so; to somebody who was never away it says what to expect."""
    office = Office()
    await office.hire("ann")
    first = await office.says("ann", text)
    await office.says("ann", "STOP")
    again = await office.says("ann", text)
    assert first is not None
    assert again is not None
    assert (first.answer, again.answer) == (inbox.STARTED, inbox.BACK)
    assert (await office.person("ann")).unsubscribed_at is None


@pytest.mark.parametrize("text", ["help", "/HELP "])
async def test_help_is_given(text: str) -> None:
    """It changes nothing."""
    office = Office()
    await office.hire("ann")
    handled = await office.says("ann", text)
    assert handled is not None
    assert handled.answer == inbox.HELP


async def test_a_second_stop_moves_nothing() -> None:
    """The first moment stays, and the second confirmation says that nothing changed."""
    office = Office()
    await office.hire("ann")
    await office.says("ann", "STOP")
    office.clock.move(MINUTE)
    handled = await office.says("ann", "STOP")
    assert handled is not None
    assert handled.answer == inbox.ALREADY_STOPPED
    assert (await office.person("ann")).unsubscribed_at == NOW


async def test_stop_on_one_channel_holds_on_all_until_start_on_any() -> None:
    """STOP is said to the sender, not to the channel (DESIGN 2, rule 6)."""
    office = Office()
    await office.hire("ann")
    await office.does("v=", Said.SUBSCRIBED, account=VIBER, person=Person("v=", email="ann@example.com"))
    [ann, other] = sorted(await everybody(office), key=lambda one: one.id != "rcp_ann")
    await office.store.save_conversations([replace(await conversation(office, "v=", VIBER), recipient=ann.id)])
    assert other.id != ann.id
    await office.says("v=", "STOP", account=VIBER)
    assert (await office.person("ann")).unsubscribed_at == NOW
    await office.says("ann", "START")
    assert (await office.person("ann")).unsubscribed_at is None


async def test_stop_skips_what_is_planned() -> None:
    """In the middle of a broadcast, at the moment we know of it."""
    office = Office()
    await office.hire("ann", "ben")
    broadcast = await office.running()
    office.clock.move(MINUTE)
    await office.says("ann", "STOP", at=NOW)
    deliveries = await office.deliveries(broadcast)
    ann, ben = deliveries["rcp_ann"], deliveries["rcp_ben"]
    assert (ann.state, ann.reason, ann.ended_at) == (
        DeliveryState.SKIPPED,
        Reason.UNSUBSCRIBED,
        office.clock.now(),
    )
    assert ben.state is DeliveryState.PLANNED


# --- the platform's own means -------------------------------------------------------------------------


async def test_unsubscribing_on_the_platform_is_a_stop() -> None:
    """For the person everywhere, and for this conversation besides."""
    office = Office()
    await office.hire("ann", account=VIBER)
    await office.does("ann", Said.UNSUBSCRIBED, account=VIBER, at=NOW - MINUTE)
    assert (await office.person("ann")).unsubscribed_at == NOW
    assert (await conversation(office, "ann", VIBER)).state is ConversationState.UNSUBSCRIBED


async def test_subscribing_again_on_the_platform_is_a_start() -> None:
    """They undo, with the platform's own means, what they did with them."""
    office = Office()
    await office.hire("ann", account=VIBER)
    await office.does("ann", Said.UNSUBSCRIBED, account=VIBER)
    office.clock.move(MINUTE)
    handled = await office.does("ann", Said.SUBSCRIBED, account=VIBER)
    assert handled is not None
    assert handled.answer == inbox.BACK
    assert (await office.person("ann")).unsubscribed_at is None
    assert (await conversation(office, "ann", VIBER)).state is ConversationState.REACHABLE


async def test_subscribing_does_not_undo_a_stop_that_was_said_in_words() -> None:
    """Only START does: installing or unblocking is not it."""
    office = Office()
    await office.hire("ann")
    await office.says("ann", "STOP")
    handled = await office.does("ann", Said.SUBSCRIBED)
    assert handled is not None
    assert handled.answer is None
    assert (await office.person("ann")).unsubscribed_at == NOW


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (Said.TEXT, ConversationState.REACHABLE),
        (Said.PRESSED, ConversationState.UNSUBSCRIBED),
        (Said.SEEN, ConversationState.UNSUBSCRIBED),
    ],
)
async def test_writing_reopens_what_was_unsubscribed_and_is_no_start(said: Said, state: ConversationState) -> None:
    """The platform takes writing as subscribing; the opt-out stays until START."""
    office = Office()
    await office.hire("ann", account=VIBER)
    await office.does("ann", Said.UNSUBSCRIBED, account=VIBER)
    await office.does("ann", said, account=VIBER, text="hello")
    assert (await conversation(office, "ann", VIBER)).state is state
    assert (await office.person("ann")).unsubscribed_at == NOW


@pytest.mark.parametrize("said", [Said.TEXT, Said.PRESSED, Said.SEEN, Said.SUBSCRIBED])
@pytest.mark.parametrize("state", [ConversationState.BLOCKED, ConversationState.GONE])
async def test_any_word_reopens_what_was_shut(said: Said, state: ConversationState) -> None:
    """Unreachable is reversible (PLATFORMS G)."""
    office = Office()
    await office.hire("ann")
    known = await conversation(office, "ann")
    await office.store.mark_conversation(known.id, state, NOW)
    await office.does("ann", said, text="hello")
    assert (await conversation(office, "ann")).state is ConversationState.REACHABLE


async def test_a_block_shuts_one_conversation() -> None:
    """It is no opt-out: the person may be reached elsewhere."""
    office = Office()
    await office.hire("ann")
    broadcast = await office.running()
    await office.does("ann", Said.BLOCKED)
    assert (await conversation(office, "ann")).state is ConversationState.BLOCKED
    assert (await office.person("ann")).unsubscribed_at is None
    assert (await office.deliveries(broadcast))["rcp_ann"].reason is Reason.BLOCKED


async def test_a_stranger_may_block_us_too() -> None:
    """Somebody we never heard of: from now on we know."""
    office = Office()
    await office.does("77", Said.BLOCKED)
    assert (await conversation(office, "77")).state is ConversationState.BLOCKED


# --- out of order -------------------------------------------------------------------------------------


async def test_a_start_that_comes_in_after_a_later_stop_changes_nothing() -> None:
    """The platform repeated it; what the person said last holds."""
    office = Office()
    await office.hire("ann")
    start = office.word("ann", Said.TEXT, text="START")
    office.clock.move(MINUTE)
    await office.says("ann", "STOP")
    stopped_at = office.clock.now()
    handled = await office.reception.inbound(start)
    assert handled is not None
    assert handled.answer == inbox.ALREADY_STOPPED
    assert (await office.person("ann")).unsubscribed_at == stopped_at


async def test_a_start_said_after_the_stop_counts_although_we_noted_the_stop_late() -> None:
    """Their clock and ours differ: our moment of the stop is after theirs of the start."""
    office = Office()
    await office.hire("ann")
    await office.says("ann", "STOP", at=NOW - 3 * MINUTE)
    await office.says("ann", "START", at=NOW - 2 * MINUTE)
    assert (await office.person("ann")).unsubscribed_at is None


async def test_a_stop_counts_whenever_it_comes_in() -> None:
    """In doubt nobody is written to."""
    office = Office()
    await office.hire("ann")
    await office.says("ann", "hello")
    await office.says("ann", "STOP", at=NOW - MINUTE)
    assert (await office.person("ann")).unsubscribed_at == NOW


async def test_late_words_neither_shut_nor_reopen() -> None:
    """A block before the latest word is over; a word before the latest block says nothing of now."""
    office = Office()
    await office.hire("ann")
    await office.says("ann", "hello")
    await office.does("ann", Said.BLOCKED, at=NOW - MINUTE)
    assert (await conversation(office, "ann")).state is ConversationState.REACHABLE
    office.clock.move(MINUTE)
    await office.does("ann", Said.BLOCKED)
    await office.says("ann", "hello", at=NOW)
    known = await conversation(office, "ann")
    assert (known.state, known.last_seen) == (ConversationState.BLOCKED, office.clock.now())


async def test_a_late_subscription_undoes_no_unsubscription() -> None:
    """They subscribed first and left then, in whatever order it is told."""
    office = Office()
    await office.hire("ann", account=VIBER)
    await office.does("ann", Said.UNSUBSCRIBED, account=VIBER)
    await office.does("ann", Said.SUBSCRIBED, account=VIBER, at=NOW - MINUTE)
    assert (await office.person("ann")).unsubscribed_at == NOW
    assert (await conversation(office, "ann", VIBER)).state is ConversationState.UNSUBSCRIBED


async def test_a_platform_whose_clock_runs_ahead_makes_nothing_late() -> None:
    """An instant in the future is now."""
    office = Office()
    await office.hire("ann")
    await office.does("ann", Said.BLOCKED, at=datetime(2100, 1, 1, tzinfo=UTC))
    office.clock.move(MINUTE)
    await office.says("ann", "hello")
    known = await conversation(office, "ann")
    assert (known.state, known.last_seen) == (ConversationState.REACHABLE, office.clock.now())


# --- crashes ------------------------------------------------------------------------------------------


async def crashed_then_repeated(office: Office, word: Inbound, calls: int) -> bool:
    """Dies after so many calls of the store; the platform repeats. Whether it died at all."""
    reception = Reception(shaky(office.store, calls), office.clock, office.chance)
    try:
        await reception.inbound(word)
    except Crash:
        await office.reception.inbound(word)
        return True
    return False


@pytest.mark.parametrize("calls", range(12))
async def test_no_crash_loses_an_opt_out(calls: int) -> None:
    """Wherever it comes, after the repeat the person is unsubscribed and what was planned is skipped."""
    for said, text in ((Said.TEXT, "STOP"), (Said.UNSUBSCRIBED, "")):
        office = Office()
        await office.hire("ann")
        broadcast = await office.running()
        await crashed_then_repeated(office, office.word("ann", said, text=text), calls)
        assert (await office.person("ann")).unsubscribed_at is not None
        assert (await office.deliveries(broadcast))["rcp_ann"].reason is Reason.UNSUBSCRIBED


@pytest.mark.parametrize("calls", range(12))
async def test_no_crash_loses_a_return(calls: int) -> None:
    """By START, or by subscribing again with the platform's own means."""
    for said, text in ((Said.TEXT, "START"), (Said.SUBSCRIBED, "")):
        office = Office()
        await office.hire("ann", account=VIBER)
        await office.does("ann", Said.UNSUBSCRIBED, account=VIBER)
        office.clock.move(MINUTE)
        await crashed_then_repeated(office, office.word("ann", said, text=text, account=VIBER), calls)
        assert (await office.person("ann")).unsubscribed_at is None
        assert (await conversation(office, "ann", VIBER)).state is ConversationState.REACHABLE


@pytest.mark.parametrize("calls", range(8))
async def test_no_crash_makes_somebody_twice(calls: int) -> None:
    """Every step may be repeated."""
    office = Office()
    word = office.word("77", Said.SUBSCRIBED, person=Person("77", "Ann", email="ann@example.com"))
    await crashed_then_repeated(office, word, calls)
    [ann] = await everybody(office)
    assert (await conversation(office, "77")).recipient == ann.id


async def test_the_crashes_above_reach_beyond_the_last_call() -> None:
    """A path that grew needs more of them."""
    office = Office()
    await office.hire("ann", account=VIBER)
    assert not await crashed_then_repeated(office, office.word("ann", Said.UNSUBSCRIBED, account=VIBER), 11)
    assert not await crashed_then_repeated(office, office.word("ann", Said.SUBSCRIBED, account=VIBER), 11)


# --- pressed buttons ----------------------------------------------------------------------------------

BUTTONS = (
    Button("later", ButtonType.REPLY, "Later", value="later"),
    Button("enrol", ButtonType.LINK, "Enrol", url="https://intranet.example/enrol"),
)


async def shown(office: Office) -> Delivery:
    """Ann was sent a message with two buttons."""
    await office.hire("ann", "ben")
    broadcast = builders.broadcast(message=Message("Hello", buttons=BUTTONS), status=BroadcastStatus.RUNNING)
    await office.store.save_broadcast(broadcast, expected=None)
    ann = replace(
        builders.delivery("ann"), channel=ChannelName.TELEGRAM, account=TELEGRAM, state=DeliveryState.SENT, sends=1
    )
    await office.store.plan([ann])
    return ann


async def clicks(office: Office) -> int:
    return (await office.store.tally("brd_1")).get("event/clicked/telegram/total", 0)


async def test_a_pressed_button_is_a_click() -> None:
    """Of the delivery it came with, now; it needs no answer of ours."""
    office = Office()
    ann = await shown(office)
    handled = await office.does("ann", Said.PRESSED, text=payload(Press(ann.id, "later")), at=NOW - MINUTE)
    assert handled is not None
    assert (handled.answer, handled.command) == (None, None)
    [event] = await office.store.timeline(ann.id)
    assert (event.at, getattr(event, "type", None), getattr(event, "button", None)) == (
        NOW,
        EventType.CLICKED,
        "later",
    )


async def test_every_press_counts_and_a_repeated_callback_does_not() -> None:
    """Two presses are two callbacks."""
    office = Office()
    ann = await shown(office)
    word = office.word("ann", Said.PRESSED, text=payload(Press(ann.id, "later")))
    for one in (word, word, replace(word, key="another")):
        await office.reception.inbound(one)
    assert await clicks(office) == 2


@pytest.mark.parametrize(
    ("who", "press"),
    [
        ("ben", Press("dlv_brd_1_ann", "later")),  # somebody else's
        ("ann", Press("dlv_brd_1_ann", "none")),  # no such button
        ("ann", Press("dlv_none", "later")),
    ],
)
async def test_a_forged_press_counts_for_nobody(who: str, press: Press) -> None:
    """An old client may send any payload (PLATFORMS C3)."""
    office = Office()
    await shown(office)
    handled = await office.does(who, Said.PRESSED, text=payload(press))
    assert handled is not None
    assert handled.command is None
    assert await clicks(office) == 0


async def test_nobody_presses_what_was_never_sent() -> None:
    """A payload that was guessed counts for nothing."""
    office = Office()
    ann = await shown(office)
    planned = replace(ann, id="dlv_2", state=DeliveryState.PLANNED, sends=0)
    await office.store.plan([planned])
    await office.does("ann", Said.PRESSED, text=payload(Press("dlv_2", "later")))
    assert await clicks(office) == 0


async def test_a_payload_that_is_none_of_a_broadcast_may_be_a_command() -> None:
    """Buttons under our own answers."""
    office = Office()
    handled = await office.does("ann", Said.PRESSED, text="launch:7")
    assert handled is not None
    assert handled.command == "launch:7"


async def test_a_followed_link_is_a_click_each_time() -> None:
    """`key` tells one from the next."""
    office = Office()
    ann = await shown(office)
    for key in ("a", "a", "b"):
        await office.reception.clicked(Press(ann.id, "enrol"), key=key)
    assert await clicks(office) == 2


# --- receipts -----------------------------------------------------------------------------------------


async def test_receipts_are_noted() -> None:
    """On whatever they cover."""
    office = Office()
    ann = await shown(office)
    known = await conversation(office, "ann")
    sent = replace(ann, id="dlv_2", conversation=known.id, platform_message_id="100")
    await office.store.plan([sent])
    await office.reception.receipts([])
    await office.reception.receipts([Receipt(TELEGRAM, "ann", EventType.READ, "100", NOW)])
    stored = await office.store.delivery("dlv_2")
    assert stored is not None
    assert stored.read_at == NOW


def test_the_accounts_of_these_tests_are_one_a_channel() -> None:
    """What holds on one channel is tried on another."""
    assert sorted(account.channel for account in ACCOUNTS.values()) == sorted(ChannelName)
