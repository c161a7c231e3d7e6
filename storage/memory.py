"""The Store in memory: the reference model that every other store is compared with, and what simulations run on.

Obviously right before fast. Nothing awaits between reading and writing, so every method is one transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

from broadcast import report, tally, tracking
from broadcast.errors import Conflict, LeaseLost, StoreUnavailable
from broadcast.model import (
    OPEN_STATES,
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
    EventType,
    PresenceState,
    Reason,
    Receipt,
    Recipient,
)
from broadcast.ports import (
    ApiToken,
    DeliveryFilter,
    Due,
    Inbound,
    Known,
    Lease,
    Listing,
    Page,
    PresenceCount,
    Result,
    Store,
    Turn,
)
from broadcast.tally import Delta
from storage import changes, codec
from storage.ordered import Ordered

T = TypeVar("T")
_DueKey = tuple[datetime, int, str]  # due_at, position, id
_LeftKey = tuple[str, datetime, int, str]  # account, due_at, position, id
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Holder:
    """Who drives an account. The fence outlives its owners."""

    owner: str | None = None
    fence: int = 0
    expires: float = 0.0


class _Deliveries:
    """The deliveries with every order in which they are asked for. `put` is the only way in, `drop` the way out."""

    def __init__(self) -> None:
        self.by_id: dict[str, Delivery] = {}
        self.of_broadcast: dict[str, set[str]] = defaultdict(set)
        self.of_recipient: dict[str, set[str]] = defaultdict(set)
        self.on_conversation: dict[str, set[str]] = defaultdict(set)
        self.due: dict[str, dict[str, Ordered[_DueKey]]] = defaultdict(dict)  # account, broadcast
        self.planned: dict[str, Ordered[_LeftKey]] = defaultdict(Ordered)  # broadcast
        self.sending: dict[str, set[str]] = defaultdict(set)  # account

    def put(self, delivery: Delivery) -> None:
        before = self.by_id.get(delivery.id)
        if before is not None:
            self._leave(before)
        self.by_id[delivery.id] = delivery
        self.of_broadcast[delivery.broadcast].add(delivery.id)
        self.of_recipient[delivery.recipient].add(delivery.id)
        if delivery.conversation is not None:
            self.on_conversation[delivery.conversation].add(delivery.id)
        self._enter(delivery)

    def drop(self, delivery: Delivery) -> None:
        self._leave(self.by_id.pop(delivery.id))
        self.of_broadcast[delivery.broadcast].discard(delivery.id)
        self.of_recipient[delivery.recipient].discard(delivery.id)
        if delivery.conversation is not None:
            self.on_conversation[delivery.conversation].discard(delivery.id)

    def _enter(self, delivery: Delivery) -> None:
        if delivery.state is DeliveryState.SENDING and delivery.account is not None:
            self.sending[delivery.account].add(delivery.id)
        if delivery.state is not DeliveryState.PLANNED:
            return
        self.planned[delivery.broadcast].add(_left_order(delivery))
        if delivery.account is not None:
            orders = self.due[delivery.account]
            orders.setdefault(delivery.broadcast, Ordered()).add(_due_order(delivery))

    def _leave(self, delivery: Delivery) -> None:
        if delivery.state is DeliveryState.SENDING and delivery.account is not None:
            self.sending[delivery.account].discard(delivery.id)
        if delivery.state is not DeliveryState.PLANNED:
            return
        self.planned[delivery.broadcast].remove(_left_order(delivery))
        if delivery.account is not None:
            orders = self.due[delivery.account]
            orders[delivery.broadcast].remove(_due_order(delivery))
            if not orders[delivery.broadcast]:
                del orders[delivery.broadcast]

    def among(self, ids: Iterable[str], states: Collection[DeliveryState]) -> list[Delivery]:
        """Those of the ids that stand in one of the states, by id."""
        return [self.by_id[id] for id in sorted(ids) if self.by_id[id].state in states]


class MemoryStore(Store):
    """The whole port on dicts. `wall` is the clock that leases expire by, in seconds."""

    def __init__(self, *, wall: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._recipients: dict[str, Recipient] = {}
        self._lists: dict[str, str] = {}
        self._conversations: dict[str, Conversation] = {}
        self._conversation_ids: dict[tuple[str, str], str] = {}  # account, user id
        self._conversations_of: dict[str, set[str]] = defaultdict(set)
        self._owners: dict[tuple[str, str], str] = {}  # (which key, its value): recipient
        self._campaigns: dict[str, Campaign] = {}
        self._broadcasts: dict[str, Broadcast] = {}
        self._deliveries = _Deliveries()
        self._attempts: dict[str, list[Attempt]] = defaultdict(list)
        self._tallies: dict[str, Counter[str]] = defaultdict(Counter)
        self._events: dict[str, list[Event]] = defaultdict(list)
        self._event_keys: set[str] = set()
        self._waiting: dict[tuple[str, str], list[Receipt]] = {}  # account, user id
        self._inbound: dict[tuple[str, str], datetime] = {}  # account, key
        self._holders: dict[str, _Holder] = defaultdict(_Holder)
        self._tokens: dict[str, ApiToken] = {}
        self._answers: dict[str, tuple[str, bytes, datetime]] = {}
        self._presence: Counter[tuple[ChannelName, int, PresenceState]] = Counter()
        self._control = 0
        self._changed = asyncio.Event()
        self._closed = False

    # --- recipients ---------------------------------------------------------------------------------

    async def recipient(self, id: str) -> Recipient | None:
        return self._recipients.get(id)

    async def match_recipients(self, wanted: Sequence[Recipient]) -> list[Recipient | None]:
        return [self._match(one) for one in wanted]

    def _match(self, wanted: Recipient) -> Recipient | None:
        for key in _unique_keys(wanted):
            if key in self._owners:
                return self._recipients[self._owners[key]]
        return None

    async def save_recipients(self, recipients: Sequence[Recipient]) -> None:
        self._save_recipients(recipients)

    def _save_recipients(self, recipients: Sequence[Recipient]) -> None:
        batch = {recipient.id: recipient for recipient in recipients}
        claimed: dict[tuple[str, str], str] = {}
        for recipient in batch.values():
            for key in _unique_keys(recipient):
                owner = claimed.setdefault(key, recipient.id)
                stored = self._owners.get(key, owner)
                if owner != recipient.id or (stored != recipient.id and stored not in batch):
                    raise Conflict(f"{key[0]} {key[1]} of {recipient.id} belongs to another recipient")
        for recipient in batch.values():
            self._forget_keys(recipient.id)
        self._owners.update(claimed)
        for recipient in batch.values():
            stored_one = self._recipients.get(recipient.id)
            since = stored_one.unsubscribed_at if stored_one else None
            self._recipients[recipient.id] = replace(
                recipient,
                identities=dict(recipient.identities),
                attributes=dict(recipient.attributes),
                unsubscribed_at=since,
            )

    def _forget_keys(self, recipient: str) -> None:
        stored = self._recipients.get(recipient)
        for key in _unique_keys(stored) if stored else ():
            del self._owners[key]

    async def recipients(self, q: str, page: Page) -> Listing[Recipient]:
        wanted = changes.fold(q)
        found = [self._recipients[id] for id in sorted(self._recipients)]
        return _page([one for one in found if wanted in changes.search_text(one)], page)

    async def audience(
        self, audience: Audience, *, after: str, limit: int
    ) -> list[tuple[Recipient, tuple[Conversation, ...]]]:
        meant = (id for id in sorted(self._recipients) if id > after and _meant(audience, self._recipients[id]))
        return [(self._recipients[id], tuple(self._conversations_at(id))) for id in islice(meant, limit)]

    async def audience_size(self, audience: Audience) -> int:
        return sum(_meant(audience, recipient) for recipient in self._recipients.values())

    async def attribute_names(self) -> frozenset[str]:
        return frozenset(name for one in self._recipients.values() for name in one.attributes)

    async def set_unsubscribed(self, recipient: str, at: datetime | None) -> None:
        self._set_unsubscribed(recipient, at)

    def _set_unsubscribed(self, recipient: str, at: datetime | None) -> None:
        stored = self._recipients.get(recipient)
        if stored is None:
            return
        since = (stored.unsubscribed_at or at) if at is not None else None
        self._recipients[recipient] = replace(stored, unsubscribed_at=since)
        if at is not None:
            self._skip_planned(self._deliveries.of_recipient[recipient], Reason.UNSUBSCRIBED, at)
        self._raise_control()

    async def erase_recipient(self, id: str, at: datetime) -> bool:
        planning = BroadcastStatus.INITIALIZING
        changes.refuse_planning([one.id for one in self._broadcasts.values() if one.status is planning])
        if id not in self._recipients:
            return False
        for delivery in self._deliveries.among(self._deliveries.of_recipient[id], set(DeliveryState)):
            self._erase_delivery(delivery, at)
        for conversation in self._conversations_at(id):
            who = (conversation.account, conversation.user_id)
            del self._conversations[conversation.id], self._conversation_ids[who]
            self._waiting.pop(who, None)
        self._conversations_of.pop(id, None)
        self._forget_keys(id)
        del self._recipients[id]
        self._raise_control()
        return True

    def _erase_delivery(self, delivery: Delivery, at: datetime) -> None:
        after = changes.erased(delivery, at)
        self._deliveries.drop(delivery)
        self._change(delivery, after)
        self._attempts[delivery.id] = [replace(one, detail=None) for one in self._attempts[delivery.id]]
        self._events[delivery.id] = [replace(one, detail=None) for one in self._events[delivery.id]]

    async def list_ids(self) -> Mapping[str, str]:
        return dict(self._lists)

    async def ensure_lists(self, lists: Mapping[str, str]) -> None:
        self._lists = {**lists, **self._lists}

    # --- conversations ------------------------------------------------------------------------------

    async def conversation(self, account: str, user_id: str) -> Conversation | None:
        return self._conversation(account, user_id)

    def _conversation(self, account: str, user_id: str) -> Conversation | None:
        id = self._conversation_ids.get((account, user_id))
        return None if id is None else self._conversations[id]

    async def conversations_of(self, recipient: str) -> list[Conversation]:
        return self._conversations_at(recipient)

    def _conversations_at(self, recipient: str) -> list[Conversation]:
        return [self._conversations[id] for id in sorted(self._conversations_of.get(recipient, ()))]

    async def save_conversations(self, conversations: Sequence[Conversation]) -> None:
        for who, conversation in self._to_keep(conversations).items():
            self._keep_conversation(who, conversation)

    def _to_keep(self, conversations: Sequence[Conversation]) -> dict[tuple[str, str], Conversation]:
        kept: dict[tuple[str, str], Conversation] = {}
        for given in conversations:
            who = (given.account, given.user_id)
            stored = kept.get(who) or self._conversation(*who)
            namesake = self._conversations.get(given.id)
            if stored is None and namesake is not None:
                raise Conflict(f"conversation {given.id} is of another user")
            kept[who] = changes.merged(stored, replace(given, reference=codec.json_copy(given.reference)))
        return kept

    def _keep_conversation(self, who: tuple[str, str], conversation: Conversation) -> None:
        before = self._conversations.get(conversation.id)
        if before is not None:
            self._conversations_of[before.recipient].discard(before.id)
        self._conversations[conversation.id] = conversation
        self._conversation_ids[who] = conversation.id
        self._conversations_of[conversation.recipient].add(conversation.id)

    async def mark_conversation(self, id: str, state: ConversationState, at: datetime) -> None:
        if id in self._conversations:
            self._mark(id, state, at)

    def _mark(self, id: str, state: ConversationState, at: datetime) -> None:
        self._conversations[id] = replace(self._conversations[id], state=state)
        if state in changes.ENDS:
            self._skip_planned(self._deliveries.on_conversation[id], changes.ENDS[state], at)
        self._raise_control()

    # --- campaigns and broadcasts -------------------------------------------------------------------

    async def campaign(self, id: str) -> Campaign | None:
        return self._campaigns.get(id)

    async def campaigns_named(self, name: str) -> list[Campaign]:
        every = [self._campaigns[id] for id in sorted(self._campaigns)]
        exact = [one for one in every if one.name == name]
        return exact or [one for one in every if changes.fold(one.name) == changes.fold(name)]

    async def save_campaign(self, campaign: Campaign, *, expected: CampaignStatus | None) -> None:
        stored = self._campaigns.get(campaign.id)
        if (stored.status if stored else None) is not expected:
            raise Conflict(f"campaign {campaign.id} is {_status(stored)}, not {expected or 'new'}")
        self._campaigns[campaign.id] = campaign

    async def campaigns(
        self, *, status: CampaignStatus | None, q: str, channel: ChannelName | None, page: Page
    ) -> Listing[Campaign]:
        found = [
            one
            for one in self._campaigns.values()
            if (status is None or one.status is status)
            and (channel is None or channel in one.audience.channels)
            and changes.fold(q) in changes.fold(one.name)
        ]
        return _page(sorted(found, key=lambda one: (one.created_at, one.id), reverse=True), page)

    async def repeating(self) -> list[Campaign]:
        return changes.next_first(self._campaigns.values())

    async def broadcast(self, id: str) -> Broadcast | None:
        return self._broadcasts.get(id)

    async def save_broadcast(self, broadcast: Broadcast, *, expected: BroadcastStatus | None) -> None:
        stored = self._broadcasts.get(broadcast.id)
        if (stored.status if stored else None) is not expected:
            raise Conflict(f"broadcast {broadcast.id} is {_status(stored)}, not {expected or 'new'}")
        self._broadcasts[broadcast.id] = broadcast
        campaign = self._campaigns.get(broadcast.campaign)
        if stored is None and campaign is not None and broadcast.kind is BroadcastKind.CAMPAIGN:
            self._campaigns[campaign.id] = changes.launched(campaign, broadcast)
        self._raise_control()

    async def broadcasts(
        self,
        *,
        statuses: Collection[BroadcastStatus] = (),
        kind: BroadcastKind | None = None,
        campaign: str | None = None,
        page: Page,
    ) -> Listing[Broadcast]:
        found = [
            one
            for one in self._broadcasts.values()
            if (not statuses or one.status in statuses)
            and (kind is None or one.kind is kind)
            and (campaign is None or one.campaign == campaign)
        ]
        return _page(sorted(found, key=lambda one: (one.launched_at, one.id), reverse=True), page)

    async def broadcasts_beginning(self, id: str) -> list[Broadcast]:
        return [self._broadcasts[one] for one in sorted(self._broadcasts) if one.startswith(id)]

    async def running_on(self, account: str) -> list[str]:
        sending = (self._deliveries.by_id[id].broadcast for id in self._deliveries.sending.get(account, ()))
        busy = {*self._deliveries.due.get(account, ()), *sending}
        return sorted(broadcast for broadcast in busy if self._runs(broadcast))

    async def tally(self, broadcast: str) -> Mapping[str, int]:
        return {path: count for path, count in self._tallies.get(broadcast, Counter()).items() if count}

    def _count(self, broadcast: str, deltas: Iterable[Delta]) -> None:
        counts = self._tallies[broadcast]
        for path, delta in deltas:
            counts[path] += delta

    # --- ledger -------------------------------------------------------------------------------------

    async def plan(self, deliveries: Sequence[Delivery], attempts: Sequence[Attempt] = ()) -> int:
        lines: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in attempts:
            lines[attempt.delivery].append(attempt)
        new = 0
        for delivery in deliveries:
            if delivery.id in self._deliveries.by_id:
                continue
            self._deliveries.put(delivery)
            self._attempts[delivery.id] = lines[delivery.id]
            self._count(delivery.broadcast, changes.plan_deltas(delivery, lines[delivery.id]))
            new += 1
        if new:
            self._raise_control()
        return new

    async def due(
        self,
        account: str,
        *,
        broadcast: str,
        until: datetime,
        after: tuple[datetime, int, str] | None,
        limit: int,
    ) -> list[Due]:
        return list(islice(self._due(account, broadcast, until, after), limit))

    async def next_due(self, account: str) -> datetime | None:
        broadcasts = self._deliveries.due.get(account, {})
        firsts = [next(self._due(account, broadcast, None, None), None) for broadcast in broadcasts]
        return min((first.delivery.due_at for first in firsts if first and first.delivery.due_at), default=None)

    def _due(self, account: str, broadcast: str, until: datetime | None, after: _DueKey | None) -> Iterator[Due]:
        order = self._deliveries.due.get(account, {}).get(broadcast)
        if order is None or not self._runs(broadcast):
            return
        for due_at, _, id in order.after(after):
            if due_at is _NEVER or (until is not None and due_at > until):
                return
            due = self._as_due(self._deliveries.by_id[id])
            if due is not None:
                yield due

    def _runs(self, broadcast: str) -> bool:
        stored = self._broadcasts.get(broadcast)
        return stored is not None and stored.status is BroadcastStatus.RUNNING

    def _as_due(self, delivery: Delivery) -> Due | None:
        recipient = self._recipients.get(delivery.recipient)
        conversation = self._conversations.get(delivery.conversation or "")
        if recipient is None or conversation is None:
            return None
        return Due(delivery, recipient, conversation)

    async def intend(
        self,
        lease: Lease,
        deliveries: Sequence[Delivery],
        at: datetime,  # noqa: ARG002 - nothing but state, sends and rung_at changes
        *,
        after: Sequence[Result] = (),
        limits: Mapping[str, int] = {},
    ) -> list[str]:
        await self.record(lease, after)
        room = {id: most - report.begun(self._tallies.get(id, {})) for id, most in limits.items()}
        granted = []
        for given in deliveries:
            stored = self._deliveries.by_id.get(given.id)
            if stored is None or stored.account != lease.account or not self._may_send(stored):
                continue
            if not changes.takes_place(room, stored.broadcast):
                continue
            begun = changes.evolve(stored, state=DeliveryState.SENDING, sends=given.sends, rung_at=given.rung_at)
            self._change(stored, begun)
            granted.append(given.id)
        return granted

    def _may_send(self, delivery: Delivery) -> bool:
        recipient = self._recipients.get(delivery.recipient)
        conversation = self._conversations.get(delivery.conversation or "")
        return (
            delivery.state is DeliveryState.PLANNED
            and self._runs(delivery.broadcast)
            and (recipient is None or recipient.unsubscribed_at is None)
            and (conversation is None or conversation.state is ConversationState.REACHABLE)
        )

    async def record(self, lease: Lease, results: Sequence[Result]) -> list[str]:
        self._check(lease)
        references = [codec.json_copy(result.reference or {}) for result in results]
        moments = [result.marks and changes.marked_at(result) for result in results]
        written = []
        for result, reference, moment in zip(results, references, moments, strict=True):
            stored = self._deliveries.by_id.get(result.delivery.id)
            if stored is None or stored.state is not result.before or stored.account != lease.account:
                continue
            if changes.moves_on(result) and changes.rung_of(stored) == changes.rung_of(result.delivery):
                continue
            self._record(stored, result)
            conversation = self._conversations.get(stored.conversation or "")
            if conversation is not None and reference:
                merged = {**conversation.reference, **reference}
                self._conversations[conversation.id] = replace(conversation, reference=merged)
            if conversation is not None and result.marks is not None and isinstance(moment, datetime):
                self._mark(conversation.id, result.marks, moment)
            self._apply_waiting(conversation)
            written.append(stored.id)
        return written

    def _record(self, stored: Delivery, result: Result) -> None:
        self._change(stored, changes.recorded(stored, result))
        if result.attempt is not None:
            self._attempts[stored.id].append(result.attempt)
            self._count(stored.broadcast, tally.of_attempt(result.attempt, new_rung=result.new_rung))

    def _change(self, before: Delivery, after: Delivery) -> None:
        self._deliveries.put(after)
        self._count(before.broadcast, changes.move_deltas(before, after))

    def _skip_planned(self, ids: Collection[str], reason: Reason, at: datetime) -> None:
        for delivery in self._deliveries.among(ids, {DeliveryState.PLANNED}):
            self._change(delivery, changes.skipped(delivery, reason, at))

    async def in_flight(self, lease: Lease) -> list[Due]:
        ids = self._deliveries.sending.get(lease.account, set())
        found = [self._as_due(self._deliveries.by_id[id]) for id in ids]
        return sorted((due for due in found if due is not None), key=lambda due: _plan_order(due.delivery))

    async def cancel_planned(self, broadcast: str, at: datetime, limit: int) -> int:
        keys = list(islice(self._deliveries.planned[broadcast].after(None), limit))
        for *_, id in keys:
            delivery = self._deliveries.by_id[id]
            self._change(delivery, changes.cancelled(delivery, at))
        if keys:
            self._raise_control()
        return len(keys)

    async def delivery(self, id: str) -> Delivery | None:
        return self._deliveries.by_id.get(id)

    async def deliveries(self, filter: DeliveryFilter, page: Page) -> Listing[tuple[Delivery, Recipient]]:
        return _page(list(self._filtered(filter)), page)

    async def all_deliveries(self, filter: DeliveryFilter) -> AsyncIterator[tuple[Delivery, Recipient]]:
        for row in self._filtered(filter):
            yield row

    def _filtered(self, filter: DeliveryFilter) -> Iterator[tuple[Delivery, Recipient]]:
        ids = self._deliveries.of_broadcast.get(filter.broadcast, set())
        for delivery in sorted((self._deliveries.by_id[id] for id in ids), key=_plan_order):
            recipient = self._recipients.get(delivery.recipient) or Recipient(delivery.recipient)
            if _passes(filter, delivery, recipient):
                yield delivery, recipient

    async def timeline(self, delivery: str) -> list[Attempt | Event]:
        return changes.in_time_order(self._attempts.get(delivery, ()), self._events.get(delivery, ()))

    # --- inbox --------------------------------------------------------------------------------------

    async def take_in(
        self, inbound: Inbound, decide: Callable[[Known], Turn[T]], *, at: datetime, delivery: str | None = None
    ) -> T | None:
        if (inbound.account, inbound.key) in self._inbound:
            return None
        turn = decide(self._known(inbound, delivery))
        kept = self._to_keep([turn.conversation])  # these two may refuse: whatever cannot fail comes after them
        self._save_recipients([turn.recipient] if turn.recipient else [])
        if turn.unsubscribed is not None:
            self._set_unsubscribed(turn.conversation.recipient, at if turn.unsubscribed else None)
        for who, conversation in kept.items():
            self._keep_conversation(who, conversation)
            if turn.mark is not None:
                self._mark(conversation.id, turn.mark, at)
        if turn.click is not None:
            self._add_event(turn.click)
        self._inbound[inbound.account, inbound.key] = at
        return turn.answer

    def _known(self, inbound: Inbound, delivery: str | None) -> Known:
        person = inbound.person
        conversation = self._conversation(inbound.account, person.user_id)
        asked = self._deliveries.by_id.get(delivery or "")
        return Known(
            conversation,
            self._recipients.get(conversation.recipient) if conversation else None,
            self._match(Recipient("", identities={inbound.channel: person.user_id})),
            self._match(Recipient("", email=person.email)),
            asked,
            self._broadcasts.get(asked.broadcast) if asked else None,
        )

    async def was_seen(self, account: str, key: str) -> bool:
        return (account, key) in self._inbound

    async def first_time(self, account: str, key: str, at: datetime) -> bool:
        if (account, key) in self._inbound:
            return False
        self._inbound[account, key] = at
        return True

    async def add_events(self, events: Sequence[Event]) -> int:
        return sum(self._add_event(event) for event in events)

    def _add_event(self, event: Event) -> bool:
        delivery = self._deliveries.by_id.get(event.delivery)
        if delivery is None or event.key in self._event_keys:
            return False
        earlier = [one for one in self._events[delivery.id] if one.type is event.type]
        on_button = event.type is EventType.CLICKED and all(one.button != event.button for one in earlier)
        noted = changes.noted(delivery, event, first=not earlier, first_on_button=on_button)
        self._events[delivery.id].append(event)
        self._event_keys.add(event.key)
        self._deliveries.put(noted.delivery)
        self._count(delivery.broadcast, noted.deltas)
        return True

    async def add_receipts(self, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            conversation = await self.conversation(receipt.account, receipt.user_id)
            if conversation is None:
                continue
            self._apply(receipt, conversation)
            if self._on(conversation, OPEN_STATES):
                self._keep_waiting(receipt)

    def _keep_waiting(self, receipt: Receipt) -> None:
        kept = self._waiting.setdefault((receipt.account, receipt.user_id), [])
        if all(changes.said(one) != changes.said(receipt) for one in kept):
            kept.append(receipt)

    def _apply(self, receipt: Receipt, conversation: Conversation) -> None:
        for delivery in self._on(conversation, DeliveryState):
            if tracking.covers(receipt, delivery):
                self._add_event(tracking.event_of(receipt, delivery))

    def _apply_waiting(self, conversation: Conversation | None) -> None:
        """What came before the outcome it speaks of; forgotten once nothing on the conversation is open."""
        if conversation is None:
            return
        who = (conversation.account, conversation.user_id)
        for receipt in self._waiting.get(who, ()):
            self._apply(receipt, conversation)
        if who in self._waiting and not self._on(conversation, OPEN_STATES):
            del self._waiting[who]

    def _on(self, conversation: Conversation, states: Iterable[DeliveryState]) -> list[Delivery]:
        return self._deliveries.among(self._deliveries.on_conversation.get(conversation.id, ()), set(states))

    # --- leases -------------------------------------------------------------------------------------

    async def acquire_lease(self, account: str, owner: str, seconds: float) -> Lease | None:
        holder = self._holders[account]
        if holder.owner not in {None, owner} and holder.expires > self._wall():
            return None
        if holder.owner != owner:
            holder.owner, holder.fence = owner, holder.fence + 1
        holder.expires = self._wall() + seconds
        return Lease(account, owner, holder.fence)

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        if not self._holds(lease):
            return False
        self._holders[lease.account].expires = self._wall() + seconds
        return True

    async def release_lease(self, lease: Lease) -> None:
        holder = self._holders[lease.account]
        if (holder.owner, holder.fence) == (lease.owner, lease.fence):
            holder.owner = None

    def _holds(self, lease: Lease) -> bool:
        holder = self._holders[lease.account]
        mine = (holder.owner, holder.fence) == (lease.owner, lease.fence)
        return mine and holder.expires > self._wall()

    def _check(self, lease: Lease) -> None:
        if not self._holds(lease):
            raise LeaseLost(f"{lease.owner} no longer holds {lease.account}")

    # --- tokens -------------------------------------------------------------------------------------

    async def save_token(self, token: ApiToken) -> None:
        if any(one.hash == token.hash and one.id != token.id for one in self._tokens.values()):
            raise Conflict(f"the secret of token {token.id} belongs to another token")
        self._tokens[token.id] = token

    async def token_by_hash(self, hash: str) -> ApiToken | None:
        return next((one for one in self._tokens.values() if one.hash == hash), None)

    async def tokens(self) -> list[ApiToken]:
        return sorted(self._tokens.values(), key=lambda one: (one.created_at, one.id))

    async def remember_answer(self, key: str, fingerprint: str, answer: bytes, at: datetime) -> None:
        self._answers.setdefault(key, (fingerprint, answer, at))

    async def remembered_answer(self, key: str, since: datetime) -> tuple[str, bytes] | None:
        fingerprint, answer, at = self._answers.get(key, ("", b"", None))
        return (fingerprint, answer) if at is not None and at >= since else None

    # --- presence -----------------------------------------------------------------------------------

    async def add_presence(self, counts: Sequence[PresenceCount]) -> None:
        for one in counts:
            self._presence[one.channel, one.hour, one.state] += one.count

    async def presence_seen(self) -> list[PresenceCount]:
        return [PresenceCount(*of, count) for of, count in sorted(self._presence.items())]

    # --- what goes ----------------------------------------------------------------------------------

    async def outlived(
        self,
        statuses: Collection[BroadcastStatus],
        *,
        finished_before: datetime,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Broadcast]:
        found = [
            (one.finished_at, one.id, one)
            for one in self._broadcasts.values()
            if one.status in statuses
            and not one.removal_done
            and one.finished_at is not None
            and one.finished_at < finished_before
            and (after is None or (one.finished_at, one.id) > after)
        ]
        return [one for _, _, one in sorted(found, key=lambda each: each[:2])[:limit]]

    async def remove_deliveries(self, broadcast: str, limit: int) -> int:
        stored = self._broadcasts.get(broadcast)
        if stored is None or stored.deliveries_removed_at is None:
            return 0
        ended = set(DeliveryState) - OPEN_STATES
        found = self._deliveries.among(self._deliveries.of_broadcast.get(broadcast, ()), ended)
        gone = sorted(found, key=_plan_order)[:limit]
        for delivery in gone:
            self._deliveries.drop(delivery)
            self._attempts.pop(delivery.id, None)
            self._event_keys.difference_update(one.key for one in self._events.pop(delivery.id, ()))
        return len(gone)

    async def forget(self, before: datetime, limit: int) -> int:
        keys = [key for key, at in self._inbound.items() if at < before][:limit]
        answers = [key for key, (*_, at) in self._answers.items() if at < before][:limit]
        waiting = [(who, one) for who, kept in self._waiting.items() for one in kept if one.at < before][:limit]
        for key in keys:
            del self._inbound[key]
        for answer in answers:
            del self._answers[answer]
        for who, receipt in waiting:
            self._waiting[who].remove(receipt)
            if not self._waiting[who]:
                del self._waiting[who]
        return len(keys) + len(answers) + len(waiting)

    # --- control ------------------------------------------------------------------------------------

    def _raise_control(self) -> None:
        self._control += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def control_version(self) -> int:
        return self._control

    async def wait_control(self, seen: int) -> int:
        while self._control == seen:
            await self._changed.wait()
        return self._control

    async def ping(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    async def close(self) -> None:
        self._closed = True


def _unique_keys(recipient: Recipient) -> list[tuple[str, str]]:
    """What names one recipient only, in the order in which it is looked for."""
    keys = [("external_id", recipient.external_id)] if recipient.external_id is not None else []
    if recipient.email is not None:
        keys.append(("email", changes.fold(recipient.email)))
    return keys + [(f"{channel} id", user_id) for channel, user_id in recipient.identities.items()]


def _meant(audience: Audience, recipient: Recipient) -> bool:
    if not recipient.lists.isdisjoint(audience.exclude_lists):
        return False
    return (
        audience.everybody or recipient.id in audience.recipients or not recipient.lists.isdisjoint(audience.lists)
    )


def _passes(filter: DeliveryFilter, delivery: Delivery, recipient: Recipient) -> bool:
    return (
        (not filter.states or delivery.state in filter.states)
        and (not filter.reasons or delivery.reason in filter.reasons)
        and (not filter.channels or delivery.channel in filter.channels)
        and changes.fold(filter.q) in changes.search_text(recipient)
    )


def _due_order(delivery: Delivery) -> _DueKey:
    """One that is planned for no moment comes last; it is never due."""
    return delivery.due_at or _NEVER, delivery.position, delivery.id


def _left_order(delivery: Delivery) -> _LeftKey:
    """The order in which what is left of a stopped broadcast is cancelled."""
    due_at = delivery.due_at or datetime.min.replace(tzinfo=UTC)
    return delivery.account or "", due_at, delivery.position, delivery.id


def _plan_order(delivery: Delivery) -> tuple[int, str]:
    return delivery.position, delivery.id


def _status(stored: Campaign | Broadcast | None) -> str:
    return stored.status if stored else "not stored"


def _page(items: Sequence[T], page: Page) -> Listing[T]:
    return Listing(tuple(items[page.offset : page.offset + page.per_page]), len(items))
