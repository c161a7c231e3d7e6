"""What one attempt makes of a delivery: pure decisions on presence, answers, late moments and crashes.

RULES.md has the words; every function here takes the time it decides at and answers a value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

from broadcast import plan, rounds
from broadcast.calendar import WorkingTime
from broadcast.evolve import evolver, maker
from broadcast.model import (
    DELIVERY_MOVES,
    AfterCrash,
    Answer,
    Attempt,
    BadContent,
    Broadcast,
    BroadcastStatus,
    ChannelName,
    Conversation,
    ConversationState,
    Delivery,
    DeliveryState,
    Faulty,
    IllegalMove,
    Never,
    Outcome,
    OutsideHours,
    PresenceState,
    Reason,
    Recipient,
    Sent,
    StopAccount,
    Throttled,
    Unknown,
    WhenUnknown,
)
from broadcast.plan import FirstMoment
from broadcast.ports import Result

#: Sends for one attempt, after which it failed (RULES.md, "What the platform answers uses no rung").
MAX_SENDS = 5
_LONGEST_BACK_OFF = 60
#: An answer on presence is used for this long, the last instant included.
FRESH = timedelta(seconds=60)

_NotSent = Throttled | Faulty | Unknown | Never | BadContent | StopAccount

evolve = evolver(Delivery)
_line_of = maker(Attempt)
_result_of = maker(Result)


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides about the deliveries of one broadcast in one zone."""

    broadcast: Broadcast
    working: WorkingTime
    first: FirstMoment


# --- presence -----------------------------------------------------------------------------------------


def asks_presence(broadcast: Broadcast, channel: ChannelName) -> bool:
    """Whether presence has a say at all."""
    return broadcast.policies.presence.get(channel) is not None


def allows(broadcast: Broadcast, channel: ChannelName, state: PresenceState) -> bool:
    """Whether somebody in this state may be written to now."""
    allowed = broadcast.policies.presence.get(channel)
    if allowed is None or state in allowed:
        return True
    return state is PresenceState.UNKNOWN and broadcast.policies.when_unknown is WhenUnknown.SEND


def absent(delivery: Delivery, rules: Rules, at: datetime) -> Result:
    """Presence did not allow it at `at`: on to the next rung, the next round, or the end."""
    tried, new_rung = _tried(delivery, at)
    step = rounds.after_absent(
        rules.working,
        rules.broadcast.policies,
        rules.first,
        delivery.recipient,
        round=delivery.round,
        rung=delivery.rung,
        rung_at=delivery.rung_at or at,
        at=at,
    )
    moved = _ended(tried, DeliveryState.UNSCHEDULED, Reason.ABSENT, at) if step is None else _to(tried, step)
    return Result(delivery.state, moved, _line(delivery, at, Outcome.ABSENT), new_rung=new_rung)


def _to(delivery: Delivery, step: rounds.Step) -> Delivery:
    return _moved(
        delivery,
        DeliveryState.PLANNED,
        round=step.round,
        rung=step.rung,
        due_at=step.due_at,
        rung_at=None,
        tries=0,
        throttles=0,
    )


# --- late moments -------------------------------------------------------------------------------------


def late(delivery: Delivery, rules: Rules, now: datetime) -> Result | None:
    """A delivery that is due while it is not working time, since pacing, a hold or a pause took longer than the
    day: it waits for the next opening, or ends if there is none. ``None``: it is working time, go on."""
    if rules.working.contains(now):
        return None
    opening = _next_opening(rules, now)
    if opening is not None:
        return Result(delivery.state, evolve(delivery, due_at=opening))
    return Result(delivery.state, _out_of_time(delivery, now))


def _next_opening(rules: Rules, wanted: datetime) -> datetime | None:
    opening = rounds.after_wait(rules.working, wanted)
    drops = rules.broadcast.policies.outside_hours is OutsideHours.DROP
    return None if drops and opening != wanted else opening


def _out_of_time(delivery: Delivery, now: datetime) -> Delivery:
    """A retry whose time is over failed; what was due but never tried is unscheduled."""
    if delivery.rung_at is not None:
        return _ended(delivery, DeliveryState.FAILED, Reason.WINDOW_CLOSED, now)
    return _ended(delivery, DeliveryState.UNSCHEDULED, Reason.NO_TIME, now)


