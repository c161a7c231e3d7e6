"""Accounts are driven by whoever holds their lease."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from bot.accounts import Accounts, ConfiguredAccount
from bot.chance import SystemChance
from bot.clock import RealClock
from bot.leases import Standing, Terms
from bot.settings import TelegramSettings
from bot.worker import Worker
from broadcast.campaigns import Campaigns
from broadcast.errors import StoreUnavailable
from broadcast.launching import Launching
from broadcast.model import BroadcastReason, BroadcastStatus
from broadcast.ports import Lease
from broadcast.tracking import Links
from storage.memory import MemoryStore
from tests.host.stage import AT_ONCE, KEY, Recorder, accounts, add_ann

LINKS = Links(secret="secret-of-this-test", public_url="https://clarion.example")
TERMS = Terms(lease=1.0, renew=0.2, ask_again=0.02)


async def launched(store: MemoryStore) -> str:
    """A broadcast to Ann that runs; its id."""
    usable = accounts(Recorder()).usable
    await add_ann(store)
    campaigns = Campaigns(store, RealClock(), SystemChance(), usable)
    campaign = await campaigns.create(AT_ONCE)
    broadcast = await campaigns.launch(campaign.id, by="test")
    await Launching(store, RealClock(), usable).start_due()
    return broadcast.id


def worker(store: MemoryStore, found: Accounts, owner: str = "me") -> Worker:
    made = Worker(store, found, clock=RealClock(), links=LINKS, owner=owner, terms=TERMS)
    made.start()
    return made


async def until(store: MemoryStore, id: str, status: BroadcastStatus) -> None:
    async with asyncio.timeout(5):
        while True:
            found = await store.broadcast(id)
            if found is not None and found.status is status:
                return
            await asyncio.sleep(0.01)


async def test_what_is_due_goes_out() -> None:
    """The engine of the account sends it, and the broadcast ends."""
    store, channel = MemoryStore(), Recorder()
    id = await launched(store)
    driving = worker(store, accounts(channel))
    await until(store, id, BroadcastStatus.COMPLETED)
    assert channel.texts == ["Hello Ann & Co"]
    await driving.stop()


async def test_one_worker_drives_and_the_others_stand_by() -> None:
    """Two processes on one store send it once."""
    store, channels = MemoryStore(), (Recorder(), Recorder())
    id = await launched(store)
    driving = [worker(store, accounts(channel), f"worker {at}") for at, channel in enumerate(channels)]
    await until(store, id, BroadcastStatus.COMPLETED)
    standings: list[Mapping[str, Standing]] = [one.standings for one in driving]
    assert sorted(one[KEY] for one in standings) == [Standing.HOLDING, Standing.STANDING_BY]
    assert sum(len(channel.sent) for channel in channels) == 1
    for one in driving:
        await one.stop()


async def test_who_stops_gives_the_account_to_the_next() -> None:
    """At once, not after the lease has run out."""
    store = MemoryStore()
    first = worker(store, accounts(Recorder()), "first")
    await asyncio.sleep(0.05)
    await first.stop()
    assert await store.acquire_lease(KEY, "second", 1.0) is not None


async def test_a_broadcast_that_waits_for_a_missing_credential_pauses_with_the_reason() -> None:
    """It would wait for ever without a word."""
    store = MemoryStore()
    id = await launched(store)
    settings = TelegramSettings(name="default", from_environment=True)
    missing = Accounts({KEY: ConfiguredAccount(settings, None, settings.trouble)})
    driving = worker(store, missing)
    await until(store, id, BroadcastStatus.PAUSED)
    found = await store.broadcast(id)
    assert found is not None
    assert found.reason is BroadcastReason.ACCOUNT_DISCONNECTED
    assert "set CLARION_TELEGRAM_TOKEN" in str(found.reason_detail)
    await driving.stop()


async def test_a_store_that_is_away_does_not_keep_it_from_being_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again until it is done."""
    store = MemoryStore()
    id = await launched(store)
    acquire, asked = store.acquire_lease, []

    async def fail_once(account: str, owner: str, seconds: float) -> Lease | None:
        asked.append(account)
        if len(asked) == 1:
            raise StoreUnavailable("the disk is full; make room")
        return await acquire(account, owner, seconds)

    monkeypatch.setattr(store, "acquire_lease", fail_once)
    missing = ConfiguredAccount(TelegramSettings(name="default"), None, "missing")
    driving = worker(store, Accounts({KEY: missing}))
    await until(store, id, BroadcastStatus.PAUSED)
    assert len(asked) == 2
    await driving.stop()


async def test_another_process_may_have_the_credential() -> None:
    """Who drives the account knows better: nothing is paused then."""
    store = MemoryStore()
    id = await launched(store)
    await store.acquire_lease(KEY, "who has it", 60.0)
    driving = worker(store, Accounts({KEY: ConfiguredAccount(TelegramSettings(name="default"), None, "missing")}))
    await asyncio.sleep(0.05)
    found = await store.broadcast(id)
    assert found is not None
    assert found.status is BroadcastStatus.RUNNING
    await driving.stop()
