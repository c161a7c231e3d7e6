"""The start of a broadcast: the audience is resolved and every delivery planned, streamed."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from broadcast import audience, brakes, calendar, pacing, plan, report
from broadcast.audience import Accounts, Route, Unreachable
from broadcast.calendar import WorkingTime
from broadcast.campaigns import Broadcasts, every
from broadcast.errors import Conflict, Invalid
from broadcast.model import (
    Broadcast,
    BroadcastReason,
    BroadcastStatus,
    Conversation,
    Delivery,
    DeliveryState,
    Reason,
    Recipient,
    move_broadcast,
)
from broadcast.plan import FirstMoment
from broadcast.ports import Account, Clock, Store

PAGE = 5_000
_DELIVERY, _BROADCAST = "dlv_", "brd_"
_ID_BYTES = 9  # twelve characters: of a million people no two by chance
_ORIGIN = 8  # characters: of a hundred thousand broadcasts few begin alike

#: How a broadcast's first moments are found: drawn from its seed, or pinned by a scenario.
FirstMaker = Callable[[Broadcast], FirstMoment]


def drawn(broadcast: Broadcast) -> FirstMoment:
    return plan.drawn(broadcast.seed)


def delivery_id(broadcast: str, recipient: str) -> str:
    """A function of both, so that planning twice after a crash plans nobody twice. It ends with how the id of its
    broadcast begins (`origin`); at most 24 characters, for what a button may carry (`tracking.payload`)."""
    digest = hashlib.blake2b(f"{broadcast}\x1f{recipient}".encode(), digest_size=_ID_BYTES).digest()
    begins = broadcast.removeprefix(_BROADCAST)[:_ORIGIN]
    fits = begins.isascii() and begins.isalnum()  # into a link and into a payload
    return _DELIVERY + base64.urlsafe_b64encode(digest).decode() + (begins if fits else "")


def origin(delivery: str) -> str | None:
    """How the id of a delivery's broadcast begins, told by the delivery's id alone: what is left to go by once the
    delivery is removed. Several broadcasts may begin so, if hardly ever."""
    begins = delivery.removeprefix(_DELIVERY)[_ID_BYTES * 4 // 3 :]
    return _BROADCAST + begins if begins else None


@dataclass
class Calendars:
    """The working time of one broadcast in every zone its recipients live in, made once each."""

    broadcast: Broadcast
    _by_zone: dict[str, WorkingTime | None] = field(default_factory=dict)

    def of(self, recipient: Recipient) -> WorkingTime | None:
        """``None`` where the zone has no working time left. A recipient without a zone of their own, or with one
        that no longer exists, uses the broadcast's (RULES.md, working time)."""
        schedule = self.broadcast.schedule
        name = recipient.timezone if schedule.recipient_timezone and recipient.timezone else schedule.timezone
        if name not in self._by_zone:
            self._by_zone[name] = self._made(name)
        return self._by_zone[name]

    def _made(self, name: str) -> WorkingTime | None:
        schedule = self.broadcast.schedule
        try:
            zone = calendar.zone(name)
        except Invalid:
            zone = calendar.zone(schedule.timezone)
        try:
            return calendar.working_time(schedule, zone, not_before=self.broadcast.counts_from)
        except Invalid:
            return None


def planned(
    broadcast: Broadcast,
    recipient: Recipient,
    route: Route | Unreachable,
    *,
    position: int,
    working: WorkingTime | None,
    first: FirstMoment,
    at: datetime,
) -> Delivery:
    """The delivery to one person as the plan has it: waiting for its first moment, or ended before it began."""
    conversation = route.conversation
    delivery = partial(
        Delivery,
        id=delivery_id(broadcast.id, recipient.id),
        broadcast=broadcast.id,
        recipient=recipient.id,
        position=position,
        channel=conversation.channel if conversation else None,
        account=conversation.account if conversation else None,
        conversation=conversation.id if conversation else None,
    )
    if isinstance(route, Unreachable):
        at = recipient.unsubscribed_at or at
        return delivery(state=DeliveryState.SKIPPED, reason=route.reason, ended_at=at)
    if working is not None:
        with suppress(Invalid):  # the launch came too late for any working time
            step = plan.first_step(
                working, broadcast.schedule, broadcast.policies, recipient.id, first, launch=broadcast.counts_from
            )
            return delivery(due_at=step.due_at)
    return delivery(state=DeliveryState.UNSCHEDULED, reason=Reason.NO_TIME, ended_at=at)


