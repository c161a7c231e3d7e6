"""What platforms do not send by themselves is fetched, stored, and only then confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bot import intake
from bot.accounts import ConfiguredAccount
from bot.chance import SystemChance
from bot.channels.webhook import Received
from bot.clock import RealClock
from bot.intake import Deed, Intake
from broadcast.errors import StoreUnavailable
from broadcast.inbox import STARTED, STOPPED, Reception
from broadcast.model import Answer, Faulty, Holds, Throttled, Unknown
from broadcast.ports import Content, Inbound, Lease, Page
from storage.memory import MemoryStore
from tests.host.stage import KEY, Recorder, account, accounts, said

LEASE = Lease(f"{KEY}/updates", "me", 1)


class Silent:
    async def answer(self, _: Deed) -> Content | None:
        return None


class Platform:
    """Tells batches one after the other; asking for the next confirms the one before."""

    def __init__(self, *batches: Received) -> None:
        self.store = MemoryStore()
        self.channel = Recorder()
        self.confirmed = 0
        self._batches = batches
        self._done = asyncio.Event()
        found = accounts(self.channel)
        self.intake = Intake(Reception(self.store, RealClock(), SystemChance()), found, Silent())

    @property
    def account(self) -> ConfiguredAccount:
        one = account(self.channel)
        assert one.face is not None
        one.face = replace(one.face, poll=self._poll)
        return one

    async def _poll(self) -> AsyncGenerator[Received, None]:
        for batch in self._batches:
            yield batch
            self.confirmed += 1
        self._done.set()
        await asyncio.Event().wait()

    async def fetch(self) -> None:
        """Until all batches are confirmed and everybody is answered."""
        fetching = asyncio.create_task(self.intake.fetch(self.account, LEASE))
        async with asyncio.timeout(5):
            await self._done.wait()
        fetching.cancel()
        with suppress(asyncio.CancelledError):
            await fetching
        await self.intake.close()


async def test_what_is_fetched_is_taken_in_and_answered() -> None:
    """The same path as a callback's."""
    platform = Platform(Received(inbound=(said("/start"),)), Received(inbound=(said("STOP", key="2"),)))
    await platform.fetch()
    assert sorted(platform.channel.texts) == sorted([STARTED, STOPPED])


async def test_nothing_is_confirmed_before_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer is asked again, and the platform keeps the batch meanwhile."""
    monkeypatch.setattr(intake, "STORE_PAUSE", 0.01)
    platform = Platform(Received(inbound=(said("hello"),)))
    take_in = platform.store.take_in
    failed: list[int] = []

    async def stumble(inbound: Inbound, *args: Any, **named: Any) -> object:
        if len(failed) < 3:
            failed.append(platform.confirmed)
            raise StoreUnavailable("busy")
        return await take_in(inbound, *args, **named)

    monkeypatch.setattr(platform.store, "take_in", stumble)
    await platform.fetch()
    assert failed == [0, 0, 0]
    assert (await platform.store.recipients("", Page())).total == 1


async def test_one_that_cannot_be_taken_in_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours over one person's words does not cost the others theirs."""
    platform = Platform(Received(inbound=(said("hello"), said("hello", key="2", user="99"))))
    take_in = platform.store.take_in

    async def fail_on_the_first(inbound: Inbound, *args: Any, **named: Any) -> object:
        if inbound.key == "1":
            raise KeyError("a fault of ours")
        return await take_in(inbound, *args, **named)

    monkeypatch.setattr(platform.store, "take_in", fail_on_the_first)
    await platform.fetch()
    assert await platform.store.conversation(KEY, "99") is not None


async def test_an_account_that_is_called_is_not_asked() -> None:
    """Fetching is for those that do not send by themselves."""
    platform = Platform()
    await platform.intake.fetch(account(platform.channel), LEASE)
    await platform.intake.close()


@pytest.mark.parametrize("first", [Throttled(timedelta(seconds=0.01), Holds.ACCOUNT), Faulty("503")])
async def test_an_answer_is_tried_again(monkeypatch: pytest.MonkeyPatch, first: Answer) -> None:
    """Many people who start at once are all answered, although the platform asks to wait."""
    monkeypatch.setattr(intake, "SAID_AGAIN", (0.01,))
    platform = Platform(Received(inbound=(said("/start"),)))
    platform.channel.outcomes = [first]
    await platform.fetch()
    assert platform.channel.texts == [STARTED, STARTED]


@pytest.mark.parametrize("first", [Unknown("time-out"), Throttled(timedelta(hours=1), Holds.ACCOUNT)])
async def test_an_answer_is_not_repeated(first: Answer) -> None:
    """What may have arrived is not said twice, and nobody is answered an hour later."""
    platform = Platform(Received(inbound=(said("/start"),)))
    platform.channel.outcomes = [first]
    await platform.fetch()
    assert platform.channel.texts == [STARTED]
