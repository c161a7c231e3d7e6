"""What the admin endpoint needs of the rest: use cases, the accounts, and what only the host knows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

from broadcast.campaigns import Broadcasts, Campaigns
from broadcast.forecast import Forecast, FullForecast
from broadcast.model import Campaign, Policies, Schedule
from broadcast.ports import Account, Clock, Store
from broadcast.recipients import Recipients


@dataclass(frozen=True, slots=True)
class Connection:
    """How an account stands with its platform. `connected` is ``None`` while nobody has asked; `detail` is what to
    do about a fault."""

    connected: bool | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """What an account does right now: messages per second, and until when it waits. `of_broadcasts` is the same by
    broadcast, ``None`` where that is not told apart; one that is not in it sends nothing."""

    achieved_rate: float | None = None
    waiting_until: datetime | None = None
    of_broadcasts: Mapping[str, float] | None = None

    def achieved_of(self, broadcast: str) -> float | None:
        return self.achieved_rate if self.of_broadcasts is None else self.of_broadcasts.get(broadcast, 0.0)


def _nothing_known(_: str) -> None:
    return None


class Foretell(Protocol):
    """Makes a forecast; see `bot.forecast.Forecasts.of`."""

    async def __call__(self, campaign: Campaign, *, start: date | datetime | None, seeds: int) -> Forecast: ...


class FullForecasts(Protocol):
    """Forecasts over everybody, in the background; see `bot.forecast.FullForecasts`."""

    async def begin(self, campaign: Campaign, *, start: date | datetime | None, seeds: int) -> FullForecast: ...

    def find(self, id: str) -> FullForecast: ...


@dataclass(frozen=True, slots=True)
class AdminServices:
    """`accounts` are those of this installation by key. `schedule` and `policies` are what a new campaign has that
    says nothing else. `connection` and `pace` tell of an account by key, ``None`` where this process does not
    know. `bootstrap_hash` is `auth.token_hash` of the token in the settings; ``None`` turns it off."""

    store: Store
    clock: Clock
    campaigns: Campaigns
    broadcasts: Broadcasts
    recipients: Recipients
    accounts: Mapping[str, Account]
    foretell: Foretell
    full_forecasts: FullForecasts
    schedule: Schedule = field(default_factory=Schedule)
    policies: Policies = field(default_factory=Policies)
    connection: Callable[[str], Connection | None] = _nothing_known
    pace: Callable[[str], Pace | None] = _nothing_known
    bootstrap_hash: str | None = None
