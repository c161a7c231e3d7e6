"""The forecast as its doors tell it: command line, endpoint and chat."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from bot import accounts, rehearse
from bot.accounts import Accounts
from bot.admin.shapes.forecasts import forecast_out
from bot.chance import SystemChance
from bot.clock import RealClock
from bot.rehearse import RehearsalFailed, Told
from bot.settings import Settings
from bot.tasks import Tasks
from broadcast import calendar, forecast
from broadcast.campaigns import Campaigns
from broadcast.errors import ClarionError, Conflict, NotFound
from broadcast.forecast import SEEDS, Forecast, FullForecast, FullForecastStatus, Preparing
from broadcast.model import Campaign
from broadcast.ports import Clock, Store
from broadcast.rehearsal import Run, Stage
from storage.open import open_store

log = structlog.get_logger(__name__)

#: Real seconds that a question in chat waits for a forecast.
CHAT_WAITS = 3.0
#: A forecast that came too late for a question is still told to the next one within this time.
KEPT = timedelta(minutes=5)

#: So many forecasts may wait for their turn; so many over everybody may be open.
WAITING = 4
#: A forecast over everybody is told for so long after its end.
FULL_KEPT = timedelta(hours=1)

_WARNINGS_IN_CHAT = 3
_BAR = 40

Rehearse = Callable[[Stage, Sequence[int]], Awaitable[list[Run]]]
RehearseTold = Callable[[Stage, Sequence[int], Told], Awaitable[list[Run]]]


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
    """Forecasts, one at a time: each takes a core for as long as it lasts. Those over everybody, `full`, have a
    turn of their own: nobody waits for them in chat."""

    def __init__(
        self,
        preparing: Preparing,
        clock: Clock,
        *,
        rehearse: Rehearse = rehearse.elsewhere,
        rehearse_full: RehearseTold = rehearse.elsewhere,
    ) -> None:
        self.full = FullForecasts(preparing, clock, rehearse=rehearse_full)
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
        await self.full.close()


# --- over everybody -----------------------------------------------------------------------------------


async def over_everybody(
    preparing: Preparing,
    campaign: Campaign,
    *,
    start: date | datetime | None = None,
    seeds: int = SEEDS,
    told: Told,
    rehearse: RehearseTold = rehearse.elsewhere,
) -> Forecast:
    """However many they are: no sample. Raises `Invalid` where a launch would, or for a number of seeds that cannot
    be."""
    chosen = forecast.seeds(seeds)
    prepared = await preparing.prepare(campaign, start=start, everybody=True)
    return forecast.concluded(prepared, await rehearse(prepared.stage, chosen, told), chosen)


class _Job:
    """A forecast over everybody as it goes on."""

    def __init__(self, id: str) -> None:
        self.told = FullForecast(id)
        self.ended_at: datetime | None = None

    def advance(self, progress: float) -> None:
        self.told = replace(self.told, progress=progress)

    def done(self, result: Forecast, at: datetime) -> None:
        self.told = replace(self.told, status=FullForecastStatus.DONE, progress=1.0, result=result)
        self.ended_at = at

    def failed(self, why: str, at: datetime) -> None:
        self.told = replace(self.told, status=FullForecastStatus.FAILED, detail=why)
        self.ended_at = at


class FullForecasts:
    """Forecasts over everybody, one at a time and in the background. They are in this process's memory only, so a
    restart forgets them."""

    def __init__(self, preparing: Preparing, clock: Clock, *, rehearse: RehearseTold = rehearse.elsewhere) -> None:
        self._preparing = preparing
        self._clock = clock
        self._rehearse = rehearse
        self._turn = asyncio.Lock()
        self._tasks = Tasks("full forecasts")
        self._jobs: dict[str, _Job] = {}

    async def begin(
        self, campaign: Campaign, *, start: date | datetime | None = None, seeds: int = SEEDS
    ) -> FullForecast:
        """Goes on after this. Raises `Invalid` as `Forecasts.of` does, and `Conflict` where too many are open."""
        forecast.seeds(seeds)
        await self._preparing.checked(campaign, start=start)
        self._forget()
        if sum(job.ended_at is None for job in self._jobs.values()) >= WAITING:
            raise Conflict(f"{WAITING} forecasts over everybody are open; ask again once one of them has ended")
        job = _Job(SystemChance().id("fct"))
        work = self._work(job, campaign, start, seeds)
        if self._tasks.start(work, f"forecast over everybody of {campaign.id}") is None:
            raise Conflict("Clarion is stopping; ask again once it is back")
        self._jobs[job.told.id] = job
        return job.told

    def find(self, id: str) -> FullForecast:
        """Raises `NotFound` for one that was never begun, or is not kept any more."""
        self._forget()
        if id not in self._jobs:
            raise NotFound(
                f"there is no forecast {id}: one over everybody is kept for an hour after its end, and a restart "
                "of Clarion forgets it"
            )
        return self._jobs[id].told

    async def close(self) -> None:
        await self._tasks.close()

    def _forget(self) -> None:
        now = self._clock.now()
        for id, job in list(self._jobs.items()):
            if job.ended_at is not None and now - job.ended_at >= FULL_KEPT:
                del self._jobs[id]

    async def _work(self, job: _Job, campaign: Campaign, start: date | datetime | None, seeds: int) -> None:
        try:
            async with self._turn:
                result = await over_everybody(
                    self._preparing,
                    campaign,
                    start=start,
                    seeds=seeds,
                    told=job.advance,
                    rehearse=self._rehearse,
                )
        except Exception as error:
            log.exception(
                "a forecast over everybody failed",
                action="full_forecast_failed",
                forecast=job.told.id,
                campaign=campaign.id,
            )
            job.failed(_why(error), self._clock.now())
        else:
            job.done(result, self._clock.now())


def _why(error: Exception) -> str:
    """In words for who asked; what nobody foresaw says nothing of itself."""
    if isinstance(error, ClarionError):
        return str(error)
    if isinstance(error, RehearsalFailed):
        return f"{error}; the log of Clarion says why"
    return "something went wrong here; the log of Clarion says what"


# --- the command line ---------------------------------------------------------------------------------


async def tell(
    settings: Settings, who: str, *, seeds: int, full: bool, as_json: bool, say: Callable[[str], None]
) -> None:
    """Says the forecast of a campaign, by id or name; a `full` one shows meanwhile how far it is."""
    async with AsyncExitStack() as stack:
        store: Store = await open_store(settings.store)
        stack.push_async_callback(store.close)
        clock = RealClock()
        opened = accounts.opened(settings, clock, stack)
        campaigns = Campaigns(store, clock, SystemChance(), opened.usable)
        preparing = Preparing(store, clock, campaigns, opened.usable, telling(opened))
        campaign = await campaigns.named(who)
        if full:
            with _bar() as bar:
                told = await over_everybody(preparing, campaign, seeds=seeds, told=bar)
        else:
            told = await Forecasts(preparing, clock).of(campaign, seeds=seeds)
    if as_json:
        say(forecast_out(told).model_dump_json())
        return
    for line in table(told, campaign):
        say(line)


@contextmanager
def _bar() -> Iterator[Told]:
    """On a terminal; nothing elsewhere. Beside the answer, which may go into a file."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("forecast", total=1.0)
        yield lambda share: progress.update(task, completed=share)


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
