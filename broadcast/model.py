"""The words of Clarion as values: frozen, built once, valid from birth; a change makes a new value.

Every instant is an aware ``datetime`` in UTC unless a name says ``local``; every date is a local date.
``None`` means unknown or not reported, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class ChannelName(StrEnum):
    """A chat platform."""

    TEAMS = "teams"
    TELEGRAM = "telegram"
    VIBER = "viber"


class ConversationState(StrEnum):
    """Whether an account may write into a conversation."""

    REACHABLE = "reachable"  # nothing speaks against a send
    BLOCKED = "blocked"  # the person shut this account out; any word of theirs reopens it
    UNSUBSCRIBED = "unsubscribed"  # the platform itself reported an unsubscription
    GONE = "gone"  # the chat or the user is no more, or was never started


class CampaignStatus(StrEnum):
    DRAFT = "draft"  # editable, nothing sent
    LAUNCHED = "launched"  # launched at least once: the content is locked


class BroadcastKind(StrEnum):
    """Why a broadcast exists."""

    CAMPAIGN = "campaign"  # a launch of a campaign
    TRIAL = "trial"  # TRY: the real message to one person, at once, counted nowhere else


class BroadcastStatus(StrEnum):
    SCHEDULED = "scheduled"  # launched, its start lies ahead
    INITIALIZING = "initializing"  # the audience is being resolved and planned
    RUNNING = "running"  # deliveries go out
    PAUSED = "paused"  # held, with a reason; may go on
    COMPLETED = "completed"  # every delivery has an end
    STOPPED = "stopped"  # ended by a person; what went out stays out
    FAILED = "failed"  # could not start, with a reason


class DeliveryState(StrEnum):
    PLANNED = "planned"  # waits for its moment
    SENDING = "sending"  # the intent is written, the outcome is not
    SENT = "sent"  # the platform accepted it
    FAILED = "failed"  # the platform refused it, or the tries are spent
    UNSCHEDULED = "unscheduled"  # absent to the end, or no time was left
    SKIPPED = "skipped"  # not to be written to: unsubscribed, blocked, capped, no conversation
    CANCELLED = "cancelled"  # the broadcast was stopped first
    UNCERTAIN = "uncertain"  # nobody can know whether it arrived, and it must not be sent twice


class Reason(StrEnum):
    """Why a delivery ended other than sent (SHAPES.md, deliveries row)."""

    UNSUBSCRIBED = "unsubscribed"
    BLOCKED = "blocked"
    GONE = "gone"
    NO_CONVERSATION = "no_conversation"
    CAPPED = "capped"
    ABSENT = "absent"
    NO_TIME = "no_time"
    REFUSED = "refused"
    CONTENT = "content"
    RETRIES_SPENT = "retries_spent"
    WINDOW_CLOSED = "window_closed"
    STOPPED = "stopped"


class BroadcastReason(StrEnum):
    """Why a broadcast is paused or failed (SHAPES.md, broadcast)."""

    BY_USER = "by_user"
    ACCOUNT_DISCONNECTED = "account_disconnected"
    HELD_LATE_START = "held_late_start"
    CANARY = "canary"
    FAILURE_RATE = "failure_rate"
    EMPTY_AUDIENCE = "empty_audience"  # failed: nobody was left when the audience was resolved


class Rung(StrEnum):
    """The tries of one round (RULES.md, rungs)."""

    FIRST = "first"  # the round's drawn moment
    AGAIN = "again"  # some minutes after it
    SLOT = "slot"  # the next slot boundary


class Outcome(StrEnum):
    """What became of one attempt."""

    SENT = "sent"
    ABSENT = "absent"
    THROTTLED = "throttled"
    ERROR = "error"
    REFUSED = "refused"


class EventType(StrEnum):
    """Something that came back from a platform or a person. Append-only, idempotent by key."""

    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    CLICKED = "clicked"
    REPLIED = "replied"
    FAILED = "failed"
    BLOCKED = "blocked"
    UNSUBSCRIBED = "unsubscribed"
    ORDERED = "ordered"
    SOLD = "sold"


class PresenceState(StrEnum):
    AVAILABLE = "available"
    AWAY = "away"
    BUSY = "busy"
    DO_NOT_DISTURB = "do_not_disturb"
    OFFLINE = "offline"
    UNKNOWN = "unknown"


class WhenUnknown(StrEnum):
    SEND = "send"
    WAIT = "wait"  # counts as absent


class AfterCrash(StrEnum):
    RESEND = "resend"  # at least once; listed as possibly doubled
    HOLD = "hold"  # at most once; `uncertain` until a receipt settles it


class OutsideHours(StrEnum):
    HOLD = "hold"  # what falls outside working time waits for the next
    DROP = "drop"  # what falls outside working time is unscheduled


class Order(StrEnum):
    """Which broadcast an account serves first when several have something due."""

    FAIR = "fair"  # all in turn
    SEQUENTIAL = "sequential"  # the one that was launched first


class ButtonType(StrEnum):
    LINK = "link"
    REPLY = "reply"
    BUY = "buy"


class MediaType(StrEnum):
    PICTURE = "picture"
    VIDEO = "video"
    FILE = "file"


# --- what is said -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Media:
    """Something shown with the text, by public URL."""

    type: MediaType
    url: str
    alt: str = ""


@dataclass(frozen=True, slots=True)
class Button:
    """One thing to press. `link` and `buy` open `url`; `reply` sends `value` back to the bot."""

    id: str
    type: ButtonType
    label: str
    url: str | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """What one channel says differently; ``None`` keeps the message's own."""

    text: str | None = None
    media: tuple[Media, ...] | None = None
    buttons: tuple[Button, ...] | None = None


