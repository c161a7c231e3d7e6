"""What is particular to MongoDB: its indexes, its clock, many processes at once, and its faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from broadcast.errors import Conflict, LeaseLost, StoreUnavailable
from broadcast.model import (
    Audience,
    Broadcast,
    BroadcastStatus,
    ConversationState,
    Delivery,
    DeliveryState,
    EventType,
)
from broadcast.ports import DeliveryFilter, Lease, Page, Store
from storage.codec import micros
from storage.errors import CannotOpen, TooNew, Undecodable
from storage.mongo import MongoStore, campaigns, connection, edges, ledger
from storage.mongo.connection import Connection
from storage.mongo.schema import MIGRATIONS
from storage.open import open_store
from tests import mongod
from tests.storage.builders import (
    ACCOUNT,
    NOW,
    Wall,
    absent,
    at,
    broadcast,
    conversation,
    delivery,
    dispatch,
    event,
    launch,
    populate,
    receipt,
    recipient,
    sent,
)

Opener = Callable[..., Awaitable[MongoStore]]
S = DeliveryState


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with mongod.databases(request.config).one() as address:
        yield address


@pytest.fixture
def client(request: pytest.FixtureRequest) -> MongoClient[dict[str, Any]]:
    """For looking behind the store's back, and for making the server fail."""
    return mongod.databases(request.config).client


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Opener]:
    """Opens the test's database as one more process would; closes it afterwards."""
    async with AsyncExitStack() as stack:

        async def open_one(wall: Wall | None = None, options: str = "") -> MongoStore:
            store = await MongoStore.open(url + options, wall=wall)
            stack.push_async_callback(store.close)
            return store

        yield open_one


def database(client: MongoClient[dict[str, Any]], url: str) -> Any:
    return client[url.rpartition("/")[2].partition("?")[0]]


async def counted(store: Store, id: str = "brd_1") -> dict[str, int]:
    """The states as counting the ledger gives them."""
    found: dict[str, int] = {}
    async for one, _ in store.all_deliveries(DeliveryFilter(id)):
        path = f"state/{one.channel}/{one.state}"
        found[path] = found.get(path, 0) + 1
    return found


async def tallied(store: Store, id: str = "brd_1") -> dict[str, int]:
    return {path: count for path, count in (await store.tally(id)).items() if path.startswith("state/")}


# --- opening ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("mongodb://", "cannot be"),
        ("mongodb://127.0.0.1:1", "names no database; write mongodb://"),
        ("mongodb://127.0.0.1:1/?w=majority", "names no database; write mongodb://"),
        ("mongodb://ann:tell-nobody@127.0.0.1:1/clarion?serverSelectionTimeoutMS=50", "no primary answers; check"),
        ("mongodb://127.0.0.1:1/clarion?authMechanism=GUESS", "cannot be"),
        ("mongodb://ann:tell-nobody/x@127.0.0.1/clarion", "cannot be"),
    ],
)
async def test_an_address_that_cannot_be_used_is_told_in_one_line(address: str, words: str) -> None:
    """With what to do about it, and without the password."""
    with pytest.raises(StoreUnavailable) as told:
        await open_store(address)
    assert words in str(told.value)
    assert "\n" not in str(told.value)
    assert "tell-nobody" not in str(told.value)


async def test_a_server_on_its_own_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without a replica set there are no transactions; the line says how to make one."""
    program = mongod.program()
    [port] = mongod.free_ports(1)
    alone = mongod.Mongod(program, tmp_path_factory.mktemp("alone") / "db", port, replica_set=False)
    try:
        mongod.wait(alone.answers, "mongod does not answer")
        with pytest.raises(CannotOpen, match="no replica set; start mongod with --replSet"):
            await open_store(f"mongodb://{alone.address}/clarion?directConnection=true")
    finally:
        alone.stop()


async def test_a_user_needs_no_more_than_to_read_and_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With access control: less is refused with the mend; the role readWrite does everything, also end what a dead
    worker of the same user left open."""
    monkeypatch.setattr(connection, "_ABANDONED", 300_000)
    key = tmp_path / "key"
    key.write_text("onlyForThisTest")
    key.chmod(0o600)
    guarded = mongod.ReplicaSet(mongod.program(), options=(*mongod.SMALL, "--keyFile", str(key)))
    try:
        root = {"pwd": "r", "roles": ["root"]}
        guarded.members[0].command({"createUser": "root", **root})
        with MongoClient[dict[str, Any]](guarded.url("").replace("//", "//root:r@")) as admin:
            for name, role in (("ann", "readWrite"), ("eve", "read")):
                roles = [{"role": role, "db": "clarion"}]
                admin.clarion.command({"createUser": name, "pwd": "tell-nobody", "roles": roles})
        await refuse_strangers(guarded)
        await outlive_a_colleague(guarded.url("clarion").replace("//", "//ann:tell-nobody@"))
    finally:
        guarded.stop()


