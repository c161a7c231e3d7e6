"""Broadcasts under any sequence of what people, hosts, engines and recipients do: only allowed moves, and nobody
lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from broadcast import report
from broadcast.errors import Conflict
from broadcast.model import (
    BROADCAST_MOVES,
    DELIVERY_MOVES,
    ENDED_STATUSES,
    OPEN_STATES,
    Broadcast,
    BroadcastReason,
    BroadcastStatus,
    Delivery,
    DeliveryState,
    Schedule,
)
from broadcast.ports import Result, Said
from tests.unit.office import TELEGRAM, Office

B, S = BroadcastStatus, DeliveryState
PEOPLE = ("ann", "ben")


class Play:
    """One broadcast to two people, and every move it was seen to make."""

    def __init__(self) -> None:
        self.office = Office()
        self.seen: list[BroadcastStatus] = []

    async def begin(self) -> None:
        await self.office.hire(*PEOPLE)
        self.broadcast = await self.office.launched(schedule=Schedule(immediate=True))
        await self.look()

    async def now(self) -> Broadcast:
        return await self.office.broadcasts.get(self.broadcast.id)

    async def look(self) -> None:
        status = (await self.now()).status
        if not self.seen or self.seen[-1] is not status:
            self.seen.append(status)

    async def deliveries(self) -> Mapping[str, Delivery]:
        return await self.office.deliveries(self.broadcast)

    # --- what may happen ------------------------------------------------------------------------------

    async def start(self) -> None:
        await self.office.launching.start_due()

    async def boot(self) -> None:
        await self.office.launching.finish_interrupted()

    async def pause(self) -> None:
        await self.office.broadcasts.pause(self.broadcast.id)

    async def resume(self) -> None:
        await self.office.broadcasts.resume(self.broadcast.id)

    async def stop(self) -> None:
        await self.office.broadcasts.stop(self.broadcast.id)

    async def disconnect(self) -> None:
        await self.office.broadcasts.pause_account(TELEGRAM, "down")

    async def send(self) -> None:
        """The engine sends one that it may send, and settles."""
        lease = await self.office.store.acquire_lease(TELEGRAM, "one", 60)
        assert lease is not None
        of, now = self.broadcast.id, self.office.clock.now()
        for due in await self.office.store.due(TELEGRAM, broadcast=of, until=now, after=None, limit=1):
            intent = replace(due.delivery, state=S.SENDING, sends=1)
            if await self.office.store.intend(lease, [intent], self.office.clock.now()):
                now = self.office.clock.now()
                sent = replace(intent, state=S.SENT, sent_at=now, attempted_at=now, ended_at=now)
                await self.office.store.record(lease, [Result(S.SENDING, sent)])
        await self.office.broadcasts.settle(self.broadcast.id)

    async def leave(self) -> None:
        await self.office.says("ann", "STOP")

    async def come_back(self) -> None:
        await self.office.says("ann", "START")

    async def block(self) -> None:
        await self.office.does("ben", Said.BLOCKED)


DEEDS: dict[str, Callable[[Play], Awaitable[None]]] = {
    "start": Play.start,
    "boot": Play.boot,
    "pause": Play.pause,
    "resume": Play.resume,
    "stop": Play.stop,
    "disconnect": Play.disconnect,
    "send": Play.send,
    "leave": Play.leave,
    "come back": Play.come_back,
    "block": Play.block,
}


async def played(deeds: list[str]) -> Play:
    play = Play()
    await play.begin()
    for deed in deeds:
        before = await play.deliveries()
        gone = (await play.office.person("ann")).unsubscribed_at is not None
        try:
            await DEEDS[deed](play)
        except Conflict:  # it says that it cannot, and changes nothing
            assert await play.deliveries() == before
        play.office.clock.move(timedelta(seconds=1))
        await play.look()
        await holds(play, before, gone=gone)
    return play


async def holds(play: Play, before: Mapping[str, Delivery], *, gone: bool) -> None:
    """What is true after every deed."""
    broadcast, after = await play.now(), await play.deliveries()
    for recipient, delivery in before.items():
        state = after[recipient].state
        if state is not delivery.state and delivery.state is not S.PLANNED:
            assert state in DELIVERY_MOVES[delivery.state]
        if gone and recipient == "rcp_ann":
            assert not (state is S.SENT and delivery.state is not S.SENT)
    counted = report.deliveries(await play.office.store.tally(broadcast.id))
    assert counted == {state: sum(one.state is state for one in after.values()) for state in S}
    assert broadcast.planned in {None, len(after)}
    assert (broadcast.finished_at is not None) == (broadcast.status in ENDED_STATUSES)
    assert (broadcast.reason is not None) == (broadcast.status in {B.PAUSED, B.FAILED})
    if broadcast.status in ENDED_STATUSES:
        assert not [one for one in after.values() if one.state in OPEN_STATES]


@given(st.lists(st.sampled_from(sorted(DEEDS)), max_size=14))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_a_broadcast_moves_by_its_table(deeds: list[str]) -> None:
    """Every move seen is an allowed one, or leads through initializing within one call."""
    play = asyncio.run(played(deeds))
    for before, after in zip(play.seen, play.seen[1:], strict=False):
        through = {further for step in BROADCAST_MOVES[before] for further in BROADCAST_MOVES[step]}
        beyond = {further for step in through for further in BROADCAST_MOVES[step]}
        assert after in BROADCAST_MOVES[before] | through | beyond
        assert before not in ENDED_STATUSES


@given(st.lists(st.sampled_from(sorted(set(DEEDS) - {"stop"})), max_size=10))
@settings(max_examples=60, deadline=None)
def test_unless_it_is_stopped_it_can_always_be_brought_to_its_end(deeds: list[str]) -> None:
    """Whatever happened: started, resumed and sent, everybody has an end and it is completed."""

    async def to_the_end() -> Play:
        play = await played(deeds)
        for last in ("start", "resume", "start", "send", "send", "send"):
            try:
                await DEEDS[last](play)
            except Conflict:
                continue
        return play

    play = asyncio.run(to_the_end())
    broadcast = asyncio.run(play.now())
    assert broadcast.status is B.COMPLETED
    assert broadcast.planned == len(PEOPLE)
    assert {one.state for one in asyncio.run(play.deliveries()).values()} <= {S.SENT, S.SKIPPED}


def test_a_pause_by_a_person_and_one_by_an_account_are_told_apart() -> None:
    """The two deeds that pause leave different reasons."""
    reasons = []
    for deed in ("pause", "disconnect"):
        play = asyncio.run(played(["start", deed]))
        reasons.append(asyncio.run(play.now()).reason)
    assert reasons == [BroadcastReason.BY_USER, BroadcastReason.ACCOUNT_DISCONNECTED]