@dataclass(frozen=True, slots=True)
class Message:
    text: str
    media: tuple[Media, ...] = ()
    buttons: tuple[Button, ...] = ()
    variants: Mapping[ChannelName, Variant] = field(default_factory=dict)

    def on(self, channel: ChannelName) -> Message:
        """The message as this channel says it, its variant applied."""
        variant = self.variants.get(channel)
        if variant is None:
            return replace(self, variants={}) if self.variants else self
        return Message(
            text=self.text if variant.text is None else variant.text,
            media=self.media if variant.media is None else variant.media,
            buttons=self.buttons if variant.buttons is None else variant.buttons,
        )


# --- to whom ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a campaign reaches. Lists, segments and recipients add up, and all of them empty is everybody;
    `exclude_lists` takes away; `channels` and `accounts` narrow by where people can be reached."""

    lists: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    exclude_lists: tuple[str, ...] = ()
    channels: tuple[ChannelName, ...] = tuple(ChannelName)
    accounts: tuple[str, ...] = ()

    @property
    def everybody(self) -> bool:
        return not (self.lists or self.segments or self.recipients)


@dataclass(frozen=True, slots=True)
class Recipient:
    """A person. `identities` are channel user ids known from the directory or the platform itself;
    Teams is named by its Entra object id. `unsubscribed_at` holds on every channel until START."""

    id: str
    external_id: str | None = None
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    locale: str | None = None
    timezone: str | None = None
    country: str | None = None
    tags: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    main_channel: ChannelName | None = None
    identities: Mapping[ChannelName, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    unsubscribed_at: datetime | None = None
    created_at: datetime | None = None

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.first_name, self.last_name) if part)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Where an account can reach a recipient. `user_id` is the person's id on the channel (for Teams the
    Entra object id); `reference` is the channel's own, opaque to everybody else: JSON values only."""

    id: str
    account: str
    channel: ChannelName
    recipient: str
    user_id: str
    reference: Mapping[str, Any] = field(default_factory=dict)
    state: ConversationState = ConversationState.REACHABLE
    last_seen: datetime | None = None


def conversation_id(account: str, user_id: str) -> str:
    """A function of both, so that two who open the same conversation at once open one."""
    return f"cnv_{account}_{user_id}"


# --- when ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Working time of one weekday in local wall-clock minutes of the day, half open; `end` may be 1440."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 24 * 60:
            raise ValueError(f"{self} ends before it starts, or lies outside the day")

    def __str__(self) -> str:
        return f"{self.start // 60:02}:{self.start % 60:02}-{self.end // 60:02}:{self.end % 60:02}"


#: Windows per weekday, Monday is 0; a weekday left out is not worked.
Hours = Mapping[int, tuple[Window, ...]]