# --- answers ------------------------------------------------------------------------------------------


def intended(delivery: Delivery, at: datetime) -> Delivery:
    """The delivery as the intent to send at `at` writes it."""
    return _moved(delivery, DeliveryState.SENDING, sends=delivery.sends + 1, rung_at=delivery.rung_at or at)


def answered(
    delivery: Delivery, answer: Answer, rules: Rules, *, at: datetime, now: datetime, outage: bool
) -> Result:
    """What the platform's answer to the send begun at `at` means; it came at `now`. `outage`: the account is in
    one, so that failures use up no tries."""
    if isinstance(answer, Sent):  # nearly all of them: no step in between
        return _sent(delivery, answer, at)
    tried, new_rung = _tried(delivery, at)
    moved, outcome = _judged(tried, answer, rules, at=at, now=now, outage=outage)
    return Result(
        before=delivery.state,
        delivery=moved,
        attempt=_line(delivery, at, outcome, _detail(answer)),
        new_rung=new_rung,
        marks=answer.marks if isinstance(answer, Never) else None,
    )


def _sent(delivery: Delivery, answer: Sent, at: datetime) -> Result:
    new_rung = _begins_rung(delivery)
    moved = _ended(
        delivery,
        DeliveryState.SENT,
        None,
        at,
        attempted_at=at,
        attempts=delivery.attempts + new_rung,
        sent_at=at,
        platform_message_id=answer.message_id,
    )
    line = _line(delivery, at, Outcome.SENT)
    return _result_of(delivery.state, moved, line, new_rung, None, answer.reference)


def _judged(
    delivery: Delivery, answer: _NotSent, rules: Rules, *, at: datetime, now: datetime, outage: bool
) -> tuple[Delivery, Outcome]:
    match answer:
        case Throttled():
            moved = _throttled(delivery, answer, rules, now=now), Outcome.THROTTLED
        case Faulty():
            moved = _failed(delivery, rules, now=now, outage=outage), Outcome.ERROR
        case Unknown():
            moved = _unknown(delivery, rules, now=now, outage=outage), Outcome.ERROR
        case Never():
            moved = _ended(delivery, DeliveryState.FAILED, Reason.REFUSED, at), Outcome.REFUSED
        case BadContent():
            moved = _ended(delivery, DeliveryState.FAILED, Reason.CONTENT, at), Outcome.REFUSED
        case StopAccount():
            moved = _moved(delivery, DeliveryState.PLANNED), Outcome.ERROR
        case _:
            assert_never(answer)
    return moved


def throttled_for(delivery: Delivery, answer: Throttled, seed: int) -> timedelta:
    """How long an answer 429 to this delivery makes wait, be it the delivery, its conversation or the account:
    exactly what the platform said, else a back-off that is not counted as an error."""
    if answer.wait is not None:
        return answer.wait
    return back_off(delivery, seed, delivery.throttles + 1, "throttle")


def _throttled(delivery: Delivery, answer: Throttled, rules: Rules, *, now: datetime) -> Delivery:
    wait = throttled_for(delivery, answer, rules.broadcast.seed)
    if answer.wait is None:
        delivery = evolve(delivery, throttles=delivery.throttles + 1)
    return _again(delivery, rules, wanted=now + wait, now=now)


def _failed(delivery: Delivery, rules: Rules, *, now: datetime, outage: bool) -> Delivery:
    if outage:
        return _again(delivery, rules, wanted=now, now=now)
    delivery = evolve(delivery, tries=delivery.tries + 1)
    if delivery.tries >= MAX_SENDS:
        return _ended(delivery, DeliveryState.FAILED, Reason.RETRIES_SPENT, now)
    wait = back_off(delivery, rules.broadcast.seed, delivery.tries, "retry")
    return _again(delivery, rules, wanted=now + wait, now=now)


def _unknown(delivery: Delivery, rules: Rules, *, now: datetime, outage: bool) -> Delivery:
    if rules.broadcast.policies.after_crash is AfterCrash.HOLD:
        return _moved(delivery, DeliveryState.UNCERTAIN, ended_at=now, due_at=None)
    return _failed(evolve(delivery, possibly_doubled=True), rules, now=now, outage=outage)


