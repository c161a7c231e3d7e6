"""What is SQLite's own: files, threads, other processes, and dying in the middle."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import closing
from pathlib import Path

import pytest

from broadcast.errors import Conflict, StoreUnavailable
from broadcast.model import ChannelName, DeliveryState
from broadcast.ports import DeliveryFilter, Inbound, Page, Person, Said, Turn
from storage.errors import CannotOpen, Damaged, TooNew, Undecodable
from storage.memory import MemoryStore
from storage.open import open_store
from storage.sqlite import SqliteStore, ledger
from storage.sqlite.connection import connect, meaning, prepare
from storage.sqlite.schema import MIGRATIONS
from tests.storage.builders import (
    ACCOUNT,
    NOW,
    at,
    broadcast,
    conversation,
    delivery,
    launch,
    populate,
    recipient,
    sent,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clarion.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(path)
    yield opened
    await opened.close()


def start(path: Path, task: str) -> subprocess.Popen[str]:
    """A second process that does the task."""
    command = [sys.executable, "-m", "tests.storage.another_process", str(path), task]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves


def change(path: Path, *statements: str) -> None:
    with closing(connect(path)) as db:
        for statement in statements:
            db.execute(statement)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.db"))


def overwrite(path: Path, start: int, content: bytes) -> None:
    """Writes into the file as a failing disk might."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(start)
        file.write(content)


def schema(path: Path) -> list[tuple[object, ...]]:
    with closing(connect(path)) as db:
        version = db.execute("PRAGMA user_version").fetchall()
        return version + db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()


# --- opening ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is no store"),
        ("postgres://x", "postgres is no store"),
        ("sqlite://clarion.db", "names no database file"),
        ("sqlite:///", "names no database file"),
        ("sqlite:///folder/", "names no database file"),
        ("sqlite:////no/such/folder/x.db", "folder /no/such/folder does not exist"),
        ("memory", "memory is no store"),
    ],
)
async def test_an_address_at_fault_is_refused_in_one_line(url: str, words: str) -> None:
    """With what is wrong and what to write instead."""
    with pytest.raises(CannotOpen, match=words) as told:
        await open_store(url)
    assert "\n" not in str(told.value)


async def test_an_address_opens_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative and absolute files, and memory."""
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///a.db", f"sqlite:///{tmp_path}/b.db", "memory:"):
        opened = await open_store(url)
        await opened.ping()
        await opened.close()
    assert names(tmp_path) == ["a.db", "b.db"]


async def test_a_closed_store_says_so() -> None:
    """Memory as well as SQLite."""
    opened = MemoryStore()
    await opened.close()
    with pytest.raises(StoreUnavailable):
        await opened.ping()


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """And left as it is."""
    overwrite(path, 0, b"Dear Ann, " * 1000)
    with pytest.raises(Damaged, match=r"clarion\.db: .*restore a backup"):
        await SqliteStore.open(path)
    with closing(sqlite3.connect(path)) as db, pytest.raises(sqlite3.DatabaseError):
        db.execute("SELECT * FROM sqlite_master")


async def test_a_damaged_database_is_refused(path: Path) -> None:
    """At the start, with the way to restore, not in the middle of a broadcast."""
    opened = await SqliteStore.open(path)
    await launch(opened, *(f"p{number}" for number in range(300)))
    await opened.close()
    overwrite(path, 4096 * 8, b"\x5a" * 4096 * 32)
    with pytest.raises(Damaged, match="clarion db restore"):
        await SqliteStore.open(path)


async def test_a_database_of_another_program_is_refused(path: Path) -> None:
    """Nothing is written into it."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(CannotOpen, match="another program"):
        await SqliteStore.open(path)


