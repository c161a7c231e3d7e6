"""The forecast through its doors: in a process of its own, on the command line, in chat."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from bot import rehearse
from bot.cli import main
from bot.forecast import WAITING, Forecasts, Rehearse, in_chat, table
from broadcast.campaigns import Campaigns, Draft
from broadcast.errors import Conflict, Invalid
from broadcast.forecast import Preparing, Sample
from broadcast.model import Campaign, ChannelName, Message, Policies, Recipient
from broadcast.rehearsal import Run, Stage
from storage.open import open_store
from tests.forecast.foretold import NEXT_WEEK, beside, done, foretold, names, office, prepared
from tests.unit.office import ACCOUNTS, TEAMS, Chance, Office

ANYBODY = Policies(presence=dict.fromkeys(ChannelName))


# --- another process ----------------------------------------------------------------------------------


async def test_what_is_played_elsewhere_is_what_is_played_here() -> None:
    """A stage and its runs travel without loss."""
    stage = (await asyncio.to_thread(lambda: prepared(office(5)))).stage
    assert await rehearse.elsewhere(stage, [1, 2]) == await beside(stage, [1, 2])


async def test_a_rehearsal_that_fails_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    """The other process says why; this one says that."""
    stage = (await asyncio.to_thread(lambda: prepared(office(1)))).stage
    with pytest.raises(rehearse.RehearsalFailed, match="status 1"):
        await rehearse.elsewhere(replace(stage, accounts={TEAMS: None}), [1])  # type: ignore[dict-item]  # what fails
    assert "AttributeError" in capfd.readouterr().err


async def test_whoever_stops_waiting_ends_the_rehearsal() -> None:
    """No process is left behind: the wait ends once it is gone."""
    stage = (await asyncio.to_thread(lambda: prepared(office(300)))).stage
    task = asyncio.create_task(rehearse.elsewhere(stage, range(1, 50)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_ctrl_c_reaches_only_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process is not of the terminal's group: it is ended, and says nothing of an interrupt."""
    stage = (await asyncio.to_thread(lambda: prepared(office(1)))).stage
    groups: list[int] = []
    started = asyncio.create_subprocess_exec

    async def noted(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await started(*arguments, **options)
        groups.append(os.getpgid(process.pid))
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    await rehearse.elsewhere(stage, [1])
    [group] = groups
    assert group != os.getpgrp()


# --- what takes long ----------------------------------------------------------------------------------


class Rehearsing:
    """Rehearses when it is let."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.times = 0
        self.fails = False

    async def __call__(self, stage: Stage, seeds: Sequence[int]) -> list[Run]:
        self.times += 1
        await self.may.wait()
        if self.fails:
            raise rehearse.RehearsalFailed("the rehearsal ended with status 1")
        return await beside(stage, seeds)


async def waiting(rehearsal: Rehearse) -> tuple[Office, Campaign, Forecasts]:
    one = Office()
    await one.hire("ann", account=TEAMS)
    campaign = await one.draft(schedule=NEXT_WEEK)
    preparing = Preparing(one.store, one.clock, one.campaigns, ACCOUNTS, {TEAMS})
    return one, campaign, Forecasts(preparing, one.clock, rehearse=rehearsal)


async def test_a_question_does_not_wait_for_long() -> None:
    """It is told that there is no forecast yet; the next question gets the one that was begun."""
    slow = Rehearsing()
    _, campaign, forecasts = await waiting(slow)
    assert await forecasts.soon(campaign, seconds=0.01) is None
    slow.may.set()
    told = await forecasts.soon(campaign)
    assert told is not None
    assert told.people == 1
    assert await forecasts.soon(campaign) is told
    assert slow.times == 1
    await forecasts.close()


async def test_a_changed_campaign_is_foretold_anew() -> None:
    """What was worked out for it as it was is no answer."""
    slow = Rehearsing()
    slow.may.set()
    _, campaign, forecasts = await waiting(slow)
    await forecasts.soon(campaign)
    await forecasts.soon(replace(campaign, policies=ANYBODY))
    assert slow.times == 2
    await forecasts.close()


async def test_a_failure_is_not_kept() -> None:
    """Whoever asks is told, and whoever asks again gets a new try."""
    slow = Rehearsing()
    slow.fails = True
    slow.may.set()
    _, campaign, forecasts = await waiting(slow)
    with pytest.raises(rehearse.RehearsalFailed):
        await forecasts.soon(campaign)
    slow.fails = False
    assert await forecasts.soon(campaign) is not None
    await forecasts.close()


async def test_a_number_of_seeds_that_cannot_be_is_refused() -> None:
    """Before anything is looked up."""
    _, campaign, forecasts = await waiting(beside)
    with pytest.raises(Invalid, match="seeds"):
        await forecasts.of(campaign, seeds=0)


async def test_not_too_many_wait() -> None:
    """Whoever comes when others wait is told to come again; those who waited get theirs."""
    slow = Rehearsing()
    _, campaign, forecasts = await waiting(slow)
    tasks = [asyncio.create_task(forecasts.of(campaign, seeds=1)) for _ in range(WAITING)]
    await asyncio.sleep(0.01)
    with pytest.raises(Conflict, match="ask again in a minute"):
        await forecasts.of(campaign)
    slow.may.set()
    assert len(await asyncio.gather(*tasks)) == WAITING
    assert await forecasts.of(campaign) is not None


# --- words --------------------------------------------------------------------------------------------


def test_the_table_says_it_all() -> None:
    """End, people, limit, what it is made of, warnings, sends by the hour."""
    one = office(3)
    done(one.store.save_recipients([Recipient("rcp_new")]))
    campaign = done(one.draft(schedule=replace(NEXT_WEEK, working_days=1), policies=ANYBODY))
    told = foretold(one, campaign, seeds=(1,))
    lines = table(told, campaign)
    assert lines[0] == "Benefits week, if it were launched now (UTC)"
    assert lines[1].startswith("  finish     Mon 30 Mar ")
    assert lines[2:9] == [
        "  reached    3 of 4  (3 to 3)",
        "  unreached  0  (0 to 0)",
        "  skipped    1",
        "  limit      working time: moments are spread over 1 working day",
        "  from       1 run",
        "warnings",
        "  1 person has no conversation",
    ]
    assert lines[9] == "sends per hour"
    assert all(line.startswith("  Mon 30 Mar ") and line.endswith("#") for line in lines[10:])


def test_the_table_says_that_a_sample_was_played() -> None:
    """And how large it is."""
    one = office(2)
    campaign = done(one.draft(schedule=NEXT_WEEK))
    told = replace(foretold(one, campaign), sample=Sample(10, 40))
    assert "  from       2 runs of a sample of 10 in 40 deliveries" in table(told, campaign)


def test_chat_shows_the_end_the_reach_and_the_first_warnings() -> None:
    """Three of them."""
    one = office(2)
    campaign = done(one.draft(schedule=NEXT_WEEK, policies=ANYBODY))
    told = replace(foretold(one, campaign), warnings=("a", "b", "c", "d"))
    finish, reach, *notes = in_chat(told, campaign)
    assert finish.startswith("Expected to finish Mon 30 Mar 2026, ")
    assert reach == "Expected to reach 2 of 2, limited by working time: moments are spread over 3 working days"
    assert notes == ["Note: a", "Note: b", "Note: c"]


def test_chat_says_that_there_is_no_forecast_yet() -> None:
    """And how to see it."""
    campaign = done(office().draft())
    [line] = in_chat(None, campaign)
    assert line == "The forecast is still being worked out; write /launch Benefits week again to see it"


# --- the command line ---------------------------------------------------------------------------------


@pytest.fixture
def clarion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """The command line, on a store with a campaign to two people on Telegram."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLARION_TELEGRAM_TOKEN", "123456:secret-of-this-test")
    asyncio.run(_campaign())
    yield lambda *arguments: CliRunner().invoke(main, arguments)
    structlog.reset_defaults()


