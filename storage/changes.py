"""What every store does to a value before it keeps it: plain functions, so that no two stores drift apart.

The rules themselves are the domain's (`tally`, `tracking`, `move_delivery`); here they are only combined into
the shapes that the port's docstrings describe.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

from broadcast import tally, tracking
from broadcast.errors import Conflict
from broadcast.evolve import evolver
from broadcast.model import (
    Attempt,
    Broadcast,
    Campaign,
    CampaignStatus,
    Conversation,
    ConversationState,
    Delivery,
    DeliveryState,
    Event,
    Reason,
    Receipt,
    Recipient,
    move_delivery,
)
from broadcast.ports import Result
from storage.codec import micros_or_none

#: Why the planned deliveries on a conversation end when it becomes this.
ENDS: Mapping[ConversationState, Reason] = MappingProxyType(
    {
        ConversationState.BLOCKED: Reason.BLOCKED,
        ConversationState.UNSUBSCRIBED: Reason.UNSUBSCRIBED,
        ConversationState.GONE: Reason.GONE,
    }
)


#: Made for every attempt.
evolve = evolver(Delivery)
_evolve_conversation = evolver(Conversation)


def launched(campaign: Campaign, broadcast: Broadcast) -> Campaign:
    """The campaign once this broadcast of it exists."""
    return replace(
        campaign,
        status=CampaignStatus.LAUNCHED,
        broadcasts=campaign.broadcasts + 1,
        last_launched_at=broadcast.launched_at,
        next_launch_at=broadcast.repeats_at,
    )


def next_first(campaigns: Iterable[Campaign]) -> list[Campaign]:
    """Those that launch again by themselves, the earliest first, then by id."""
    found = [(campaign.next_launch_at, campaign.id, campaign) for campaign in campaigns if campaign.next_launch_at]
    return [campaign for _, _, campaign in sorted(found)]


def merged(stored: Conversation | None, given: Conversation) -> Conversation:
    """The conversation as it is kept: id, account, channel and user stay, the reference grows."""
    if stored is None:
        return given
    return _evolve_conversation(
        stored,
        recipient=given.recipient,
        state=given.state,
        last_seen=given.last_seen,
        reference={**stored.reference, **given.reference},
    )


def only_seen(stored: Conversation, given: Conversation) -> bool:
    """Whether nothing is new but when somebody was seen."""
    return (
        stored.recipient == given.recipient
        and stored.state is given.state
        and given.reference.items() <= stored.reference.items()
    )


def skipped(delivery: Delivery, reason: Reason, at: datetime) -> Delivery:
    """A planned delivery that will not be written, since `at`."""
    return move_delivery(delivery, DeliveryState.SKIPPED, reason=reason, ended_at=at)


def cancelled(delivery: Delivery, at: datetime) -> Delivery:
    """A planned delivery whose broadcast was stopped, since `at`."""
    return move_delivery(delivery, DeliveryState.CANCELLED, reason=Reason.STOPPED, ended_at=at)


def erased(delivery: Delivery, at: datetime) -> Delivery:
    """A delivery whose person is not known any more, since `at`: nothing in it leads to them. One that was in
    flight may have arrived; nobody will hear of it."""
    ended = delivery
    if delivery.state is DeliveryState.PLANNED:
        ended = skipped(delivery, Reason.GONE, at)
    elif delivery.state is DeliveryState.SENDING:
        ended = move_delivery(delivery, DeliveryState.UNCERTAIN, due_at=None, ended_at=at)
    return evolve(ended, conversation=None, platform_message_id=None)


def takes_place(room: MutableMapping[str, int], broadcast: str) -> bool:
    """Whether one more of the broadcast may be begun, which then has its place: `room` is how many may, and of a
    broadcast that is not in it any number."""
    left = room.get(broadcast)
    if left is None:
        return True
    room[broadcast] = left - 1
    return left > 0


def refuse_planning(initializing: Collection[str]) -> None:
    """Raises `Conflict` where broadcasts are being planned: whoever is erased might be planned right now."""
    if initializing:
        raise Conflict(f"broadcast {min(initializing)} is being planned; try again in a minute")


def recorded(stored: Delivery, result: Result) -> Delivery:
    """The value of a result as it is kept: what the plan fixed (who, where, in which place) and what events set on
    the stored one stay."""
    return evolve(
        result.delivery,
        broadcast=stored.broadcast,
        recipient=stored.recipient,
        position=stored.position,
        channel=stored.channel,
        account=stored.account,
        conversation=stored.conversation,
        delivered_at=stored.delivered_at,
        read_at=stored.read_at,
        clicked_at=stored.clicked_at,
    )


#: Where a delivery stands in its rounds, by its fields: no two attempts leave it at the same place.
RUNG = ("round", "rung", "due_at", "attempts", "attempted_at")


def moves_on(result: Result) -> bool:
    """Whether it is an attempt that leaves the state as it was, so that the state does not tell whether it was
    written before."""
    return result.attempt is not None and result.delivery.state is result.before


def rung_of(delivery: Delivery) -> tuple[int, str, int | None, int, int | None]:
    """`RUNG` of a delivery, as stores keep it."""
    due_at, attempted_at = micros_or_none(delivery.due_at), micros_or_none(delivery.attempted_at)
    return delivery.round, str(delivery.rung), due_at, delivery.attempts, attempted_at


def said(receipt: Receipt) -> tuple[str, str, bool]:
    """What a receipt says of its conversation: a repeat says the same."""
    return receipt.type, receipt.message_id, receipt.up_to


def marked_at(result: Result) -> datetime:
    """When the answer of this result told what became of the conversation."""
    moments = (
        result.attempt.at if result.attempt else None,
        result.delivery.ended_at,
        result.delivery.attempted_at,
    )
    moment = next((moment for moment in moments if moment is not None), None)
    if moment is None:
        raise ValueError(f"the result of {result.delivery.id} marks its conversation but has no instant")
    return moment


def move_deltas(before: Delivery, after: Delivery) -> Iterable[tally.Delta]:
    """What a change of one delivery adds to the counters."""
    yield from tally.of_move(before.state, after)
    if after.possibly_doubled and not before.possibly_doubled:
        yield from tally.of_doubt()


def plan_deltas(delivery: Delivery, attempts: Sequence[Attempt]) -> Iterable[tally.Delta]:
    """What a new delivery, with the lines it begins with, adds to the counters."""
    yield from tally.of_plan(delivery)
    if delivery.possibly_doubled:
        yield from tally.of_doubt()
    seen: set[tuple[int, str]] = set()
    for attempt in attempts:
        yield from tally.of_attempt(attempt, new_rung=(attempt.round, attempt.rung) not in seen)
        seen.add((attempt.round, attempt.rung))


@dataclass(frozen=True, slots=True)
class Noted:
    """What one new event makes of its delivery and of the counters."""

    delivery: Delivery
    deltas: tuple[tally.Delta, ...]


def noted(delivery: Delivery, event: Event, *, first: bool, first_on_button: bool) -> Noted:
    """`first`: the delivery has no event of this type yet; `first_on_button`: none of it on this button."""
    after = tracking.applied(delivery, event)
    deltas = (
        *tally.of_event(delivery, event, first=first, first_on_button=first_on_button),
        *tally.of_move(delivery.state, after),
    )
    return Noted(after, deltas)


def in_time_order(attempts: Iterable[Attempt], events: Iterable[Event]) -> list[Attempt | Event]:
    """The timeline: by instant; at the same instant attempts first, then in the order they came in."""
    lines: list[Attempt | Event] = [*attempts, *events]
    return sorted(lines, key=lambda line: line.at)


def fold(text: str) -> str:
    """Text as it is compared regardless of case."""
    return text.casefold()


def search_text(recipient: Recipient) -> str:
    """What `q` is looked for in: name, e-mail and external id, one a line, folded."""
    return fold("\n".join((recipient.name, recipient.email or "", recipient.external_id or "")))
