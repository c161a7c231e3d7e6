"""`clarion db`: what it says, what it leaves, and what it refuses in one line."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TypeVar

import pytest
import structlog
from click.testing import CliRunner, Result

from bot.cli import main
from broadcast.model import BroadcastStatus
from broadcast.ports import Store
from storage.open import open_store
from tests.architecture.sources import ROOT
from tests.storage.builders import ACCOUNT, broadcast, launch

T = TypeVar("T")
STORE = "sqlite:///clarion.db"
S = BroadcastStatus


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No test writes into the checkout, or changes how others log."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield tmp_path
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def db(*arguments: str) -> Result:
    return CliRunner().invoke(main, ("db", *arguments))


def told(*arguments: str) -> list[str]:
    """What a command that succeeded said."""
    result = db(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def refused(*arguments: str) -> str:
    """The one line of a command that failed."""
    result = db(*arguments)
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    return line


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = await open_store(url)
    try:
        yield store
    finally:
        await store.close()


def within(work: Callable[[Store], Awaitable[T]], url: str = STORE) -> T:
    """Does it in the store as another process would."""

    async def run() -> T:
        async with opened(url) as store:
            return await work(store)

    return asyncio.run(run())


def fill(url: str = STORE) -> None:
    """A broadcast that runs, with nobody at work; SQLite with its secret."""

    async def run(store: Store) -> None:
        lease, _ = await launch(store, "ann", "ben")
        await store.release_lease(lease)

    within(run, url)
    if url == STORE:
        Path("clarion.db.secret").write_text("signs-links\n")


async def status(store: Store) -> BroadcastStatus | None:
    found = await store.broadcast("brd_1")
    return found.status if found else None


# --- upgrade ------------------------------------------------------------------------------------------


def test_upgrade_makes_a_database() -> None:
    """Where there is none yet."""
    [line] = told("upgrade")
    assert line.startswith("made a new database with schema ")


@pytest.mark.parametrize("place", ["sqlite", "mongo"])
def test_upgrade_says_that_there_is_nothing_to_do(place: str, request: pytest.FixtureRequest) -> None:
    """On both stores."""
    url = STORE if place == "sqlite" else request.getfixturevalue(place)
    told("upgrade", "--store", url)
    [line] = told("upgrade", "--store", url)
    assert line.startswith("up to date: schema ")


def test_upgrade_says_from_where_to_where() -> None:
    """What an older version left is brought forward."""
    told("upgrade")
    with closing(sqlite3.connect("clarion.db")) as database:
        database.execute("DROP TABLE presence")
        database.execute("PRAGMA user_version = 5")
    [line] = told("upgrade")
    assert line.startswith("upgraded from schema 5 to ")


def test_a_newer_database_is_refused_in_words() -> None:
    """Nothing is ever taken back."""
    told("upgrade")
    with closing(sqlite3.connect("clarion.db")) as database:
        database.execute("PRAGMA user_version = 999")
    assert "has schema 999" in refused("upgrade")


def test_memory_is_no_database() -> None:
    """It ends with its process."""
    assert "memory: keeps nothing" in refused("upgrade", "--store", "memory:")


# --- back up and restore ------------------------------------------------------------------------------


def test_a_backup_comes_with_its_secret() -> None:
    """Without it the links in messages already sent are dead."""
    fill()
    lines = told("backup", "kept.db")
    assert Path("kept.db.secret").read_text() == "signs-links\n"
    assert Path("kept.db.secret").stat().st_mode & 0o777 == 0o600
    assert "kept.db.secret: keep it with the backup" in lines[-1]


def test_a_backup_replaces_nothing_unless_told_to() -> None:
    """The last good one may be what is in the way."""
    fill()
    Path("kept.db").write_text("precious")
    assert "kept.db: is there already" in refused("backup", "kept.db")
    assert Path("kept.db").read_text() == "precious"
    told("backup", "kept.db", "--force")


def test_a_backup_is_taken_while_somebody_works() -> None:
    """A service need not stop for it."""
    fill()

    async def run(store: Store) -> None:
        await store.acquire_lease(ACCOUNT, "host-1", 30)
        await asyncio.to_thread(told, "backup", "kept.db")

    within(run)
    assert Path("kept.db").is_file()


def test_restore_keeps_what_was_there_and_can_be_undone() -> None:
    """The name it is kept under is said, with the command that takes it back."""
    fill()
    told("backup", "kept.db")
    within(lambda store: store.save_broadcast(broadcast("brd_2"), expected=None))
    lines = told("restore", "kept.db", "--go-on")
    [undo] = [line.rpartition("clarion db ")[2].split() for line in lines if "to undo:" in line]
    assert within(lambda store: store.broadcast("brd_2")) is None
    told(*undo)
    assert within(lambda store: store.broadcast("brd_2")) is not None


def test_restore_pauses_what_had_not_ended() -> None:
    """What went out after the backup would go out again."""
    fill()
    told("backup", "kept.db")
    assert any(line.startswith("paused 'Benefits week'") for line in told("restore", "kept.db"))
    assert within(status) is S.PAUSED


def test_restore_goes_on_if_told_to() -> None:
    """For who knows that nothing went out since."""
    fill()
    told("backup", "kept.db")
    told("restore", "kept.db", "--go-on")
    assert within(status) is S.RUNNING


def test_restore_brings_the_secret_back() -> None:
    """Onto a machine that has none, or another one, which is kept."""
    fill()
    told("backup", "kept.db")
    Path("clarion.db.secret").write_text("another\n")
    told("restore", "kept.db")
    assert Path("clarion.db.secret").read_text() == "signs-links\n"
    assert [path.read_text() for path in Path().glob("clarion.db.2*.secret")] == ["another\n"]


def test_restore_onto_an_empty_machine() -> None:
    """Nothing has to be there before."""
    fill()
    told("backup", "kept.db")
    told("restore", "kept.db", "--store", "sqlite:///new.db")
    assert within(status, "sqlite:///new.db") is S.PAUSED


def test_restore_over_a_damaged_database() -> None:
    """That is what it is for."""
    fill()
    told("backup", "kept.db")
    Path("clarion.db").write_bytes(b"x" * 9000)
    told("restore", "kept.db")
    assert within(status) is S.PAUSED


def test_restore_is_refused_while_somebody_works() -> None:
    """It says who, and what to do."""
    fill()
    told("backup", "kept.db")

    async def run(store: Store) -> str:
        await store.acquire_lease(ACCOUNT, "host-1", 30)
        return await asyncio.to_thread(refused, "restore", "kept.db")

    assert "in use (teams/hr by host-1); stop clarion serve and every worker" in within(run)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 9000, b"\x1f\x8b\x08"])
def test_restore_refuses_what_is_no_backup(content: bytes) -> None:
    """And leaves everything as it was."""
    fill()
    Path("kept.db").write_bytes(content)
    assert refused("restore", "kept.db").startswith("clarion: kept.db: ")
    assert within(status) is S.RUNNING
    assert not [*Path().glob("*.restoring*")]


def test_mongodb_is_backed_up_and_restored(mongo: str, other_mongo: str) -> None:
    """Through one file, compared on both ways."""
    fill(mongo)
    lines = told("backup", "kept.gz", "--store", mongo)
    assert ["deliveries", "2", "2"] in [line.split()[:3] for line in lines]
    assert "keep CLARION_SECRET too" in lines[-1]
    told("restore", "kept.gz", "--store", other_mongo)
    assert within(status, other_mongo) is S.PAUSED
    assert "is not empty" in refused("restore", "kept.gz", "--store", other_mongo)


def test_a_file_of_sqlite_is_not_for_mongodb(mongo: str) -> None:
    """The way is named."""
    fill()
    told("backup", "kept.db")
    assert "then clarion db copy to MongoDB" in refused("restore", "kept.db", "--store", mongo)


# --- copy ---------------------------------------------------------------------------------------------


def test_a_copy_shows_that_both_agree(mongo: str) -> None:
    """With status 0, and what to do about the secret."""
    fill()
    lines = told("copy", STORE, mongo)
    assert ["deliveries", "2", "2"] in [line.split()[:3] for line in lines]
    assert lines[-1].startswith("set CLARION_SECRET to what clarion.db.secret holds")
    assert within(status, mongo) is S.RUNNING


def test_a_copy_to_a_file_takes_the_secret_along() -> None:
    """Links in messages already sent lead on."""
    fill()
    told("copy", STORE, "sqlite:///new.db")
    assert Path("new.db.secret").read_text() == "signs-links\n"


def test_a_copy_that_is_interrupted_ends_with_130() -> None:
    """Ctrl-C leaves no half of a database."""
    fill()
    script = (
        "import os, signal, storage.portable as portable, bot.cli\n"
        "async def summed(whole, step):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    import asyncio; await asyncio.sleep(5)\n"
        "portable.summed = summed\n"
        "bot.cli.main()\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script, "db", "copy", STORE, "sqlite:///new.db"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    assert not [*Path().glob("new.db*")]
