"""A small office for tests of the use cases: the store in memory, virtual time, chance that counts, accounts."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, cast

from broadcast.campaigns import Broadcasts, Campaigns, Draft
from broadcast.inbox import Handled, Reception
from broadcast.launching import Launching
from broadcast.model import (
    Broadcast,
    BroadcastStatus,
    Campaign,
    ChannelName,
    Conversation,
    Delivery,
    Message,
    Recipient,
    conversation_id,
)
from broadcast.ports import Account, DeliveryFilter, Features, Inbound, Page, Person, Said, Store
from broadcast.virtual_time import VirtualClock
from storage.memory import MemoryStore

#: A Friday, in the middle of the day.
NOW = datetime(2026, 3, 27, 12, 0, tzinfo=UTC)
TEAMS, TELEGRAM, VIBER = "teams/hr", "telegram/news", "viber/news"
FEATURES = Features(reports_delivered=False, reports_read=True, rate=30, conversation_limits=(), text_limit=4096)
ACCOUNTS = {
    key: Account(key, ChannelName(key.partition("/")[0]), FEATURES, rate=30) for key in (TEAMS, TELEGRAM, VIBER)
}


class Clock(VirtualClock):
    """Virtual time that a test may move by hand."""

    def move(self, by: timedelta) -> None:
        self._now += by


class Chance:
    """Ids and seeds one after the other."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers)}"

    def seed(self) -> int:
        return next(self._numbers)

    def secret(self) -> str:
        return "s" * 43


class Crash(Exception):  # noqa: N818 - says what happened
    """The process ends here."""


class Shaky:
    """A store between whose calls other tasks run, and that the process may die in: after `calls` calls, every
    further one raises."""

    def __init__(self, store: Store, calls: int | None = None) -> None:
        self._store = store
        self._left = calls
        self.made = 0

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)
        if inspect.isasyncgenfunction(method):  # a stream is no call to die in
            return cast("Callable[..., Awaitable[Any]]", method)

        async def call(*args: Any, **keywords: Any) -> Any:
            await asyncio.sleep(0)
            if self._left is not None and self.made >= self._left:
                raise Crash
            self.made += 1
            return await method(*args, **keywords)

        return call


def shaky(store: Store, calls: int | None = None) -> Store:
    return cast("Store", Shaky(store, calls))


@dataclass
class Office:
    clock: Clock = field(default_factory=lambda: Clock(NOW))
    store: Store = field(default_factory=MemoryStore)
    chance: Chance = field(default_factory=Chance)

    @property
    def campaigns(self) -> Campaigns:
        return Campaigns(self.store, self.clock, self.chance, ACCOUNTS)

    @property
    def broadcasts(self) -> Broadcasts:
        return Broadcasts(self.store, self.clock)

    @property
    def launching(self) -> Launching:
        return Launching(self.store, self.clock, ACCOUNTS)

    @property
    def reception(self) -> Reception:
        return Reception(self.store, self.clock, self.chance)

    async def hire(self, *names: str, account: str = TELEGRAM, **changes: Any) -> None:
        """People of these names who can be reached through the account by their name."""
        channel = ACCOUNTS[account].channel
        people = [
            Recipient(f"rcp_{name}", first_name=name.title(), identities={channel: name}, **changes)
            for name in names
        ]
        await self.store.save_recipients(people)
        await self.store.save_conversations(
            [Conversation(conversation_id(account, n), account, channel, f"rcp_{n}", n) for n in names]
        )

    async def draft(self, text: str = "Hello [FIRSTNAME]", **changes: Any) -> Campaign:
        return await self.campaigns.create(Draft("Benefits week", Message(text), **changes))

    async def launched(self, **changes: Any) -> Broadcast:
        campaign = await self.draft(**changes)
        return await self.campaigns.launch(campaign.id, by="tok_1")

    async def running(self, **changes: Any) -> Broadcast:
        """A broadcast that was launched, and started at its start."""
        broadcast = await self.launched(**changes)
        self.clock.move(max(broadcast.starts_at - self.clock.now(), timedelta()))
        await self.launching.start_due()
        return await self.broadcasts.get(broadcast.id)

    async def status(self, broadcast: Broadcast) -> BroadcastStatus:
        return (await self.broadcasts.get(broadcast.id)).status

    async def next_start(self) -> datetime | None:
        """The earliest moment at which a broadcast is to be looked at."""
        return min((await self.launching.awaited()).values(), default=None)

    async def deliveries(self, broadcast: Broadcast) -> dict[str, Delivery]:
        """By recipient."""
        listing = await self.store.deliveries(DeliveryFilter(broadcast.id), Page(1, 1000))
        return {delivery.recipient: delivery for delivery, _ in listing.items}

    async def person(self, name: str) -> Recipient:
        found = await self.store.recipient(f"rcp_{name}")
        assert found is not None
        return found

    async def says(self, name: str, text: str, *, account: str = TELEGRAM, **changes: Any) -> Handled | None:
        return await self.reception.inbound(self.word(name, Said.TEXT, text=text, account=account, **changes))

    async def does(self, name: str, said: Said, *, account: str = TELEGRAM, **changes: Any) -> Handled | None:
        return await self.reception.inbound(self.word(name, said, account=account, **changes))

    def word(self, name: str, said: Said, *, account: str = TELEGRAM, **changes: Any) -> Inbound:
        """What somebody did just now, under a key of its own."""
        told: dict[str, Any] = {
            "key": self.chance.id("key"),
            "person": Person(user_id=name),
            "at": self.clock.now(),
            **changes,
        }
        return Inbound(account=account, channel=ACCOUNTS[account].channel, said=said, **told)
