"""What the domain needs of the world. Whoever implements a port is held to these docstrings by the contract
suites in tests/contract.

Adapters only translate: a store claims, reads and records; a channel sends and says what the answer means; what
to do next is decided in this package.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from broadcast.model import (
    Answer,
    Attempt,
    Audience,
    Broadcast,
    BroadcastKind,
    BroadcastStatus,
    Campaign,
    CampaignStatus,
    ChannelName,
    Conversation,
    ConversationState,
    Delivery,
    DeliveryState,
    Event,
    Media,
    Order,
    PresenceState,
    Reason,
    Receipt,
    Recipient,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# --- time and chance ----------------------------------------------------------------------------------


class Clock(Protocol):
    """The only way time enters. Instants are aware and in UTC."""

    def now(self) -> datetime: ...

    async def sleep_until(self, instant: datetime) -> None:
        """Returns at `instant` or, if that is past, at the next turn of the loop."""

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        """Waits for the event, at most until the instant (``None``: for ever). True if the event is set."""


class Random(Protocol):
    """The only way chance enters where it is not a function of the broadcast's seed."""

    def id(self, prefix: str) -> str:
        """A new opaque id such as ``cmp_4TQ7…``, never given before."""

    def seed(self) -> int:
        """A new broadcast's seed, 0 to 2**31 - 1."""

    def secret(self) -> str:
        """A URL-safe secret of at least 256 bits."""


# --- channels -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadyButton:
    """A button as it goes to one person. `url` is already the tracked one; `payload` is what a pressed
    `reply` brings back (at most 64 bytes, see `tracking`)."""

    label: str
    url: str | None = None
    payload: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A message as it goes to one person: placeholders filled, links tracked, nothing escaped yet. Text is
    plain text: a channel escapes what its platform would read as markup."""

    text: str
    media: tuple[Media, ...] = ()
    buttons: tuple[ReadyButton, ...] = ()


@dataclass(frozen=True, slots=True)
class Features:
    """What a channel can report and bear. Every number is a default: settings may lower it.

    `rate` is messages per second for the whole account; `conversation_limits` are (count, seconds) pairs
    for one conversation. `text_limit` is in UTF-16 units.
    """

    reports_delivered: bool
    reports_read: bool
    rate: float
    conversation_limits: tuple[tuple[int, float], ...]
    text_limit: int


@dataclass(frozen=True, slots=True)
class Account:
    """A configured account as the domain knows it. `rate` is messages per second, already settled between the
    channel's default and the settings."""

    key: str
    channel: ChannelName
    features: Features
    rate: float
    order: Order = Order.FAIR


class Channel(Protocol):
    """One account on one platform: sends, and says what the answer means."""

    account: str
    name: ChannelName
    features: Features

    async def send(self, to: Conversation, content: Content) -> Answer:
        """One message to one conversation, one request where the platform allows. Never raises for what the
        platform or the network does: that is an `Answer`. Never retries a request that may have been
        accepted. Cancelling it leaves the outcome unknown."""

    async def close(self) -> None: ...


# --- what came in -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Person:
    """What a platform tells about somebody who wrote or subscribed. ``None``: not told."""

    user_id: str
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    locale: str | None = None
    timezone: str | None = None
    country: str | None = None


class Said(StrEnum):
    """What somebody did, whatever the platform calls it."""

    SUBSCRIBED = "subscribed"  # started, installed or subscribed to the bot
    TEXT = "text"  # wrote `text`
    PRESSED = "pressed"  # pressed a `reply` button that carried `text` as its payload
    BLOCKED = "blocked"  # shut this account out
    UNSUBSCRIBED = "unsubscribed"  # unsubscribed with the platform's own means
    SEEN = "seen"  # only showed up (opened the chat, reacted): refresh the reference