async def refuse_strangers(guarded: mongod.ReplicaSet) -> None:
    for who, words in (("eve:tell-nobody", "role readWrite"), ("ann:x", "password are refused"), ("", "readWrite")):
        with pytest.raises(CannotOpen, match=words) as told:
            await open_store(guarded.url("clarion").replace("//", f"//{who}@" if who else "//"))
        assert "tell-nobody" not in str(told.value)


async def outlive_a_colleague(url: str) -> None:
    store = await MongoStore.open(url)
    try:
        lease = await store.acquire_lease(ACCOUNT, "worker-1", 0.1)
        assert lease is not None
        with MongoClient[dict[str, Any]](url, appname="clarion") as dead, dead.start_session() as session:
            session.start_transaction()
            dead.clarion.leases.update_one({"_id": ACCOUNT}, {"$inc": {"writes": 1}}, session=session)
            taken = None
            async with asyncio.timeout(8):
                while taken is None:
                    taken = await store.acquire_lease(ACCOUNT, "worker-2", 30)
    finally:
        await store.close()


async def test_an_old_server_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a store promises has been tried from one release on."""
    monkeypatch.setattr(connection, "_OLDEST", (99, 1))
    with pytest.raises(CannotOpen, match=r"too old; upgrade it to 99\.1 or newer"):
        await open_store(url)


async def test_a_newer_database_is_refused(url: str, opened: Opener, client: MongoClient[dict[str, Any]]) -> None:
    """Never downgraded, never guessed at."""
    await opened()
    database(client, url).meta.update_one({"_id": "schema"}, {"$set": {"version": 99}})
    with pytest.raises(TooNew, match=f"schema 99 and this version knows {len(MIGRATIONS)}; upgrade Clarion"):
        await open_store(url)


async def test_an_upgrade_tells_of_every_broadcast_when_it_ended(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """Those that an older version wrote are found by their age as well; upgrading again changes nothing."""
    store = await opened()
    ended = broadcast("brd_1", BroadcastStatus.COMPLETED, finished_at=at(1))
    for one in (ended, broadcast("brd_2")):
        await store.save_broadcast(one, expected=None)
    written = [*database(client, url).broadcasts.find()]
    database(client, url).broadcasts.update_many({}, {"$unset": {"finished_at": "", "removal_done": ""}})
    for _ in range(2):
        database(client, url).meta.update_one({"_id": "schema"}, {"$set": {"version": 2}})
        upgraded = await opened()
        assert await upgraded.outlived([ended.status], finished_before=at(2), after=None, limit=9) == [ended]
        assert [*database(client, url).broadcasts.find()] == written


async def test_an_upgrade_finds_what_is_due_and_in_flight(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """As an older version left them; upgrading again changes nothing."""
    store = await opened()
    lease, [ann, ben] = await launch(store, "ann", "ben")
    await store.intend(lease, [replace(ann, sends=1, rung_at=NOW)], NOW)
    db = database(client, url)
    db.deliveries.update_many({}, {"$unset": {"turn": "", "intent": ""}})
    db.deliveries.update_one({"_id": ann.id}, {"$set": {"sends": 1, "rung_at": micros(NOW)}})
    db.leases.update_many({}, {"$unset": {"claims": ""}})
    db.deliveries.create_index("state", name="due")
    for _ in range(2):
        db.meta.update_one({"_id": "schema"}, {"$set": {"version": 3}})
        upgraded = await opened()
        assert await due(upgraded) == [ben.id]
        [flying] = await upgraded.in_flight(lease)
        assert flying.delivery == replace(ann, state=S.SENDING, sends=1, rung_at=NOW)
        assert "due" not in db.deliveries.index_information()


@pytest.mark.parametrize(
    ("command", "code", "kind", "words"),
    [
        ("createIndexes", 13, CannotOpen, "give it the role readWrite"),
        ("buildInfo", 18, CannotOpen, "user or password are refused"),
        ("createIndexes", 14031, StoreUnavailable, "disk of the database is full"),
        ("createIndexes", 189, StoreUnavailable, "the connection was lost"),
    ],
)
async def test_what_the_server_refuses_is_told_with_the_mend(
    url: str,
    client: MongoClient[dict[str, Any]],
    command: str,
    code: int,
    kind: type[StoreUnavailable],
    words: str,
) -> None:
    """By its code, never by its text."""
    with failing(client, {"failCommands": [command], "errorCode": code}), pytest.raises(kind, match=words) as told:
        await open_store(url + FAILS)
    assert told.value.__cause__ is not None


async def test_many_may_open_a_new_database_at_once(url: str, opened: Opener) -> None:
    """Each finds it ready, whoever made it."""
    stores = await asyncio.gather(*(opened() for _ in range(6)))
    for number, store in enumerate(stores):
        await store.save_broadcast(broadcast(f"brd_{number}"), expected=None)
    assert (await stores[0].broadcasts(page=Page(1, 10))).total == 6


# --- indexes ------------------------------------------------------------------------------------------


async def test_every_hot_query_reads_from_an_index_in_order(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """The server's own record of what it did: no collection is read through, and nothing due is sorted."""
    store = await opened()
    names = [f"n{number}" for number in range(40)]
    lease, planned = await launch(store, *names)
    await store.save_broadcast(broadcast("brd_2"), expected=None)
    await store.plan([delivery(name, "brd_2", position=place) for place, name in enumerate(names)])
    db = database(client, url)
    db.command("profile", 2)
    edge = (NOW, 20, planned[20].id)
    assert len(await store.due(ACCOUNT, broadcast="brd_1", until=at(1), after=edge, limit=100)) == 19
    assert await store.next_due(ACCOUNT) == NOW
    await store.running_on(ACCOUNT)
    await dispatch(store, lease, planned[0])
    await store.add_events([event(planned[0].id)])
    await store.add_receipts([receipt("n0", "100")])
    await store.mark_conversation("cnv_teams_n1", ConversationState.GONE, NOW)
    await store.set_unsubscribed("rcp_n2", NOW)
    await store.cancel_planned("brd_2", NOW, 5)
    await store.deliveries(DeliveryFilter("brd_1"), Page(1, 10))
    await store.timeline(planned[0].id)
    db.command("profile", 0)
    found = [*db["system.profile"].find({"ns": {"$in": [f"{db.name}.{one}" for one in BIG]}})]
    assert {one["op"] for one in found} >= {"query", "command", "update"}
    assert [one["command"] for one in found if "COLLSCAN" in one.get("planSummary", "")] == []
    assert [one["command"] for one in found if one.get("hasSortStage")] == []