async def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder in place of the file, a read-only file system."""
    for place in (tmp_path, Path("/proc/clarion.db")):
        with pytest.raises(CannotOpen, match=str(place)):
            await SqliteStore.open(place)


async def test_a_newer_database_is_refused(path: Path) -> None:
    """In words, and unharmed."""
    prepare(path)
    change(path, "PRAGMA user_version = 99")
    before = schema(path)
    with pytest.raises(TooNew, match=r"schema 99 .* upgrade Clarion"):
        await SqliteStore.open(path)
    assert schema(path) == before


# --- migrations ---------------------------------------------------------------------------------------


def test_migrations_are_numbered_without_a_gap() -> None:
    """From one on, in order."""
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_step_by_step_equals_fresh(tmp_path: Path) -> None:
    """A database that took every step by itself has the schema of a new one."""
    stepped, fresh = tmp_path / "stepped.db", tmp_path / "fresh.db"
    for number in range(1, len(MIGRATIONS) + 1):
        prepare(stepped, MIGRATIONS[:number])
    prepare(fresh)
    assert schema(stepped) == schema(fresh)
    prepare(fresh)
    assert schema(stepped) == schema(fresh)


def test_a_step_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    """All steps or none."""
    path = tmp_path / "x.db"
    prepare(path, MIGRATIONS[:2])
    before = schema(path)
    change(path, "CREATE TABLE tokens (x)")
    with pytest.raises(sqlite3.OperationalError):
        prepare(path)
    change(path, "DROP TABLE tokens")
    assert schema(path) == before


def test_tables_that_are_replaced_keep_what_they_hold(tmp_path: Path) -> None:
    """People and conversations with all that belongs to them, as they were before they were kept by their ids."""
    path, before = tmp_path / "x.db", 6
    prepare(path, MIGRATIONS[:before])
    change(
        path,
        "INSERT INTO recipients (id, external_id, email, doc, unsubscribed_at, search) "
        "VALUES ('rcp_2', 'E2', 'a@b.example', '{}', 5, 'ann'), ('rcp_1', NULL, NULL, '{}', NULL, 'ben')",
        "INSERT INTO identities VALUES ('teams', 'u-2', 'rcp_2')",
        "INSERT INTO memberships VALUES ('rcp_2', 'lst_1')",
        "INSERT INTO conversations VALUES ('cnv_1', 'teams/x', 'teams', 'rcp_2', 'u-2', '{}', 'blocked', 7)",
    )
    tables = ("recipients", "identities", "memberships", "conversations")

    def held() -> list[list[tuple[object, ...]]]:
        with closing(connect(path)) as db:
            return [sorted(db.execute(f"SELECT * FROM {table}")) for table in tables]  # noqa: S608 - our tables

    kept = held()
    prepare(path)
    assert held() == kept
    change(path, "DELETE FROM recipients WHERE id = 'rcp_2'")
    assert held()[1:3] == [[], []], "what belongs to a person still goes with them"


def test_many_may_migrate_at_once(tmp_path: Path) -> None:
    """One does it, the others find it done."""
    path = tmp_path / "x.db"
    failures: list[Exception] = []

    def migrate() -> None:
        try:
            prepare(path)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert schema(path)[0] == (len(MIGRATIONS),)


# --- other processes ----------------------------------------------------------------------------------


def test_two_processes_start_and_write_at_once(path: Path) -> None:
    """Both on a new file: each inbound key is first in one of them only."""
    children = [start(path, "claim") for _ in range(2)]
    told = [child.communicate(timeout=60)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(map(int, told[0] + told[1])) == list(range(100))


async def test_a_control_write_of_another_process_wakes(store: SqliteStore, path: Path) -> None:
    """Whoever waits sees it by looking again, without being told."""
    seen = await store.control_version()
    waiting = asyncio.create_task(store.wait_control(seen))
    child = start(path, "steer")
    assert await asyncio.wait_for(waiting, 30) == seen + 1
    await asyncio.to_thread(child.communicate)
    assert await store.broadcast("brd_other") is not None


async def test_every_acknowledged_write_survives_a_kill(path: Path) -> None:
    """kill -9 in the middle of concurrent writes: what was answered is there, and the counters equal the ledger."""
    child = start(path, "write")
    assert child.stdout is not None
    acknowledged = {child.stdout.readline().strip() for _ in range(120)}
    child.kill()
    acknowledged |= {line.strip() for line in child.stdout if line.endswith("\n")}
    child.wait()
    child.stdout.close()
    store = await SqliteStore.open(path)
    try:
        there = {one.id async for one, _ in store.all_deliveries(DeliveryFilter("brd_1"))}
        assert acknowledged <= there
        assert await store.tally("brd_1") == {"state/teams/planned": len(there)}
    finally:
        await store.close()


async def test_a_lock_held_by_another_is_told_and_passes(
    path: Path, monkeypatch: pytest.MonkeyPatch, store: SqliteStore
) -> None:
    """The write fails in words; when the lock is gone everything goes on by itself."""
    monkeypatch.setattr("storage.sqlite.connection._BUSY_SECONDS", 0.05)
    impatient = await SqliteStore.open(path)
    try:
        with closing(connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked by another process"):
                await impatient.plan([delivery("ann")])
            assert await impatient.delivery("dlv_brd_1_ann") is None
            other.execute("ROLLBACK")
        assert await impatient.plan([delivery("ann")]) == 1
    finally:
        await impatient.close()


# --- the writer ---------------------------------------------------------------------------------------


async def test_one_failing_write_does_not_undo_its_neighbours(store: SqliteStore) -> None:
    """Writes that are committed together fail alone."""
    await store.save_broadcast(broadcast(), expected=None)
    told = await asyncio.gather(
        store.plan([delivery("ann")]),
        store.save_broadcast(broadcast(), expected=None),
        store.save_recipients([recipient("ann"), recipient("ben", email="x"), recipient("cat", email="X")]),
        store.plan([delivery("ben", position=1)]),
        return_exceptions=True,
    )
    assert [type(one) for one in told] == [int, Conflict, Conflict, int]
    assert (await store.recipients("", Page())).total == 0
    assert await store.tally("brd_1") == {"state/teams/planned": 2}


async def test_a_caller_that_is_cancelled_harms_nobody(store: SqliteStore) -> None:
    """Its write may stand; those beside it do."""
    tasks = [asyncio.create_task(store.plan([delivery(f"n{n}", position=n)])) for n in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one for one in told if one != 1] in ([], [told[3]])
    assert await store.delivery("dlv_brd_1_n9") is not None


async def test_a_full_disk_is_told_and_passes(store: SqliteStore) -> None:
    """Nothing of what failed is written; once there is room everything goes on by itself."""
    await populate(store, "ann")
    size = await store._writer.call(lambda unit: unit.db.execute("PRAGMA page_count").fetchone()[0])  # noqa: SLF001 - no other way to fill a disk
    await store._writer.call(lambda unit: unit.db.execute(f"PRAGMA max_page_count = {size}").fetchone())  # noqa: SLF001
    many = [delivery(f"n{number}", position=number) for number in range(2_000)]
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await store.plan(many)
    assert await store.tally("brd_1") == {}
    await store._writer.call(lambda unit: unit.db.execute("PRAGMA max_page_count = 1000000").fetchone())  # noqa: SLF001
    assert await store.plan(many) == len(many)


async def test_close_finishes_what_was_handed_over(path: Path) -> None:
    """Then refuses; closing again is harmless; no thread is left."""
    opened = await SqliteStore.open(path)
    writes = [asyncio.create_task(opened.plan([delivery(f"n{n}", position=n)])) for n in range(20)]
    await asyncio.sleep(0)
    await opened.close()
    assert await asyncio.gather(*writes) == [1] * 20
    with pytest.raises(StoreUnavailable, match="closed"):
        await opened.ping()
    await opened.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("clarion-")]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, StoreUnavailable),
        (sqlite3.SQLITE_FULL, StoreUnavailable),
        (sqlite3.SQLITE_IOERR | 3 << 8, StoreUnavailable),
        (sqlite3.SQLITE_READONLY, CannotOpen),
        (sqlite3.SQLITE_CORRUPT, Damaged),
        (sqlite3.SQLITE_CONSTRAINT, sqlite3.Error),
        (None, sqlite3.Error),
    ],
)
def test_errors_are_told_apart_by_what_to_do(code: int | None, kind: type[Exception]) -> None:
    """The world's doing is told in our words; a fault of ours stays what it is."""
    error = sqlite3.Error("anything")
    if code is not None:
        error.sqlite_errorcode = code
    assert type(meaning(error)) is kind


