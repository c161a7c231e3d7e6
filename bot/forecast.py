"""The forecast as its doors tell it: command line, endpoint and chat."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from bot import accounts, rehearse
from bot.accounts import Accounts
from bot.admin.shapes.forecasts import forecast_out
from bot.chance import SystemChance
from bot.clock import RealClock
from bot.settings import Settings
from bot.tasks import Tasks
from broadcast import calendar, forecast
from broadcast.campaigns import Campaigns
from broadcast.errors import Conflict
from broadcast.forecast import SEEDS, Forecast, Preparing
from broadcast.model import Campaign
from broadcast.ports import Clock, Store
from broadcast.rehearsal import Run, Stage
from storage.open import open_store

#: Real seconds that a question in chat waits for a forecast.
CHAT_WAITS = 3.0
#: A forecast that came too late for a question is still told to the next one within this time.
KEPT = timedelta(minutes=5)

#: So many forecasts may wait for their turn.
WAITING = 4

_WARNINGS_IN_CHAT = 3
_BAR = 40

Rehearse = Callable[[Stage, Sequence[int]], Awaitable[list[Run]]]


def telling(accounts: Accounts) -> frozenset[str]:
    """The accounts that tell presence."""
    return frozenset(key for key, one in accounts.all.items() if one.face and one.face.presence is not None)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A forecast somebody asked for in chat."""

    campaign: Campaign
    at: datetime
    task: asyncio.Task[Forecast]

    def answers(self, campaign: Campaign, now: datetime) -> bool:
        failed = self.task.done() and (self.task.cancelled() or self.task.exception() is not None)
        return self.campaign == campaign and now - self.at < KEPT and not failed


class Forecasts:
    """Forecasts, one at a time: each takes a core for as long as it lasts."""

    def __init__(self, preparing: Preparing, clock: Clock, *, rehearse: Rehearse = rehearse.elsewhere) -> None:
        self._preparing = preparing
        self._clock = clock
        self._rehearse = rehearse
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._tasks = Tasks("forecasts")
        self._asked: _Asked | None = None

    async def of(self, campaign: Campaign, *, start: date | datetime | None = None, seeds: int = SEEDS) -> Forecast:
        """Raises `Invalid` where a launch would, or for a number of seeds that cannot be, and `Conflict` where too
        many wait."""
        chosen = forecast.seeds(seeds)
        if self._waiting >= WAITING:
            raise Conflict(f"{WAITING} forecasts are being worked out before this one; ask again in a minute")
        self._waiting += 1
        try:
            async with self._turn:
                prepared = await self._preparing.prepare(campaign, start=start)
                runs = await self._rehearse(prepared.stage, chosen)
        finally:
            self._waiting -= 1
        return forecast.concluded(prepared, runs, chosen)

    async def soon(self, campaign: Campaign, *, seconds: float = CHAT_WAITS) -> Forecast | None:
        """The forecast, or ``None`` where it takes longer than so many real seconds. It is then gone on with, and
        who asks again gets it."""
        now = self._clock.now()
        if self._asked is None or not self._asked.answers(campaign, now):
            task = self._tasks.start(self.of(campaign), f"forecast of {campaign.id}")
            if task is None:  # the host is stopping
                return None
            self._asked = _Asked(campaign, now, task)
        done, _ = await asyncio.wait({self._asked.task}, timeout=seconds)
        return next((task.result() for task in done), None)

    async def close(self) -> None:
        await self._tasks.close()


# --- the command line ---------------------------------------------------------------------------------


async def tell(settings: Settings, who: str, *, seeds: int, as_json: bool, say: Callable[[str], None]) -> None:
    """Says the forecast of a campaign, by id or name."""
    async with AsyncExitStack() as stack:
        store: Store = await open_store(settings.store)
        stack.push_async_callback(store.close)
        clock = RealClock()
        opened = accounts.opened(settings, clock, stack)
        campaigns = Campaigns(store, clock, SystemChance(), opened.usable)
        preparing = Preparing(store, clock, campaigns, opened.usable, telling(opened))
        campaign = await campaigns.named(who)
        told = await Forecasts(preparing, clock).of(campaign, seeds=seeds)
    if as_json:
        say(forecast_out(told).model_dump_json())
        return
    for line in table(told, campaign):
        say(line)


def table(told: Forecast, campaign: Campaign) -> list[str]:
    """For a person to read."""
    zone = calendar.zone(campaign.schedule.timezone)
    skipped = sum(told.skipped.values())
    low, high = _at(told.finish.low, zone), _at(told.finish.high, zone)
    lines = [
        f"{campaign.name}, if it were launched now ({zone.key})",
        f"  finish     {_at(told.finish.expected, zone)}  ({low} to {high})",
        f"  reached    {told.reached.expected} of {told.people}  ({told.reached.low} to {told.reached.high})",
        f"  unreached  {told.unreached.expected}  ({told.unreached.low} to {told.unreached.high})",
        *([f"  skipped    {skipped}"] if skipped else []),
        f"  limit      {told.limit.text}",
        f"  from       {_basis(told)}",
    ]
    if told.warnings:
        lines += ["warnings", *(f"  {warning}" for warning in told.warnings)]
    most = max((line.sent for line in told.hours), default=0)
    if most:
        lines.append("sends per hour")
        lines += [
            f"  {_at(line.hour, zone)}  {line.sent:>7}  {'#' * round(_BAR * line.sent / most)}".rstrip()
            for line in told.hours
        ]
    return lines


def _at(instant: datetime, zone: ZoneInfo) -> str:
    return f"{instant.astimezone(zone):%a %d %b %H:%M}"


def _basis(told: Forecast) -> str:
    runs = f"{len(told.seeds)} run{'s' if len(told.seeds) > 1 else ''}"
    if told.sample is None:
        return runs
    return f"{runs} of a sample of {told.sample.played} in {told.sample.of} deliveries"


# --- chat ---------------------------------------------------------------------------------------------


def in_chat(told: Forecast | None, campaign: Campaign) -> list[str]:
    """The lines that a question before a launch shows."""
    if told is None:
        return [f"The forecast is still being worked out; write /launch {campaign.name} again to see it"]
    zone = campaign.schedule.timezone
    finish = told.finish.expected.astimezone(calendar.zone(zone))
    return [
        f"Expected to finish {finish:%a %d %b %Y, %H:%M} ({zone})",
        f"Expected to reach {told.reached.expected} of {told.people}, limited by {told.limit.text}",
        *(f"Note: {warning}" for warning in told.warnings[:_WARNINGS_IN_CHAT]),
    ]
