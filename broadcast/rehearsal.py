"""One broadcast played ahead of time, on a copy of what is there now, with presence drawn from what was seen.

The engine is the one in service; only clock, storage, presence and platforms are stood in for. What is assumed:

    presence   as `SPELL` says, by the shares of `history`
    platforms  accept everything at once: no refusal, no failure, no 429 (a refusal share of 0)
    people     nobody unsubscribes, subscribes or blocks meanwhile
    canary     its minutes are waited out; where somebody is asked, they approve at once
    others     broadcasts that run or are scheduled go on; those paused stay so, and no further one is launched
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import accumulate
from math import exp
from typing import TypeVar, cast

from broadcast import attempts, launching, plan, virtual_time
from broadcast.audience import Route
from broadcast.campaigns import Broadcasts
from broadcast.engine import Engine
from broadcast.history import History, hour_of_week
from broadcast.launching import Calendars
from broadcast.model import (
    Answer,
    Broadcast,
    BroadcastStatus,
    ChannelName,
    Conversation,
    Delivery,
    DeliveryState,
    PresenceState,
    Reason,
    Recipient,
    Rung,
    Sent,
)
from broadcast.ports import Account, Content, Features, Lease, Result, Store
from broadcast.rollcall import AtHand
from broadcast.tracking import Links
from broadcast.virtual_time import VirtualClock

_T = TypeVar("_T")

#: What somebody does lasts so long on average, and ends at any moment as likely as at any other; then a state is
#: drawn by the shares of the hour. So the shares at any moment are those seen, and whoever is busy at 14:27 is at
#: the same at 14:37 with a chance of two in three. The length is ours: a store that keeps nobody's log cannot know
#: it. It decides how much the later rungs of a round are worth.
SPELL = timedelta(minutes=25)

#: Spells end at the ends of such steps, each person's from a moment of their own.
_STEP_SECONDS = 300
_GOES_ON = exp(-_STEP_SECONDS / SPELL.total_seconds())
_LEASE_SECONDS = 1e9
_PAGE = 2_000
#: Whether the history of an hour of the week is known.
Asked = dict[tuple[ChannelName, int], bool]

_ACCEPTED = Sent("forecast")


@dataclass(frozen=True, slots=True)
class Seat:
    """One person of the audience and the conversation they are reached in."""

    recipient: str
    timezone: str | None
    conversation: str
    account: str
    channel: ChannelName


@dataclass(frozen=True, slots=True)
class Stage:
    """All that a rehearsal starts from. Values only: it may be played in another process.

    `broadcast` is the one to be played, launched at `now`. `others` are what else uses its accounts, `load` their
    deliveries still to come and `zones` where their recipients live, if anywhere. `tells` are the accounts that
    tell presence.
    """

    now: datetime
    broadcast: Broadcast
    seats: Sequence[Seat]
    accounts: Mapping[str, Account]
    tells: frozenset[str]
    history: History
    others: Sequence[Broadcast] = ()
    load: Sequence[Delivery] = ()
    zones: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(slots=True)
class Run:
    """What came of one rehearsal.

    `sent` counts by hour (UTC), `ends` by state and reason, `late` is the longest that a send of an account waited
    for its slot, by the hour it was due in. `held` counts by account what waited for the next opening because the
    day was over. `rounds` counts people by how many rounds their working days leave them, where presence has a
    say. `asked` says of each hour of the week whose presence was asked whether its history is known.
    """

    finished_at: datetime
    sent: Counter[datetime] = field(default_factory=Counter)
    ends: Counter[tuple[DeliveryState, Reason | None]] = field(default_factory=Counter)
    late: dict[tuple[str, datetime], timedelta] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)
    first_tries: int = 0
    absent_first: int = 0
    rounds: Counter[int] = field(default_factory=Counter)
    asked: Asked = field(default_factory=dict)

    @property
    def reached(self) -> int:
        return self.ends[DeliveryState.SENT, None]

    @property
    def unreached(self) -> int:
        return self.ends.total() - self.reached


def _unheard(_: int) -> None:
    pass


def play(stage: Stage, seed: int, store: Store, ended: Callable[[int], None] = _unheard) -> Run:
    """Plays the broadcast to its end on an empty store. The same stage and seed give the same run. `ended` is told
    again and again how many of its deliveries have an end by then."""
    clock = VirtualClock(stage.now)
    return virtual_time.run(clock, _Rehearsal(stage, seed, store, clock, ended).run)


class _Rehearsal:
    def __init__(
        self, stage: Stage, seed: int, store: Store, clock: VirtualClock, ended: Callable[[int], None]
    ) -> None:
        self._stage = stage
        self._seed = seed
        self._clock = clock
        self._broadcast = replace(
            stage.broadcast, seed=seed, status=BroadcastStatus.RUNNING, planned=len(stage.seats)
        )
        self._run = Run(stage.now)
        self._listening = _Listening(store, self._broadcast.id, self._run, ended)
        self._store = cast("Store", self._listening)

    async def run(self) -> Run:
        await self._fill()
        if self._listening.planned:
            await self._drive()
        over = await self._store.broadcast(self._broadcast.id)
        self._run.finished_at = (over and over.finished_at) or self._clock.now()
        return self._run

    # --- what is there --------------------------------------------------------------------------------

    async def _fill(self) -> None:
        stage = self._stage
        for broadcast in (self._broadcast, *stage.others):
            await self._store.save_broadcast(broadcast, expected=None)
        for page in _pages(stage.load):
            people = {one.recipient: stage.zones.get(one.recipient) for one in page}
            await self._store.save_recipients([Recipient(id, timezone=zone) for id, zone in people.items()])
            await self._store.save_conversations([_of_load(one) for one in page])
            await self._store.plan(page)
        calendars, first = Calendars(self._broadcast), plan.drawn(self._seed)
        position = 0
        for seats in _pages(stage.seats):
            await self._store.save_recipients([Recipient(one.recipient, timezone=one.timezone) for one in seats])
            await self._store.save_conversations([_of_seat(one) for one in seats])
            await self._store.plan(
                [self._planned(one, position + place, calendars, first) for place, one in enumerate(seats)]
            )
            position += len(seats)

    def _planned(self, seat: Seat, position: int, calendars: Calendars, first: plan.FirstMoment) -> Delivery:
        recipient = Recipient(seat.recipient, timezone=seat.timezone)
        working = calendars.of(recipient)
        delivery = launching.planned(
            self._broadcast,
            recipient,
            Route(_of_seat(seat)),
            position=position,
            working=working,
            first=first,
            at=self._stage.now,
        )
        if delivery.due_at is None or working is None:
            self._run.ends[delivery.state, delivery.reason] += 1
        elif seat.account in self._stage.tells and attempts.asks_presence(self._broadcast, seat.channel):
            days_left = len(working.days) - (working.day_index(delivery.due_at) or 0)
            self._run.rounds[min(self._broadcast.policies.rounds, days_left)] += 1
        return delivery

    # --- what happens ---------------------------------------------------------------------------------

    async def _drive(self) -> None:
        engines = [await self._engine(account) for account in self._stage.accounts.values()]
        running = [asyncio.create_task(engine.run()) for engine in engines]
        over = asyncio.create_task(self._over())
        await asyncio.wait([*running, over], return_when=asyncio.FIRST_COMPLETED)
        for engine in engines:
            engine.stop()
        await asyncio.gather(*running, over)

    async def _over(self) -> None:
        """Returns once the broadcast is completed."""
        seen = await self._store.control_version()
        broadcasts = Broadcasts(self._store, self._clock)
        while True:
            broadcast = await broadcasts.get(self._broadcast.id)
            if broadcast.status is BroadcastStatus.PAUSED:
                await self._clock.sleep_until(broadcast.resumes_at or self._clock.now())
                await broadcasts.resume(broadcast.id)
            elif broadcast.status is not BroadcastStatus.RUNNING:
                return
            seen = await self._store.wait_control(seen)

    async def _engine(self, account: Account) -> Engine:
        lease = await self._store.acquire_lease(account.key, "forecast", _LEASE_SECONDS)
        if lease is None:
            raise RuntimeError("the store of a rehearsal belongs to nobody else")
        tells = account.key in self._stage.tells
        drawn = _Drawn(self._stage.history, account.channel, self._clock, self._seed, self._run.asked)
        return Engine(
            self._store,
            _Accepting(account.key, account.channel, account.features),
            account=account,
            lease=lease,
            clock=self._clock,
            links=Links(secret="forecast", public_url="http://localhost"),  # noqa: S106 - signs nothing that leaves
            presence=drawn if tells else None,
        )


def _pages(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[begin : begin + _PAGE] for begin in range(0, len(items), _PAGE))


def _of_seat(seat: Seat) -> Conversation:
    return _conversation(seat.conversation, seat.account, seat.channel, seat.recipient)


def _of_load(delivery: Delivery) -> Conversation:
    if delivery.conversation is None or delivery.account is None or delivery.channel is None:
        raise ValueError(f"{delivery.id} goes nowhere, so it is no load")
    return _conversation(delivery.conversation, delivery.account, delivery.channel, delivery.recipient)


def _conversation(id: str, account: str, channel: ChannelName, recipient: str) -> Conversation:
    """Who it is with on the platform plays no part here."""
    return Conversation(id, account, channel, recipient, user_id=id)


class _Listening:
    """The store, listened to for one broadcast. Attempt lines are not kept: memory does not grow with them."""

    def __init__(self, store: Store, broadcast: str, run: Run, ended: Callable[[int], None]) -> None:
        self._store = store
        self._broadcast = broadcast
        self._run = run
        self._ended = ended
        self.planned = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def plan(self, deliveries: Sequence[Delivery]) -> int:
        self.planned += sum(one.broadcast == self._broadcast and one.due_at is not None for one in deliveries)
        return await self._store.plan(deliveries)

    async def intend(
        self,
        lease: Lease,
        deliveries: Sequence[Delivery],
        at: datetime,
        *,
        after: Sequence[Result] = (),
        limits: Mapping[str, int] = {},
    ) -> list[str]:
        for delivery in deliveries:
            if delivery.broadcast == self._broadcast and delivery.due_at is not None:
                of = lease.account, _hour(delivery.due_at)
                self._run.late[of] = max(at - delivery.due_at, self._run.late.get(of, timedelta()))
        return await self._store.intend(lease, deliveries, at, after=self._heard(lease, after), limits=limits)

    async def record(self, lease: Lease, results: Sequence[Result]) -> list[str]:
        return await self._store.record(lease, self._heard(lease, results))

    def _heard(self, lease: Lease, results: Sequence[Result]) -> list[Result]:
        """What is to be kept of results that were told."""
        for result in results:
            if result.delivery.broadcast == self._broadcast:
                self._hear(lease.account, result)
        self._ended(self._run.ends.total())
        return [Result(one.before, one.delivery) for one in results]

    def _hear(self, account: str, result: Result) -> None:
        delivery, attempt, run = result.delivery, result.attempt, self._run
        if attempt is not None and attempt.round == 1 and attempt.rung is Rung.FIRST and result.new_rung:
            run.first_tries += 1
            run.absent_first += delivery.state is not DeliveryState.SENT
        if delivery.state is DeliveryState.PLANNED:
            run.held[account] += attempt is None
        else:
            run.ends[delivery.state, delivery.reason] += 1
        if delivery.sent_at is not None:
            run.sent[_hour(delivery.sent_at)] += 1


def _hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)


@dataclass
class _Accepting:
    """A platform that accepts everything at once."""

    account: str
    name: ChannelName
    features: Features

    async def send(self, to: Conversation, content: Content) -> Answer:  # noqa: ARG002 - nobody reads it
        return _ACCEPTED

    async def close(self) -> None:
        pass


class _Drawn(AtHand):
    """Presence as `SPELL` says, at the moment of asking."""

    def __init__(
        self, history: History, channel: ChannelName, clock: VirtualClock, seed: int, asked: Asked
    ) -> None:
        self._presence = presence(history, channel, seed=seed)
        self._history = history
        self._channel = channel
        self._clock = clock
        self._asked = asked

    def state(self, user_id: str) -> PresenceState:
        now = self._clock.now()
        hour = hour_of_week(now)
        if (self._channel, hour) not in self._asked:
            self._asked[self._channel, hour] = self._history.knows(self._channel, hour)
        return self._presence(user_id, now)


def presence(history: History, channel: ChannelName, *, seed: int) -> Callable[[str, datetime], PresenceState]:
    """What somebody's presence is at a moment, as `SPELL` says: a function of seed, person and time."""
    ladders: dict[int, Callable[[float], PresenceState]] = {}
    begins: dict[str, int] = {}

    def drawn(user_id: str, at: datetime) -> PresenceState:
        hour = hour_of_week(at)
        if hour not in ladders:
            ladders[hour] = _ladder(history.shares(channel, hour))
        if user_id not in begins:
            begins[user_id] = plan.below(_STEP_SECONDS, seed, "step", user_id)
        step = (int(at.timestamp()) + begins[user_id]) // _STEP_SECONDS
        while plan.unit(seed, "goes on", user_id, step) < _GOES_ON:
            step -= 1
        return ladders[hour](plan.unit(seed, "presence", user_id, step))

    return drawn


def _ladder(shares: Mapping[PresenceState, float]) -> Callable[[float], PresenceState]:
    """From a number in [0, 1) to a state. In one order always, so that who is available while fewer are is so too
    while more are."""
    states = [state for state in PresenceState if shares.get(state)]
    steps = list(accumulate(shares[state] for state in states))

    def drawn(number: float) -> PresenceState:
        return next((state for state, step in zip(states, steps, strict=True) if number < step), states[-1])

    return drawn