# --- records ------------------------------------------------------------------------------------------


async def test_a_record_that_cannot_be_read_is_named(store: SqliteStore, path: Path) -> None:
    """The ones beside it can be read, and nothing breaks."""
    await launch(store, "ann", "ben")
    await store.save_broadcast(broadcast("brd_2"), expected=None)
    change(
        path,
        "UPDATE recipients SET doc = '{' WHERE id = 'rcp_ann'",
        "UPDATE broadcasts SET doc = json_set(doc, '$.status', 'dancing') WHERE id = 'brd_2'",
        "UPDATE deliveries SET rung = 'jump' WHERE id = 'dlv_brd_1_ben'",
    )
    with pytest.raises(Undecodable, match="recipient rcp_ann"):
        await store.recipient("rcp_ann")
    with pytest.raises(Undecodable, match="broadcast brd_2"):
        await store.broadcast("brd_2")
    with pytest.raises(Undecodable, match="delivery dlv_brd_1_ben"):
        await store.delivery("dlv_brd_1_ben")
    assert await store.recipient("rcp_ben") == recipient("ben")
    assert await store.broadcast("brd_1") == broadcast()


async def test_a_record_that_cannot_be_read_keeps_nobody_else_out(store: SqliteStore, path: Path) -> None:
    """Of those who come at once only the one it is of is refused."""
    await populate(store, "ann", "ben", "cat")
    change(path, "UPDATE recipients SET doc = '{' WHERE id = 'rcp_ben'")

    def taken(name: str) -> Awaitable[str | None]:
        said = Inbound(name, ACCOUNT, ChannelName.TEAMS, Person(f"user-{name}"), Said.TEXT, NOW)
        return store.take_in(said, lambda _: Turn(name, conversation(name)), at=NOW)

    told = await asyncio.gather(*map(taken, ("ann", "ben", "cat")), return_exceptions=True)
    assert [str(told[0]), type(told[1]).__name__, str(told[2])] == ["ann", "Undecodable", "cat"]
    assert [await store.was_seen(ACCOUNT, name) for name in ("ann", "ben", "cat")] == [True, False, True]