class Launching:
    """Starts what is due to start. Any number of hosts may call it at once: the status is claimed in storage."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        accounts: Mapping[str, Account],
        *,
        first: FirstMaker = drawn,
        hold_late_start: timedelta = brakes.HOLD_LATE_START,
    ) -> None:
        self._store = store
        self._broadcasts = Broadcasts(store, clock)
        self._clock = clock
        self._accounts: Accounts = {key: account.channel for key, account in accounts.items()}
        self._first = first
        self._hold_late_start = hold_late_start
        self._cut_short: set[str] = set()

    async def awaited(self) -> dict[str, datetime]:
        """When each broadcast that waits for its moment is to be looked at."""
        waiting = await every(self._store, BroadcastStatus.SCHEDULED, BroadcastStatus.PAUSED)
        moments = {b.id: b.starts_at if b.status is BroadcastStatus.SCHEDULED else b.resumes_at for b in waiting}
        return {id: moment for id, moment in moments.items() if moment is not None}

    async def start_due(self) -> list[str]:
        """Starts every scheduled broadcast whose start has come, the earliest first; says which it was that started
        them. Holds those that come too late, and lets canaries go on whose time is over. Then goes on with those it
        began and could not finish, since the store failed."""
        now = self._clock.now()
        waiting = await every(self._store, BroadcastStatus.SCHEDULED, BroadcastStatus.PAUSED)
        for paused in waiting:
            if paused.resumes_at is not None and paused.resumes_at <= now:
                await self._pass_canary(paused)
        due = [b for b in waiting if b.status is BroadcastStatus.SCHEDULED and b.starts_at <= now]
        started = [b.id for b in sorted(due, key=lambda b: (b.starts_at, b.id)) if await self._start(b)]
        await self._take_up()
        return started

    async def finish_interrupted(self) -> None:
        """Goes on with plans and stops that a crash cut short: planning again adds what is missing."""
        left = await every(self._store, BroadcastStatus.INITIALIZING, BroadcastStatus.STOPPED)
        self._cut_short.update(broadcast.id for broadcast in left)
        await self._take_up()

    async def _take_up(self) -> None:
        """One that cannot be finished keeps no other from it."""
        trouble: Exception | None = None
        for id in sorted(self._cut_short):
            try:
                await self._go_on(await self._broadcasts.get(id))
            except Exception as error:  # noqa: BLE001 - raised once the others had their turn
                trouble = error
        if trouble is not None:
            raise trouble

    async def _pass_canary(self, paused: Broadcast) -> None:
        failed = brakes.canary_failed(report.deliveries(await self._store.tally(paused.id)))
        with suppress(Conflict):  # somebody else was first
            if failed is None:
                await self._broadcasts.resume(paused.id)
            else:
                held = replace(paused, resumes_at=None, reason_detail=failed)
                await self._store.save_broadcast(held, expected=BroadcastStatus.PAUSED)

    async def _start(self, broadcast: Broadcast) -> bool:
        brake = brakes.late_start(broadcast, self._clock.now(), self._hold_late_start)
        if brake is not None:
            with suppress(Conflict):
                await self._broadcasts.pull(broadcast.id, brake)
            return False
        claimed = move_broadcast(broadcast, BroadcastStatus.INITIALIZING)
        self._cut_short.add(broadcast.id)  # also where the store cannot tell whether it was claimed
        try:
            await self._store.save_broadcast(claimed, expected=BroadcastStatus.SCHEDULED)
        except Conflict:
            self._cut_short.discard(broadcast.id)
            return False  # another host was first, or somebody stopped it
        await self._go_on(claimed)
        return True

    async def _go_on(self, broadcast: Broadcast) -> None:
        self._cut_short.discard(broadcast.id)
        try:
            if broadcast.status is BroadcastStatus.INITIALIZING:
                await self._initialize(broadcast)
            await self._tidy(broadcast.id)
        except Exception:
            self._cut_short.add(broadcast.id)
            raise

    async def _initialize(self, broadcast: Broadcast) -> None:
        planned_on = await self._plan(broadcast)
        tally = await self._store.tally(broadcast.id)
        rates = pacing.shared_out(broadcast.policies.rate, planned_on)
        started = self._started(replace(broadcast, rates=rates), sum(report.deliveries(tally).values()))
        with suppress(Conflict):  # it was stopped while it was planned, or somebody else finished its plan
            await self._store.save_broadcast(started, expected=BroadcastStatus.INITIALIZING)

    def _started(self, broadcast: Broadcast, planned: int) -> Broadcast:
        if planned:
            return move_broadcast(broadcast, BroadcastStatus.RUNNING, planned=planned)
        empty, now = BroadcastReason.EMPTY_AUDIENCE, self._clock.now()
        return move_broadcast(broadcast, BroadcastStatus.FAILED, planned=0, reason=empty, finished_at=now)

    async def _tidy(self, id: str) -> None:
        """What was planned after a stop goes too; where nobody can be written to, it is over at once."""
        stands = await self._broadcasts.get(id)
        if stands.status is BroadcastStatus.STOPPED:
            await self._broadcasts.cancel_rest(stands)
        await self._broadcasts.settle(id)

    async def _plan(self, broadcast: Broadcast) -> Mapping[str, int]:
        """Plans page by page, in memory that does not grow with the audience, until it is done or stopped; answers
        how much is planned on each account."""
        plan_of = _Planner(broadcast, self._accounts, self._first(broadcast), self._clock.now())
        after = ""
        while people := await self._store.audience(broadcast.audience, after=after, limit=PAGE):
            deliveries, opened = plan_of.page(people)
            if opened:
                await self._store.save_conversations(opened)
            await self._store.plan(deliveries)
            after = people[-1][0].id
            if (await self._broadcasts.get(broadcast.id)).status is not BroadcastStatus.INITIALIZING:
                break
        return plan_of.planned_on


class _Planner:
    """Plans an audience page by page."""

    def __init__(self, broadcast: Broadcast, accounts: Accounts, first: FirstMoment, at: datetime) -> None:
        self.planned_on: Counter[str] = Counter()
        self._position = 0
        self._broadcast = broadcast
        self._accounts = accounts
        self._first = first
        self._at = at
        self._calendars = Calendars(broadcast)

    def page(
        self, people: Iterable[tuple[Recipient, Sequence[Conversation]]]
    ) -> tuple[list[Delivery], list[Conversation]]:
        """The deliveries of these people, and the conversations to be opened for them."""
        deliveries, opened = [], []
        for recipient, conversations in people:
            way = audience.route(
                recipient, conversations, audience=self._broadcast.audience, accounts=self._accounts
            )
            if way is None:
                continue
            if isinstance(way, Route) and way.new:
                opened.append(way.conversation)
            delivery = self._delivery(recipient, way)
            deliveries.append(delivery)
            self._position += 1
            if delivery.state is DeliveryState.PLANNED and delivery.account is not None:
                self.planned_on[delivery.account] += 1
        return deliveries, opened

    def _delivery(self, recipient: Recipient, way: Route | Unreachable) -> Delivery:
        return planned(
            self._broadcast,
            recipient,
            way,
            position=self._position,
            working=self._calendars.of(recipient),
            first=self._first,
            at=self._at,
        )
