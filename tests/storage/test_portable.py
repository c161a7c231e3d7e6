"""A whole store carried into another one, into a file and back: nothing is lost, nothing half done is usable."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broadcast.errors import Conflict
from broadcast.model import (
    Audience,
    BroadcastStatus,
    Campaign,
    ChannelName,
    DeliveryState,
    EventType,
    Outcome,
    PresenceState,
    Reason,
)
from broadcast.ports import ApiToken, DeliveryFilter, Page, PresenceCount, Store
from storage import archive, portable
from storage.errors import CannotOpen, Damaged, TooNew, Undecodable
from storage.open import open_store
from storage.records import KINDS, Record
from storage.sqlite import SqliteStore, backup
from storage.sqlite.connection import connect
from tests import mongod
from tests.storage.builders import (
    ACCOUNT,
    NOW,
    absent,
    at,
    attempt,
    broadcast,
    campaign,
    delivery,
    dispatch,
    event,
    launch,
    receipt,
    recipient,
)

PAGE = Page(1, 100)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return address(tmp_path / "from.db")


def address(path: Path) -> str:
    return f"sqlite:///{path}"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = await open_store(url)
    try:
        yield store
    finally:
        await store.close()


async def furnish(url: str) -> None:
    """A little of everything, and nobody at work."""
    async with opened(url) as store:
        await store.ensure_lists({"lst_staff": "Staff"})
        lease, planned = await launch(store, "ann", "ben", "cat", "dan")
        await store.save_recipients(
            [
                recipient(
                    "ann", email="Ann@Example.com", lists=frozenset({"lst_staff"}), attributes={"B": "2", "A": ""}
                ),
                recipient("eve", identities={ChannelName.TELEGRAM: "17", ChannelName.VIBER: "v=="}, created_at=NOW),
            ]
        )
        await store.set_unsubscribed("rcp_eve", at(1))
        await store.save_campaign(campaign(), expected=None)
        await dispatch(store, lease, planned[0])
        await store.record(lease, [absent(planned[1])])
        await store.intend(lease, [replace(planned[2], sends=1, rung_at=NOW)], NOW, limits={"brd_1": 2})
        await store.add_events([event(planned[0].id), event(planned[0].id, EventType.READ, "a0", at=at(3))])
        await store.add_receipts([receipt("dan", "500"), receipt("dan", "400", up_to=True)])
        await store.first_time(ACCOUNT, "update-7", NOW)
        await store.add_presence([PresenceCount(ChannelName.TEAMS, 9, PresenceState.AVAILABLE, 12)])
        await store.save_token(ApiToken("tok_1", "hash", "admin", "first", NOW))
        await store.remember_answer("POST /x", "print", b"\x00{}", NOW)
        await store.release_lease(lease)
        await furnish_old(store)


async def furnish_old(store: Store) -> None:
    """A broadcast whose deliveries were being removed: its counters, and half of them."""
    await store.save_broadcast(broadcast("brd_old"), expected=None)
    skipped: dict[str, Any] = {"state": DeliveryState.SKIPPED, "reason": Reason.CAPPED}
    await store.plan([delivery(name, "brd_old", place, **skipped) for place, name in enumerate(("ann", "ben"))])
    old = broadcast("brd_old", BroadcastStatus.COMPLETED, finished_at=at(1), deliveries_removed_at=at(2))
    await store.save_broadcast(old, expected=BroadcastStatus.RUNNING)
    assert await store.remove_deliveries("brd_old", 1) == 1


async def seen(url: str) -> list[Any]:
    """What the port tells of everything, and of what an engine would find in flight."""
    async with opened(url) as store:
        told: list[Any] = [
            await store.list_ids(),
            await store.recipients("", PAGE),
            await store.audience(Audience(), after="", limit=100),
            await store.campaigns(status=None, q="", channel=None, page=PAGE),
            await store.broadcasts(page=PAGE),
            await store.outlived([BroadcastStatus.COMPLETED], finished_before=at(9), after=None, limit=9),
            await store.was_seen(ACCOUNT, "update-7"),
            await store.presence_seen(),
            await store.tokens(),
            await store.remembered_answer("POST /x", NOW),
        ]
        for one in (await store.broadcasts(page=PAGE)).items:
            rows = await store.deliveries(DeliveryFilter(one.id), PAGE)
            told += [await store.tally(one.id), rows]
            told += [await store.timeline(delivery.id) for delivery, _ in rows.items]
        lease = await store.acquire_lease(ACCOUNT, "worker-9", 30)
        assert lease is not None
        told += [await store.in_flight(lease), await store.next_due(ACCOUNT)]
        await store.release_lease(lease)
        return told


async def carry(origin: str, goal: str) -> list[portable.Compared]:
    source = await portable.source(origin)
    try:
        target = await portable.target(goal)
        try:
            return await portable.carry(source, target)
        finally:
            await target.close()
    finally:
        await source.close()


def listed(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def agreed(compared: Sequence[portable.Compared]) -> bool:
    return all(one.agrees for one in compared)


# --- from store to store ------------------------------------------------------------------------------


async def test_a_copy_of_sqlite_is_the_same_store(sqlite: str, tmp_path: Path) -> None:
    """Whatever the port tells, it tells of both alike."""
    await furnish(sqlite)
    assert agreed(await carry(sqlite, address(tmp_path / "to.db")))
    assert await seen(address(tmp_path / "to.db")) == await seen(sqlite)


async def test_sqlite_moves_to_mongodb_and_back(sqlite: str, mongo: str, tmp_path: Path) -> None:
    """Both ways round nothing is lost, nor changed."""
    await furnish(sqlite)
    assert agreed(await carry(sqlite, mongo))
    assert await seen(mongo) == await seen(sqlite)
    back = address(tmp_path / "back.db")
    assert agreed(await carry(mongo, back))
    assert await seen(back) == await seen(sqlite)


async def test_mongodb_moves_to_mongodb(mongo: str, other_mongo: str) -> None:
    """Counters that were spread over slots are one afterwards, with the same sums."""
    await furnish(mongo)
    assert agreed(await carry(mongo, other_mongo))
    assert await seen(other_mongo) == await seen(mongo)


@pytest.mark.parametrize("kind", ["sqlite", "mongodb"])
async def test_receipts_that_wait_find_their_outcome_in_the_copy(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What overtook its outcome is applied where the broadcast goes on."""
    origin, goal = address(tmp_path / "from.db"), address(tmp_path / "to.db")
    if kind == "mongodb":
        goal = request.getfixturevalue("mongo")
    await furnish(origin)
    await carry(origin, goal)
    async with opened(goal) as store:
        lease = await store.acquire_lease(ACCOUNT, "worker-2", 30)
        assert lease is not None
        await dispatch(store, lease, delivery("dan", position=3), "500")
        found = await store.delivery("dlv_brd_1_dan")
    assert found is not None
    assert found.read_at is not None