def _again(delivery: Delivery, rules: Rules, *, wanted: datetime, now: datetime) -> Delivery:
    """The same round and rung once more, at `wanted` or the next opening after it."""
    due = _next_opening(rules, wanted)
    if due is None:
        return _out_of_time(delivery, now)
    return _moved(delivery, DeliveryState.PLANNED, due_at=due)


def back_off(delivery: Delivery, seed: int, number: int, label: str) -> timedelta:
    """The wait before the retry with this number, counted from 1: uniform over min(60, 2^(number-1)) seconds,
    a function of (seed, recipient, round, rung, number)."""
    most = min(_LONGEST_BACK_OFF, 2 ** min(number - 1, 10))
    drawn = plan.unit(seed, label, delivery.recipient, delivery.round, delivery.rung.value, number)
    return timedelta(milliseconds=int(drawn * most * 1000))


# --- sends that were not begun -------------------------------------------------------------------------


def handed_back(planned: Delivery) -> Result:
    """An intent that was granted so late that the send has to be judged anew: as if it had not been written."""
    return Result(DeliveryState.SENDING, planned)


def withheld(
    delivery: Delivery, recipient: Recipient, conversation: Conversation, broadcast: Broadcast, now: datetime
) -> Result | None:
    """What keeps a planned delivery from ever being sent, learned from storage after it was refused or came back
    from a send: a stop, an opt-out, a conversation that was shut. ``None``: nothing, or nothing for good."""
    if broadcast.status is BroadcastStatus.STOPPED:
        at = broadcast.finished_at or now
        return Result(delivery.state, _ended(delivery, DeliveryState.CANCELLED, Reason.STOPPED, at))
    if recipient.unsubscribed_at is not None:
        at = recipient.unsubscribed_at
        return Result(delivery.state, _ended(delivery, DeliveryState.SKIPPED, Reason.UNSUBSCRIBED, at))
    if conversation.state is not ConversationState.REACHABLE:
        return Result(delivery.state, _ended(delivery, DeliveryState.SKIPPED, Reason(conversation.state), now))
    return None


# --- crashes ------------------------------------------------------------------------------------------


def recovered(delivery: Delivery, broadcast: Broadcast, now: datetime) -> Result:
    """What a crash left in `sending`, by the campaign's `after_crash`. Where the broadcast was ended meanwhile,
    nothing may be sent any more, and nobody can know."""
    tried, new_rung = _tried(delivery, now)
    resend = broadcast.policies.after_crash is AfterCrash.RESEND and broadcast.status in {
        BroadcastStatus.RUNNING,
        BroadcastStatus.PAUSED,
    }
    if resend:
        moved = _moved(tried, DeliveryState.PLANNED, due_at=now, possibly_doubled=True)
    else:
        moved = _moved(tried, DeliveryState.UNCERTAIN, ended_at=now, due_at=None)
    return Result(delivery.state, moved, _line(delivery, now, Outcome.ERROR, "crash"), new_rung=new_rung)


# --- small parts --------------------------------------------------------------------------------------


def _tried(delivery: Delivery, at: datetime) -> tuple[Delivery, bool]:
    """The delivery with one more attempt line at `at`, and whether that is the first of its (round, rung)."""
    new_rung = _begins_rung(delivery)
    return evolve(delivery, attempted_at=at, attempts=delivery.attempts + new_rung), new_rung


def _begins_rung(delivery: Delivery) -> bool:
    """Whether its next attempt is the first of its (round, rung)."""
    latest, begun = delivery.attempted_at, delivery.rung_at
    return begun is None or latest is None or latest < begun


def _ended(
    delivery: Delivery, state: DeliveryState, reason: Reason | None, at: datetime, **changes: Any
) -> Delivery:
    return _moved(delivery, state, reason=reason, ended_at=at, due_at=None, **changes)


def _moved(delivery: Delivery, to: DeliveryState, **changes: Any) -> Delivery:
    """`move_delivery`, as fast as a step taken for every attempt has to be."""
    if to not in DELIVERY_MOVES[delivery.state]:
        raise IllegalMove(f"delivery {delivery.id}: {delivery.state} to {to}")
    return evolve(delivery, state=to, **changes)


def _line(delivery: Delivery, at: datetime, outcome: Outcome, detail: str | None = None) -> Attempt:
    return _line_of(delivery.id, at, delivery.round, delivery.rung, outcome, detail)


def _detail(answer: _NotSent) -> str | None:
    return answer.detail or None
