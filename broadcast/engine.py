"""The engine: one account's deliveries, from due to recorded.

It claims what is due, asks presence in batches, renders, paces, sends with bounded concurrency, records in batches,
and sleeps until the next due moment or a wake-up. It decides nothing that `attempts`, `rounds`, `pacing` or
`message` decide. Time, storage, platform and presence are ports, so it runs unchanged under a virtual clock.

One turn of the loop:

    load      what is due within the next minute, into memory, by broadcast in order of (due, plan); as a rule it
              was loaded beside the last commit
    judge     the answers that came back meanwhile
    sort out  turn by turn: late ones to the next opening; absent ones up the rungs; the rest waits for presence or
              its slot
    commit    outcomes of finished sends, then intents of the next ones, durable before anything goes out
    send      granted intents, in their order, each at its slot

The loop alone decides: the senders beside it only exchange with the platform, and hand in what came of it. They go
on with what is granted while the loop writes, so that neither waits for the other; whatever may forbid a send (an
answer that is not plain success, news from storage, a stop) makes them wait for the loop first, which takes back
what is granted and not begun.

Memory holds of each running broadcast every planned delivery up to an edge and none behind it, so that storage
never hands out what is decided already. What a turn puts off beyond the edge is storage's once it is written. A
load beside that commit may have looked before it: so what the new edge reaches stays in memory. Broadcasts are
loaded each for itself, so that none hides another behind its backlog.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog

from broadcast import attempts, brakes, report
from broadcast.attempts import Rules
from broadcast.brakes import Brake, Breaker
from broadcast.campaigns import Broadcasts, every
from broadcast.errors import Conflict, LeaseLost, StoreUnavailable
from broadcast.launching import Calendars, FirstMaker, drawn
from broadcast.memory import Item, Key, Memory, Stretch
from broadcast.message import Rendering
from broadcast.model import (
    Answer,
    BadContent,
    Broadcast,
    BroadcastKind,
    BroadcastStatus,
    Delivery,
    DeliveryState,
    Faulty,
    Holds,
    Recipient,
    Sent,
    StopAccount,
    Throttled,
    Unknown,
)
from broadcast.pacing import CATCH_UP, WELL, Conversations, Health, Pacer, Turns
from broadcast.ports import Account, Channel, Clock, Due, Lease, PresenceProvider, Result, Store
from broadcast.recovery import Recovery
from broadcast.rollcall import RollCall
from broadcast.tracking import Links

log = structlog.get_logger()

_T = TypeVar("_T")
_MOST = 2**62
_FIRST = datetime.min.replace(tzinfo=UTC)
#: The least that is loaded of a broadcast at once, however many run.
_LEAST = 50
#: What could not go although there is room is looked at again after this: never at once, so that nothing spins.
_MOMENT = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Options:
    """How much the engine holds at once: `concurrency` sends on their way, `ahead` more whose intents are written,
    none by more than `lead` before its slot, half of which what went well may wait to be written together. `load`
    is loaded, `page` of it at once, and is shared among the broadcasts that run. `window` is how far ahead it
    loads, and how far ahead presence is asked where that costs nothing; `intent_life` is how old an intent may be
    when its send begins, before it is judged anew; `regained` is for how long a lease that ran out, and that nobody
    took, is taken again; `first` finds first moments; without `brakes` nothing pauses a broadcast but an account
    that is shut out."""

    concurrency: int = 64
    ahead: int = 1_000
    lead: timedelta = timedelta(milliseconds=250)
    load: int = 3_000
    page: int = 500
    window: timedelta = timedelta(seconds=60)
    store_retry: timedelta = timedelta(seconds=1)
    presence_retry: timedelta = timedelta(seconds=10)
    intent_life: timedelta = timedelta(seconds=2)
    regained: timedelta = timedelta(seconds=5)
    first: FirstMaker = drawn
    brakes: bool = True


@dataclass(slots=True)
class Status:
    """What an operator sees of one account. `trouble` is what keeps it from sending, in words."""

    account: str
    rate: float
    waiting_until: datetime | None = None
    trouble: str | None = None
    sent: deque[tuple[datetime, str]] = field(default_factory=lambda: deque(maxlen=4096))

    def achieved_rate(self, now: datetime) -> float:
        """Messages a second over the last minute."""
        return _rate([at for at, _ in self.sent], now)

    def achieved_rates(self, now: datetime) -> dict[str, float]:
        """The same of each broadcast that sent something lately."""
        times: dict[str, list[datetime]] = {}
        for at, broadcast in self.sent:
            times.setdefault(broadcast, []).append(at)
        return {broadcast: _rate(sent, now) for broadcast, sent in times.items()}


def _rate(times: Sequence[datetime], now: datetime) -> float:
    recent = [at for at in times if now - at <= timedelta(seconds=60)]
    if len(recent) < 2:
        return 0.0
    return round((len(recent) - 1) / max((now - recent[0]).total_seconds(), 1e-6), 2)


class Engine:
    """Drives one account for as long as its lease is held."""

    def __init__(
        self,
        store: Store,
        channel: Channel,
        *,
        account: Account,
        lease: Lease,
        clock: Clock,
        links: Links,
        presence: PresenceProvider | None = None,
        options: Options | None = None,
    ) -> None:
        self._store = store
        self._channel = channel
        self._account = account
        self._lease = lease
        self._clock = clock
        self._links = links
        self._options = options or Options()
        self._roll = RollCall(presence, account=account, clock=clock, retry=self._options.presence_retry)
        self._broadcasts = Broadcasts(store, clock)
        self._recovery = Recovery(store, clock)
        self._pacer = Pacer(account.rate)
        # A send whose slot is that near is prepared; where that would be a single one, each waits for its slot.
        self._lead = self._options.lead if self._pacer.interval * 2 <= self._options.lead else timedelta()
        self._turns = Turns(account.order, self._pacer)
        self._conversations = Conversations(account.features.conversation_limits)
        self._health: Health = WELL
        self._memory = Memory()
        self._running: dict[str, Stretch] = {}
        self._batch = self._options.load  # how much is loaded of one broadcast at once
        self._breaker = Breaker()
        self._allowed_yet: dict[str, int] = {}
        self._granted: deque[_Granted] = deque()
        self._senders: set[asyncio.Task[None]] = set()
        self._awaits_slot = False
        self._promised: set[str] = set()  # the conversations of what is granted
        self._halted = False  # senders begin nothing until the loop has judged
        self._answers: list[_Answered] = []
        self._results: list[Result] = []
        self._put_off: list[Item] = []  # beyond the edge, in this turn
        self._side: set[asyncio.Task[None]] = set()
        self._books: dict[str, _Book] = {}
        self._wake = asyncio.Event()  # something is to be done
        self._hurry = asyncio.Event()  # at once
        self._away_at = _FIRST  # when the store could not be used last
        self._stopping = False
        self._stale = False
        self._broken: BaseException | None = None
        self.status = Status(account.key, account.rate)

    # --- life -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `stop` is called (what is in flight is then finished and recorded), the lease is lost (raises
        `LeaseLost`, nothing more is recorded), or it is cancelled."""
        seen = await self._durably(self._store.control_version)
        watch = asyncio.create_task(self._watch(seen), name=f"watch {self._account.key}")
        watch.add_done_callback(self._finished)
        try:
            await self._durably(self._recover)
            await self._reload()  # what was recovered may have been the last of its broadcast
            self._pacer.take(self._clock.now())  # an owner before may have sent a moment ago
            for broadcast in self._running:
                self._turns.take(broadcast, self._clock.now())
            while not self._stopping:
                await self._rest(await self._turn())
            await self._drain()
        finally:
            tasks = (watch, *self._side, *self._senders)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Begins no more sends; `run` returns once those in flight are recorded."""
        self._stopping = True
        self._look()

    def _look(self) -> None:
        """Makes the loop look now."""
        self._wake.set()
        self._hurry.set()

    async def _rest(self, wake_at: datetime | None) -> None:
        """Until there is something to do. As long as the senders have enough to go on with, what went well is left
        to gather: one write for many."""
        if not self._stopping:
            await self._clock.wait(self._wake, wake_at)
        self._hurry.clear()
        if self._has_ahead() and not (self._halted or self._stale or self._stopping or self._broken):
            await self._clock.wait(self._hurry, self._clock.now() + self._options.lead / 2)
        self._wake.clear()

    def _has_ahead(self) -> bool:
        """Whether the senders have enough to go on with, by number or by the clock."""
        granted = len(self._granted)
        return granted > self._options.ahead // 2 or (granted > 0 and self._clock.now() < self._low_at())

    def _low_at(self) -> datetime:
        """When of what is prepared half the lead is left."""
        return self._pacer.follows(len(self._granted)) - self._lead / 2

    async def _drain(self) -> None:
        while self._memory.flying or self._results or self._granted:
            self._wake.clear()
            self._judge()
            self._take_back()
            await self._commit([])
            if self._memory.flying and not self._answers:
                await self._clock.wait(self._wake, None)
        await self._roll.keep(self._store, over=True)

    async def _watch(self, seen: int) -> None:
        """Learns of what others changed since: launches, pauses, stops, opt-outs."""
        while True:
            try:
                seen = await self._store.wait_control(seen)
            except StoreUnavailable:
                await self._pause_for_store()
                continue
            self._stale = True
            self._look()

    async def _recover(self) -> None:
        """Settles what a crash of an earlier owner left in flight."""
        await self._withhold(await self._recovery.recover(self._lease))
        await self._recovery.cancel_rest()

    # --- one turn -------------------------------------------------------------------------------------

    async def _turn(self) -> datetime | None:
        """One turn of the loop; answers when the next is due, ``None`` for when something happens."""
        if self._broken is not None:
            raise self._broken
        if self._stale:
            await self._reload()
        await self._durably(self._load)
        self._judge()
        await self._brake()
        now = self._clock.now()
        self._go_on(now)
        ready = self._sort_out(now)
        if ready or self._results:
            await self._commit_and_load(ready)
        await self._ask_if_needed(now)
        return await self._durably(self._next_wake)

    async def _brake(self) -> None:
        """Pauses what must not go on by itself (`brakes`)."""
        if not self._options.brakes:
            return
        for broadcast, brake in {**self._breaker.pulled(), **await self._canaries()}.items():
            log.warning("paused", action="braked", broadcast=broadcast, reason=brake.reason, detail=brake.detail)
            await self._durably(partial(self._pull, broadcast, brake))
            self._stale = True
        if self._stale:
            await self._reload()

    async def _pull(self, broadcast: str, brake: Brake) -> None:
        with suppress(Conflict):  # somebody else paused or stopped it first
            await self._broadcasts.pull(broadcast, brake)

    async def _canaries(self) -> dict[str, Brake]:
        """Counts what canaries still allow, and finds those that are over."""
        self._allowed_yet = {}
        over = {}
        for id in [id for id in self._running if brakes.has_canary(self._books[id].broadcast)]:
            broadcast = self._books[id].broadcast
            counts = report.deliveries(await self._durably(partial(self._store.tally, id)))
            self._allowed_yet[id] = brakes.canary_left(broadcast, counts)
            if (brake := brakes.canary_over(broadcast, counts, self._clock.now())) is not None:
                over[id] = brake
        return over

    def _limits(self) -> dict[str, int]:
        """How many may be begun over all accounts, of each broadcast that has to pass its canary: what is counted
        here may be taken by another account before the intents are written."""
        if not self._options.brakes:
            return {}
        known = (book.broadcast for book in self._books.values())
        return {one.id: brakes.canary_first(one) for one in known if brakes.has_canary(one)}

    async def _reload(self) -> None:
        """Forgets what is waiting in memory: storage may say otherwise by now. What is already decided is written
        first, or storage would hand it out again as it was before."""
        self._take_back()
        self._stale = False
        while self._results or self._answers:
            self._judge()
            await self._commit([])
        self._memory.forget_idle()
        self._put_off.clear()
        self._books.clear()
        await self._durably(self._look_around)
        for broadcast in await self._durably(lambda: every(self._store, BroadcastStatus.RUNNING)):
            await self._settle(broadcast.id)

    async def _look_around(self) -> None:
        """Finds the broadcasts that run on the account. None of what they have is in memory yet."""
        running = {id: await self._book(id) for id in await self._store.running_on(self._account.key)}
        for id, book in running.items():
            own = book.broadcast.rates.get(self._account.key, book.broadcast.policies.rate)
            self._turns.admit(id, _since(book.broadcast), own)
        self._turns.keep([*running], self._clock.now())
        self._breaker.keep(running)
        self._running = {id: Stretch() for id in running}
        most = self._options.load
        self._batch = max(most // max(len(running), 1), min(most, _LEAST))

    async def _load(self, *, ahead: bool = False) -> None:
        """Brings what is due within the window into memory, a bounded number at a time. `ahead`: although the
        last window is not over."""
        now = self._clock.now()
        until = now + self._options.window
        for broadcast, stretch in self._running.items():
            if self._wants_more(broadcast, stretch, until if ahead else now):
                # Those to be asked about are wanted all at once; else the first is not to wait for the last.
                limit = self._batch if self._roll.prefetches else min(self._batch, self._options.page)
                await self._load_of(broadcast, stretch, until, limit)

    async def _load_of(self, broadcast: str, stretch: Stretch, until: datetime, limit: int) -> None:
        loaded = await self._store.due(
            self._account.key, broadcast=broadcast, until=until, after=stretch.edge, limit=limit
        )
        for due in loaded:
            if due.delivery.id not in self._memory:
                self._memory.queue(await self._item(due))
        if len(loaded) == limit:
            last = loaded[-1].delivery
            stretch.edge, stretch.loaded_until = (last.due_at or until, last.position, last.id), None
        else:
            stretch.edge, stretch.loaded_until = (until, _MOST, ""), until
        for item in self._put_off:
            delivery = item.delivery
            if delivery.broadcast == broadcast and delivery.id not in self._memory and stretch.reaches(delivery):
                self._keep(item)

    def _wants_more(self, broadcast: str, stretch: Stretch, instant: datetime) -> bool:
        return not stretch.covers(instant) and not self._is_full(broadcast)

    def _is_full(self, broadcast: str) -> bool:
        return self._memory.number_of(broadcast) >= self._batch // 2

    async def _item(self, due: Due) -> Item:
        book = await self._book(due.delivery.broadcast)
        at = due.delivery.due_at or self._clock.now()
        return Item(due.delivery, due.recipient, due.conversation, book.rules(due.recipient), book.rendering, at)

    async def _book(self, broadcast: str) -> _Book:
        if broadcast not in self._books:
            found = await self._broadcasts.get(broadcast)
            self._books[broadcast] = _Book(found, self._options.first, self._channel, self._links)
        return self._books[broadcast]

    def _sort_out(self, now: datetime) -> list[Item]:
        """Those whose slot has come, at most as many as may be in flight; the others are judged or put aside."""
        ready: list[Item] = []
        taken = _Taken(Counter(granted.item.delivery.broadcast for granted in self._granted))
        room = self._room(now)
        while self._may_go_on(len(ready), room) and (item := self._next_item(now, taken)) is not None:
            if (result := attempts.late(item.delivery, item.rules, now)) is not None:
                self._note(result, item)
            elif (allowed := self._allowed(item, now)) is None:
                self._memory.waiting.setdefault(item.conversation.user_id, []).append(item)
            elif not allowed:
                self._note(attempts.absent(item.delivery, item.rules, now), item)
            elif (earliest := self._free_at(item.conversation.id, now)) > now:
                item.not_before = earliest
                self._memory.queue(item)
            else:
                self._conversations.take(item.conversation.id, now)
                self._promised.add(item.conversation.id)
                self._turns.serve(item.delivery.broadcast)
                taken.add(item.delivery.broadcast)
                ready.append(item)
        return ready

    def _free_at(self, conversation: str, now: datetime) -> datetime:
        """When the conversation may be written to: not while a send to it is prepared, whose instant is open."""
        if conversation in self._promised:
            return now + max(self._lead, CATCH_UP)
        return self._conversations.earliest(conversation)

    def _next_item(self, now: datetime, taken: _Taken) -> Item | None:
        """The first of the broadcast whose turn it is, of those whose own rate allows another send."""
        if (only := self._memory.only) is not None:
            return self._memory.pop(only, now) if self._is_free(only, now, taken) else None

        def choose(due: Sequence[tuple[str, Key]]) -> str | None:
            free = [broadcast for broadcast, _ in due if self._is_free(broadcast, now, taken)]
            return self._turns.first(free) if free else None

        return self._memory.pop_due(now, choose)

    def _is_free(self, broadcast: str, now: datetime, taken: _Taken) -> bool:
        """By its own rate, which counts those that have not begun, and by its canary, which has counted them."""
        allowed = taken.now[broadcast] < self._allowed_yet.get(broadcast, _MOST)
        return allowed and self._turns.is_free(broadcast, now, taken.all[broadcast])

    def _room(self, now: datetime) -> int:
        """How many more may be granted now."""
        granted = len(self._granted)
        begun = len(self._memory.flying) + granted
        room = self._pacer.room(now + self._lead, now, granted)
        if self._health.outage:
            return 0 if begun else min(1, room)  # one probe at a time
        return min(self._most_begun - begun, room)

    def _may_go_on(self, taken: int, room: int) -> bool:
        return taken < room and len(self._memory.waiting) < self._roll.worth_asking

    @property
    def _most_begun(self) -> int:
        return self._options.concurrency + self._options.ahead

    # --- presence -------------------------------------------------------------------------------------

    async def _ask_if_needed(self, now: datetime) -> None:
        """Asks for everybody who waits for it; where a batch is one call, also for those who are due soon."""
        roll = self._roll
        wanted = roll.unasked(self._memory.waiting, len(self._memory.waiting))
        if not wanted:
            return
        if roll.prefetches and len(wanted) < roll.worth_asking:
            await self._durably(lambda: self._load(ahead=True))
            soon = sorted(self._memory.due_by(now + self._options.window), key=lambda item: item.key)
            unknown = (item.conversation.user_id for item in soon if self._allowed(item, now) is None)
            wanted = roll.unasked([*wanted, *unknown], roll.worth_asking)
        roll.begin(wanted)
        self._beside(self._ask(wanted), "presence")

    async def _ask(self, wanted: Sequence[str]) -> None:
        untold = await self._roll.ask(wanted)
        for user_id in wanted:
            for item in self._memory.waiting.pop(user_id, ()):
                item.not_before = untold.get(user_id, item.not_before)
                self._memory.queue(item)
        self._look()

    def _allowed(self, item: Item, now: datetime) -> bool | None:
        return self._roll.allows(item.rules.broadcast, item.conversation.user_id, now)

    # --- outcomes -------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Decides what the answers that came back mean."""
        answers, self._answers = self._answers, []
        for back in answers:
            item, answer = back.item, back.answer
            self._memory.flying.discard(item.delivery.id)
            outage = self._health.outage
            self._health = self._health_after(answer, item.delivery.recipient)
            if not isinstance(answer, Sent):
                self._hold(item, answer, back.now)
            result = attempts.answered(item.delivery, answer, item.rules, at=back.at, now=back.now, outage=outage)
            self._breaker.count(item.delivery, result)
            self._note(result, item)

    def _note(self, result: Result, item: Item) -> None:
        """Keeps a result for the next commit, and the delivery for its next attempt if that is not behind the
        edge."""
        self._results.append(result)
        self._roll.count(result, item.conversation.user_id)
        item.delivery = delivery = result.delivery
        stretch = self._running.get(delivery.broadcast)
        if delivery.state is not DeliveryState.PLANNED or stretch is None:
            self._memory.forget(item)
        elif stretch.reaches(delivery):
            self._keep(item)
        else:
            self._memory.forget(item)
            self._put_off.append(item)

    def _keep(self, item: Item) -> None:
        """For its next attempt."""
        item.not_before = item.delivery.due_at or item.not_before
        self._memory.queue(item)

    async def _commit_and_load(self, ready: Sequence[Item]) -> None:
        """Loads beside the commit what the next turns want."""
        now, loading = self._clock.now(), None
        if any(self._wants_more(broadcast, stretch, now) for broadcast, stretch in self._running.items()):
            loading = self._beside(self._durably(self._load), "load")
        await self._commit(ready)
        if loading is not None:
            await loading
        self._put_off.clear()

    async def _commit(self, ready: Sequence[Item]) -> None:
        """Writes outcomes and intents, and sends what was granted."""
        results, self._results = self._results, []
        began = self._clock.now()
        intents = {item.delivery.id: attempts.intended(item.delivery, began) for item in ready}
        granted = await self._written(results, [*intents.values()], began)
        refused = self._grant(ready, intents, granted, began)
        back = [result.delivery for result in results if _is_back(result)]
        if refused:
            self._stale = True  # a pause that is over by now would leave them out of memory
        await self._withhold([*back, *refused])
        await self._settle_ended(results)

    async def _written(self, results: Sequence[Result], intents: Sequence[Delivery], now: datetime) -> Set[str]:
        """All in one transaction; answers the ids granted."""
        if intents:
            limits = self._limits()
            write = partial(self._store.intend, self._lease, intents, now, after=results, limits=limits)
            return set(await self._durably(write))
        if results:
            await self._durably(lambda: self._store.record(self._lease, results))
        return frozenset()

    def _grant(
        self, ready: Sequence[Item], intents: Mapping[str, Delivery], granted: Set[str], began: datetime
    ) -> list[Delivery]:
        """Hands on to the senders what was granted; answers what was refused: it has ended meanwhile, or ends now,
        or is loaded anew."""
        refused = []
        took = self._clock.now() - began
        if granted and took > self._options.intent_life and self._away_at < began:
            self._tell_slow(took)
        for item in ready:
            if item.delivery.id in granted:
                self._granted.append(_Granted(item, intents[item.delivery.id], began))
            else:
                self._promised.discard(item.conversation.id)
                self._memory.forget(item)
                refused.append(item.delivery)
        self._send()
        return refused

    def _is_ripe(self, item: Item, now: datetime) -> bool:
        return item.rules.working.contains(now) and self._allowed(item, now) is True

    async def _withhold(self, deliveries: Sequence[Delivery]) -> None:
        """Ends those planned ones that may not be sent any more."""
        for delivery in deliveries:
            result = await self._durably(partial(self._recovery.withheld, delivery.id))
            if result is not None:
                self._memory.drop(delivery.id)
                self._results.append(result)

    async def _settle_ended(self, results: Sequence[Result]) -> None:
        """Completes the broadcasts whose last delivery this may have been."""
        ended = {r.delivery.broadcast for r in results if r.delivery.state is not DeliveryState.PLANNED}
        for broadcast in ended:
            if not self._memory.number_of(broadcast):
                await self._settle(broadcast)

    async def _settle(self, broadcast: str) -> None:
        await self._durably(lambda: self._broadcasts.settle(broadcast))

    # --- sending --------------------------------------------------------------------------------------

    def _send(self) -> None:
        """As many senders as there is something to send now, at most as many as may be on their way at once."""
        now = self._clock.now()
        free = self._options.concurrency - len(self._senders)
        for _ in range(min(free, len(self._granted), self._pacer.come(now))):
            sender = asyncio.create_task(self._send_on(), name=f"send {self._account.key}")
            self._senders.add(sender)
            sender.add_done_callback(self._finished)
        self._await_slot(now)

    def _await_slot(self, now: datetime) -> None:
        """Goes on when the next slot comes, if that is what keeps the senders."""
        if self._granted and not self._awaits_slot and self._pacer.slot() > now:
            self._awaits_slot = True
            self._beside(self._send_then(self._pacer.slot()), "slot")

    async def _send_then(self, slot: datetime) -> None:
        await self._clock.sleep_until(slot)
        self._awaits_slot = False
        self._send()

    async def _send_on(self) -> None:
        """Sends what is granted, one after the other, until nothing is left."""
        try:
            while (item := self._next_granted(now := self._clock.now())) is not None:
                await self._deliver(item, now)
        finally:  # before anybody else runs: who counts on it must not count one that has ended
            if (me := asyncio.current_task()) is not None:
                self._senders.discard(me)

    def _next_granted(self, now: datetime) -> Item | None:
        """The next that may begin, with its slot taken; what has waited too long is handed back. ``None``: nothing,
        or its slot is to come, or the loop is to look first."""
        while self._granted and not (self._halted or self._stale or self._stopping):
            if self._pacer.slot() > now:
                break
            granted = self._granted.popleft()
            if self._is_fit(granted, now):
                self._take(granted, now)
                self._await_slot(now)
                return granted.item
            self._hand_back(granted.item)
        self._await_slot(now)
        return None

    def _take(self, granted: _Granted, now: datetime) -> None:
        item = granted.item
        self._pacer.take(now, item.key[0])
        self._turns.take(item.delivery.broadcast, now)
        self._promised.discard(item.conversation.id)
        self._conversations.begin(item.conversation.id, now)
        self._memory.flying.add(item.delivery.id)
        item.delivery = granted.intent
        if len(self._granted) == self._options.ahead // 2 or self._turns.has_rate(item.delivery.broadcast):
            self._look()

    def _is_fit(self, granted: _Granted, now: datetime) -> bool:
        return now - granted.at <= self._options.intent_life and self._is_ripe(granted.item, now)

    def _hand_back(self, item: Item) -> None:
        self._promised.discard(item.conversation.id)
        self._note(attempts.handed_back(item.delivery), item)
        self._look()

    def _take_back(self) -> None:
        """Whatever is granted and not begun is to be judged anew."""
        while self._granted:
            self._hand_back(self._granted.popleft().item)

    def _go_on(self, now: datetime) -> None:
        """Lets the senders go on after answers that were judged, unless these made the account wait for longer than
        sends are prepared ahead. What is prepared for the end of a wait stays: to take it back would be to prepare
        it again at once."""
        self._halted = False
        if self._pacer.slot() > now + self._lead:
            self._take_back()
        self._send()

    async def _deliver(self, item: Item, at: datetime) -> None:
        self.status.sent.append((at, item.delivery.broadcast))
        answer = await self._answer(item)
        self._answers.append(_Answered(item, answer, at, self._clock.now()))
        if not isinstance(answer, Sent):
            self._halted = True
            self._look()
        self._wake.set()

    async def _answer(self, item: Item) -> Answer:
        try:
            content = item.rendering.content(item.recipient, item.delivery.id)
        except Exception as error:  # what validation let through costs one delivery, not the loop
            log.exception("send", action="rendering_broke", account=self._account.key, delivery=item.delivery.id)
            return BadContent(type(error).__name__)
        try:
            return await self._channel.send(item.conversation, content)
        except Exception as error:  # a channel that breaks its promise costs one attempt, not the loop
            log.exception("send", action="send_broke", account=self._account.key, delivery=item.delivery.id)
            return Unknown(type(error).__name__)

    def _health_after(self, answer: Answer, recipient: str) -> Health:
        if isinstance(answer, Sent):
            self.status.trouble = None
        elif isinstance(answer, Faulty | Unknown):
            return self._health.failed(recipient)
        return self._health.answered()

    def _hold(self, item: Item, answer: Answer, now: datetime) -> None:
        """What the answer makes wait besides its own delivery."""
        match answer:
            case Throttled(holds=Holds.ACCOUNT):
                self._pacer.hold(now + _throttled_for(item, answer))
            case Throttled(holds=Holds.CONVERSATION):
                self._conversations.hold(item.conversation.id, now + _throttled_for(item, answer), now)
            case StopAccount(detail=detail):
                self._disconnect(detail)
            case Faulty() | Unknown() if self._health.outage:
                log.warning("outage", action="outage", account=self._account.key, detail=answer.detail)
                self._pacer.hold(now + self._health.probe_after())

    def _disconnect(self, detail: str) -> None:
        """The account cannot send: its broadcasts pause with the reason, and nothing fails for it."""
        self.status.trouble = detail
        self._pacer.hold(self._clock.now() + self._options.store_retry)
        self._beside(self._pause_broadcasts(detail), "disconnect")

    def _beside(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Runs it beside the loop, owned by `run`."""
        task = asyncio.create_task(work, name=f"{name} {self._account.key}")
        self._side.add(task)
        task.add_done_callback(self._side.discard)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        """A fault of ours in a task ends the run instead of a delivery."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = error
            self._look()

    async def _pause_broadcasts(self, detail: str) -> None:
        paused = await self._durably(lambda: self._broadcasts.pause_account(self._account.key, detail))
        log.error("account stopped", action="account_stopped", account=self._account.key, broadcasts=paused)

    # --- waiting --------------------------------------------------------------------------------------

    async def _next_wake(self) -> datetime | None:
        """When there is something to do again: the next slot for what is due, the next due moment, or the window's
        end. ``None`` while only an answer can change anything."""
        now = self._clock.now()
        self.status.waiting_until = self._pacer.held_until(now)
        if self._results or self._answers or self._stale:
            return now
        first, load_at = self._first_at(), self._load_at(now)
        if first is not None and first <= now:
            return self._blocked_until(now)
        if load_at is None or load_at <= now:
            return load_at or first
        if first is not None:
            return min(first, load_at)
        following = await self._store.next_due(self._account.key)
        return None if following is None else max(following, load_at)

    def _first_at(self) -> datetime | None:
        """When the first of those in memory may go, as far as its broadcast is concerned."""
        firsts = self._memory.firsts()
        return min((max(key[0], self._slot_of(broadcast)) for broadcast, key in firsts), default=None)

    def _slot_of(self, broadcast: str) -> datetime:
        """When the broadcast may send again; while its canary allows no more, when to look at that again."""
        if self._allowed_yet.get(broadcast, 1):
            return self._turns.slot(broadcast)
        return self._clock.now() + self._options.store_retry

    def _load_at(self, now: datetime) -> datetime | None:
        """When there is something to load again; ``None`` while there is no room for it, or nothing runs."""
        room = [stretch for broadcast, stretch in self._running.items() if not self._is_full(broadcast)]
        return min((stretch.loaded_until or now for stretch in room), default=None)

    def _blocked_until(self, now: datetime) -> datetime | None:
        """Something is due and did not go: for want of a free place, of answers on presence, or of a slot."""
        begun = len(self._memory.flying) + len(self._granted)
        if begun >= self._most_begun or (self._health.outage and begun):
            return None
        if len(self._memory.waiting) >= self._roll.worth_asking:
            return None
        low_at = self._low_at()
        if low_at > now:
            return low_at
        return now + _MOMENT if self._room(now) else None

    # --- a store that cannot write now ----------------------------------------------------------------

    async def _durably(self, write: Callable[[], Awaitable[_T]]) -> _T:
        """Does it, however long the store cannot: nothing goes out meanwhile, nothing is forgotten."""
        trouble = None
        while True:
            try:
                done = await self._held(write)
            except StoreUnavailable as error:
                self._away_at = self._clock.now()
                self._halted = True  # no send whose outcome could not be written
                self.status.trouble = trouble = f"the store cannot be used: {error}"
                log.warning("store", action="store_unavailable", account=self._account.key, detail=str(error))
                await self._pause_for_store()
            else:
                if trouble is not None:
                    self._look()  # the senders may go on
                    if trouble == self.status.trouble:
                        self.status.trouble = None
                        log.info("store", action="store_available", account=self._account.key)
                return done

    def _tell_slow(self, took: timedelta) -> None:
        """Nothing fails, and nothing is sent either: every intent is too old by the time it is written."""
        seconds = round(took.total_seconds(), 1)
        self.status.trouble = f"the store is slow: an intent took {seconds} s; look at its load, disk and network"
        log.warning("store", action="store_slow", account=self._account.key, seconds=seconds)

    async def _held(self, write: Callable[[], Awaitable[_T]]) -> _T:
        """Does it. A lease that ran out while the store was away is the same one still, unless somebody took it:
        what is known of sends in flight is then recorded, not found out by sending again."""
        try:
            return await write()
        except LeaseLost:
            lease, seconds = self._lease, self._options.regained.total_seconds()
            if await self._store.acquire_lease(lease.account, lease.owner, seconds) != lease:
                raise
            return await write()

    async def _pause_for_store(self) -> None:
        await self._clock.sleep_until(self._clock.now() + self._options.store_retry)


class _Taken:
    """How many of each broadcast are granted and have not begun: in all, and of these in this turn."""

    __slots__ = ("all", "now")

    def __init__(self, before: Counter[str]) -> None:
        self.all = before
        self.now: Counter[str] = Counter()

    def add(self, broadcast: str) -> None:
        self.all[broadcast] += 1
        self.now[broadcast] += 1


@dataclass(slots=True)
class _Granted:
    """A send that may begin: its intent was written `at`, while the item still is as it was planned."""

    item: Item
    intent: Delivery
    at: datetime


@dataclass(slots=True)
class _Answered:
    """What came of a send: begun `at`, answered `now`."""

    item: Item
    answer: Answer
    at: datetime
    now: datetime


def _since(broadcast: Broadcast) -> datetime:
    """Where it stands in the order of launches: somebody waits for a trial, so that it goes first."""
    return _FIRST if broadcast.kind is BroadcastKind.TRIAL else broadcast.launched_at


def _throttled_for(item: Item, answer: Throttled) -> timedelta:
    return attempts.throttled_for(item.delivery, answer, item.rules.broadcast.seed)


def _is_back(result: Result) -> bool:
    """Whether a send ended in another try: whatever happened to the delivery meanwhile passed it by."""
    return result.before is DeliveryState.SENDING and result.delivery.state is DeliveryState.PLANNED


class _Book:
    """What one broadcast means on this channel, worked out once: calendars by zone, the rendering."""

    def __init__(self, broadcast: Broadcast, first: FirstMaker, channel: Channel, links: Links) -> None:
        self.broadcast = broadcast
        self.rendering = Rendering(broadcast.message, channel.name, links)
        self._calendars = Calendars(broadcast)
        self._first = first(broadcast)
        self._rules: dict[str | None, Rules] = {}

    def rules(self, recipient: Recipient) -> Rules:
        zone = recipient.timezone if self.broadcast.schedule.recipient_timezone else None
        if zone not in self._rules:
            working = self._calendars.of(recipient)
            if working is None:  # their zone changed since the plan, to one without working time left
                return self.rules(replace(recipient, timezone=None))
            self._rules[zone] = Rules(self.broadcast, working, self._first)
        return self._rules[zone]