OFFICE_HOURS: Hours = MappingProxyType({day: (Window(9 * 60, 18 * 60),) for day in range(5)})
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a broadcast may send (RULES.md, working time). `start` is a local date, a local date-time
    (naive), or ``None`` for the day of the launch. `repeat` says when the campaign launches again by itself once it
    was launched (`recurrence`)."""

    immediate: bool = False
    start: date | datetime | None = None
    working_days: int = 1
    timezone: str = "UTC"
    recipient_timezone: bool = False
    holidays: frozenset[date] = frozenset()
    holiday_country: str | None = None
    hours: Hours = field(default_factory=lambda: OFFICE_HOURS)
    repeat: str | None = None


#: ``None`` stands for `any`.
PresencePolicy = Mapping[ChannelName, frozenset[PresenceState] | None]

DEFAULT_PRESENCE: PresencePolicy = MappingProxyType(
    {
        ChannelName.TEAMS: frozenset({PresenceState.AVAILABLE}),
        ChannelName.TELEGRAM: None,
        ChannelName.VIBER: None,
    }
)


@dataclass(frozen=True, slots=True)
class Canary:
    """After the first so many sends a broadcast waits: for somebody's approval, or for so many minutes without a
    failure."""

    first: int
    minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Policies:
    """How a broadcast behaves. `rate` is messages per second for the whole campaign, below the account's."""

    presence: PresencePolicy = field(default_factory=lambda: DEFAULT_PRESENCE)
    when_unknown: WhenUnknown = WhenUnknown.SEND
    rounds: int = 3
    retry_minutes: int = 10
    slot_minutes: int = 60
    after_crash: AfterCrash = AfterCrash.RESEND
    outside_hours: OutsideHours = OutsideHours.HOLD
    rate: float | None = None
    canary: Canary | None = None


# --- campaigns and broadcasts -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Campaign:
    id: str
    name: str
    message: Message
    audience: Audience
    schedule: Schedule
    policies: Policies
    created_at: datetime
    status: CampaignStatus = CampaignStatus.DRAFT
    broadcasts: int = 0
    last_launched_at: datetime | None = None
    next_launch_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Broadcast:
    """One launch of a campaign, with everything of it that was frozen at the launch.

    `planned` is ``None`` until the audience is resolved; from then on `rates` is what each account may send of it,
    in messages per second, where the campaign has a rate (`pacing.shared_out`). `holidays` of the schedule already
    contain those of `holiday_country`, so that a newer holidays table never moves a running broadcast. `plans_from`
    is when a start that was held was let go: working time counts from then. `resumes_at` is when a paused one goes
    on by itself; `repeats_at` when its campaign launches next, known as it was launched. `deliveries_removed_at` is
    since when its deliveries are no longer kept, only its counters; `removal_done` is set once the last is gone
    (`retention`).
    """

    id: str
    campaign: str
    name: str
    message: Message
    audience: Audience
    schedule: Schedule
    policies: Policies
    seed: int
    launched_at: datetime
    launched_by: str
    starts_at: datetime
    kind: BroadcastKind = BroadcastKind.CAMPAIGN
    status: BroadcastStatus = BroadcastStatus.SCHEDULED
    reason: BroadcastReason | None = None
    reason_detail: str | None = None
    planned: int | None = None
    expected_finish_at: datetime | None = None
    finished_at: datetime | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    plans_from: datetime | None = None
    canary_passed: bool = False
    resumes_at: datetime | None = None
    repeats_at: datetime | None = None
    deliveries_removed_at: datetime | None = None
    removal_done: bool = False

    @property
    def counts_from(self) -> datetime:
        """The instant that working time counts from."""
        return self.plans_from or self.launched_at


# --- deliveries ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivery:
    """One recipient in one broadcast: where it stands on its way (RULES.md, rungs).

    `position` is the order of the plan. `round`, `rung` and `due_at` name the next attempt, or the last one
    once it ended. `tries` counts errors of the current attempt, `throttles` its waits without a stated
    length. `attempts` counts distinct (round, rung) tried, `sends` the requests made. `rung_at` is the
    actual time of the current rung (RULES.md: when presence was answered), kept over its retries and
    ``None`` before; `attempted_at` is that of the latest attempt line. `possibly_doubled` is set where a
    crash left a send open.
    """

    id: str
    broadcast: str
    recipient: str
    position: int
    channel: ChannelName | None
    account: str | None
    conversation: str | None
    state: DeliveryState = DeliveryState.PLANNED
    reason: Reason | None = None
    round: int = 1
    rung: Rung = Rung.FIRST
    due_at: datetime | None = None
    attempts: int = 0
    sends: int = 0
    tries: int = 0
    throttles: int = 0
    rung_at: datetime | None = None
    attempted_at: datetime | None = None
    ended_at: datetime | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    clicked_at: datetime | None = None
    platform_message_id: str | None = None
    possibly_doubled: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of a delivery's timeline. The presence asked is not kept: only whether it allowed."""

    delivery: str
    at: datetime
    round: int
    rung: Rung
    outcome: Outcome
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that came back about a delivery. `key` is unique for ever: a repeat changes nothing."""

    key: str
    delivery: str
    type: EventType
    at: datetime
    button: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A platform's word on messages in one conversation. With `up_to` it covers every earlier message of
    the conversation too (PLATFORMS A6, D2)."""

    account: str
    user_id: str
    type: EventType
    message_id: str
    at: datetime
    up_to: bool = False
    detail: str | None = None


