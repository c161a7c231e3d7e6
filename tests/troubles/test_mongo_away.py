"""MongoDB is killed, cut off, slow, or does not tell what became of a write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pymongo import MongoClient

from bot.leases import Standing
from broadcast.model import DeliveryState
from broadcast.ports import Lease, Result
from sandbox.server import Sandbox
from storage.mongo import MongoStore, connection
from tests import mongod
from tests.troubles.proxy import Proxy, proxied
from tests.troubles.stage import KEY, PEOPLE, QUICK, Logged, Stage, said, until, waits

IMPATIENT = "serverSelectionTimeoutMS=500&connectTimeoutMS=500&heartbeatFrequencyMS=500"
AWAY = "MongoDB: no primary answers; check the address, the network, and that mongod runs"
SLOW = "clarion-that-is-slow"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def client(request: pytest.FixtureRequest) -> MongoClient[dict[str, Any]]:
    return mongod.databases(request.config).client


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with mongod.databases(request.config).one() as address:
        yield address


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds what a service does in tens of them: asks what became of a write, ends what was left open."""
    monkeypatch.setattr(connection, "_PATIENCE", 1.5)
    monkeypatch.setattr(connection, "_COMMIT_PATIENCE", 1.0)
    monkeypatch.setattr(connection, "_STUCK", 0.3)
    monkeypatch.setattr(connection, "_ABANDONED", 300_000)


@asynccontextmanager
async def staged(sandbox: Sandbox, url: str) -> AsyncIterator[Stage]:
    store = await MongoStore.open(url)
    stage = Stage(sandbox, store)
    try:
        await stage.launch()
        yield stage
    finally:
        await stage.channel.close()
        await store.close()