async def _campaign() -> None:
    store = await open_store("sqlite:///clarion.db")
    account = replace(ACCOUNTS["telegram/news"], key="telegram/default")
    one = Office(store=store)
    people = [Recipient(f"rcp_{name}", identities={ChannelName.TELEGRAM: name}) for name in names(2)]
    await store.save_recipients(people)
    await Campaigns(store, one.clock, Chance(), {account.key: account}).create(
        Draft("Canteen", Message("Soup"), schedule=replace(NEXT_WEEK, start=None))
    )
    await store.close()


def test_the_command_tells_a_table(clarion: Callable[..., Result]) -> None:
    """Of a campaign by its name."""
    result = clarion("forecast", "canteen", "--seeds", "1")
    assert result.exit_code == 0, result.output
    assert "  reached    2 of 2  (2 to 2)" in result.stdout.splitlines()


def test_the_command_tells_json(clarion: Callable[..., Result]) -> None:
    """As the endpoint answers it."""
    result = clarion("forecast", "canteen", "--seeds", "2", "--json")
    told = json.loads(result.stdout)
    assert (told["reached"], told["seeds"]) == ({"expected": 2, "low": 2, "high": 2}, [1, 2])


def test_the_command_tells_the_same_of_everybody(clarion: Callable[..., Result]) -> None:
    """Of few that is no other answer; no bar is drawn where there is no terminal."""
    full = clarion("forecast", "canteen", "--seeds", "1", "--full")
    assert (full.exit_code, full.stderr) == (0, "")
    assert full.stdout == clarion("forecast", "canteen", "--seeds", "1").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing",), "clarion: there is no campaign called nothing"),
        (("canteen", "--seeds", "0"), "clarion: seeds: is a number of runs from 1 to 20"),
    ],
)
def test_what_cannot_be_foretold_is_one_line(
    clarion: Callable[..., Result], arguments: tuple[str, ...], says: str
) -> None:
    """With status 2."""
    result = clarion("forecast", *arguments)
    assert (result.exit_code, result.stderr.strip()) == (2, says)