BIG = ("deliveries", "recipients", "conversations", "events", "broadcasts", "waiting")


async def test_what_is_due_is_read_no_further_than_asked(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """However many are planned, also at the same moment, also in the middle: as many keys as deliveries."""
    store = await opened()
    names = [f"n{number:03}" for number in range(300)]
    _, planned = await launch(store, *names)
    db = database(client, url)
    db.command("profile", 2)
    for after in (None, (NOW, 250, planned[250].id)):
        await store.due(ACCOUNT, broadcast="brd_1", until=at(1), after=after, limit=10)
    db.command("profile", 0)
    read = [*db["system.profile"].find({"op": "query", "ns": f"{db.name}.deliveries"})]
    assert sum(one["nreturned"] for one in read) == 20
    assert max(one["keysExamined"] for one in read) <= 12


async def test_an_intent_looks_at_no_more_than_it_names(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """However many others are planned: what may be sent is read by id, not by going through all that waits."""
    store = await opened()
    lease, planned = await launch(store, *[f"n{number:03}" for number in range(300)])
    wanted = [replace(one, sends=1, rung_at=NOW) for one in planned[:150]]  # the first that are due, as ever
    db = database(client, url)
    db.command("profile", 2)
    assert len(await store.intend(lease, wanted, NOW)) == 150
    db.command("profile", 0)
    [one] = db["system.profile"].find({"ns": f"{db.name}.deliveries"})
    assert (one["op"], one["planSummary"], one["docsExamined"]) == ("update", "IXSCAN { _id: 1 }", 150)


async def test_no_way_of_a_delivery_writes_an_index(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """Neither its intent nor its end: of one field in an index the keys of all are made anew."""
    store = await opened()
    lease, [ann] = await launch(store, "ann")
    deliveries = database(client, url).deliveries
    indexed = {"_id"}
    for index in deliveries.list_indexes():
        indexed |= {*index["key"], *index.get("partialFilterExpression", {})}
    before = deliveries.find_one()
    result = sent(ann)
    await store.intend(lease, [replace(ann, sends=1, rung_at=NOW)], NOW)
    await store.record(lease, [replace(result, delivery=replace(result.delivery, due_at=None))])
    after = deliveries.find_one()
    written = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert written > {"state", "due_at"}
    assert written & indexed == set()


# --- edges --------------------------------------------------------------------------------------------


async def send(store: Store, lease: Lease, planned: Sequence[Delivery]) -> None:
    assert len(await store.intend(lease, planned, NOW)) == len(planned)
    assert len(await store.record(lease, [sent(one) for one in planned])) == len(planned)


async def due(store: Store, *, after: tuple[datetime, int, str] | None = None, limit: int = 100) -> list[str]:
    found = await store.due(ACCOUNT, broadcast="brd_1", until=at(60), after=after, limit=limit)
    return [one.delivery.id for one in found]


async def test_what_was_sent_is_not_gone_through_again(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """Once it was found that nothing is planned there, whatever asks begins behind it."""
    store = await opened()
    lease, planned = await launch(store, *[f"n{number:03}" for number in range(200)])
    await store.next_due(ACCOUNT)
    await send(store, lease, planned[:150])
    assert len(await due(store)) == 50
    db = database(client, url)
    db.command("profile", 2)
    assert len(await due(store, limit=10)) == 10
    assert await store.next_due(ACCOUNT) == NOW
    db.command("profile", 0)
    read = [*db["system.profile"].find({"op": "query", "ns": f"{db.name}.deliveries"})]
    assert len(read) == 2
    assert max(one["keysExamined"] for one in read) <= 12


async def test_an_edge_follows_whoever_reads_behind_it(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that goes on from where it was asks for the first no more: every now and then it is looked for."""
    monkeypatch.setattr(ledger, "_LOOK_BACK", 20)
    store = await opened()
    lease, planned = await launch(store, *[f"n{number:03}" for number in range(60)])
    after = None
    for begin in range(0, 60, 10):
        assert len(await due(store, after=after, limit=10)) == 10
        last = planned[begin + 9]
        after = (NOW, last.position, last.id)
        await send(store, lease, planned[begin : begin + 10])
    assert database(client, url).edges.find_one()["place"][1] >= 30


async def replan(store: Store, lease: Lease, early: Delivery) -> None:
    await store.record(lease, [replace(absent(early), delivery=replace(early, attempts=1, attempted_at=NOW))])


async def plan_late(store: Store, lease: Lease, early: Delivery) -> None:
    await store.plan([early])


@pytest.mark.parametrize("becomes_planned", [replan, plan_late])
async def test_what_becomes_planned_before_an_edge_is_found(
    opened: Opener, becomes_planned: Callable[[Store, Lease, Delivery], Awaitable[None]]
) -> None:
    """By whomever it is planned, or put back."""
    store, other = await opened(), await opened()
    lease, planned = await launch(store, *(f"n{number}" for number in range(6)))
    await store.save_recipients([recipient("early")])
    await store.save_conversations([conversation("early")])
    await store.next_due(ACCOUNT)
    await send(store, lease, planned[:4])
    left = [one.id for one in planned[4:]]
    assert await due(store) == left
    early = delivery("early", position=0, due_at=at(-60))
    if becomes_planned is replan:
        early = replace(planned[5], due_at=at(-60))
        left.remove(early.id)
    await becomes_planned(other if becomes_planned is plan_late else store, lease, early)
    for one in (store, other):
        assert await due(one) == [early.id, *left]
        assert await one.next_due(ACCOUNT) == at(-60)


async def test_an_edge_is_not_moved_over_what_was_planned_meanwhile(url: str, opened: Opener) -> None:
    """Who looked before does not know of it."""
    store = await opened()
    lease, planned = await launch(store, "ann", "ben")
    db = Connection(url, slots=range(1))
    try:
        seen = await edges.edge(db.access, ACCOUNT, "brd_1")
        behind = (micros(at(30)), 0, "")
        await replan(store, lease, replace(planned[0], due_at=at(10)))
        await edges.move_on(db.access, ACCOUNT, "brd_1", seen, behind)
        assert await due(store) == [planned[1].id, planned[0].id]
        now_seen = await edges.edge(db.access, ACCOUNT, "brd_1")
        await edges.move_on(db.access, ACCOUNT, "brd_1", now_seen, behind)
        assert await due(store) == []
    finally:
        await db.close()


async def test_an_edge_goes_with_the_last_deliveries(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """A broadcast that is nothing but its counters leaves nothing else; those of others stay."""
    store = await opened()
    lease, planned = await launch(store, "ann", "ben")
    await store.plan([delivery("other", broadcast="brd_2")])
    await send(store, lease, planned)
    ended = broadcast("brd_1", BroadcastStatus.COMPLETED, finished_at=at(60), deliveries_removed_at=at(90))
    await store.save_broadcast(ended, expected=BroadcastStatus.RUNNING)
    while await store.remove_deliveries("brd_1", 10):
        pass
    left = [one["_id"]["broadcast"] for one in database(client, url).edges.find()]
    assert left == ["brd_2"]


# --- what is in flight --------------------------------------------------------------------------------


async def test_another_process_is_told_what_is_in_flight(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """By the lease, which forgets what landed, whoever claimed it."""
    store, other = await opened(), await opened()
    lease, planned = await launch(store, *(f"n{number}" for number in range(6)))
    await send(store, lease, planned[:2])
    await store.intend(lease, planned[2:4], NOW)
    await store.intend(lease, planned[4:5], NOW, after=[sent(planned[2])])
    assert [one.delivery.id for one in await other.in_flight(lease)] == [planned[3].id, planned[4].id]
    await other.record(lease, [sent(planned[3]), sent(planned[4])])
    await other.record(lease, [])
    assert await other.in_flight(lease) == []
    assert database(client, url).leases.find_one({"_id": ACCOUNT})["claims"] == {}


# --- leases -------------------------------------------------------------------------------------------


async def test_a_lease_runs_by_the_servers_clock(opened: Opener) -> None:
    """Whatever the clocks of the hosts say."""
    store, other = await opened(), await opened()
    lease = await store.acquire_lease(ACCOUNT, "worker-1", 0.4)
    assert lease is not None
    assert await other.acquire_lease(ACCOUNT, "worker-2", 30) is None
    assert await store.renew_lease(lease, 0.2)
    taken = None
    async with asyncio.timeout(10):
        while taken is None:
            taken = await other.acquire_lease(ACCOUNT, "worker-2", 30)
    assert taken.fence == lease.fence + 1
    with pytest.raises(LeaseLost):
        await store.intend(lease, [], NOW)


async def test_after_a_takeover_the_old_owner_writes_nothing(opened: Opener) -> None:
    """Not even what it began before: once somebody else holds the lease, the account stands still for them."""
    slow, quick = Wall(), Wall()
    store, other = await opened(slow), await opened(quick)
    lease, planned = await launch(store, *(f"n{number}" for number in range(60)))

    async def drive() -> None:
        for one in planned:
            await dispatch(store, lease, one)

    driving = asyncio.create_task(drive())
    await asyncio.sleep(0.1)
    quick.move(31)
    assert await other.acquire_lease(ACCOUNT, "worker-2", 30) is not None
    seen = [await other.delivery(one.id) for one in planned]
    with pytest.raises(LeaseLost):
        await driving
    assert [await other.delivery(one.id) for one in planned] == seen
    assert await tallied(other) == await counted(other)


async def test_what_a_dead_worker_left_open_stands_in_nobodys_way(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction is ended by whoever takes over, long before the server would."""
    monkeypatch.setattr(connection, "_ABANDONED", 300_000)
    wall = Wall()
    store = await opened(wall)
    lease, [ann] = await launch(store, "ann")
    with MongoClient[dict[str, Any]](url, appname="clarion") as dead, dead.start_session() as session:
        session.start_transaction()
        database(dead, url).leases.update_one({"_id": ACCOUNT}, {"$inc": {"writes": 1}}, session=session)
        database(dead, url).deliveries.update_one({"_id": ann.id}, {"$set": {"state": "sent"}}, session=session)
        wall.move(31)
        async with asyncio.timeout(8):
            taken = await store.acquire_lease(ACCOUNT, "worker-2", 30)
        assert taken is not None
        assert taken.fence == lease.fence + 1
        assert await store.intend(taken, [ann], NOW) == [ann.id]


async def test_what_a_dead_worker_left_open_costs_a_takeover_no_second(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that its lease has run out it counts as dead: what it left open is ended at the first look."""
    monkeypatch.setattr(connection, "_ABANDONED", 0)
    wall = Wall()
    store = await opened(wall)
    await launch(store, "ann")
    with MongoClient[dict[str, Any]](url, appname="clarion") as dead, dead.start_session() as session:
        session.start_transaction()
        database(dead, url).leases.update_one({"_id": ACCOUNT}, {"$inc": {"writes": 1}}, session=session)
        wall.move(31)
        began = asyncio.get_running_loop().time()
        assert await store.acquire_lease(ACCOUNT, "worker-2", 30) is not None
        assert asyncio.get_running_loop().time() - began < 1.0


# --- many at once -------------------------------------------------------------------------------------


async def test_two_hosts_count_one_person_once(opened: Opener) -> None:
    """Events of one delivery that arrive at two hosts at once know of each other."""
    one, other = await opened(), await opened()
    lease, [ann] = await launch(one, "ann")
    await dispatch(one, lease, ann)
    clicks = [event(ann.id, key=f"k{number}", at=at(number)) for number in range(12)]
    added = await asyncio.gather(
        *((one if number % 2 else other).add_events([click]) for number, click in enumerate(clicks)),
        *(other.add_events([click]) for click in clicks),
    )
    assert sum(added) == 12
    found = await other.tally("brd_1")
    assert (found["event/clicked/teams/total"], found["event/clicked/teams/people"]) == (12, 1)
    assert found["button/enrol/people"] == 1


async def test_a_receipt_that_meets_its_outcome_is_not_lost(opened: Opener) -> None:
    """Whichever is first, at two hosts."""
    one, other = await opened(), await opened()
    names = [f"n{number}" for number in range(15)]
    lease, planned = await launch(one, *names)
    await one.intend(lease, planned, NOW)
    for name, sending in zip(names, planned, strict=True):
        await asyncio.gather(one.record(lease, [sent(sending, "100")]), other.add_receipts([receipt(name, "100")]))
    stored = [await one.delivery(sending.id) for sending in planned]
    assert [found and found.read_at for found in stored] == [at(4)] * 15


async def test_an_unsubscription_and_an_intent_cannot_both_take_hold(opened: Opener) -> None:
    """Of the two, one comes first, and the other knows."""
    one, other = await opened(), await opened()
    names = [f"n{number}" for number in range(15)]
    lease, planned = await launch(one, *names)
    for name, wanted in zip(names, planned, strict=True):
        granted, _ = await asyncio.gather(
            one.intend(lease, [wanted], NOW), other.set_unsubscribed(f"rcp_{name}", NOW)
        )
        stored = await one.delivery(wanted.id)
        assert stored is not None
        assert stored.state is (S.SENDING if granted else S.SKIPPED)
    assert await tallied(one) == await counted(one)


async def test_hosts_that_ask_at_once_begin_no_more_than_may_be_begun(opened: Opener) -> None:
    """However many accounts, at two hosts: each counts what the others were granted before it."""
    stores = [await opened(), await opened()]
    accounts = [f"teams/{number}" for number in range(6)]
    leases = [await stores[0].acquire_lease(account, "worker-1", 30) for account in accounts]
    for id in ("brd_1", "brd_2", "brd_3"):
        await stores[0].save_broadcast(broadcast(id), expected=None)
        planned = [
            [delivery(f"{name}{account[-1]}", id, account=account) for name in ("ann", "ben", "cat")]
            for account in accounts
        ]
        await stores[0].plan([one for own in planned for one in own])
        asked = [
            stores[place % 2].intend(lease, own, NOW, limits={id: 10})
            for place, (lease, own) in enumerate(zip(leases, planned, strict=True))
            if lease is not None
        ]
        granted = await asyncio.gather(*asked)
        assert sum(map(len, granted)) == 10
        assert await tallied(stores[1], id) == await counted(stores[1], id)


async def test_an_event_and_the_removal_of_its_delivery_cannot_both_take_hold(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """What was counted was there; what was removed left nothing behind."""
    one, other = await opened(), await opened()
    lease, planned = await launch(one, *(f"n{number}" for number in range(15)))
    for wanted in planned:
        await dispatch(one, lease, wanted)
    ended = broadcast(status=BroadcastStatus.COMPLETED, finished_at=NOW, deliveries_removed_at=NOW)
    await one.save_broadcast(ended, expected=BroadcastStatus.RUNNING)
    counted = 0
    for wanted in planned:
        click = event(wanted.id, key=f"click {wanted.id}")
        removed, added = await asyncio.gather(one.remove_deliveries("brd_1", 1), other.add_events([click]))
        assert removed == 1
        counted += added
    assert (await one.tally("brd_1")).get("event/clicked/teams/total", 0) == counted
    assert [*database(client, url).events.find()] == []


async def test_an_erasure_and_a_start_know_of_each_other(opened: Opener) -> None:
    """Whoever is erased is not read by a plan that could outlive the erasure."""
    one, other = await opened(), await opened()
    names = [f"n{number}" for number in range(10)]
    await populate(one, *names)
    for number, name in enumerate(names):
        waits = broadcast(f"brd_{name}", BroadcastStatus.SCHEDULED, audience=Audience())
        begun = replace(waits, status=BroadcastStatus.INITIALIZING)
        await one.save_broadcast(waits, expected=None)

        async def start(begun: Broadcast = begun, later: int = number % 5) -> set[str]:
            for _ in range(later):
                await other.control_version()
            await other.save_broadcast(begun, expected=BroadcastStatus.SCHEDULED)
            return {person.id for person, _ in await other.audience(begun.audience, after="", limit=99)}

        erased, planned = await asyncio.gather(
            one.erase_recipient(f"rcp_{name}", NOW), start(), return_exceptions=True
        )
        assert isinstance(planned, set)
        assert isinstance(erased, Conflict) == (f"rcp_{name}" in planned)
        await one.save_broadcast(replace(begun, status=BroadcastStatus.RUNNING), expected=begun.status)


async def test_two_workers_on_two_accounts_of_one_broadcast(opened: Opener) -> None:
    """Neither waits for the other, and the counters add up."""
    one, other = await opened(), await opened()
    lease = await populate(one, *(f"n{number}" for number in range(40)))
    second = await other.acquire_lease("teams/it", "worker-2", 30)
    assert second is not None
    mine = [delivery(f"n{number}", position=number) for number in range(20)]
    theirs = [delivery(f"n{number}", position=number, account="teams/it") for number in range(20, 40)]
    await one.plan([*mine, *theirs])

    async def drive(store: Store, held: Lease, planned: list[Delivery]) -> None:
        for wanted in planned:
            await dispatch(store, held, wanted)

    await asyncio.gather(drive(one, lease, mine), drive(other, second, theirs))
    assert await tallied(one) == await counted(one) == {"state/teams/sent": 40}


async def test_a_burst_is_taken_in_whole(opened: Opener) -> None:
    """Calls that come together are written together; each is told what of it was new, and nobody waits for all."""
    store = await opened()
    names = [f"n{number:03}" for number in range(300)]
    _, planned = await launch(store, *names)
    clicks = [event(one.id, key=f"click {one.id}") for one in planned]
    added = await asyncio.gather(*(store.add_events([click, clicks[0]]) for click in clicks))
    assert added == [1] * 300
    firsts = await asyncio.gather(*(store.first_time(ACCOUNT, name, NOW) for name in [*names, *names]))
    assert firsts == [True] * 300 + [False] * 300
    assert (await store.tally("brd_1"))["event/clicked/teams/people"] == 300


async def test_of_a_burst_only_what_is_at_fault_is_refused(opened: Opener) -> None:
    """Those that came with it are kept."""
    store = await opened()
    await store.save_conversations([conversation("ann")])
    thief = conversation("eve", id="cnv_teams_ann")
    told = await asyncio.gather(
        *(store.save_conversations([one]) for one in (conversation("ben"), thief, conversation("cat"))),
        return_exceptions=True,
    )
    assert [type(one).__name__ for one in told] == ["NoneType", "Conflict", "NoneType"]
    assert [bool(await store.conversation(ACCOUNT, f"user-{name}")) for name in ("ben", "eve", "cat")] == [
        True,
        False,
        True,
    ]


async def test_plans_that_overlap_count_each_once(opened: Opener) -> None:
    """Two that resolve the same audience at once plan everybody once."""
    one, other = await opened(), await opened()
    await populate(one, "ann")
    planned = [delivery(f"n{number}", position=number) for number in range(50)]
    new = await asyncio.gather(one.plan(planned), other.plan(planned), one.plan(planned[25:]))
    assert sum(new) == 50
    assert await tallied(one) == {"state/teams/planned": 50}


async def test_control_writes_of_others_are_told_at_once(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without looking every now and then."""
    monkeypatch.setattr(campaigns, "_LOOK_SECONDS", 60.0)
    monkeypatch.setattr(campaigns, "_POLL_SECONDS", 0.1)
    one, other = await opened(), await opened()
    seen = await one.control_version()
    waiting = asyncio.create_task(one.wait_control(seen))
    await asyncio.sleep(0.5)  # real time: the stream is the server's
    await other.save_broadcast(broadcast(), expected=None)
    assert await asyncio.wait_for(waiting, 5) == seen + 1


async def test_without_the_right_to_listen_waiters_look(
    opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """A change stream that is refused only makes it a little later."""
    with failing(client, {"failCommands": ["aggregate"], "errorCode": 13}):
        one, other = await opened(options=FAILS), await opened()
        waiting = asyncio.create_task(one.wait_control(await one.control_version()))
        await asyncio.sleep(0.1)
        await other.save_broadcast(broadcast(), expected=None)
        assert await asyncio.wait_for(waiting, 2) == await other.control_version()


# --- faults -------------------------------------------------------------------------------------------

FAILS = "&appName=clarion-that-fails"


@contextmanager
def failing(client: MongoClient[dict[str, Any]], data: dict[str, Any], times: int | None = None) -> Iterator[None]:
    """The server fails commands of those that open with `FAILS`: the first `times`, or all meanwhile."""
    point: dict[str, Any] = {"configureFailPoint": "failCommand", "data": {**data, "appName": "clarion-that-fails"}}
    client.admin.command({**point, "mode": "alwaysOn" if times is None else {"times": times}})
    try:
        yield
    finally:
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


TRANSIENT = ["TransientTransactionError"]
UNKNOWN = ["UnknownTransactionCommitResult"]


@pytest.mark.parametrize(
    "fault",
    [
        {"failCommands": ["update"], "errorCode": 112, "errorLabels": TRANSIENT},
        {"failCommands": ["aggregate"], "closeConnection": True},
        {"failCommands": ["commitTransaction"], "errorCode": 112, "errorLabels": TRANSIENT},
        {"failCommands": ["commitTransaction"], "errorCode": 89, "errorLabels": ["RetryableWriteError", *UNKNOWN]},
        {"failCommands": ["commitTransaction"], "closeConnection": True},
    ],
)
async def test_what_passes_is_not_noticed(
    opened: Opener, client: MongoClient[dict[str, Any]], fault: dict[str, Any]
) -> None:
    """A race lost or a connection broken, once or twice: it is done again, and done once."""
    store = await opened(options=FAILS)
    lease, [ann] = await launch(store, "ann")
    for times in (1, 2):
        with failing(client, fault, times):
            granted = await store.intend(lease, [replace(ann, sends=times)], NOW)
        assert granted == ([ann.id] if times == 1 else [])
    with failing(client, fault, 2):
        assert await store.record(lease, [sent(ann)]) == [ann.id]
    assert len(await store.timeline(ann.id)) == 1
    assert await tallied(store) == await counted(store) == {"state/teams/sent": 1}


async def test_a_server_that_stays_away_is_told_and_nothing_is_written(
    opened: Opener, client: MongoClient[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads and writes raise `StoreUnavailable` with its cause; afterwards everything is as before."""
    monkeypatch.setattr(connection, "_PATIENCE", 0.3)
    store = await opened(options=FAILS + "&serverSelectionTimeoutMS=200")
    lease, [ann, ben] = await launch(store, "ann", "ben")
    gone = {"failCommands": ["update", "find", "aggregate", "insert"], "closeConnection": True}
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.intend(lease, [ann], NOW),
        lambda: store.record(lease, [absent(ben)]),
        lambda: store.due(ACCOUNT, broadcast="brd_1", until=NOW, after=None, limit=1),
        lambda: store.first_time(ACCOUNT, "k", NOW),
        store.ping,
    ]
    with failing(client, gone):
        for call in calls:
            with pytest.raises(StoreUnavailable) as told:
                await call()
            assert told.value.__cause__ is not None
    assert [await store.delivery(one.id) for one in (ann, ben)] == [ann, ben]
    assert await store.intend(lease, [ann], NOW) == [ann.id]


async def test_an_intent_of_which_nobody_knows_is_put_back(
    opened: Opener, client: MongoClient[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed, but the answer was lost for long: who asked was told no, and can ask again. Its place is free."""
    monkeypatch.setattr(connection, "_COMMIT_PATIENCE", 0.3)
    store, other = await opened(options=FAILS), await opened()
    lease, [ann, ben] = await launch(store, "ann", "ben")
    wanted = replace(ann, sends=1, rung_at=NOW)
    lost = {
        "failCommands": ["commitTransaction"],
        "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"},
    }
    with failing(client, lost), pytest.raises(StoreUnavailable):
        await store.intend(lease, [wanted], NOW)
    written = await other.delivery(ann.id)
    assert written is not None
    assert written.state is S.SENDING
    assert await store.intend(lease, [replace(ben, sends=1)], NOW, limits={"brd_1": 1}) == [ben.id]
    assert await store.delivery(ann.id) == ann
    assert await store.intend(lease, [wanted], NOW) == [ann.id]
    assert await tallied(store) == await counted(store) == {"state/teams/sending": 2}


async def test_a_result_of_which_nobody_knows_is_written_once(
    opened: Opener, client: MongoClient[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed, but the answer was lost for long: given again, also where it leaves the state as it was, it adds
    no line and counts nothing."""
    monkeypatch.setattr(connection, "_COMMIT_PATIENCE", 0.3)
    store = await opened(options=FAILS)
    lease, [ann, ben] = await launch(store, "ann", "ben")
    assert await store.intend(lease, [ann], NOW) == [ann.id]
    lost = {
        "failCommands": ["commitTransaction"],
        "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"},
    }
    with failing(client, lost), pytest.raises(StoreUnavailable):
        await store.record(lease, [sent(ann), absent(ben)])
    counted_once = await store.tally("brd_1")
    assert counted_once["round/1/first/absent"] == counted_once["round/1/first/sent"] == 1
    assert await store.record(lease, [sent(ann), absent(ben)]) == []
    assert await store.tally("brd_1") == counted_once
    assert [len(await store.timeline(one.id)) for one in (ann, ben)] == [1, 1]


async def test_whoever_stops_waiting_stops_no_write(opened: Opener) -> None:
    """A cancelled call leaves its transaction whole; closing waits for it."""
    store, other = await opened(), await opened()
    lease, [ann] = await launch(store, "ann")
    asked = asyncio.create_task(store.intend(lease, [ann], NOW))
    await asyncio.sleep(0.001)
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await asked
    await store.close()
    assert await tallied(other) == await counted(other)


async def test_a_record_that_cannot_be_read_is_named(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """Its neighbours are not harmed."""
    store = await opened()
    _, [ann, ben] = await launch(store, "ann", "ben")
    db = database(client, url)
    db.deliveries.update_one({"_id": ann.id}, {"$set": {"rung": "ladder"}})
    db.broadcasts.update_one({"_id": "brd_1"}, {"$set": {"doc": "{}"}})
    with pytest.raises(Undecodable, match=ann.id):
        await store.delivery(ann.id)
    with pytest.raises(Undecodable, match="brd_1"):
        await store.broadcast("brd_1")
    assert await store.delivery(ben.id) == ben


async def test_counters_may_be_named_anything(opened: Opener) -> None:
    """What MongoDB reads in the names of fields is only text in a button's."""
    store = await opened()
    _, [ann] = await launch(store, "ann")
    button = "$a.b%2e.c"
    await store.add_events([event(ann.id, EventType.CLICKED, button=button)])
    assert (await store.tally("brd_1"))[f"button/{button}/total"] == 1


async def test_a_status_is_the_only_thing_a_pause_writes(
    url: str, opened: Opener, client: MongoClient[dict[str, Any]]
) -> None:
    """However many deliveries it holds back."""
    store = await opened()
    await launch(store, *(f"n{number}" for number in range(30)))
    db = database(client, url)
    before = [*db.deliveries.find()]
    await store.save_broadcast(broadcast(status=BroadcastStatus.PAUSED), expected=BroadcastStatus.RUNNING)
    assert [*db.deliveries.find()] == before
    assert await store.due(ACCOUNT, broadcast="brd_1", until=at(1), after=None, limit=100) == []
