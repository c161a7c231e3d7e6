"""A broadcast on Telegram that runs while its store is in trouble: the real engine and channel, over HTTP against
the simulated platform, on whatever store a test gives it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from structlog.typing import EventDict

from bot.accounts import Accounts, ConfiguredAccount, Face
from bot.channels.telegram import TelegramAccount, TelegramChannel
from bot.clock import RealClock
from bot.leases import Terms
from bot.settings import TelegramSettings
from bot.worker import Worker
from broadcast.campaigns import ALWAYS
from broadcast.engine import Engine, Options
from broadcast.errors import StoreUnavailable
from broadcast.launching import Launching
from broadcast.model import (
    Audience,
    Broadcast,
    BroadcastStatus,
    ChannelName,
    Conversation,
    Delivery,
    DeliveryState,
    Message,
    Policies,
    Recipient,
    Schedule,
)
from broadcast.ports import Account, DeliveryFilter, Lease, Store
from broadcast.tracking import Links
from sandbox.server import Sandbox
from sandbox.settings import Behaviour, Channel, SandboxSettings, TelegramBot
from tests.host.stage import Inlet

PEOPLE = 240
RATE = 120.0
BROADCAST = "brd_1"
KEY = "telegram/news"
LINKS = Links(secret="secret-of-these-tests", public_url="https://clarion.example")
QUICK = Options(concurrency=8, store_retry=timedelta(milliseconds=50))
PATIENCE = 60.0  # seconds that a condition may take on a busy machine

Logged = list[EventDict]


@asynccontextmanager
async def platform(people: int = PEOPLE) -> AsyncIterator[Sandbox]:
    """People who started the bot and do nothing by themselves."""
    settings = SandboxSettings(
        people={Channel.TELEGRAM: people}, started=True, behaviour=Behaviour(auto=False), enforce_limits=False
    )
    async with Sandbox(settings).serve() as sandbox:
        yield sandbox


async def until(holds: Callable[[], Any], otherwise: str) -> None:
    """Waits for something that has no event."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not holds():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(otherwise) from None