#: What only tells rows apart, or in which order they came; and what a note of an intent says in the row's stead.
ORDER = {"key", "number", "delivery", "previous", "last_attempt", "sends", "rung_at"}


def tables(path: Path) -> dict[str, list[str]]:
    """Every row as it lies in the file, but for leases and what only puts rows in order."""
    found = {}
    with closing(connect(path)) as db:
        db.row_factory = sqlite3.Row
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = db.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608 - a name that the database gave
            found[name] = sorted(repr({key: row[key] for key in row.keys() if key not in ORDER}) for row in rows)  # noqa: SIM118 - a row iterates over its values
    return {name: rows for name, rows in found.items() if name not in {"leases", "control"}}


async def test_rows_are_those_that_the_store_itself_writes(sqlite: str, tmp_path: Path) -> None:
    """Columns that are there to be searched are filled too."""
    await furnish(sqlite)
    await carry(sqlite, address(tmp_path / "to.db"))
    assert tables(tmp_path / "to.db") == tables(tmp_path / "from.db")


#: What belongs to one database alone, and what an intent says in the document's stead.
OWN = ("order", "touched", "intent", "sends", "rung_at")


def collections(config: pytest.Config, url: str) -> dict[str, list[str]]:
    """Every document as it is kept, but for those with ids of their own; a field that is none is none at all."""
    database = mongod.databases(config).client[url.rpartition("/")[2].partition("?")[0]]
    return {
        name: sorted(map(described, database[name].find({}, dict.fromkeys(OWN, 0))))
        for name in {*KINDS, "events"} - {"tally", "waiting"}
    }


def described(document: dict[str, Any]) -> str:
    return repr(sorted((name, value) for name, value in document.items() if value is not None))


