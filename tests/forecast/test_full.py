"""The forecast over everybody: no sample, progress that is told, jobs that are kept for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from bot import rehearse
from bot.forecast import FULL_KEPT, WAITING, Forecasts, FullForecasts, over_everybody
from bot.rehearse import Told
from broadcast import forecast
from broadcast.errors import Conflict, Invalid, NotFound
from broadcast.forecast import Forecast, FullForecast, FullForecastStatus, Preparing
from broadcast.model import Campaign
from broadcast.rehearsal import Run, Stage
from tests.forecast.foretold import NEXT_WEEK, beside, names, office, prepared
from tests.unit.office import ACCOUNTS, TEAMS, Clock, Office

RUNNING, DONE, FAILED = FullForecastStatus.RUNNING, FullForecastStatus.DONE, FullForecastStatus.FAILED


class Held:
    """Says that it is half-way, and goes on when it is let."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.half_way = asyncio.Event()

    async def __call__(self, stage: Stage, seeds: Sequence[int], told: Told) -> list[Run]:
        told(0.5)
        self.half_way.set()
        await self.may.wait()
        return await beside(stage, seeds, told)


async def ready(people: int = 3) -> tuple[Campaign, Preparing, Clock]:
    one = Office()
    await one.hire(*names(people), account=TEAMS)
    campaign = await one.draft(schedule=NEXT_WEEK)
    return campaign, Preparing(one.store, one.clock, one.campaigns, ACCOUNTS, {TEAMS}), one.clock


async def ended(jobs: FullForecasts, id: str) -> FullForecast:
    async with asyncio.timeout(30):
        while jobs.find(id).status is RUNNING:  # noqa: ASYNC110 - asked again and again, as scripts do
            await asyncio.sleep(0.005)
    return jobs.find(id)


# --- everybody ----------------------------------------------------------------------------------------


async def plain_and_full(campaign: Campaign, preparing: Preparing, clock: Clock) -> tuple[Forecast, Forecast]:
    plain = await Forecasts(preparing, clock, rehearse=beside).of(campaign, seeds=2)
    told: list[float] = []
    return plain, await over_everybody(preparing, campaign, seeds=2, told=told.append, rehearse=beside)


async def test_of_few_it_says_what_a_plain_one_says() -> None:
    """There everybody plays anyway."""
    plain, full = await plain_and_full(*await ready(30))
    assert full == plain