# --- what a platform answered, by what to do next -----------------------------------------------------


class Holds(StrEnum):
    """How far a platform's wait reaches."""

    ACCOUNT = "account"
    CONVERSATION = "conversation"


@dataclass(frozen=True, slots=True)
class Sent:
    """Accepted. `reference` carries what the channel learned and wants kept with the conversation."""

    message_id: str
    reference: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too many requests: wait exactly `wait` where the platform said so, else back off."""

    wait: timedelta | None
    holds: Holds
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Faulty:
    """5xx, or no connection: nothing was accepted; try again after a back-off."""

    detail: str


@dataclass(frozen=True, slots=True)
class Never:
    """This conversation cannot be written to; `marks` is what it has become."""

    marks: ConversationState
    detail: str


@dataclass(frozen=True, slots=True)
class BadContent:
    """The message itself is at fault; the conversation is not."""

    detail: str


@dataclass(frozen=True, slots=True)
class StopAccount:
    """The account cannot send at all: revoked token, disabled bot, no balance."""

    detail: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request was written and no answer came: nobody can know."""

    detail: str


Answer = Sent | Throttled | Faulty | Never | BadContent | StopAccount | Unknown


# --- transitions --------------------------------------------------------------------------------------

_D, _B = DeliveryState, BroadcastStatus

#: Allowed moves of a delivery. `sending` to `planned` is a retry or a recovery after a crash; `sent` to `failed` is
#: a platform that changes its mind, `failed` to `sent` a proof that it was wrong to (`tracking.applied`).
DELIVERY_MOVES: Mapping[DeliveryState, frozenset[DeliveryState]] = MappingProxyType(
    {
        _D.PLANNED: frozenset({_D.PLANNED, _D.SENDING, _D.UNSCHEDULED, _D.FAILED, _D.SKIPPED, _D.CANCELLED}),
        _D.SENDING: frozenset({_D.SENT, _D.FAILED, _D.PLANNED, _D.UNCERTAIN, _D.CANCELLED, _D.SKIPPED}),
        _D.UNCERTAIN: frozenset({_D.SENT, _D.FAILED}),
        _D.SENT: frozenset({_D.FAILED}),
        _D.FAILED: frozenset({_D.SENT}),
        _D.UNSCHEDULED: frozenset(),
        _D.SKIPPED: frozenset(),
        _D.CANCELLED: frozenset(),
    }
)

#: Allowed moves of a broadcast. One that was paused before its start waits for it again.
BROADCAST_MOVES: Mapping[BroadcastStatus, frozenset[BroadcastStatus]] = MappingProxyType(
    {
        _B.SCHEDULED: frozenset({_B.INITIALIZING, _B.PAUSED, _B.STOPPED}),
        _B.INITIALIZING: frozenset({_B.RUNNING, _B.STOPPED, _B.FAILED}),
        _B.RUNNING: frozenset({_B.PAUSED, _B.COMPLETED, _B.STOPPED}),
        _B.PAUSED: frozenset({_B.RUNNING, _B.SCHEDULED, _B.STOPPED, _B.COMPLETED}),
        _B.COMPLETED: frozenset(),
        _B.STOPPED: frozenset(),
        _B.FAILED: frozenset(),
    }
)

OPEN_STATES = frozenset({DeliveryState.PLANNED, DeliveryState.SENDING})
#: Where a send was begun that has not come back.
BEGUN_STATES = frozenset({DeliveryState.SENDING, DeliveryState.SENT, DeliveryState.FAILED, DeliveryState.UNCERTAIN})
ENDED_STATUSES = frozenset({BroadcastStatus.COMPLETED, BroadcastStatus.STOPPED, BroadcastStatus.FAILED})


class IllegalMove(Exception):  # noqa: N818 - the name says what happened
    """A state machine was asked for a move its table does not have: a fault of ours."""


def move_delivery(delivery: Delivery, to: DeliveryState, **changes: Any) -> Delivery:
    """The delivery in its next state. Raises `IllegalMove` for a move the table does not allow."""
    if to not in DELIVERY_MOVES[delivery.state]:
        raise IllegalMove(f"delivery {delivery.id}: {delivery.state} to {to}")
    return replace(delivery, state=to, **changes)


def move_broadcast(broadcast: Broadcast, to: BroadcastStatus, **changes: Any) -> Broadcast:
    """The broadcast in its next status. Raises `IllegalMove` for a move the table does not allow."""
    if to not in BROADCAST_MOVES[broadcast.status]:
        raise IllegalMove(f"broadcast {broadcast.id}: {broadcast.status} to {to}")
    return replace(broadcast, status=to, **changes)
