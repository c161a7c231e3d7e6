"""The words: valid from birth, the same as those scripts from outside stand on, and moved by tables alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

import pytest

from broadcast.errors import ClarionError, Fault, Invalid, LeaseLost, StoreUnavailable
from broadcast.model import (
    BROADCAST_MOVES,
    DEFAULT_PRESENCE,
    DELIVERY_MOVES,
    OFFICE_HOURS,
    OPEN_STATES,
    AfterCrash,
    Audience,
    BroadcastKind,
    BroadcastReason,
    BroadcastStatus,
    Button,
    ButtonType,
    CampaignStatus,
    ChannelName,
    ConversationState,
    Delivery,
    DeliveryState,
    EventType,
    IllegalMove,
    Media,
    MediaType,
    Message,
    Outcome,
    OutsideHours,
    Policies,
    PresenceState,
    Reason,
    Recipient,
    Rung,
    Schedule,
    Variant,
    WhenUnknown,
    Window,
    conversation_id,
    move_broadcast,
    move_delivery,
)
from tests.storage import builders

# --- words --------------------------------------------------------------------------------------------

#: As SHAPES and DESIGN write them: answers, exports, files of scenarios and stored rows carry these texts.
WORDS: list[tuple[type[StrEnum], dict[StrEnum, str]]] = [
    (
        DeliveryState,
        {
            DeliveryState.PLANNED: "planned",
            DeliveryState.SENDING: "sending",
            DeliveryState.SENT: "sent",
            DeliveryState.FAILED: "failed",
            DeliveryState.UNSCHEDULED: "unscheduled",
            DeliveryState.SKIPPED: "skipped",
            DeliveryState.CANCELLED: "cancelled",
            DeliveryState.UNCERTAIN: "uncertain",
        },
    ),
    (
        Reason,
        {
            Reason.UNSUBSCRIBED: "unsubscribed",
            Reason.BLOCKED: "blocked",
            Reason.GONE: "gone",
            Reason.NO_CONVERSATION: "no_conversation",
            Reason.CAPPED: "capped",
            Reason.ABSENT: "absent",
            Reason.NO_TIME: "no_time",
            Reason.REFUSED: "refused",
            Reason.CONTENT: "content",
            Reason.RETRIES_SPENT: "retries_spent",
            Reason.WINDOW_CLOSED: "window_closed",
            Reason.STOPPED: "stopped",
        },
    ),
    (
        BroadcastStatus,
        {
            BroadcastStatus.SCHEDULED: "scheduled",
            BroadcastStatus.INITIALIZING: "initializing",
            BroadcastStatus.RUNNING: "running",
            BroadcastStatus.PAUSED: "paused",
            BroadcastStatus.COMPLETED: "completed",
            BroadcastStatus.STOPPED: "stopped",
            BroadcastStatus.FAILED: "failed",
        },
    ),
    (
        BroadcastReason,
        {
            BroadcastReason.BY_USER: "by_user",
            BroadcastReason.ACCOUNT_DISCONNECTED: "account_disconnected",
            BroadcastReason.HELD_LATE_START: "held_late_start",
            BroadcastReason.CANARY: "canary",
            BroadcastReason.FAILURE_RATE: "failure_rate",
            BroadcastReason.EMPTY_AUDIENCE: "empty_audience",
        },
    ),
    (BroadcastKind, {BroadcastKind.CAMPAIGN: "campaign", BroadcastKind.TRIAL: "trial"}),
    (CampaignStatus, {CampaignStatus.DRAFT: "draft", CampaignStatus.LAUNCHED: "launched"}),
    (
        ConversationState,
        {
            ConversationState.REACHABLE: "reachable",
            ConversationState.BLOCKED: "blocked",
            ConversationState.UNSUBSCRIBED: "unsubscribed",
            ConversationState.GONE: "gone",
        },
    ),
    (
        EventType,
        {
            EventType.SENT: "sent",
            EventType.DELIVERED: "delivered",
            EventType.READ: "read",
            EventType.CLICKED: "clicked",
            EventType.REPLIED: "replied",
            EventType.FAILED: "failed",
            EventType.BLOCKED: "blocked",
            EventType.UNSUBSCRIBED: "unsubscribed",
            EventType.ORDERED: "ordered",
            EventType.SOLD: "sold",
        },
    ),
    (
        Outcome,
        {
            Outcome.SENT: "sent",
            Outcome.ABSENT: "absent",
            Outcome.THROTTLED: "throttled",
            Outcome.ERROR: "error",
            Outcome.REFUSED: "refused",
        },
    ),
    (Rung, {Rung.FIRST: "first", Rung.AGAIN: "again", Rung.SLOT: "slot"}),
    (
        PresenceState,
        {
            PresenceState.AVAILABLE: "available",
            PresenceState.AWAY: "away",
            PresenceState.BUSY: "busy",
            PresenceState.DO_NOT_DISTURB: "do_not_disturb",
            PresenceState.OFFLINE: "offline",
            PresenceState.UNKNOWN: "unknown",
        },
    ),
    (ChannelName, {ChannelName.TEAMS: "teams", ChannelName.TELEGRAM: "telegram", ChannelName.VIBER: "viber"}),
    (WhenUnknown, {WhenUnknown.SEND: "send", WhenUnknown.WAIT: "wait"}),
    (AfterCrash, {AfterCrash.RESEND: "resend", AfterCrash.HOLD: "hold"}),
    (OutsideHours, {OutsideHours.HOLD: "hold", OutsideHours.DROP: "drop"}),
    (ButtonType, {ButtonType.LINK: "link", ButtonType.REPLY: "reply", ButtonType.BUY: "buy"}),
    (MediaType, {MediaType.PICTURE: "picture", MediaType.VIDEO: "video", MediaType.FILE: "file"}),
]


@pytest.mark.parametrize(("words", "texts"), WORDS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_word_is_written_as_the_documents_write_it(words: type[StrEnum], texts: dict[StrEnum, str]) -> None:
    """None more, none fewer, none spelled otherwise: renaming one breaks scripts and stored rows."""
    assert {word: str(word) for word in words} == texts


def test_what_is_left_out_is_what_the_documents_say() -> None:
    """The defaults of SHAPES and RULES."""
    policies, schedule = Policies(), Schedule()
    assert (policies.rounds, policies.retry_minutes, policies.slot_minutes, policies.rate) == (3, 10, 60, None)
    assert policies.when_unknown is WhenUnknown.SEND
    assert policies.after_crash is AfterCrash.RESEND
    assert policies.outside_hours is OutsideHours.HOLD
    assert dict(policies.presence) == {
        ChannelName.TEAMS: frozenset({PresenceState.AVAILABLE}),
        ChannelName.TELEGRAM: None,
        ChannelName.VIBER: None,
    }
    assert (schedule.immediate, schedule.start, schedule.recipient_timezone) == (False, None, False)
    assert set(Audience().channels) == set(ChannelName)


# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), [(60, 60), (61, 60), (-1, 60), (0, 1441)])
def test_a_window_is_valid_from_birth(start: int, end: int) -> None:
    """It ends after it starts, within one day."""
    with pytest.raises(ValueError, match="ends before it starts, or lies outside the day"):
        Window(start, end)


def test_a_window_says_itself_as_people_write_it() -> None:
    """The whole day ends at 24:00."""
    assert [str(Window(0, 1440)), str(Window(545, 61 * 10))] == ["00:00-24:00", "09:05-10:10"]


def test_values_do_not_change() -> None:
    """A change makes a new one; the tables and defaults are read-only too."""
    with pytest.raises(FrozenInstanceError):
        Recipient("rcp_1").first_name = "Ann"  # type: ignore[misc]  # that is what must not work
    for table in (DELIVERY_MOVES, BROADCAST_MOVES, OFFICE_HOURS, DEFAULT_PRESENCE):
        with pytest.raises(TypeError):
            table[None] = None  # type: ignore[index]  # neither must this


@pytest.mark.parametrize(
    ("first", "last", "name"),
    [("Ann", "Ash", "Ann Ash"), ("Ann", None, "Ann"), (None, "Ash", "Ash"), ("", None, "")],
)
def test_a_name_is_what_is_known_of_it(first: str | None, last: str | None, name: str) -> None:
    """Without a stray space."""
    assert Recipient("rcp_1", first_name=first, last_name=last).name == name


def test_an_audience_of_nothing_is_everybody() -> None:
    """Narrowing and leaving out do not make it somebody; naming does."""
    narrowed = Audience(exclude_lists=("lst_1",), channels=(ChannelName.VIBER,), accounts=("viber/news",))
    assert Audience().everybody
    assert narrowed.everybody
    for named in (Audience(lists=("x",)), Audience(segments=("x",)), Audience(recipients=("x",))):
        assert not named.everybody


def test_a_variant_says_what_it_says_and_keeps_the_rest() -> None:
    """Empty is something to say, ``None`` is not; what comes out has no variants."""
    picture = Media(MediaType.PICTURE, "https://x.example/a.png")
    button = Button("later", ButtonType.REPLY, "Later")
    said = Message("all", (picture,), (button,), {ChannelName.VIBER: Variant(text="", buttons=())})
    assert said.on(ChannelName.VIBER) == Message("", (picture,), ())
    assert said.on(ChannelName.TEAMS) == Message("all", (picture,), (button,))
    other = replace(said, variants={ChannelName.VIBER: Variant(media=())})
    assert other.on(ChannelName.VIBER) == Message("all", (), (button,))


def test_a_conversation_has_one_name() -> None:
    """Whoever opens it first: people and plan come to the same."""
    assert conversation_id("teams/hr", "ann") == conversation_id("teams/hr", "ann")
    assert len({conversation_id("teams/hr", "ann"), conversation_id("teams/it", "ann")}) == 2


# --- state machines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", sorted(DeliveryState))
@pytest.mark.parametrize("after", sorted(DeliveryState))
def test_a_delivery_moves_by_its_table_alone(before: DeliveryState, after: DeliveryState) -> None:
    """Any other move is a fault of ours, and says which."""
    delivery = builders.delivery("ann", state=before)
    if after in DELIVERY_MOVES[before]:
        assert move_delivery(delivery, after, sends=2) == replace(delivery, state=after, sends=2)
    else:
        with pytest.raises(IllegalMove, match=f"delivery dlv_brd_1_ann: {before} to {after}"):
            move_delivery(delivery, after)


@pytest.mark.parametrize("before", sorted(BroadcastStatus))
@pytest.mark.parametrize("after", sorted(BroadcastStatus))
def test_a_broadcast_moves_by_its_table_alone(before: BroadcastStatus, after: BroadcastStatus) -> None:
    """The same for broadcasts."""
    broadcast = builders.broadcast(status=before)
    if after in BROADCAST_MOVES[before]:
        assert move_broadcast(broadcast, after, planned=2) == replace(broadcast, status=after, planned=2)
    else:
        with pytest.raises(IllegalMove, match=f"broadcast brd_1: {before} to {after}"):
            move_broadcast(broadcast, after)


State = TypeVar("State")


def reached(start: State, moves: Mapping[State, frozenset[State]]) -> set[State]:
    found: set[State] = set()
    ahead = {start}
    while ahead:
        state = ahead.pop()
        found.add(state)
        ahead |= moves[state] - found
    return found


def test_every_state_can_be_reached() -> None:
    """From the first one: a state that nothing leads to would be a word without a meaning."""
    assert reached(DeliveryState.PLANNED, DELIVERY_MOVES) == set(DeliveryState)
    assert reached(BroadcastStatus.SCHEDULED, BROADCAST_MOVES) == set(BroadcastStatus)


def test_every_open_state_can_end() -> None:
    """Nothing waits for ever, and nothing that ended waits again."""
    ended = set(DeliveryState) - OPEN_STATES
    for state in OPEN_STATES:
        assert DELIVERY_MOVES[state] & ended
    for state in ended:
        assert not DELIVERY_MOVES[state] & OPEN_STATES


# --- errors -------------------------------------------------------------------------------------------


def test_an_error_says_everything_that_is_wrong() -> None:
    """By field, for a person."""
    faults = [Fault("name", "is empty"), Fault("policies.rate", "is 0")]
    error = Invalid(faults)
    assert (str(error), error.faults) == ("name: is empty; policies.rate: is 0", tuple(faults))


def test_what_we_raise_on_purpose_has_one_root() -> None:
    """One ``except`` at the edge is enough; a fault of ours is not among them."""
    assert issubclass(LeaseLost, ClarionError)
    assert issubclass(StoreUnavailable, ClarionError)
    assert not issubclass(IllegalMove, ClarionError)


def test_a_delivery_begins_before_its_first_round() -> None:
    """Nothing tried, nothing known: ``None`` is unknown, never zero."""
    new = Delivery("dlv_1", "brd_1", "rcp_1", 0, None, None, None)
    assert (new.state, new.reason, new.round, new.rung) == (DeliveryState.PLANNED, None, 1, Rung.FIRST)
    assert (new.attempts, new.sends, new.tries, new.throttles) == (0, 0, 0, 0)
    assert {new.due_at, new.sent_at, new.delivered_at, new.read_at, new.clicked_at, new.ended_at} == {None}
    assert replace(new, sent_at=datetime(2026, 3, 27, tzinfo=UTC)) != new