@asynccontextmanager
async def cut_off(client: MongoClient[dict[str, Any]], url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A network to the primary that obeys, and the address behind it."""
    client.admin.command("ping")  # finds the primary
    assert client.primary is not None
    async with proxied(*client.primary) as proxy:
        name = url.rpartition("/")[2].partition("?")[0]
        yield proxy, f"mongodb://127.0.0.1:{proxy.port}/{name}?directConnection=true&{IMPATIENT}"


async def test_a_killed_database_delays_and_doubles_nothing(
    sandbox: Sandbox, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing goes out without it; when it is there again everybody gets their one message."""
    be_impatient(monkeypatch)
    server = mongod.ReplicaSet(mongod.program())
    try:
        async with staged(sandbox, server.url("clarion", f"&{IMPATIENT}")) as stage:
            async with stage.driven() as engine:
                await stage.arrive(PEOPLE // 4)
                server.members[0].kill()
                await waits(logged, engine, AWAY)
                stood = stage.arrived
                await waits(logged, engine, AWAY)
                assert stage.arrived == stood < PEOPLE
                server.members[0].start()
                await stage.completed()
                await until(lambda: engine.status.trouble is None, "the trouble is over, and still told of")
            await stage.assert_each_got_one()
    finally:
        server.stop()


async def test_a_network_that_is_cut_delays_and_doubles_nothing(
    sandbox: Sandbox, client: MongoClient[dict[str, Any]], url: str, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection breaks and none is made for a while; then it goes on by itself."""
    be_impatient(monkeypatch)
    async with cut_off(client, url) as (proxy, address), staged(sandbox, address) as stage:
        async with stage.driven() as engine:
            await stage.arrive(PEOPLE // 4)
            await proxy.cut()
            await waits(logged, engine, AWAY)
            stood = stage.arrived
            assert stood < PEOPLE
            begun = await intended(client, url)
            assert {who for who, copies in stage.copies().items() if copies} <= begun
            await proxy.mend()
            await stage.completed()
        await stage.assert_each_got_one()


async def test_who_is_cut_off_gives_way_to_a_colleague(
    sandbox: Sandbox, client: MongoClient[dict[str, Any]], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker takes the account and ends the broadcast; of what was in flight nobody can know, and it is
    listed. Once the network is whole the first one stands by, and has changed nothing."""
    be_impatient(monkeypatch)
    colleague = await MongoStore.open(url)
    async with cut_off(client, url) as (proxy, address), staged(sandbox, address) as stage:
        first, second = stage.worker("worker-1"), stage.worker("worker-2", colleague)
        try:
            first.start()
            await stage.arrive(PEOPLE // 4)
            second.start()
            await proxy.cut()
            await stage.completed(colleague)
            found = await stage.rows(colleague)
            await proxy.mend()
            await until(lambda: first.standings[KEY] is Standing.STANDING_BY, "the first one does not give way")
            assert await stage.rows(colleague) == found
            assert {row.state for row in found.values()} == {DeliveryState.SENT}
            copies = stage.copies()
            assert min(copies.values()) == 1
            assert {who for who, number in copies.items() if number > 1} <= {
                who for who, row in found.items() if row.possibly_doubled
            }
        finally:
            await first.stop()
            await second.stop()
            await colleague.close()


async def intended(client: MongoClient[dict[str, Any]], url: str) -> set[str]:
    """Those of whom the database says that an intent was written, asked past the network that is cut."""
    name = url.rpartition("/")[2].partition("?")[0]
    found = client[name].deliveries.find({"state": {"$ne": "planned"}})
    return {one["recipient"] for one in found}


@pytest.mark.parametrize("patience", [0.3, 20.0])
async def test_a_commit_whose_answer_is_lost_is_done_once(
    sandbox: Sandbox,
    client: MongoClient[dict[str, Any]],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    patience: float,
) -> None:
    """Whether the connection is back while the outcome is still asked after, or so late that nobody can know: what
    the engine then writes again counts once."""
    monkeypatch.setattr(connection, "_COMMIT_PATIENCE", patience)
    async with cut_off(client, url) as (proxy, address), staged(sandbox, address) as stage:
        async with stage.driven() as engine:
            for part in range(1, 5):
                await stage.arrive(PEOPLE * part // 6)
                proxy.lose_answer_to(b"commitTransaction")
                async with asyncio.timeout(15):
                    await proxy.lost.wait()
                if patience < 1:
                    await until(lambda: engine.status.trouble is not None, "no trouble is told of")
                await proxy.mend()
            await stage.completed()
        await stage.assert_each_got_one()


# --- slow ---------------------------------------------------------------------------------------------


class Told(MongoStore):
    """Notes what was recorded."""

    results: list[Result]

    async def intend(self, *asked: Any, after: Sequence[Result] = (), **named: Any) -> list[str]:
        self.results += after
        return await super().intend(*asked, after=after, **named)

    async def record(self, lease: Lease, results: Sequence[Result]) -> list[str]:
        self.results += results
        return await super().record(lease, results)


@contextmanager
def slow(client: MongoClient[dict[str, Any]], milliseconds: int) -> Iterator[None]:
    """Every commit takes that long meanwhile."""
    data = {
        "failCommands": ["commitTransaction"],
        "blockConnection": True,
        "blockTimeMS": milliseconds,
        "appName": SLOW,
    }
    client.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        yield
    finally:
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def handed_back(results: Sequence[Result]) -> list[str]:
    """Those whose intent was written, and taken back before anything was sent."""
    return [one.delivery.id for one in results if one.before is DeliveryState.SENDING and one.attempt is None]


async def test_an_intent_that_took_too_long_is_judged_anew(
    sandbox: Sandbox, client: MongoClient[dict[str, Any]], url: str, logged: Logged
) -> None:
    """A database that is slower than an intent lives: nothing is sent on an old intent, nobody is forgotten, and it
    is told why nothing goes out."""
    store = await Told.open(f"{url}&appName={SLOW}")
    store.results = []
    stage = Stage(sandbox, store)
    try:
        await stage.launch()
        async with stage.driven(options=replace(QUICK, intent_life=timedelta(seconds=0.3))) as engine:
            await stage.arrive(PEOPLE // 4)
            with slow(client, 600):
                await until(lambda: len(handed_back(store.results)) > 1, "nothing was handed back")
                stood = stage.arrived
                before = len(handed_back(store.results))
                await until(lambda: len(handed_back(store.results)) > before, "nothing more was handed back")
                assert stage.arrived == stood < PEOPLE
                assert "the store is slow" in str(engine.status.trouble)
                assert said(logged, "store_slow")
            await stage.completed()
            await until(lambda: engine.status.trouble is None, "the trouble is over, and still told of")
        await stage.assert_each_got_one()
    finally:
        await stage.channel.close()
        await store.close()