async def test_a_stream_goes_over_its_pages(store: SqliteStore) -> None:
    """More rows than are read at once: each comes once, in order, also while others end."""
    await populate(store, "ann")
    many = [delivery(f"n{number}", position=number // 2) for number in range(2_500)]
    await store.plan(many)
    planned = DeliveryFilter("brd_1", states=[DeliveryState.PLANNED])
    seen = []
    async for one, _ in store.all_deliveries(planned):
        seen.append(one)
        if len(seen) == 500:
            await store.cancel_planned("brd_1", at(1), 1_200)
    expected = sorted(many, key=lambda one: (one.position, one.id))
    assert seen == expected[:1_000] + expected[1_200:]


async def test_a_new_database_is_its_owners_alone(path: Path) -> None:
    """Names and addresses are nobody else's business on a shared machine."""
    store = await SqliteStore.open(path)
    try:
        assert {found.stat().st_mode & 0o077 for found in path.parent.glob(f"{path.name}*")} == {0}
    finally:
        await store.close()


async def test_everything_is_there_after_reopening(path: Path) -> None:
    """What is in flight stays in flight, under the same fence."""
    first = await SqliteStore.open(path)
    lease, [ann, ben] = await launch(first, "ann", "ben")
    await first.intend(lease, [ann], NOW)
    await first.close()
    second = await SqliteStore.open(path)
    try:
        assert [due.delivery.id for due in await second.in_flight(lease)] == [ann.id]
        assert await second.record(lease, [sent(ann)]) == [ann.id]
        assert (await second.due(ACCOUNT, broadcast="brd_1", until=NOW, after=None, limit=5))[0].delivery == ben
        assert await second.conversation(ACCOUNT, "user-ann") == conversation("ann")
    finally:
        await second.close()


@pytest.mark.parametrize(
    ("statement", "uses"),
    [
        (ledger.DUE, "deliveries_due (broadcast=? AND account=? AND (due_at,position,id)>(?,?,?) AND due_at<?)"),
        (ledger.LEFT, "deliveries_due (broadcast=?)"),
        (ledger.ROWS, "deliveries_in_order (broadcast=? AND (position,id)>(?,?))"),
        (ledger.GRANTABLE, "sqlite_autoindex_deliveries_1 (id=?)"),
    ],
)
def test_hot_statements_read_what_they_need(path: Path, statement: str, uses: str) -> None:
    """From an index, in its order: nothing is scanned and nothing sorted, however much is stored."""
    prepare(path)
    wanted = re.findall(r":(\w+)", statement)
    with closing(connect(path)) as db:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", dict.fromkeys(wanted))]
    assert any(uses in line for line in plan), plan
    scans = [line for line in plan if line.startswith("SCAN") and "json_each" not in line and "wanted" not in line]
    assert [*scans, *(line for line in plan if "TEMP B-TREE" in line)] == []
