"""A campaign of an office, and what is foretold of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, TypeVar

from bot import rehearse
from broadcast import forecast, history, rehearsal
from broadcast.forecast import Forecast, Prepared, Preparing
from broadcast.model import Campaign, ChannelName, PresenceState, Schedule
from broadcast.ports import PresenceCount
from broadcast.rehearsal import Run, Stage
from storage.memory import MemoryStore
from tests.unit.office import ACCOUNTS, TEAMS, Office

T = TypeVar("T")

#: Monday to Friday from the Monday after the office's own now.
NEXT_WEEK = Schedule(start=date(2026, 3, 30), working_days=3)


def done(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def names(number: int) -> list[str]:
    return [f"p{one:05}" for one in range(number)]


def office(number: int = 0, **changes: Any) -> Office:
    """With so many people on Teams."""
    made = Office()
    done(made.hire(*names(number), account=TEAMS, **changes))
    return made


def remember(office: Office, shares: Mapping[PresenceState, int], channel: ChannelName = ChannelName.TEAMS) -> None:
    """The same presence in every hour of the week, seen often enough."""
    counts = [
        PresenceCount(channel, hour, state, count * history.ENOUGH)
        for hour in range(history.HOURS)
        for state, count in shares.items()
    ]
    done(office.store.add_presence(counts))


def prepared(office: Office, campaign: Campaign | None = None, *, rate: float = 30, **changes: Any) -> Prepared:
    """Of a campaign of the office; of a new one if none is given. `rate` is that of every account."""
    meant = campaign or done(office.draft(**{"schedule": NEXT_WEEK, **changes}))
    accounts = {key: replace(account, rate=rate) for key, account in ACCOUNTS.items()}
    preparing = Preparing(office.store, office.clock, office.campaigns, accounts, {TEAMS})
    return done(preparing.prepare(meant))


def foretold(
    office: Office, campaign: Campaign | None = None, *, seeds: Sequence[int] = (1, 2), **changes: Any
) -> Forecast:
    ready = prepared(office, campaign, **changes)
    runs = [rehearsal.play(ready.stage, seed, MemoryStore()) for seed in seeds]
    return forecast.concluded(ready, runs, seeds)


async def beside(stage: Stage, seeds: Sequence[int], told: rehearse.Told = lambda _: None) -> list[Run]:
    """Rehearsed in a thread, for tests of the doors."""
    return await asyncio.to_thread(rehearse.rehearsed, stage, seeds, told)
