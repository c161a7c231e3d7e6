"""What stops a broadcast without anybody's word: a start that was missed, too many failures, a canary (X06).

Decisions only: whoever starts broadcasts and whoever sends them obey. What is stopped so is paused, with the reason
and the figures, until somebody lets it go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broadcast.model import BEGUN_STATES, Broadcast, BroadcastReason, Delivery, DeliveryState, Outcome, Reason
from broadcast.ports import Result

#: A start that was missed by more than this is held and asks.
HOLD_LATE_START = timedelta(minutes=60)
#: A broadcast is paused once so many of its latest outcomes on one account are failures: 30 % of fifty.
LATEST = 50
TOO_MANY = 15


@dataclass(frozen=True, slots=True)
class Brake:
    """Why a broadcast is to be paused. `resumes_at` is when it goes on by itself, if it does."""

    reason: BroadcastReason
    detail: str
    resumes_at: datetime | None = None


# --- a start that was missed --------------------------------------------------------------------------


def late_start(broadcast: Broadcast, now: datetime, hold: timedelta) -> Brake | None:
    """Whether its start was missed by more than `hold`: what was meant for the morning may be wrong at night."""
    late = now - broadcast.starts_at
    if late <= hold:
        return None
    told = f"was to start at {_at(broadcast.starts_at)} and was found {_minutes(late)} late"
    return Brake(BroadcastReason.HELD_LATE_START, f"{told}; approve or resume it to start now")


# --- too many failures --------------------------------------------------------------------------------


class Breaker:
    """The latest outcomes of each broadcast on one account. What is paused begins anew."""

    def __init__(self) -> None:
        self._latest: dict[str, deque[bool]] = {}

    def count(self, before: Delivery, result: Result) -> None:
        """Takes in one result; those that say nothing about failures are left out."""
        failed = is_failure(before, result)
        if failed is not None:
            self._latest.setdefault(before.broadcast, deque(maxlen=LATEST)).append(failed)

    def pulled(self) -> dict[str, Brake]:
        """Which broadcasts have failed too often, each said once."""
        found = {id: failed_too_often(latest) for id, latest in self._latest.items()}
        pulled = {id: brake for id, brake in found.items() if brake is not None}
        self.keep(self._latest.keys() - pulled.keys())
        return pulled

    def keep(self, broadcasts: Collection[str]) -> None:
        """Forgets all others."""
        self._latest = {id: latest for id, latest in self._latest.items() if id in broadcasts}


def is_failure(before: Delivery, result: Result) -> bool | None:
    """Whether a send failed or was refused, ``None`` where it tells neither: absences, throttling, an account that
    is shut out, and the errors of an outage, which use up no try (RULES.md)."""
    outcome = result.attempt.outcome if result.attempt is not None else None
    if outcome is Outcome.SENT:
        return False
    if outcome is Outcome.REFUSED:
        return True
    if outcome is not Outcome.ERROR:
        return None
    after = result.delivery
    counted = after.tries > before.tries or after.state is DeliveryState.UNCERTAIN
    return True if counted or after.reason is Reason.RETRIES_SPENT else None


def failed_too_often(latest: Collection[bool]) -> Brake | None:
    """Fewer than fifty outcomes are enough, once so many of them failed that the rest could not make up for it."""
    failed = sum(latest)
    if failed < TOO_MANY:
        return None
    told = f"{failed} of the last {len(latest)} sends failed or were refused ({failed / len(latest):.0%})"
    return Brake(BroadcastReason.FAILURE_RATE, f"{told}; resume it once that is mended")


# --- a canary -----------------------------------------------------------------------------------------


def has_canary(broadcast: Broadcast) -> bool:
    """Whether it still has to pass its canary."""
    return broadcast.policies.canary is not None and not broadcast.canary_passed


def canary_first(broadcast: Broadcast) -> int:
    """How many may be begun in all before it waits, over all accounts."""
    canary = broadcast.policies.canary
    if canary is None:
        raise ValueError(f"{broadcast.id} has no canary")
    return canary.first


def canary_left(broadcast: Broadcast, counts: Mapping[DeliveryState, int]) -> int:
    """How many more may be begun of the first that a canary lets go."""
    return max(0, canary_first(broadcast) - sum(counts[state] for state in BEGUN_STATES))


def canary_over(broadcast: Broadcast, counts: Mapping[DeliveryState, int], now: datetime) -> Brake | None:
    """Whether the first are all out, and others wait behind them."""
    canary = broadcast.policies.canary
    waiting = counts[DeliveryState.PLANNED] + counts[DeliveryState.SENDING]
    if canary is None or not waiting or _out(counts) < canary.first:
        return None
    told = f"the first {_out(counts)} are out, {_failed(counts)} of them failed"
    if canary.minutes is None:
        return Brake(BroadcastReason.CANARY, f"{told}; approve it to go on")
    resumes_at = now + timedelta(minutes=canary.minutes)
    return Brake(
        BroadcastReason.CANARY, f"{told}; goes on at {_at(resumes_at)} if none has failed by then", resumes_at
    )


def canary_failed(counts: Mapping[DeliveryState, int]) -> str | None:
    """What keeps a canary from going on by itself once its time is over; ``None``: nothing."""
    failed = _failed(counts)
    return f"{failed} of the first {_out(counts)} failed; approve it to go on all the same" if failed else None


def _out(counts: Mapping[DeliveryState, int]) -> int:
    return counts[DeliveryState.SENT] + _failed(counts)


def _failed(counts: Mapping[DeliveryState, int]) -> int:
    return counts[DeliveryState.FAILED] + counts[DeliveryState.UNCERTAIN]


# --- words --------------------------------------------------------------------------------------------


def _at(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _minutes(span: timedelta) -> str:
    hours, minutes = divmod(int(span.total_seconds()) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