@dataclass(frozen=True, slots=True)
class Inbound:
    """One thing a person did. `key` is unique per account for ever: platforms repeat their callbacks.
    `reference` is merged into the conversation's."""

    key: str
    account: str
    channel: ChannelName
    person: Person
    said: Said
    at: datetime
    text: str = ""
    start_payload: str | None = None
    reference: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of whom an inbound is of, and of what it speaks: the conversation it came on with the person
    that has it, whoever is named by its channel id, whoever has its e-mail (regardless of case), and the delivery
    asked for with its broadcast. ``None``: there is none."""

    conversation: Conversation | None = None
    recipient: Recipient | None = None
    named: Recipient | None = None
    mailed: Recipient | None = None
    delivery: Delivery | None = None
    broadcast: Broadcast | None = None


@dataclass(frozen=True, slots=True)
class Turn(Generic[T_co]):
    """What an inbound changes. `answer` goes back to whoever handed it in; `recipient` is saved, or left as it is;
    `unsubscribed` tells whether the person of the conversation leaves or is back, ``None`` where they did not say;
    `mark` is what becomes of the conversation beyond what it was."""

    answer: T_co
    conversation: Conversation
    recipient: Recipient | None = None
    unsubscribed: bool | None = None
    mark: ConversationState | None = None
    click: Event | None = None


# --- presence -----------------------------------------------------------------------------------------


class PresenceProvider(Protocol):
    """Tells who can be written to right now. `prefetch` says that asking for people who are due soon costs
    nothing more than asking for one (a batch is one call)."""

    batch: int
    prefetch: bool

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, PresenceState]:
        """The state of each id, `unknown` for ids the provider does not know; at most `batch` ids. An id left
        out of the answer could not be told this time: its attempt waits. Raises `PresenceUnavailable`
        when the provider fails."""


# --- storage ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: 1-based page, rows per page."""

    page: int = 1
    per_page: int = 10

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.per_page


