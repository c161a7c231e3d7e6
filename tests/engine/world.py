"""A small world for the engine: the store in memory, a scripted channel, scripted presence, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from broadcast import plan, virtual_time
from broadcast.campaigns import Broadcasts
from broadcast.engine import Engine, Options
from broadcast.errors import PresenceUnavailable
from broadcast.launching import Launching
from broadcast.model import (
    Answer,
    Attempt,
    Audience,
    Broadcast,
    ChannelName,
    Conversation,
    Delivery,
    Message,
    Policies,
    PresenceState,
    Recipient,
    Schedule,
    Sent,
)
from broadcast.ports import Account, Content, DeliveryFilter, Features, Page
from broadcast.tracking import Links
from broadcast.virtual_time import VirtualClock
from storage.memory import MemoryStore

FEATURES = Features(reports_delivered=False, reports_read=True, rate=50, conversation_limits=(), text_limit=4096)


@dataclass
class ScriptedChannel:
    """Answers the n-th send to a recipient as scripted, after the script `Sent`; remembers when it was asked."""

    clock: VirtualClock
    account: str = "teams/default"
    name: ChannelName = ChannelName.TEAMS
    features: Features = FEATURES
    answers: Mapping[str, Sequence[Answer]] = field(default_factory=dict)
    takes: timedelta = timedelta()
    sends: list[tuple[str, datetime]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    async def send(self, to: Conversation, content: Content) -> Answer:
        number = sum(1 for who, _ in self.sends if who == to.recipient)
        self.sends.append((to.recipient, self.clock.now()))
        self.texts.append(content.text)
        if self.takes:
            await self.clock.sleep_until(self.clock.now() + self.takes)
        script = self.answers.get(to.recipient, ())
        return script[number] if number < len(script) else Sent(f"{len(self.sends)}")

    async def close(self) -> None:
        pass


@dataclass
class ScriptedPresence:
    """Tells what the steps of each user say at the moment of asking; `calls` is who was asked, each time."""

    clock: VirtualClock
    steps: Mapping[str, Sequence[tuple[datetime, PresenceState]]] = field(default_factory=dict)
    default: PresenceState = PresenceState.OFFLINE
    batch: int = 650
    prefetch: bool = False
    fails: int = 0
    calls: list[tuple[datetime, tuple[str, ...]]] = field(default_factory=list)

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, PresenceState]:
        self.calls.append((self.clock.now(), tuple(user_ids)))
        if self.fails:
            self.fails -= 1
            raise PresenceUnavailable("down")
        return {user_id: self._state(user_id) for user_id in user_ids}

    def _state(self, user_id: str) -> PresenceState:
        state = self.default
        for since, then in self.steps.get(user_id, ()):
            if since <= self.clock.now():
                state = then
        return state


class World:
    """One account, one broadcast, people named by id; `run` plays it to the end."""

    def __init__(
        self,
        start: datetime,
        people: Sequence[str] = ("ann",),
        *,
        schedule: Schedule | None = None,
        policies: Policies | None = None,
        rate: float = 50.0,
        pins: Mapping[str, Sequence[datetime]] | None = None,
        timezones: Mapping[str, str] | None = None,
        text: str = "Hello",
    ) -> None:
        self.clock = VirtualClock(start)
        self.store = MemoryStore()
        self.channel = ScriptedChannel(self.clock)
        self.presence: ScriptedPresence | None = ScriptedPresence(self.clock)
        self.people = people
        self.timezones = timezones or {}
        self.account = Account(self.channel.account, self.channel.name, self.channel.features, rate)
        self.options = Options(first=lambda b: plan.pinned(pins or {}, plan.drawn(b.seed)))
        self.broadcasts = Broadcasts(self.store, self.clock)
        self.broadcast = Broadcast(
            id="brd_1",
            campaign="cmp_1",
            name="Benefits week",
            message=Message(text),
            audience=Audience(),
            schedule=schedule or Schedule(),
            policies=policies or Policies(),
            seed=7,
            launched_at=start,
            launched_by="tok_1",
            starts_at=start,
        )
        self.others: list[Broadcast] = []
        self.later: list[tuple[datetime, Callable[[], object]]] = []
        self.links = Links(secret="s", public_url="http://clarion.test")

    def at(self, instant: datetime, act: Callable[[], object]) -> None:
        """Does something (a coroutine function) at that moment of the run."""
        self.later.append((instant, act))

    def run(self, until: datetime | None = None) -> None:
        """Launches, drives the account until the broadcast has ended or `until`, and stops."""
        virtual_time.run(self.clock, lambda: self._run(until or datetime(2100, 1, 1, tzinfo=UTC)))

    async def _run(self, until: datetime) -> None:
        await self.prepare()
        await self.drive(until)

    async def prepare(self) -> None:
        """Stores the people and starts the broadcast."""
        await self.people_known()
        for broadcast in (self.broadcast, *self.others):
            await self.store.save_broadcast(broadcast, expected=None)
        await self.launching().start_due()

    def launching(self) -> Launching:
        return Launching(self.store, self.clock, {self.account.key: self.account}, first=self.options.first)

    async def drive(self, until: datetime, owner: str = "one") -> None:
        lease = await self.store.acquire_lease(self.account.key, owner, 1e9)
        assert lease is not None
        self.engine = Engine(
            self.store,
            self.channel,
            account=self.account,
            lease=lease,
            clock=self.clock,
            links=self.links,
            presence=self.presence,
            options=self.options,
        )
        tasks = [asyncio.create_task(self._act(at, act)) for at, act in self.later]
        end = asyncio.create_task(self._end(until))
        await self.engine.run()
        for task in (*tasks, end):
            task.cancel()

    async def _act(self, at: datetime, act: Callable[[], object]) -> None:
        await self.clock.sleep_until(at)
        outcome = act()
        if asyncio.iscoroutine(outcome):
            await outcome

    async def _end(self, until: datetime) -> None:
        version = await self.store.control_version()
        waiting = asyncio.create_task(self.clock.sleep_until(until))
        while not waiting.done():
            broadcast = await self.store.broadcast(self.broadcast.id)
            if broadcast and broadcast.status in {"completed", "stopped", "failed"}:
                break
            change = asyncio.create_task(self.store.wait_control(version))
            await asyncio.wait({change, waiting}, return_when=asyncio.FIRST_COMPLETED)
            version = change.result() if change.done() else version
            change.cancel()
        waiting.cancel()
        self.engine.stop()

    async def people_known(self) -> None:
        """Stores the people, who can be reached on the account."""
        await self.store.save_recipients(
            [Recipient(id=who, first_name=who.title(), timezone=self.timezones.get(who)) for who in self.people]
        )
        await self.store.save_conversations(
            [
                Conversation(
                    id=f"cnv_{who}", account=self.account.key, channel=self.channel.name, recipient=who, user_id=who
                )
                for who in self.people
            ]
        )

    # --- what came of it ------------------------------------------------------------------------------

    def read(self, work: Callable[[], object]) -> object:
        return asyncio.run(work())  # type: ignore[arg-type]  # a coroutine function, told by its callers

    def delivery(self, who: str) -> Delivery:
        return {d.recipient: d for d in self.deliveries()}[who]

    def deliveries(self) -> list[Delivery]:
        listing = asyncio.run(self.store.deliveries(DeliveryFilter(self.broadcast.id), Page(1, 100_000)))
        return [delivery for delivery, _ in listing.items]

    def attempts(self, who: str) -> list[Attempt]:
        lines = asyncio.run(self.store.timeline(self.delivery(who).id))
        return [line for line in lines if isinstance(line, Attempt)]