async def test_documents_are_those_that_the_store_itself_writes(
    mongo: str, other_mongo: str, request: pytest.FixtureRequest
) -> None:
    """Fields that are there to be searched are filled too."""
    await furnish(mongo)
    await carry(mongo, other_mongo)
    mine, theirs = collections(request.config, mongo), collections(request.config, other_mongo)
    assert theirs == mine


async def test_the_sums_name_every_kind(sqlite: str, tmp_path: Path) -> None:
    """Attempts and events are counted apart from their deliveries."""
    await furnish(sqlite)
    counts = {one.kind: one.source.count for one in await carry(sqlite, address(tmp_path / "to.db"))}
    assert counts.keys() == {*KINDS, "attempts", "events"}
    assert (counts["deliveries"], counts["attempts"], counts["events"], counts["waiting"]) == (5, 2, 2, 2)
    assert all(counts.values())


names = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(people=names, attributes=st.dictionaries(texts, texts, max_size=3), ends=st.lists(st.booleans(), max_size=6))
def test_any_small_store_is_copied_whole(
    people: list[str], attributes: dict[str, str], ends: list[bool], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever people are called and however far their deliveries are."""
    folder = tmp_path_factory.mktemp("copy")
    origin, goal = address(folder / "from.db"), address(folder / "to.db")

    async def run() -> None:
        async with opened(origin) as store:
            lease, planned = await launch(store, *people)
            await store.save_recipients([recipient(name, attributes=attributes) for name in people])
            for one, sent in zip(planned, ends, strict=False):
                await (dispatch(store, lease, one) if sent else store.record(lease, [absent(one)]))
            skipped = delivery("z", "brd_2", state=DeliveryState.SKIPPED, reason=Reason.CAPPED)
            await store.plan([skipped], [attempt(skipped, Outcome.ERROR)])
            await store.release_lease(lease)
        assert agreed(await carry(origin, goal))
        assert await seen(goal) == await seen(origin)

    asyncio.run(run())


async def test_two_databases_that_differ_in_a_letter_do_not_agree(sqlite: str, tmp_path: Path) -> None:
    """The checksum sees what the counts do not, and the copy stays unusable."""
    await furnish(sqlite)
    source = await portable.source(sqlite)
    target = await portable.target(address(tmp_path / "to.db"))
    again = iter([False, True])

    def renamed(one: Campaign) -> Campaign:
        return replace(one, name="benefits week") if next(again) else one

    compared = await portable.carry(portable.Changed(source, "campaigns", renamed), target)
    await target.close()
    await source.close()
    assert [one.kind for one in compared if not one.agrees] == ["campaigns"]
    assert not (tmp_path / "to.db").exists()


# --- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["sqlite", "mongo"])
async def test_a_target_with_something_in_it_is_refused(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Nothing is ever mixed."""
    origin, goal = address(tmp_path / "other.db"), request.getfixturevalue(place)
    await furnish(origin)
    async with opened(goal) as store:
        await store.ensure_lists({"lst_own": "Own"})
    with pytest.raises(Conflict, match="is not empty"):
        await carry(origin, goal)
    async with opened(goal) as store:
        assert await store.list_ids() == {"lst_own": "Own"}


@pytest.mark.parametrize("place", ["sqlite", "mongo"])
async def test_a_store_in_use_is_refused_with_the_owner(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A lease that is held is a process at work."""
    origin = request.getfixturevalue(place)
    await furnish(origin)
    async with opened(origin) as store:
        await store.acquire_lease(ACCOUNT, "host-1/4711", 30)
        with pytest.raises(Conflict, match=r"in use \(teams/hr by host-1/4711\); stop"):
            await carry(origin, address(tmp_path / "to.db"))


async def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, mongo: str) -> None:
    """A wrong address copies nothing."""
    for origin in (address(tmp_path / "none.db"), mongo, "memory:"):
        with pytest.raises(CannotOpen):
            await portable.source(origin)
    assert listed(tmp_path) == []


# --- interrupted --------------------------------------------------------------------------------------


class _Breaks(portable.Changed):
    """A source that fails before its deliveries."""

    async def read(self, kind: str) -> AsyncIterator[Sequence[Record]]:
        if kind == "deliveries":
            raise KeyboardInterrupt
        async for page in super().read(kind):
            yield page


async def interrupted(origin: str, goal: str) -> None:
    source, target = await portable.source(origin), await portable.target(goal)
    try:
        with pytest.raises(KeyboardInterrupt):
            await portable.carry(_Breaks(source, "", lambda one: one), target)
    finally:
        await target.close()
        await source.close()


async def test_an_interrupted_copy_to_sqlite_leaves_nothing(sqlite: str, tmp_path: Path) -> None:
    """The target takes its name only when it is whole."""
    await furnish(sqlite)
    before = listed(tmp_path)
    await interrupted(sqlite, address(tmp_path / "to.db"))
    assert listed(tmp_path) == before


async def test_an_interrupted_copy_to_mongodb_is_refused_until_it_is_done_again(sqlite: str, mongo: str) -> None:
    """Nobody starts on half a store; copying again begins anew."""
    await furnish(sqlite)
    await interrupted(sqlite, mongo)
    with pytest.raises(CannotOpen, match=r"unfinished copy of .*from\.db; copy again"):
        await open_store(mongo)
    assert agreed(await carry(sqlite, mongo))
    assert await seen(mongo) == await seen(sqlite)


async def test_a_record_that_cannot_be_read_is_named(sqlite: str, tmp_path: Path) -> None:
    """A copy without it would be no copy."""
    await furnish(sqlite)
    with closing(connect(tmp_path / "from.db")) as db:
        db.execute("UPDATE deliveries SET state = 'lost' WHERE id = 'dlv_brd_1_ben'")
    with pytest.raises(Undecodable, match="delivery dlv_brd_1_ben"):
        await carry(sqlite, address(tmp_path / "to.db"))
    assert not (tmp_path / "to.db").exists()


# --- a file -------------------------------------------------------------------------------------------


async def archived(origin: str, file: Path) -> list[portable.Compared]:
    source = await portable.source(origin)
    target = archive.ArchiveTarget(file, schema=1, counts={})
    try:
        return await portable.carry(source, target)
    finally:
        await target.close()
        await source.close()


async def test_mongodb_goes_into_a_file_and_back(mongo: str, other_mongo: str, tmp_path: Path) -> None:
    """A backup of many machines, readable by its owner only."""
    await furnish(mongo)
    file = tmp_path / "clarion.gz"
    assert agreed(await archived(mongo, file))
    assert (mode(file), archive.is_archive(file)) == (0o600, True)
    source, target = archive.ArchiveSource(file), await portable.target(other_mongo)
    source.check()
    try:
        assert agreed(await portable.carry(source, target))
    finally:
        await target.close()
    assert await seen(other_mongo) == await seen(mongo)


async def test_a_file_that_is_cut_off_is_refused(sqlite: str, tmp_path: Path) -> None:
    """Wherever it ends."""
    await furnish(sqlite)
    file = tmp_path / "clarion.gz"
    await archived(sqlite, file)
    whole = file.read_bytes()
    for length in (2, 40, len(whole) // 2, len(whole) - 9):
        file.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            archive.ArchiveSource(file).check()


async def test_a_line_that_cannot_be_read_is_named(sqlite: str, tmp_path: Path) -> None:
    """So that it can be found, and mended or taken out."""
    await furnish(sqlite)
    file = tmp_path / "clarion.gz"
    await archived(sqlite, file)
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b'"Staff"', b"7")))
    target = await portable.target(address(tmp_path / "to.db"))
    with pytest.raises(Undecodable, match=r"namedlist in line 2 of .*clarion\.gz"):
        await portable.carry(archive.ArchiveSource(file), target)
    await target.close()


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b'{"clarion":2,"counts":{}}', TooNew),
        (b'{"clarion":1,"counts":{},"fields":["recipients.shoe_size"]}', TooNew),
        (b"[]", Damaged),
        (b"?", Damaged),
    ],
)
def test_a_file_of_another_making_is_refused(head: bytes, error: type[Exception], tmp_path: Path) -> None:
    """Newer, or no backup at all."""
    file = tmp_path / "clarion.gz"
    file.write_bytes(gzip.compress(head + b'\n{"end":{}}\n'))
    with pytest.raises(error):
        archive.ArchiveSource(file).check()


# --- a copy of the file of SQLite ---------------------------------------------------------------------


async def test_a_backup_during_writes_is_of_one_moment(tmp_path: Path) -> None:
    """Both rows of every write are in it, or neither; and it ends although somebody always writes."""
    path, file = tmp_path / "clarion.db", tmp_path / "backup.db"
    await (await SqliteStore.open(path)).close()
    with closing(connect(path)) as db:
        db.execute("CREATE TABLE pairs (a INTEGER, b INTEGER, filler BLOB)")
        db.execute("CREATE TABLE others (a INTEGER)")
    done, began = threading.Event(), threading.Event()

    def write() -> None:
        with closing(connect(path)) as db:
            number = 0
            while not done.is_set():
                number += 1
                db.execute("BEGIN IMMEDIATE")
                db.execute("INSERT INTO pairs VALUES (?, ?, zeroblob(20000))", (number, number))
                db.execute("INSERT INTO others VALUES (?)", (number,))
                db.execute("COMMIT")
                if number == 100:
                    began.set()

    writer = threading.Thread(target=write)
    writer.start()
    began.wait(30)
    try:
        await asyncio.to_thread(backup.back_up, path, file, portable.unseen)
    finally:
        done.set()
        writer.join()
    with closing(sqlite3.connect(file)) as db:
        mine = db.execute("SELECT count(*), max(a) FROM pairs").fetchone()
        others = db.execute("SELECT count(*), max(a) FROM others").fetchone()
    assert mine == others
    assert mine[0] == mine[1] >= 100


async def test_a_backup_is_one_private_file(sqlite: str, tmp_path: Path) -> None:
    """Nothing beside it is needed, and nothing is left behind."""
    await furnish(sqlite)
    file = made(tmp_path / "kept") / "backup.db"
    backup.back_up(tmp_path / "from.db", file, portable.unseen)
    assert (listed(file.parent), mode(file)) == ([file.name], 0o600)
    backup.check(file)
    assert await seen(address(file)) == await seen(sqlite)


def spoilt(file: Path, how: str) -> None:
    if how == "damaged":
        content = bytearray(file.read_bytes())
        content[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
        file.write_bytes(content)
        return
    with closing(sqlite3.connect(file)) as db:
        db.execute({"newer": "PRAGMA user_version = 999", "foreign": "PRAGMA application_id = 7"}[how])
        db.commit()


@pytest.mark.parametrize(("how", "error"), [("damaged", Damaged), ("newer", TooNew), ("foreign", CannotOpen)])
async def test_a_file_that_cannot_be_trusted_is_not_restored(
    how: str, error: type[Exception], sqlite: str, tmp_path: Path
) -> None:
    """It is looked at before anything is touched."""
    await furnish(sqlite)
    file, place = tmp_path / "backup.db", tmp_path / "in-place.db"
    backup.back_up(tmp_path / "from.db", file, portable.unseen)
    spoilt(file, how)
    with pytest.raises(error):
        backup.draft_of(file, place)
    assert not [name for name in listed(tmp_path) if name.startswith("in-place")]


async def test_fences_go_on_after_a_restore(sqlite: str, tmp_path: Path) -> None:
    """Whoever held a lease before can write nothing under it any more."""
    path, file = tmp_path / "from.db", tmp_path / "backup.db"
    await furnish(sqlite)
    backup.back_up(path, file, portable.unseen)
    async with opened(sqlite) as store:
        before = await store.acquire_lease(ACCOUNT, "worker-5", 30)
        assert before is not None
        await store.release_lease(before)
    assert backup.replace_with(backup.draft_of(file, path), path, tmp_path / "kept.db")
    async with opened(sqlite) as store:
        after = await store.acquire_lease(ACCOUNT, "worker-5", 30)
    assert after is not None
    assert after.fence > before.fence


async def test_a_database_that_somebody_has_open_is_not_replaced(sqlite: str, tmp_path: Path) -> None:
    """Even one who holds no lease: its writes would go into a file that nobody reads again."""
    path, file = tmp_path / "from.db", tmp_path / "backup.db"
    await furnish(sqlite)
    backup.back_up(path, file, portable.unseen)
    draft = backup.draft_of(file, path)
    async with opened(sqlite) as store:
        await store.ping()
        with pytest.raises(CannotOpen, match="another process has the database open"):
            backup.replace_with(draft, path, tmp_path / "kept.db")
    assert path.exists()