@dataclass(frozen=True, slots=True)
class Listing(Generic[T_co]):
    items: tuple[T_co, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery with what an attempt needs to know."""

    delivery: Delivery
    recipient: Recipient
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class Result:
    """What one attempt made of a delivery. `before` is the state the write is guarded by: where the stored
    delivery is no longer in it, nothing of this result is written. `attempt` is ``None`` where nothing was tried
    (a move to the next opening, the end of time); `new_rung` says that it is the first line of its (round,
    rung), and only then `attempts` has grown. `marks` and `reference` are what the answer told of the
    conversation."""

    before: DeliveryState
    delivery: Delivery
    attempt: Attempt | None = None
    new_rung: bool = False
    marks: ConversationState | None = None
    reference: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive one account. `fence` grows with every owner."""

    account: str
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    broadcast: str
    states: Collection[DeliveryState] = ()
    reasons: Collection[Reason] = ()
    channels: Collection[ChannelName] = ()
    q: str = ""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A bearer token of the endpoint; only its hash is kept."""

    id: str
    hash: str
    role: str
    name: str
    created_at: datetime


class RecipientStore(Protocol):
    async def recipient(self, id: str) -> Recipient | None: ...

    async def match_recipients(self, wanted: Sequence[Recipient]) -> list[Recipient | None]:
        """For each wanted value the stored recipient it names: by `external_id`, else by `email` (regardless of
        case), else by an identity on any channel; ``None`` if nobody. In the order asked."""

    async def save_recipients(self, recipients: Sequence[Recipient]) -> None:
        """Inserts or replaces, all or none. `unsubscribed_at` is not touched: `set_unsubscribed` alone writes it.
        Raises `Conflict` when an `external_id`, `email` or identity belongs to another recipient."""

    async def recipients(self, q: str, page: Page) -> Listing[Recipient]:
        """Those whose name, e-mail or external id contains `q` regardless of case, in order of id."""

    async def audience(
        self, audience: Audience, *, after: str, limit: int
    ) -> list[tuple[Recipient, tuple[Conversation, ...]]]:
        """The people of an audience with all their conversations, in order of recipient id, those after `after`
        (``""``: from the start). Only who is meant is decided here; how they are reached is not."""

    async def audience_size(self, audience: Audience) -> int:
        """How many people that is, not counting those excluded."""

    async def attribute_names(self) -> frozenset[str]:
        """The names of free attributes that any recipient has."""

    async def set_unsubscribed(self, recipient: str, at: datetime | None) -> None:
        """Marks the person as unsubscribed since `at`, or with ``None`` as back. With an instant, every planned
        delivery to them, in every broadcast, is `skipped` with reason `unsubscribed` at that instant, in the same
        transaction. Already unsubscribed: the earlier instant stays."""

    async def erase_recipient(self, id: str, at: datetime) -> bool:
        """Removes a person: the record, what names them, their conversations and the receipts that wait there;
        False if nobody has the id. Of their deliveries stays what is counted, under an id that nobody has any more:
        what was planned is `skipped`, reason `gone`, what was in `sending` is `uncertain`, each at that instant;
        none names a conversation or a platform's message, nor has its timeline a detail. All in one transaction, a
        control write. Raises `Conflict` while a broadcast is `initializing`: it may be planning them right now."""

    async def list_ids(self) -> Mapping[str, str]:
        """List names by id."""

    async def ensure_lists(self, lists: Mapping[str, str]) -> None:
        """Creates the lists (id to name) that do not exist."""


class ConversationStore(Protocol):
    async def conversation(self, account: str, user_id: str) -> Conversation | None: ...

    async def conversations_of(self, recipient: str) -> list[Conversation]: ...

    async def save_conversations(self, conversations: Sequence[Conversation]) -> None:
        """Inserts, or on the same (account, user_id) replaces state, last_seen, recipient and merges the reference;
        the stored id stays."""

    async def mark_conversation(self, id: str, state: ConversationState, at: datetime) -> None:
        """Sets the state. `blocked`, `unsubscribed` and `gone` also end the planned deliveries on it as `skipped`
        (`blocked` and `unsubscribed` with the reason of that name, `gone` with `gone`), in the same transaction."""


class CampaignStore(Protocol):
    async def campaign(self, id: str) -> Campaign | None: ...

    async def campaigns_named(self, name: str) -> list[Campaign]:
        """By exact name, else regardless of case."""

    async def save_campaign(self, campaign: Campaign, *, expected: CampaignStatus | None) -> None:
        """Inserts (`expected` is ``None``) or replaces, guarded by the stored status. Raises `Conflict`."""

    async def campaigns(
        self, *, status: CampaignStatus | None, q: str, channel: ChannelName | None, page: Page
    ) -> Listing[Campaign]:
        """Newest first; `q` is in the name regardless of case."""

    async def repeating(self) -> list[Campaign]:
        """Those that launch again by themselves (`next_launch_at`), the earliest first, then by id."""


class BroadcastStore(Protocol):
    async def broadcast(self, id: str) -> Broadcast | None: ...

    async def save_broadcast(self, broadcast: Broadcast, *, expected: BroadcastStatus | None) -> None:
        """Inserts (`expected` is ``None``) or replaces, guarded by the stored status: of two who race, one wins.
        The first launch of a draft also moves its campaign to `launched`, counts it, and notes the instant and that
        of the next launch (`repeats_at`), in the same transaction (kind `campaign` only). Raises `Conflict` when
        the guard fails. A control write."""

    async def broadcasts(
        self,
        *,
        statuses: Collection[BroadcastStatus] = (),
        kind: BroadcastKind | None = None,
        campaign: str | None = None,
        page: Page,
    ) -> Listing[Broadcast]:
        """Newest launch first; no status is all of them."""

    async def broadcasts_beginning(self, id: str) -> list[Broadcast]:
        """Those whose id begins with the text, in order of id."""

    async def running_on(self, account: str) -> list[str]:
        """The running broadcasts with planned or sending deliveries on the account."""

    async def tally(self, broadcast: str) -> Mapping[str, int]:
        """The broadcast's counters (see `tally`), kept in the transactions that change what they count."""


class Ledger(Protocol):
    """The deliveries. Every write of one is guarded by its state."""

    async def plan(self, deliveries: Sequence[Delivery], attempts: Sequence[Attempt] = ()) -> int:
        """Inserts those not yet there (by id) and counts them; says how many were new. All or none."""

    async def due(
        self,
        account: str,
        *,
        broadcast: str,
        until: datetime,
        after: tuple[datetime, int, str] | None,
        limit: int,
    ) -> list[Due]:
        """Planned deliveries of the broadcast on the account, due at or before `until`, in order of
        (due_at, position, id), those behind `after`; none while the broadcast does not run."""

    async def next_due(self, account: str) -> datetime | None:
        """When the earliest planned delivery of the account in a running broadcast is due."""

    async def intend(
        self,
        lease: Lease,
        deliveries: Sequence[Delivery],
        at: datetime,
        *,
        after: Sequence[Result] = (),
        limits: Mapping[str, int] = {},
    ) -> list[str]:
        """Writes the intent to send: `planned` to `sending` with `sends` and `rung_at` of the values given, for
        those that are still planned, whose broadcast still runs, whose recipient is not unsubscribed and
        whose conversation is reachable. Answers the ids granted; nothing else changes. One transaction,
        durable on return. Raises `LeaseLost` if the lease is no longer held: then nothing is written. After
        `StoreUnavailable` nothing is granted, and may be asked for again.

        `after` are outcomes that are written first, as `record` does, in the same transaction: what an account has
        to write while it sends is one call.

        `limits` says of some broadcasts how many deliveries may be begun in all, on whatever account: those sent,
        failed, uncertain and sending, as `tally` tells once `after` is written. What may be granted is, in the
        order given, until the number is reached. What another account was granted is counted in any case, in
        whatever process: however many ask at once, they do not exceed it together."""

    async def record(self, lease: Lease, results: Sequence[Result]) -> list[str]:
        """Writes outcomes, attempts, marks, references, counters (`tally`) and what waiting receipts say of them;
        answers the ids written (a lost race writes nothing of that result). Every field of the delivery is
        taken from the value given, but those that events set (`delivered_at`, `read_at`, `clicked_at`) are left.
        One transaction, durable on return. Raises `LeaseLost` as `intend` does. A result given again, because an
        earlier call raised `StoreUnavailable`, is written once, also one that leaves the state as it was."""

    async def in_flight(self, lease: Lease) -> list[Due]:
        """The account's deliveries in `sending`: after a crash, what may have gone out."""

    async def cancel_planned(self, broadcast: str, at: datetime, limit: int) -> int:
        """Ends up to `limit` planned deliveries of a stopped broadcast as `cancelled`, reason `stopped`; says how
        many."""

    async def delivery(self, id: str) -> Delivery | None: ...

    async def deliveries(self, filter: DeliveryFilter, page: Page) -> Listing[tuple[Delivery, Recipient]]:
        """In the order of the plan. Nobody asks once `deliveries_removed_at` is set: `total` may come from the
        counters, which stay."""

    def all_deliveries(self, filter: DeliveryFilter) -> AsyncIterator[tuple[Delivery, Recipient]]:
        """The same, streamed, in memory that does not grow with their number."""

    async def timeline(self, delivery: str) -> list[Attempt | Event]:
        """Attempts and events in time order."""


class Inbox(Protocol):
    """What came in, exactly once."""

    async def take_in(
        self, inbound: Inbound, decide: Callable[[Known], Turn[T]], *, at: datetime, delivery: str | None = None
    ) -> T | None:
        """Notes the key of an inbound and writes what `decide` makes of what is known, all or none, in one
        transaction, as if nobody else wrote meanwhile. Answers what `decide` answered,
        or ``None`` where the key was noted before: then nothing is written. `delivery` is what else to look up.

        A turn is written as `save_recipients`, `set_unsubscribed` at that instant, `save_conversations`,
        `mark_conversation` and `add_events` do, in this order. `decide` may be called several times and in another
        thread, and so must change nothing. What it raises comes out, as does `Conflict`, and nothing is written."""

    async def was_seen(self, account: str, key: str) -> bool:
        """Whether `take_in` or `first_time` noted the key already."""

    async def first_time(self, account: str, key: str, at: datetime) -> bool:
        """Notes a key alone; False if it was noted before. Atomic."""

    async def add_events(self, events: Sequence[Event]) -> int:
        """Appends the events not yet there (by key), with what they mean for their delivery (`tracking.applied`)
        and for the counters, in one transaction; says how many were new. An event of an unknown
        delivery is dropped."""

    async def add_receipts(self, receipts: Sequence[Receipt]) -> None:
        """Applies each receipt to the deliveries it covers (`tracking.covers`) and keeps it for deliveries whose
        outcome is not recorded yet: a receipt may overtake it."""


class Leases(Protocol):
    """Who drives which account. Expiry runs on the store's own real clock, never on a `Clock` port: a lease is
    about processes, not about the broadcast's time."""

    async def acquire_lease(self, account: str, owner: str, seconds: float) -> Lease | None:
        """The lease, if nobody else holds it; ``None`` otherwise. Re-acquiring one's own renews it, same fence."""

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """False: it was lost."""

    async def release_lease(self, lease: Lease) -> None: ...


class Tokens(Protocol):
    async def save_token(self, token: ApiToken) -> None: ...

    async def token_by_hash(self, hash: str) -> ApiToken | None: ...

    async def tokens(self) -> list[ApiToken]: ...

    async def remember_answer(self, key: str, fingerprint: str, answer: bytes, at: datetime) -> None:
        """Keeps the first answer to an `Idempotency-Key`."""

    async def remembered_answer(self, key: str, since: datetime) -> tuple[str, bytes] | None:
        """Fingerprint and answer noted at or after `since`."""


@dataclass(frozen=True, slots=True)
class PresenceCount:
    """How often presence was answered with `state` on `channel` in one hour of the week (`history.hour_of_week`),
    over everybody. Nobody is named."""

    channel: ChannelName
    hour: int
    state: PresenceState
    count: int


class PresenceHistory(Protocol):
    """What presence was like, as counts over everybody: never a person's log."""

    async def add_presence(self, counts: Sequence[PresenceCount]) -> None:
        """Adds to what is kept; of any two processes that add, both count."""

    async def presence_seen(self) -> list[PresenceCount]:
        """All that is kept, in order of channel, hour and state."""


class Keeping(Protocol):
    """What is not kept for ever (`retention` decides what goes). Each call that removes does a bounded piece of
    work and leaves everything consistent; cut off between two calls, the next one goes on with what is left."""

    async def outlived(
        self,
        statuses: Collection[BroadcastStatus],
        *,
        finished_before: datetime,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Broadcast]:
        """Broadcasts in one of the statuses that finished before the instant and whose removal is not done
        (`removal_done`), in order of (finished_at, id), those behind `after`; at most `limit`."""

    async def remove_deliveries(self, broadcast: str, limit: int) -> int:
        """Removes up to `limit` deliveries of a broadcast whose `deliveries_removed_at` is set, each with its
        attempts and events; says how many. One transaction, durable on return. The counters (`tally`) stay as
        they are, what is planned or in `sending` stays, and so does whatever belongs to another broadcast. 0:
        nothing is left that may go. From then on a removed delivery is one that is not known: an event of it is
        dropped, a receipt covers it no more, a result of it is not written."""

    async def forget(self, before: datetime, limit: int) -> int:
        """Forgets up to `limit` inbound keys, as many remembered answers and as many receipts that wait for an
        outcome, each noted before the instant; says how many in all. 0: none is left."""


class Store(
    RecipientStore,
    ConversationStore,
    CampaignStore,
    BroadcastStore,
    Ledger,
    Inbox,
    Leases,
    Tokens,
    PresenceHistory,
    Keeping,
    Protocol,
):
    """All of it. Values go in and come out unchanged; instants to the microsecond.

    Any call raises `StoreUnavailable` while the store cannot be read or written. Of a write it leaves open whether
    it was done: nearly always it was not, but the answer of one that was may have been lost. So whoever is told so
    waits and gives the same values again, as often as it takes; what was written the first time counts once:

        intend                      what the earlier call may have claimed is planned again before any is granted
        record, plan, add_events    leave alone what they find written, and do not answer it as new
        first_time, take_in         False and ``None``: what was written stays, its answer is lost
        saves with `expected`       `Conflict` where the earlier call was written: read again what is stored
        add_presence                may count twice: for once these counts are better lost
        all others                  do again what they did

    Only a process that dies between two such calls of `intend` leaves what it claimed to `in_flight`.

    Control writes (a broadcast saved, deliveries planned or cancelled, a person unsubscribed, a conversation
    marked) raise `control_version`, whoever made them, in whatever process.
    """

    async def control_version(self) -> int: ...

    async def wait_control(self, seen: int) -> int:
        """Waits until the version differs from `seen`, then answers it; within half a second for writes of other
        processes, at once for this one's. Cancel to stop waiting."""

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when the store cannot be read and written."""

    async def close(self) -> None: ...
