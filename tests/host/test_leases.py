"""Turns at a lease: who works, who stands by, and what follows when something breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from bot.leases import Standing, Terms, Turn
from broadcast.errors import LeaseLost, StoreUnavailable
from broadcast.ports import Lease
from storage.memory import MemoryStore

TERMS = Terms(lease=0.3, renew=0.05, ask_again=0.02)


class Seat:
    """Runs turns and notes who works."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.working: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.turns: dict[str, Turn] = {}

    def sit(
        self, owner: str, work: Callable[[Lease], Awaitable[None]] | None = None, *, fenced: bool = False
    ) -> Turn:
        async def by_default(_: Lease) -> None:
            self.working.append(owner)
            try:
                await asyncio.Event().wait()
            finally:
                self.working.remove(owner)

        turn = self.turns[owner] = Turn(
            self.store, "telegram/news", owner, work or by_default, terms=TERMS, fenced=fenced
        )
        self.tasks[owner] = asyncio.create_task(turn.run())
        return turn

    async def leave(self, owner: str) -> None:
        task = self.tasks.pop(owner)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.005)


@pytest.fixture
def seat(request: pytest.FixtureRequest) -> Seat:
    return Seat()


async def test_one_works_and_the_other_stands_by(seat: Seat) -> None:
    """Also after several terms: the lease is renewed."""
    seat.sit("a")
    await seat.until(lambda: seat.working == ["a"])
    other = seat.sit("b")
    await asyncio.sleep(TERMS.lease * 2)
    assert (seat.working, other.standing) == (["a"], Standing.STANDING_BY)
    await seat.leave("a")
    await seat.leave("b")


async def test_who_leaves_gives_the_lease_back(seat: Seat) -> None:
    """The next one does not wait for it to run out."""
    seat.sit("a")
    seat.sit("b")
    await seat.until(lambda: len(seat.working) == 1)
    [first] = seat.working
    [second] = {"a", "b"} - {first}
    await seat.leave(first)
    await seat.until(lambda: seat.working == [second])
    await seat.leave(second)


def test_a_death_is_made_good_within_ten_seconds() -> None:
    """By the terms of a service a lease runs out, and is asked for again, well before what is promised."""
    assert Terms().lease + Terms().ask_again <= 8.5


async def test_a_dead_ones_lease_is_taken_as_soon_as_its_terms_allow(seat: Seat) -> None:
    """Who stands by works when the lease has run out and was asked for once more."""
    began = asyncio.get_running_loop().time()
    assert await seat.store.acquire_lease("telegram/news", "dead", TERMS.lease) is not None
    seat.sit("b")
    await seat.until(lambda: seat.working == ["b"])
    took = asyncio.get_running_loop().time() - began
    assert TERMS.lease <= took < TERMS.lease + TERMS.ask_again + 0.5  # what a busy machine may add
    await seat.leave("b")


async def test_who_loses_the_lease_stops_at_once(seat: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal that is refused ends the work, and then it is asked for again."""
    turn = seat.sit("a")
    await seat.until(lambda: seat.working == ["a"])

    async def refuse(*_: object) -> bool:
        return False

    monkeypatch.setattr(seat.store, "renew_lease", refuse)
    await seat.until(lambda: seat.working == [])
    monkeypatch.undo()
    await seat.until(lambda: seat.working == ["a"])
    assert turn.failures == 0
    await seat.leave("a")


async def test_a_store_that_stays_away_ends_the_work_before_others_may_begin(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cannot renew does not work on beyond the term."""
    seat.sit("a")
    await seat.until(lambda: seat.working == ["a"])

    async def fail(*_: object) -> bool:
        raise StoreUnavailable("the disk cannot be written")

    monkeypatch.setattr(seat.store, "renew_lease", fail)
    began = asyncio.get_running_loop().time()
    await seat.until(lambda: seat.working == [])
    assert asyncio.get_running_loop().time() - began < TERMS.lease + TERMS.renew
    await seat.leave("a")


@pytest.mark.parametrize("taken", [False, True])
async def test_fenced_work_outlasts_a_store_that_is_away(
    seat: Seat, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    """For longer than the lease lasts: it goes on as soon as the store is back, unless somebody else took over."""
    begun: list[Lease] = []

    async def work(lease: Lease) -> None:
        begun.append(lease)
        seat.working.append("a")
        try:
            await asyncio.Event().wait()
        finally:
            seat.working.remove("a")

    turn = seat.sit("a", work, fenced=True)
    await seat.until(lambda: seat.working == ["a"])
    asked: list[float] = []

    async def fail(*_: object) -> bool:
        asked.append(asyncio.get_running_loop().time())
        raise StoreUnavailable("the disk cannot be written")

    monkeypatch.setattr(seat.store, "renew_lease", fail)
    await seat.until(lambda: bool(asked) and asked[-1] - asked[0] > 2 * TERMS.lease)
    assert (seat.working, len(begun)) == (["a"], 1)
    if taken:
        assert await seat.store.acquire_lease("telegram/news", "b", 60.0) is not None
    monkeypatch.undo()
    if taken:
        await seat.until(lambda: seat.working == [])
    else:
        async with asyncio.timeout(5):
            while not await seat.store.renew_lease(begun[0], TERMS.lease):  # noqa: ASYNC110 - has no event
                await asyncio.sleep(0.01)
        assert (seat.working, turn.standing) == (["a"], Standing.HOLDING)
    assert len(begun) == 1
    await seat.leave("a")


async def test_a_store_that_stumbles_does_not_end_the_work(seat: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    """One renewal that fails is tried again."""
    turn = seat.sit("a")
    await seat.until(lambda: seat.working == ["a"])
    renew, calls = seat.store.renew_lease, []

    async def stumble(lease: Lease, seconds: float) -> bool:
        calls.append(lease)
        if len(calls) == 1:
            raise StoreUnavailable("busy")
        return await renew(lease, seconds)

    monkeypatch.setattr(seat.store, "renew_lease", stumble)
    await seat.until(lambda: len(calls) > 3)
    assert (seat.working, turn.standing) == (["a"], Standing.HOLDING)
    await seat.leave("a")


async def test_work_that_fails_begins_anew(seat: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted, and after a pause it is tried again."""
    begun = []

    async def fail_once(_: Lease) -> None:
        begun.append(1)
        if len(begun) == 1:
            raise RuntimeError("a fault of ours")
        await asyncio.Event().wait()

    turn = seat.sit("a", fail_once)
    await seat.until(lambda: turn.standing is Standing.RECOVERING)
    await seat.until(lambda: len(begun) == 2)
    assert turn.failures == 1
    await seat.leave("a")


async def test_work_that_says_the_lease_is_lost_is_no_failure(seat: Seat) -> None:
    """The store may notice it before the renewal does."""
    begun = []

    async def lose(_: Lease) -> None:
        begun.append(1)
        raise LeaseLost("somebody else drives it")

    turn = seat.sit("a", lose)
    await seat.until(lambda: len(begun) > 1)
    assert turn.failures == 0
    await seat.leave("a")