async def test_of_many_it_draws_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a plain one does."""
    monkeypatch.setattr(forecast, "WHOLE", 20)
    monkeypatch.setattr(forecast, "SAMPLE", 10)
    plain, full = await plain_and_full(*await ready(30))
    assert plain.sample is not None
    assert (full.sample, full.people) == (None, 30)


# --- progress -----------------------------------------------------------------------------------------


async def test_progress_rises_to_one() -> None:
    """Step by step, from another process, over all of its runs."""
    stage = (await asyncio.to_thread(lambda: prepared(office(40)))).stage
    told: list[float] = []
    await rehearse.elsewhere(stage, [1, 2], told.append)
    assert told == sorted(set(told))
    assert (told[0] < 0.1, 0.5 in told, told[-1]) == (True, True, 1.0)


def test_progress_counts_the_deliveries_that_have_an_end() -> None:
    """Of four people in one run each is a quarter."""
    stage = prepared(office(4)).stage
    told: list[float] = []
    rehearse.rehearsed(replace(stage, tells=frozenset()), [1], told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_where_nobody_plays_all_is_done() -> None:
    """The share of nothing is the whole."""
    stage = prepared(office(1)).stage
    told: list[float] = []
    rehearse.rehearsed(replace(stage, seats=()), [1], told.append)
    assert told == [1.0]


# --- jobs ---------------------------------------------------------------------------------------------


async def test_a_job_tells_how_far_it_is() -> None:
    """It begins at nothing, and answers while it runs."""
    campaign, preparing, clock = await ready()
    held = Held()
    jobs = FullForecasts(preparing, clock, rehearse=held)
    begun = await jobs.begin(campaign)
    assert (begun.status, begun.progress, begun.result) == (RUNNING, 0.0, None)
    await held.half_way.wait()
    assert jobs.find(begun.id) == replace(begun, progress=0.5)
    await jobs.close()


async def test_a_job_that_is_done_has_its_result() -> None:
    """The same that is told to who waits for it."""
    campaign, preparing, clock = await ready()
    jobs = FullForecasts(preparing, clock, rehearse=beside)
    told = await ended(jobs, (await jobs.begin(campaign, seeds=2)).id)
    plain, _ = await plain_and_full(campaign, preparing, clock)
    assert (told.status, told.progress, told.result, told.detail) == (DONE, 1.0, plain, None)


async def test_not_too_many_are_open() -> None:
    """The one that is too many is refused; once one of the others has ended there is room."""
    campaign, preparing, clock = await ready()
    held = Held()
    jobs = FullForecasts(preparing, clock, rehearse=held)
    begun = [await jobs.begin(campaign, seeds=1) for _ in range(WAITING)]
    with pytest.raises(Conflict, match="ask again once one of them has ended"):
        await jobs.begin(campaign)
    held.may.set()
    await ended(jobs, begun[0].id)
    assert (await jobs.begin(campaign, seeds=1)).status is RUNNING
    await jobs.close()


async def test_a_child_that_crashes_is_a_failure_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    """What it said itself is on standard error."""
    campaign, preparing, clock = await ready(1)

    async def crashing(stage: Stage, seeds: Sequence[int], told: Told) -> list[Run]:
        broken = {TEAMS: None}
        return await rehearse.elsewhere(replace(stage, accounts=broken), seeds, told)  # type: ignore[arg-type]  # what fails

    jobs = FullForecasts(preparing, clock, rehearse=crashing)
    told = await ended(jobs, (await jobs.begin(campaign)).id)
    assert (told.status, told.result) == (FAILED, None)
    assert told.detail == "the rehearsal ended with status 1; the log of Clarion says why"
    assert "AttributeError" in capfd.readouterr().err


async def test_what_nobody_foresaw_says_nothing_of_itself() -> None:
    """The log does; the job is failed and not left open."""
    campaign, preparing, clock = await ready(1)

    async def surprising(*_: object) -> list[Run]:
        raise KeyError("secret")

    jobs = FullForecasts(preparing, clock, rehearse=surprising)
    told = await ended(jobs, (await jobs.begin(campaign)).id)
    assert (told.status, told.detail) == (FAILED, "something went wrong here; the log of Clarion says what")


async def test_what_cannot_be_launched_any_more_is_a_failure_in_words() -> None:
    """Its start passed while it waited for its turn."""
    campaign, preparing, clock = await ready(1)
    held = Held()
    jobs = FullForecasts(preparing, clock, rehearse=held)
    await jobs.begin(campaign)
    await held.half_way.wait()
    late = await jobs.begin(campaign)
    clock.move(timedelta(days=30))
    held.may.set()
    told = await ended(jobs, late.id)
    assert (told.status, (told.detail or "").partition(":")[0]) == (FAILED, "schedule.start")


async def test_what_cannot_be_launched_is_not_begun() -> None:
    """It is refused at once, and leaves no job open."""
    campaign, preparing, clock = await ready(0)
    with pytest.raises(Invalid, match="audience"):
        await FullForecasts(preparing, clock, rehearse=beside).begin(campaign)


async def test_a_result_is_kept_for_an_hour() -> None:
    """Then it is told that it is not any more."""
    campaign, preparing, clock = await ready(1)
    jobs = FullForecasts(preparing, clock, rehearse=beside)
    told = await ended(jobs, (await jobs.begin(campaign, seeds=1)).id)
    clock.move(FULL_KEPT - timedelta(seconds=1))
    assert jobs.find(told.id) == told
    clock.move(timedelta(seconds=1))
    with pytest.raises(NotFound, match="kept for an hour after its end, and a restart of Clarion forgets it"):
        jobs.find(told.id)


async def test_a_host_that_stops_begins_nothing() -> None:
    """And says so."""
    campaign, preparing, clock = await ready(1)
    jobs = FullForecasts(preparing, clock, rehearse=beside)
    await jobs.close()
    with pytest.raises(Conflict, match="Clarion is stopping"):
        await jobs.begin(campaign)
