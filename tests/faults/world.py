"""One broken world: a broadcast from its launch to its end, and everything that has to hold of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from structlog.testing import capture_logs

from broadcast import calendar, tally, virtual_time
from broadcast.attempts import allows
from broadcast.campaigns import Broadcasts
from broadcast.engine import Engine, Options
from broadcast.errors import Conflict, StoreUnavailable
from broadcast.launching import Launching
from broadcast.model import (
    DEFAULT_PRESENCE,
    ENDED_STATUSES,
    OPEN_STATES,
    AfterCrash,
    Attempt,
    Audience,
    Broadcast,
    BroadcastStatus,
    Canary,
    ChannelName,
    Conversation,
    Delivery,
    DeliveryState,
    Message,
    Outcome,
    OutsideHours,
    Policies,
    Recipient,
    Schedule,
    WhenUnknown,
    Window,
)
from broadcast.pacing import CATCH_UP
from broadcast.ports import Account, DeliveryFilter, Lease, Page, PresenceProvider, Store
from broadcast.tracking import Links
from broadcast.virtual_time import VirtualClock
from storage.memory import MemoryStore
from tests.faults.broken import (
    FEATURES,
    BrokenChannel,
    BrokenPresence,
    BrokenStore,
    Crash,
    Fate,
    ended,
)

START = datetime(2026, 3, 27, 7, tzinfo=UTC)
SCHEDULE = Schedule(
    start=date(2026, 3, 27),
    working_days=2,
    timezone="Europe/Paris",
    hours={day: (Window(9 * 60, 12 * 60), Window(14 * 60, 18 * 60)) for day in range(5)},
)
WORKING = calendar.working_time(SCHEDULE, calendar.zone("Europe/Paris"), not_before=START)
#: How old an answer on presence may be when a send goes out: 60 s, and the wait for its slot.
STALE = timedelta(seconds=62)
#: How long after its intent was granted a send may still begin.
IN_FLIGHT = timedelta(seconds=4)
OVER = timedelta(days=3)


@dataclass
class World:
    """All of it made from the seed."""

    seed: int
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(START))
    left: dict[str, datetime] = field(default_factory=dict)
    stopped: datetime | None = None  # when whoever stopped it was told so

    def __post_init__(self) -> None:
        draw = self.draw = random.Random(f"world {self.seed}")  # noqa: S311 - a test's
        further = random.Random(f"further {self.seed}")  # noqa: S311 - a test's, apart so that the rest stays
        self.people = [f"p{number}" for number in range(draw.randint(1, 5))]
        self.inner = MemoryStore()
        self.fate = Fate(
            self.seed,
            self.clock,
            trouble=draw.choice([0.0, 0.02, 0.1, 0.3]),
            crashes=draw.choice([0, 1, 3, 9]),
            calm_after=WORKING.ends,
        )
        self.fate.meanwhile = self._meanwhile
        calm = Fate(self.seed, self.clock, trouble=0.0, crashes=0)
        self.store = BrokenStore(self.inner, calm if self.fate.timing.random() < 0.3 else self.fate)
        self.accounts = [
            Account(f"{channel}/x", channel, FEATURES, draw.choice([0.002, 0.05, 1.0, 50.0, 500.0]))
            for channel in (ChannelName.TEAMS, ChannelName.TELEGRAM)[: draw.randint(1, 2)]
        ]
        self.channels = {a.key: BrokenChannel(a.key, a.channel, self.fate) for a in self.accounts}
        self.presence = BrokenPresence(self.fate, prefetch=draw.random() < 0.5)
        self.policies = Policies(
            presence=DEFAULT_PRESENCE,
            when_unknown=draw.choice(list(WhenUnknown)),
            rounds=draw.randint(1, 3),
            after_crash=draw.choice(list(AfterCrash)),
            outside_hours=draw.choice([OutsideHours.HOLD, OutsideHours.HOLD, OutsideHours.DROP]),
            rate=further.choice([None, None, 0.01, 1.0]),
            canary=further.choice([None, None, Canary(1), Canary(2, minutes=30)]),
        )
        self.broadcast = Broadcast(
            id="brd_1",
            campaign="cmp_1",
            name="Benefits week",
            message=Message("Hello"),
            audience=Audience(),
            schedule=Schedule(immediate=True, hours=SCHEDULE.hours, timezone=SCHEDULE.timezone, working_days=2)
            if draw.random() < 0.3
            else SCHEDULE,
            policies=self.policies,
            seed=self.seed,
            launched_at=START,
            launched_by="tok_1",
            starts_at=START,
        )

        self._launching = Launching(self.store, self.clock, {a.key: a for a in self.accounts})

    # --- life -----------------------------------------------------------------------------------------

    def play(self) -> None:
        virtual_time.run(self.clock, self._play)

    async def _play(self) -> None:
        await self._people()
        tasks = [asyncio.create_task(life) for life in (self._host(), *map(self._account, self.accounts))]
        tasks += [asyncio.create_task(act) for act in self._operator()]
        last = WORKING.ends + OVER
        while self.clock.now() < last and not await self._is_over():
            await self.clock.sleep_until(min(last, self.clock.now() + timedelta(hours=1)))
            await self._resume()
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _people(self) -> None:
        await self.inner.save_recipients([Recipient(id=who) for who in self.people])
        await self.inner.save_conversations(
            [
                Conversation(f"cnv_{who}", account.key, account.channel, who, user_id=who)
                for who, account in zip(self.people, self.accounts * len(self.people), strict=False)
            ]
        )
        await self.inner.save_broadcast(self.broadcast, expected=None)

    async def _is_over(self) -> bool:
        stored = await self.inner.broadcast("brd_1")
        assert stored is not None
        counts = await self.inner.tally("brd_1")
        is_open = any(n for key, n in counts.items() if key.split("/")[-1] in OPEN_STATES and key[:5] == "state")
        return stored.status in ENDED_STATUSES and not is_open

    async def _resume(self) -> None:
        """An operator sees to a broadcast that an account paused."""
        try:
            await Broadcasts(self.inner, self.clock).resume("brd_1")
        except Conflict:
            return

    async def _host(self) -> None:
        """Finishes what a crash cut short, starts what is due; after a crash another host does."""
        while True:
            try:
                await self._launching.finish_interrupted()
                while await self._waits():
                    await self._launching.start_due()
                return
            except (StoreUnavailable, Crash):
                await self.clock.sleep_until(self.clock.now() + timedelta(minutes=1))

    async def _waits(self) -> bool:
        """Whether the broadcast still has to be started; a host that died amid it does not know."""
        stored = await self.inner.broadcast("brd_1")
        assert stored is not None
        await self.clock.sleep_until(self.clock.now() + timedelta(seconds=1))
        return stored.planned is None and stored.status not in ENDED_STATUSES

    async def _account(self, account: Account) -> None:
        """An engine, and after a crash another."""
        number = 0
        while True:
            number += 1
            lease = await self.inner.acquire_lease(account.key, f"worker {number}", 1e9)
            assert lease is not None
            await self._engine(account, lease)
            await self.inner.release_lease(lease)
            await self.clock.sleep_until(self.clock.now() + timedelta(seconds=self.draw.choice([0, 1, 300])))

    async def _engine(self, account: Account, lease: Lease) -> None:
        presence: PresenceProvider | None = self.presence if account.channel is ChannelName.TEAMS else None
        engine = Engine(
            self.store,
            self.channels[account.key],
            account=account,
            lease=lease,
            clock=self.clock,
            links=Links(secret="s", public_url="http://clarion.test"),
            presence=presence,
            options=Options(load=4),
        )
        task = asyncio.create_task(engine.run())
        try:
            error = await ended(task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if not isinstance(error, Crash):
            raise error or AssertionError("the engine stopped by itself")

    # --- operators and people -------------------------------------------------------------------------

    def _operator(self) -> Sequence[Coroutine[Any, Any, None]]:
        acts = [self._at(self._moment(), lambda who=who: self._leave(who)) for who in self.people if self._may(0.2)]  # type: ignore[misc]  # bound now
        if self._may(0.2):
            acts.append(self._at(self._moment(), self._stop))
        if self._may(0.2):
            acts.append(self._at(self._moment(), self._pause))
        return acts

    def _may(self, part: float) -> bool:
        return self.draw.random() < part

    def _moment(self) -> datetime:
        """Any moment, often amid the start."""
        if self._may(0.2):
            return START + timedelta(seconds=self.draw.randint(0, 600))
        return START + timedelta(seconds=self.draw.randint(0, int((WORKING.ends - START).total_seconds())))

    async def _at(self, instant: datetime, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await self.clock.sleep_until(instant)
        await act()

    async def _leave(self, who: str) -> None:
        self.left.setdefault(who, self.clock.now())
        await self.inner.set_unsubscribed(who, self.clock.now())

    async def _meanwhile(self) -> None:
        """What people and operators do while something else takes its time."""
        act = self.draw.choice([self._leave_somebody, self._leave_somebody, self._pause, self._stop_at_once])
        await act()

    async def _leave_somebody(self) -> None:
        await self._leave(self.draw.choice(self.people))

    async def _stop_at_once(self) -> None:
        try:
            await Broadcasts(self.inner, self.clock).stop("brd_1")
        except Conflict:
            return
        self.stopped = self.stopped or self.clock.now()

    async def _stop(self) -> None:
        """Through a store that breaks: said again until it is done."""
        while True:
            try:
                await Broadcasts(self.store, self.clock).stop("brd_1")
            except (StoreUnavailable, Crash):
                await self.clock.sleep_until(self.clock.now() + timedelta(seconds=1))
                continue
            except Conflict:  # it may have been this stop, before a crash
                pass
            self.stopped = self.stopped or self.clock.now()
            return

    async def _pause(self) -> None:
        try:
            await Broadcasts(self.inner, self.clock).pause("brd_1")
        except Conflict:
            return


# --- what has to hold ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """What became of one person."""

    delivery: Delivery
    lines: list[Attempt]
    sends: list[datetime]
    accepted: int


def check(seed: int) -> World:
    """Plays the world of this seed; raises `AssertionError` with what does not hold in it."""
    world = World(seed)
    with capture_logs():
        world.play()
    broadcast, stories, counts = asyncio.run(_read(world))
    for story in stories:
        _check_end(story)
        _check_doubles(story)
        _check_hours(story)
        _check_lines(story)
        _check_opt_out(world, broadcast, story)
    _check_presence(world, stories)
    _check_rates(world)
    _check_shares(world, broadcast)
    _check_counters(stories, counts)
    assert broadcast.status in ENDED_STATUSES, f"the broadcast is {broadcast.status}"
    if broadcast.status is BroadcastStatus.COMPLETED:
        assert broadcast.planned == len(world.people), f"planned {broadcast.planned} of {len(world.people)}"
    return world


async def _read(world: World) -> tuple[Broadcast, list[Story], dict[str, int]]:
    store: Store = world.inner
    broadcast = await store.broadcast("brd_1")
    assert broadcast is not None
    listing = await store.deliveries(DeliveryFilter("brd_1"), Page(1, 1000))
    if broadcast.status is BroadcastStatus.COMPLETED:
        assert {d.recipient for d, _ in listing.items} == set(world.people), "somebody was lost"
    stories = []
    for delivery, _ in listing.items:
        sends = [s for c in world.channels.values() for s in c.sends if s.recipient == delivery.recipient]
        lines = [line for line in await store.timeline(delivery.id) if isinstance(line, Attempt)]
        stories.append(Story(delivery, lines, [s.at for s in sends], sum(s.accepted for s in sends)))
    return broadcast, stories, dict(await store.tally("brd_1"))


def _check_end(story: Story) -> None:
    assert story.delivery.state not in OPEN_STATES, f"{story.delivery} has no end"


def _check_doubles(story: Story) -> None:
    delivery = story.delivery
    listed = delivery.possibly_doubled or delivery.state is DeliveryState.UNCERTAIN
    assert story.accepted <= 1 or listed, f"{delivery} was sent {story.accepted} times, and it is not listed"
    if delivery.state is DeliveryState.SENT:
        assert story.accepted, f"{delivery} was never accepted"
    else:
        assert not story.accepted or listed, f"{delivery} may have arrived, and it is not listed"


def _check_hours(story: Story) -> None:
    outside = [at for at in story.sends if not WORKING.contains(at)]
    assert not outside, f"{story.delivery} was sent outside hours: {outside}"


def _check_lines(story: Story) -> None:
    delivery, tries = story.delivery, [line for line in story.lines if line.outcome is not Outcome.ABSENT]
    named = {(line.round, line.rung) for line in story.lines}
    assert delivery.attempts == len(named), f"{delivery.attempts} attempts, but {len(named)} rungs: {story.lines}"
    assert delivery.sends == len(tries), f"{delivery.sends} sends, but {len(tries)} lines: {story.lines}"
    assert len(story.sends) <= delivery.sends, f"{len(story.sends)} requests, {delivery.sends} sends"
    order = list(dict.fromkeys((line.round, ("first", "again", "slot").index(line.rung)) for line in story.lines))
    assert order == sorted(order), f"rungs out of order: {story.lines}"


def _check_opt_out(world: World, broadcast: Broadcast, story: Story) -> None:
    stop = world.stopped if broadcast.status is BroadcastStatus.STOPPED else None
    for end in (world.left.get(story.delivery.recipient), stop):
        late = [at for at in story.sends if end is not None and at >= end + IN_FLIGHT]
        assert not late, f"{story.delivery} was sent at {late}, after {end}"


def _check_presence(world: World, stories: Sequence[Story]) -> None:
    for story in stories:
        if story.delivery.channel is ChannelName.TEAMS:
            told = world.presence.told.get(story.delivery.recipient, [])
            for at in story.sends:
                fresh = [state for when, state in told if timedelta() <= at - when <= STALE]
                assert any(allows(world.broadcast, ChannelName.TEAMS, state) for state in fresh), (
                    f"{story.delivery.recipient} was written to at {at} without a fresh answer that allows it"
                )


def _check_rates(world: World) -> None:
    for account in world.accounts:
        least = timedelta(seconds=1 / account.rate) - CATCH_UP
        times = [send.at for send in world.channels[account.key].sends]
        close = [(a, b) for a, b in pairwise(times) if b - a < least]
        assert not close, f"{account.key} sends {account.rate}/s, but: {close}"


def _check_shares(world: World, broadcast: Broadcast) -> None:
    """However far apart two sends are, between them there are no more than the share allows, and one."""
    for account, share in broadcast.rates.items():
        times = [send.at for send in world.channels[account].sends]
        for first, begun in enumerate(times):
            for last, at in enumerate(times[first:], first):
                most = (at - begun).total_seconds() * share + 1.001
                assert last - first <= most, f"{account} may send {share}/s, but sent {times[first : last + 1]}"


def _check_counters(stories: Sequence[Story], counts: dict[str, int]) -> None:
    recount: Counter[str] = Counter()
    for story in stories:
        for path, number in tally.of_plan(story.delivery):
            recount[path] += number
        recount["doubled"] += story.delivery.possibly_doubled
        seen: set[tuple[int, str]] = set()
        for line in story.lines:
            for path, number in tally.of_attempt(line, new_rung=(line.round, line.rung) not in seen):
                recount[path] += number
            seen.add((line.round, line.rung))
    off = {path: (counts.get(path, 0), recount[path]) for path in {*counts, *recount}}
    off = {path: pair for path, pair in off.items() if pair[0] != pair[1]}
    assert not off, f"counters and ledger differ: {off}"
