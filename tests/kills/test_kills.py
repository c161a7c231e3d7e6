"""The short form of `python -m tests.kills`: real processes, `kill -9`, nothing lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import pytest

from tests.kills.play import Wishes, play, table, troubles
from tests.kills.stage import StoreKind
from tests.mongod import program

#: A slow machine with other work may take longer than the 10 s that the long run holds against a takeover.
TAKEN_OVER_WITHIN = 30.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


async def played(wishes: Wishes, folder: Path, mongod: Path | None) -> list[str]:
    """What did not hold, and where the logs are. What happened is printed, for the report of a failure."""
    outcome = await play(wishes, folder, mongod, say=click.echo)
    click.echo("\n".join(table(outcome)))
    assert len(outcome.kills) == wishes.kills
    assert outcome.verdict.deliveries >= 3 * wishes.people
    found = troubles(outcome, taken_over_within=TAKEN_OVER_WITHIN)
    if found:
        return [*found, f"seed {wishes.seed}, logs in {folder}"]
    shutil.rmtree(folder)  # a database is large, and pytest keeps folders
    return []


async def test_kills_of_worker_host_and_mongod_lose_nothing(tmp_path: Path) -> None:
    """Two of each: nobody is lost, each double is marked and was in flight, the other worker takes over."""
    wishes = Wishes(kills=6, seed=1, people=60)
    assert await played(wishes, tmp_path, program()) == []


async def test_kills_of_a_service_on_sqlite_lose_nothing(tmp_path: Path) -> None:
    """Host and engine in one process, killed three times: the same holds."""
    wishes = Wishes(kills=3, seed=1, store=StoreKind.SQLITE, people=40)
    assert await played(wishes, tmp_path, None) == []
