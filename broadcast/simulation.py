"""A broadcast played ahead of time: planner, rounds, pacing and engine as in service, under a virtual clock.

What a person does and what the platforms answer come from a `Scenario`; nothing else is simulated. Lines are told
as they happen, one for every attempt and one for every delivery that ends. A delivery may end later than its line
says: what ran out of time is dated back to its last attempt (RULES.md, simulate). `key` is
the order to show them in.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import cast

from broadcast import calendar, launching, plan, virtual_time
from broadcast.attempts import FRESH
from broadcast.audience import Route
from broadcast.engine import Engine, Options
from broadcast.launching import Calendars
from broadcast.model import (
    Answer,
    Audience,
    BadContent,
    Broadcast,
    BroadcastStatus,
    ChannelName,
    Conversation,
    ConversationState,
    Delivery,
    DeliveryState,
    Faulty,
    Holds,
    Message,
    Never,
    Policies,
    PresenceState,
    Reason,
    Recipient,
    Rung,
    Schedule,
    Sent,
    StopAccount,
    Throttled,
    Unknown,
)
from broadcast.ports import Account, Content, Features, Lease, Result, Store
from broadcast.rollcall import AtHand
from broadcast.tracking import Links
from broadcast.virtual_time import VirtualClock

#: What a send may be answered in a scenario besides an HTTP status.
TIMEOUT, BLOCKED = "timeout", "blocked"
_BROADCAST = "brd_simulated"
_PAGE = 2_000
_LEASE_SECONDS = 1e9
#: Unsubscriptions come before everything else that is due at the same instant.
_FIRST = -1

Reply = int | str


@dataclass(frozen=True, slots=True)
class Person:
    """One recipient of a scenario. `presence` ``None``: their channel tells none. `answers` are those to the first,
    second, … send; after the last every send is accepted."""

    id: str
    channel: ChannelName
    timezone: str | None = None
    first_at: tuple[datetime, ...] = ()
    presence: tuple[tuple[datetime, PresenceState], ...] | None = None
    answers: tuple[Reply, ...] = ()
    retry_after: timedelta | None = None
    unsubscribes_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """`policies.presence` is the policy of all channels alike; `rates` has one account for each channel used."""

    seed: int
    schedule: Schedule
    policies: Policies
    rates: Mapping[ChannelName, float]
    people: Sequence[Person]


@dataclass(frozen=True, slots=True)
class AttemptLine:
    """One attempt; `presence` is the state asked, ``None`` where the channel tells none."""

    at: datetime
    place: int
    round: int
    rung: Rung
    outcome: str
    presence: PresenceState | None

    @property
    def key(self) -> tuple[datetime, int, int]:
        return self.at, self.place, 0


@dataclass(frozen=True, slots=True)
class DeliveryLine:
    """One delivery that ended."""

    at: datetime
    place: int
    state: DeliveryState
    reason: Reason | None
    attempts: int
    sends: int

    @property
    def key(self) -> tuple[datetime, int, int]:
        return self.at, self.place, 1


Line = AttemptLine | DeliveryLine
Tell = Callable[[Line], None]


def play(scenario: Scenario, store: Store, tell: Tell) -> None:
    """Plays the scenario to its end on an empty store, telling every line as it happens."""
    launch = launched_at(scenario)
    clock = VirtualClock(launch)
    virtual_time.run(clock, _Play(scenario, store, clock, tell).run)


def launched_at(scenario: Scenario) -> datetime:
    """An instant before everything: the first date anywhere on earth, and every unsubscription."""
    start = scenario.schedule.start
    if start is None:
        raise ValueError("the launch of a simulation is before everything, so a start is needed")
    midnight = datetime(start.year, start.month, start.day, tzinfo=UTC)
    instants = (person.unsubscribes_at for person in scenario.people if person.unsubscribes_at is not None)
    return min([midnight - timedelta(days=3), *(instant - timedelta(days=1) for instant in instants)])


def broadcast_of(scenario: Scenario) -> Broadcast:
    """The launch that a scenario describes, about to be planned."""
    launch = launched_at(scenario)
    return Broadcast(
        id=_BROADCAST,
        campaign="cmp_simulated",
        name="simulated",
        message=Message("simulated"),
        audience=Audience(),
        schedule=calendar.with_holidays(scenario.schedule, launched_at=launch),
        policies=scenario.policies,
        seed=scenario.seed,
        launched_at=launch,
        launched_by="simulate",
        starts_at=launch,
        status=BroadcastStatus.RUNNING,
        planned=len(scenario.people),
    )


def meaning(reply: Reply, *, channel: ChannelName, wait: timedelta | None) -> Answer:
    """What a reply of a scenario means for a send; statuses as RULES.md lists them."""
    if reply == TIMEOUT:
        return Unknown("timeout")
    if reply == BLOCKED:
        return Never(ConversationState.BLOCKED, "blocked")
    status = int(reply)
    if status == 429:
        holds = Holds.CONVERSATION if channel is ChannelName.VIBER else Holds.ACCOUNT
        return Throttled(wait, holds, "429")
    return _of_status(status)


def _of_status(status: int) -> Answer:
    match status:
        case 401:
            return StopAccount("401")
        case 403:
            return Never(ConversationState.BLOCKED, "403")
        case 404 | 410:
            return Never(ConversationState.GONE, str(status))
    if status < 300:
        return Sent(str(status))
    return BadContent(str(status)) if status < 500 else Faulty(str(status))


class _Play:
    """One run of a scenario: fills the store, drives an engine per account, tells what happens."""

    def __init__(self, scenario: Scenario, store: Store, clock: VirtualClock, tell: Tell) -> None:
        self._scenario = scenario
        self._clock = clock
        self._tell = tell
        self._broadcast = broadcast_of(scenario)
        self._calendars = Calendars(self._broadcast)
        self._places = {person.id: place for place, person in enumerate(scenario.people)}
        self._open = set(range(len(scenario.people)))
        self._done = asyncio.Event()
        self._presence = {channel: _Presence(scenario, channel, clock) for channel in scenario.rates}
        self._store = cast("Store", _Ledger(store, self._heard))

    async def run(self) -> None:
        pins = {person.id: person.first_at for person in self._scenario.people if person.first_at}
        first = plan.pinned(pins, plan.drawn(self._scenario.seed))
        await self._fill(first)
        engines = [await self._engine(channel, first) for channel in self._scenario.rates]
        running = [asyncio.create_task(engine.run()) for engine in engines]
        opt_outs = asyncio.create_task(self._opt_outs())
        watch = asyncio.create_task(self._watch(opt_outs))
        stopped = asyncio.create_task(self._done.wait())
        await asyncio.wait([*running, stopped, watch], return_when=asyncio.FIRST_COMPLETED)
        for engine in engines:
            engine.stop()
        await asyncio.gather(*running)
        for task in (opt_outs, watch, stopped):
            task.cancel()
        await asyncio.gather(opt_outs, watch, stopped, return_exceptions=True)
        await self._tell_what_is_left()

    async def _fill(self, first: plan.FirstMoment) -> None:
        await self._store.save_broadcast(self._broadcast, expected=None)
        people = enumerate(self._scenario.people)
        while page := list(islice(people, _PAGE)):
            recipients = [Recipient(person.id, timezone=person.timezone) for _, person in page]
            conversations = [_conversation(person) for _, person in page]
            await self._store.save_recipients(recipients)
            await self._store.save_conversations(conversations)
            await self._store.plan(
                [
                    launching.planned(
                        self._broadcast,
                        recipient,
                        Route(conversation),
                        position=place,
                        working=self._calendars.of(recipient),
                        first=first,
                        at=self._broadcast.launched_at,
                    )
                    for (place, _), recipient, conversation in zip(page, recipients, conversations, strict=True)
                ]
            )

    async def _engine(self, channel: ChannelName, first: plan.FirstMoment) -> Engine:
        account = Account(channel.value, channel, _FEATURES, self._scenario.rates[channel])
        lease = await self._store.acquire_lease(account.key, "simulate", _LEASE_SECONDS)
        if lease is None:
            raise RuntimeError("the store of a simulation belongs to nobody else")
        tells = self._presence[channel].is_told
        return Engine(
            self._store,
            _Platform(self._scenario, channel),
            account=account,
            lease=lease,
            clock=self._clock,
            links=Links(secret="simulated", public_url="http://localhost"),  # noqa: S106 - signs nothing that leaves
            presence=self._presence[channel] if tells else None,
            options=Options(first=lambda _: first, brakes=False),
        )

    # --- what people do -------------------------------------------------------------------------------

    async def _opt_outs(self) -> None:
        leaving = [(p.unsubscribes_at, place, p.id) for place, p in enumerate(self._scenario.people)]
        for at, place, id in sorted((at, place, id) for at, place, id in leaving if at is not None):
            await self._clock.sleep_until(at, rank=_FIRST)
            await self._store.set_unsubscribed(id, at)
            delivery = await self._store.delivery(launching.delivery_id(_BROADCAST, id))
            if delivery is not None:
                self._end(place, delivery)

    async def _watch(self, opt_outs: asyncio.Task[None]) -> None:
        """Returns once the broadcast is paused (an account that stopped) and nobody is left to leave it."""
        seen = await self._store.control_version()
        while True:
            broadcast = await self._store.broadcast(_BROADCAST)
            if broadcast is not None and broadcast.status is BroadcastStatus.PAUSED:
                await opt_outs
                return
            seen = await self._store.wait_control(seen)

    # --- what is told ---------------------------------------------------------------------------------

    def _heard(self, result: Result) -> None:
        """Of a result that was written."""
        delivery, attempt = result.delivery, result.attempt
        place = self._places[delivery.recipient]
        if attempt is not None:
            channel = self._scenario.people[place].channel
            presence = self._presence[channel].shown(delivery.recipient, attempt.at)
            self._tell(AttemptLine(attempt.at, place, attempt.round, attempt.rung, attempt.outcome, presence))
        self._end(place, delivery)

    def _end(self, place: int, delivery: Delivery) -> None:
        """Tells of a delivery that has ended, once."""
        if delivery.state in {DeliveryState.PLANNED, DeliveryState.SENDING} or place not in self._open:
            return
        self._open.discard(place)
        self._tell(
            DeliveryLine(
                self._dated(place, delivery),
                place,
                delivery.state,
                delivery.reason,
                delivery.attempts,
                delivery.sends,
            )
        )
        if not self._open:
            self._done.set()

    def _dated(self, place: int, delivery: Delivery) -> datetime:
        if delivery.state is DeliveryState.SKIPPED and delivery.ended_at is not None:
            return delivery.ended_at
        return delivery.attempted_at or self._last_day_ends(place)

    def _last_day_ends(self, place: int) -> datetime:
        person = self._scenario.people[place]
        working = self._calendars.of(Recipient(person.id, timezone=person.timezone))
        return self._broadcast.launched_at if working is None else working.ends

    async def _tell_what_is_left(self) -> None:
        """What an account that stopped held to the end: nobody failed for it, there was no time."""
        for place in sorted(self._open):
            id = launching.delivery_id(_BROADCAST, self._scenario.people[place].id)
            delivery = await self._store.delivery(id)
            if delivery is not None:
                self._end(place, replace(delivery, state=DeliveryState.UNSCHEDULED, reason=Reason.NO_TIME))


_FEATURES = Features(reports_delivered=False, reports_read=False, rate=1, conversation_limits=(), text_limit=4096)


def _conversation(person: Person) -> Conversation:
    return Conversation(
        id=f"cnv_{person.id}",
        account=person.channel.value,
        channel=person.channel,
        recipient=person.id,
        user_id=person.id,
    )


class _Ledger:
    """The store, listened to: every result that is written is heard. Attempt lines are told and not kept, so that
    memory does not grow with them."""

    def __init__(self, store: Store, heard: Callable[[Result], None]) -> None:
        self._store = store
        self._heard = heard

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def intend(
        self,
        lease: Lease,
        deliveries: Sequence[Delivery],
        at: datetime,
        *,
        after: Sequence[Result] = (),
        limits: Mapping[str, int] = {},
    ) -> list[str]:
        await self.record(lease, after)
        return await self._store.intend(lease, deliveries, at, limits=limits)

    async def record(self, lease: Lease, results: Sequence[Result]) -> list[str]:
        written = await self._store.record(lease, [_without_line(result) for result in results])
        known = set(written)
        for result in results:
            if result.delivery.id in known:
                self._heard(result)
        return written


def _without_line(result: Result) -> Result:
    return Result(result.before, result.delivery, marks=result.marks, reference=result.reference)


@dataclass
class _Platform:
    """A channel that answers as the scenario says."""

    scenario: Scenario
    name: ChannelName
    features: Features = _FEATURES
    account: str = ""
    _sends: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.account = self.name.value
        self._people = {
            person.id: person for person in self.scenario.people if person.channel is self.name and person.answers
        }

    async def send(self, to: Conversation, content: Content) -> Answer:  # noqa: ARG002 - nobody reads it
        person = self._people.get(to.recipient)
        if person is None:
            return _ACCEPTED
        number = self._sends[person.id]
        self._sends[person.id] += 1
        if number >= len(person.answers):
            return _ACCEPTED
        return meaning(person.answers[number], channel=self.name, wait=person.retry_after)

    async def close(self) -> None:
        pass


_ACCEPTED = Sent("200")


class _Presence(AtHand):
    """Tells the state that the scenario gives somebody at the moment of asking."""

    def __init__(self, scenario: Scenario, channel: ChannelName, clock: VirtualClock) -> None:
        people = [person for person in scenario.people if person.channel is channel]
        told = {person.id: person.presence for person in people if person.presence is not None}
        self._clock = clock
        self._steps = told
        self._allowed = min(scenario.policies.presence.get(channel) or [PresenceState.AVAILABLE])
        self._shown: dict[str, tuple[datetime, PresenceState]] = {}

    @property
    def is_told(self) -> bool:
        """Whether anybody's presence is known at all."""
        return bool(self._steps)

    def state(self, user_id: str) -> PresenceState:
        return self._ask(user_id, self._clock.now())

    def _ask(self, id: str, now: datetime) -> PresenceState:
        """Somebody whose channel tells none is always allowed, which is said with a state that is."""
        steps = self._steps.get(id)
        if steps is None:
            return self._allowed
        passed = bisect_right(steps, now, key=_SINCE)
        state = steps[passed - 1][1] if passed else PresenceState.UNKNOWN
        self._shown[id] = (now, state)
        return state

    def shown(self, id: str, at: datetime) -> PresenceState | None:
        """The state an attempt at this moment went by. Where any is allowed nobody asked: then the state there
        was, kept as long as an answer is."""
        if id not in self._steps:
            return None
        asked, state = self._shown.get(id, (None, None))
        if asked is None or at - asked > FRESH:
            return self._ask(id, at)
        return state


_SINCE = itemgetter(0)


def zones(scenario: Scenario) -> Iterable[str]:
    """The zone that each person's hours are read in, in order."""
    own = scenario.schedule.recipient_timezone
    return ((own and person.timezone) or scenario.schedule.timezone for person in scenario.people)