class Stage:
    """One account of the platform, one store, one broadcast to everybody."""

    def __init__(self, sandbox: Sandbox, store: Store, *, key: str = KEY, rate: float = RATE) -> None:
        self.sandbox = sandbox
        self.key = key
        self.store = store
        self.clock = RealClock()
        token = TelegramBot().token
        self.channel = TelegramChannel(TelegramAccount(key, token, api_url=f"{sandbox.url}/telegram", rate=rate))
        self.account = Account(key, self.channel.name, self.channel.features, rate)
        self.contacts = [*sandbox.world.directory.contacts()]

    async def launch(self, *, broadcast: str = BROADCAST) -> None:
        """Everybody known, everybody planned for now."""
        people = [
            Recipient(f"rcp_{one.user_id}", first_name="Ann", identities={ChannelName.TELEGRAM: one.user_id})
            for one in self.contacts
        ]
        places = [
            Conversation(f"cnv_{one.user_id}", self.key, ChannelName.TELEGRAM, f"rcp_{one.user_id}", one.user_id)
            for one in self.contacts
        ]
        await self.store.save_recipients(people)
        await self.store.save_conversations(places)
        await self.store.save_broadcast(a_broadcast(broadcast, self.clock), expected=None)
        await Launching(self.store, self.clock, {self.key: self.account}).start_due()

    async def lease(self, owner: str = "worker-1", seconds: float = 600.0, store: Store | None = None) -> Lease:
        lease = await (store or self.store).acquire_lease(self.key, owner, seconds)
        assert lease is not None
        return lease

    def engine(self, lease: Lease, *, options: Options = QUICK, store: Store | None = None) -> Engine:
        return Engine(
            store or self.store,
            self.channel,
            account=self.account,
            lease=lease,
            clock=self.clock,
            links=LINKS,
            options=options,
        )

    def worker(self, owner: str, store: Store | None = None) -> Worker:
        """A worker that has this account, with leases that last a second."""
        face = Face(self.channel, Inlet(), self.channel.check)
        settings = TelegramSettings(name=self.key.rpartition("/")[2], rate=self.account.rate)
        return Worker(
            store or self.store,
            Accounts({self.key: ConfiguredAccount(settings, face, None, connected=True)}),
            clock=self.clock,
            links=LINKS,
            owner=owner,
            options=QUICK,
            terms=Terms(lease=1.0, renew=0.2, ask_again=0.05),
        )

    @asynccontextmanager
    async def driven(self, *, options: Options = QUICK) -> AsyncIterator[Engine]:
        """An engine that runs meanwhile; what it fails with is raised at the end."""
        engine = self.engine(await self.lease(), options=options)
        running = asyncio.create_task(engine.run(), name="engine under test")
        try:
            yield engine
            engine.stop()
            async with asyncio.timeout(PATIENCE):
                await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    # --- what came of it ------------------------------------------------------------------------------

    @property
    def arrived(self) -> int:
        """Messages on people's phones."""
        return self.sandbox.world.record.total

    def copies(self) -> Counter[str]:
        """How many each person got."""
        return Counter({f"rcp_{one.user_id}": len(one.messages) for one in self.contacts})

    async def arrive(self, number: int) -> None:
        await until(lambda: self.arrived >= number, f"fewer than {number} messages arrived")

    async def completed(self, store: Store | None = None, broadcast: str = BROADCAST) -> None:
        """The broadcast has ended by itself."""
        asked = store or self.store

        async def ended() -> bool:
            with suppress(StoreUnavailable):  # for this reader too
                found = await asked.broadcast(broadcast)
                return found is not None and found.status is BroadcastStatus.COMPLETED
            return False

        await eventually(ended, "the broadcast does not end")

    async def rows(self, store: Store | None = None) -> Mapping[str, Delivery]:
        """What is stored, by recipient."""
        every = (store or self.store).all_deliveries(DeliveryFilter(BROADCAST))
        return {one.recipient: one async for one, _ in every}

    async def assert_each_got_one(self, store: Store | None = None) -> None:
        """One message and one line a person, all `sent`, nothing in doubt, and counters that say the same."""
        asked = store or self.store
        rows = await self.rows(asked)
        number = len(self.contacts)
        assert self.copies() == Counter(dict.fromkeys(rows, 1))
        assert {row.state for row in rows.values()} == {DeliveryState.SENT}
        assert {(row.attempts, row.sends, row.possibly_doubled) for row in rows.values()} == {(1, 1, False)}
        assert [len(await asked.timeline(row.id)) for row in rows.values()] == [1] * number
        tally = await asked.tally(BROADCAST)
        shown = {path: count for path, count in tally.items() if not path.startswith("hour/")}
        assert shown == {
            "state/telegram/sent": number,
            "round/1/first/attempts": number,
            "round/1/first/sent": number,
        }


def a_broadcast(id: str, clock: RealClock) -> Broadcast:
    return Broadcast(
        id=id,
        campaign="cmp_1",
        name="Benefits week",
        message=Message("Hello [FIRSTNAME]"),
        audience=Audience(),
        schedule=Schedule(immediate=True, hours=ALWAYS),
        policies=Policies(),
        seed=7,
        launched_at=clock.now(),
        launched_by="test",
        starts_at=clock.now(),
    )


def said(logged: Sequence[EventDict], action: str) -> list[EventDict]:
    """The log's events of that kind."""
    return [event for event in logged if event.get("action") == action]


async def waits(logged: Logged, engine: Engine, words: str) -> None:
    """Until the engine has been told no several times in a row, and says so in its status and in the log."""
    before = len(said(logged, "store_unavailable"))
    await until(lambda: len(said(logged, "store_unavailable")) >= before + 3, f"no engine was told: {words}")
    assert words in str(engine.status.trouble)
    assert words in said(logged, "store_unavailable")[-1]["detail"]


async def eventually(ask: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    """Waits for something that has to be asked for."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await ask():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(otherwise) from None
