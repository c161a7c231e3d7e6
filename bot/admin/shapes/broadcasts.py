"""Broadcasts and their reports as bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from bot.admin.services import Pace
from bot.admin.shapes.common import (
    Count,
    Instant,
    Listed,
    Paged,
    Search,
    is_none,
    listed,
)
from bot.admin.validation import Shape
from broadcast import report
from broadcast.model import (
    ENDED_STATUSES,
    Broadcast,
    BroadcastKind,
    BroadcastReason,
    BroadcastStatus,
    ButtonType,
    ChannelName,
    DeliveryState,
    Reason,
    Rung,
)
from broadcast.ports import Account


class DeliveryCounts(Shape):
    planned: Count
    sending: Count
    sent: Count
    failed: Count
    unscheduled: Count
    skipped: Count
    cancelled: Count
    uncertain: Count


def _counts(counts: Mapping[DeliveryState, int]) -> DeliveryCounts:
    return DeliveryCounts(**{state.value: number for state, number in counts.items()})


class BroadcastAccount(Shape):
    account: str
    rate: float
    achieved_rate: float | None
    waiting_until: Instant | None


class BroadcastOut(Shape):
    """`planned` is null until the audience is resolved; `progress` is the share of deliveries that has an end;
    `resumes_at` is when a paused one goes on by itself; `deliveries_removed_at` is since when it has only counters
    and no single deliveries."""

    id: str
    campaign: str
    name: str
    status: BroadcastStatus
    reason: BroadcastReason | None
    seed: int
    launched_at: Instant
    launched_by: str
    starts_at: Instant
    expected_finish_at: Instant | None
    finished_at: Instant | None
    planned: Count | None
    progress: float
    deliveries: DeliveryCounts
    accounts: list[BroadcastAccount]
    kind: BroadcastKind
    reason_detail: str | None
    resumes_at: Instant | None = Field(default=None, exclude_if=is_none)
    deliveries_removed_at: Instant | None = Field(default=None, exclude_if=is_none)


class BroadcastList(Listed):
    items: list[BroadcastOut]


def broadcast_out(
    broadcast: Broadcast, tally: Mapping[str, int], accounts: Iterable[tuple[Account, Pace | None]]
) -> BroadcastOut:
    return BroadcastOut(
        id=broadcast.id,
        campaign=broadcast.campaign,
        name=broadcast.name,
        status=broadcast.status,
        reason=broadcast.reason,
        seed=broadcast.seed,
        launched_at=broadcast.launched_at,
        launched_by=broadcast.launched_by,
        starts_at=broadcast.starts_at,
        expected_finish_at=broadcast.expected_finish_at,
        finished_at=broadcast.finished_at,
        planned=broadcast.planned,
        progress=report.progress(tally),
        deliveries=_counts(report.deliveries(tally)),
        accounts=[_account_of(broadcast, account, pace) for account, pace in accounts],
        kind=broadcast.kind,
        reason_detail=broadcast.reason_detail,
        resumes_at=broadcast.resumes_at,
        deliveries_removed_at=broadcast.deliveries_removed_at,
    )


def _account_of(broadcast: Broadcast, account: Account, pace: Pace | None) -> BroadcastAccount:
    """The rate and what is achieved are the broadcast's own. What an account does is told while the broadcast may
    use it; afterwards it does something else."""
    told = Pace() if pace is None or broadcast.status in ENDED_STATUSES else pace
    return BroadcastAccount(
        account=account.key,
        rate=float(min(account.rate, broadcast.rates.get(account.key, broadcast.policies.rate or account.rate))),
        achieved_rate=told.achieved_of(broadcast.id),
        waiting_until=told.waiting_until,
    )


class BroadcastQuery(Paged):
    """Trials are left out unless `kind` asks for them."""

    status: Annotated[list[BroadcastStatus], BeforeValidator(listed)] = Field(default_factory=list)
    campaign: Search | None = None
    kind: BroadcastKind = BroadcastKind.CAMPAIGN


# --- report -------------------------------------------------------------------------------------------


class SignalOut(Shape):
    """Distinct `people`, every event (`total`), and out of how many sent it could be told."""

    people: Count
    total: Count
    reported_by: Count


class ChannelReport(Shape):
    """A signal that the channel cannot give is null."""

    channel: ChannelName
    planned: Count
    sent: Count
    failed: Count
    unscheduled: Count
    skipped: Count
    delivered: SignalOut | None
    read: SignalOut | None
    clicked: SignalOut | None


class HourReport(Shape):
    hour: Instant
    sent: Count
    clicked: Count


class RoundReport(Shape):
    round: int
    rung: Rung
    attempts: Count
    sent: Count
    absent: Count


class ButtonReport(Shape):
    button: str
    type: ButtonType
    label: str
    people: Count
    total: Count


class ReasonReport(Shape):
    state: DeliveryState
    reason: Reason
    people: Count


class ReportOut(Shape):
    """The numbers of a broadcast; null is not reported, never zero. `deliveries_removed_at` is since when there are
    only these, and no single deliveries."""

    broadcast: str
    as_of: Instant
    planned: Count | None
    sent: Count
    deliveries: DeliveryCounts
    delivered: SignalOut | None
    read: SignalOut | None
    clicked: SignalOut | None
    channels: list[ChannelReport]
    hours: list[HourReport]
    rounds: list[RoundReport]
    buttons: list[ButtonReport]
    reasons: list[ReasonReport]
    possibly_doubled: Count
    deliveries_removed_at: Instant | None = Field(default=None, exclude_if=is_none)


def report_out(made: report.Report) -> ReportOut:
    """Field by field the domain's own."""
    return ReportOut.model_validate(made, from_attributes=True, strict=False)
