"""A replica set of three whose primary is killed in the middle: nothing that was confirmed is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest

from broadcast.errors import StoreUnavailable
from broadcast.model import Delivery, DeliveryState
from broadcast.ports import DeliveryFilter, Lease, Store
from storage.mongo import MongoStore
from tests import mongod
from tests.storage.builders import NOW, delivery, event, populate, sent

T = TypeVar("T")
_BATCH = 10
_DELIVERIES = 400
_KILLED_AFTER = 100  # clicks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def replicas() -> Iterator[mongod.ReplicaSet]:
    started = mongod.ReplicaSet(mongod.program(), members=3)
    yield started
    started.stop()


async def durably(write: Callable[[], Awaitable[T]]) -> T:
    """As the engine does: again, until the store can."""
    while True:
        try:
            return await write()
        except StoreUnavailable:
            await asyncio.sleep(0.1)  # real time: an election


async def drive(store: Store, lease: Lease, planned: list[Delivery], confirmed: asyncio.Queue[str]) -> None:
    """From planned to sent, batch by batch; tells what was granted and what was written."""
    for begin in range(0, len(planned), _BATCH):
        wanted = [replace(one, sends=1, rung_at=NOW) for one in planned[begin : begin + _BATCH]]
        granted = await durably(partial(store.intend, lease, wanted, NOW))
        assert sorted(granted) == sorted(one.id for one in wanted)
        results = [sent(one, one.id) for one in wanted]
        await durably(partial(store.record, lease, results))
        for id in granted:
            confirmed.put_nowait(id)


async def click(store: Store, confirmed: asyncio.Queue[str], halfway: asyncio.Event) -> None:
    """Somebody who clicks on everything that arrived."""
    for number in range(_DELIVERIES):
        if number == _KILLED_AFTER:
            halfway.set()
        id = await confirmed.get()
        clicked = event(id, key=f"click {id}")
        await durably(partial(store.add_events, [clicked]))


async def test_a_killed_primary_loses_nothing(replicas: mongod.ReplicaSet) -> None:
    """The broadcast goes on by itself and ends whole: each sent once, each click counted once, counters right."""
    worker, host = [await MongoStore.open(replicas.url("clarion")) for _ in range(2)]
    names = [f"n{number:03}" for number in range(_DELIVERIES)]
    lease = await populate(worker, *names)
    assert await worker.renew_lease(lease, 600)
    planned = [delivery(name, position=place) for place, name in enumerate(names)]
    await worker.plan(planned)
    confirmed: asyncio.Queue[str] = asyncio.Queue()
    driving = asyncio.create_task(drive(worker, lease, planned, confirmed))
    halfway = asyncio.Event()
    clicking = asyncio.create_task(click(host, confirmed, halfway))
    await halfway.wait()
    killed = replicas.primary
    await asyncio.to_thread(killed.kill)
    await asyncio.gather(driving, clicking)
    assert replicas.primary is not killed
    found = await host.tally("brd_1")
    rows = [row async for row, _ in host.all_deliveries(DeliveryFilter("brd_1"))]
    lines = [len(await host.timeline(row.id)) for row in rows]
    await worker.close()
    await host.close()
    assert {row.state for row in rows} == {DeliveryState.SENT}
    assert lines == [2] * _DELIVERIES
    assert (found["state/teams/sent"], found["event/clicked/teams/people"]) == (_DELIVERIES, _DELIVERIES)
    assert "state/teams/sending" not in found
