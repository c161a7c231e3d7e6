"""What a campaign would come to if it were launched now: when it ends, whom it reaches, what holds it back.

The audience is resolved, and what else runs on its accounts is looked up, in the store as it is now, which is only
read. Then the broadcast is rehearsed, once a seed (`rehearsal`), and the runs are put together: what is expected is
their mean, `low` and `high` are the least and the most of them. Of more than `WHOLE` deliveries a seeded sample
plays, and every rate is scaled with it, unless everybody is asked for.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from math import inf
from operator import itemgetter
from statistics import fmean
from typing import Generic, TypeVar

from broadcast import audience, calendar, history, launching, pacing, plan
from broadcast.audience import Route, Unreachable
from broadcast.campaigns import Campaigns, every
from broadcast.errors import Fault, Invalid
from broadcast.launching import Calendars
from broadcast.model import (
    Audience,
    Broadcast,
    BroadcastKind,
    BroadcastStatus,
    Campaign,
    Delivery,
    DeliveryState,
    Message,
    Reason,
    Recipient,
)
from broadcast.ports import Account, Clock, DeliveryFilter, Store
from broadcast.rehearsal import Run, Seat, Stage

_T = TypeVar("_T")

SEEDS = 5
MAX_SEEDS = 20
#: Up to so many deliveries, other broadcasts' included, everybody plays; of more, a sample of about `SAMPLE`: its
#: share of reached people is then off by a point at most in 19 of 20 cases.
WHOLE = 20_000
SAMPLE = 10_000

#: A rate is said to delay an hour from here on, and to bind the whole from here on.
_LATE = timedelta(minutes=1)
_BINDS = timedelta(minutes=15)
#: Presence binds where it costs this share of the people, or of the first tries.
_MISSED = 0.01
_ABSENT = 0.1
_PAGE = 2_000
_BROADCAST = "brd_forecast"
#: A date ends somewhere on earth at most so long after it ends elsewhere.
_FURTHEST = timedelta(hours=26)
_OFFICE_DAYS = range(5)
_DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class LimitKind(StrEnum):
    """What holds a broadcast back most."""

    PRESENCE = "presence"  # people are absent at their moments
    RATE = "rate"  # an account may not send faster
    WORKING_TIME = "working_time"  # moments are spread over the working time, and nothing else holds them


@dataclass(frozen=True, slots=True)
class Limit:
    """`account` is whose rate it is, `text` the whole in words."""

    kind: LimitKind
    account: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Number:
    """People: the mean over the runs, the least and the most of them."""

    expected: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant: the mean over the runs, the earliest and the latest of them."""

    expected: datetime
    low: datetime
    high: datetime


@dataclass(frozen=True, slots=True)
class HourLine:
    """Sends expected in the hour that begins then."""

    hour: datetime
    sent: int


@dataclass(frozen=True, slots=True)
class Sample:
    """So many deliveries played for all of them, those of other broadcasts included."""

    played: int
    of: int

    @property
    def share(self) -> float:
        return self.played / self.of


@dataclass(frozen=True, slots=True)
class Forecast:
    """`people` are `reached`, `unreached` and `skipped` together; `skipped` says by reason who is not to be written
    to at all. `sample` is ``None`` where everybody played."""

    campaign: str
    as_of: datetime
    finish: Moment
    hours: tuple[HourLine, ...]
    people: int
    reached: Number
    unreached: Number
    skipped: Mapping[Reason, int]
    limit: Limit
    warnings: tuple[str, ...]
    seeds: tuple[int, ...]
    sample: Sample | None = None


class FullForecastStatus(StrEnum):
    """How a forecast over everybody stands."""

    RUNNING = "running"  # it plays, or waits for its turn
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class FullForecast:
    """A forecast over everybody, made in the background. `progress` is the share of the deliveries over all seeds
    that have an end; `result` is there once it is done, `detail` says what went wrong."""

    id: str
    status: FullForecastStatus = FullForecastStatus.RUNNING
    progress: float = 0.0
    result: Forecast | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stage to be played, and what is known before it is: how many people are to be written to, and of the others
    why not."""

    stage: Stage
    skipped: Mapping[Reason, int]
    planned: int
    sample: Sample | None


def seeds(number: int) -> tuple[int, ...]:
    """The seeds of a forecast with so many runs. Raises `Invalid`."""
    if not 1 <= number <= MAX_SEEDS:
        raise Invalid([Fault("seeds", f"is a number of runs from 1 to {MAX_SEEDS}")])
    return tuple(range(1, number + 1))


# --- what is there now --------------------------------------------------------------------------------


class Preparing:
    """Looks up what a forecast needs. `tells` are the keys of the accounts that tell presence."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        campaigns: Campaigns,
        accounts: Mapping[str, Account],
        tells: Collection[str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._campaigns = campaigns
        self._accounts = accounts
        self._channels = {key: account.channel for key, account in accounts.items()}
        self._tells = frozenset(tells)

    async def checked(self, campaign: Campaign, *, start: date | datetime | None = None) -> Campaign:
        """The campaign with another `start` if one is given. Raises `Invalid` as a launch would."""
        if start is not None:
            campaign = replace(campaign, schedule=replace(campaign.schedule, start=start, immediate=False))
        faults = await self._campaigns.launch_faults(campaign)
        if faults:
            raise Invalid(faults)
        return campaign

    async def prepare(
        self, campaign: Campaign, *, start: date | datetime | None = None, everybody: bool = False
    ) -> Prepared:
        """As if it were launched now, with another `start` if one is given; of many a sample, unless `everybody` is
        to play. Raises `Invalid` as a launch would."""
        broadcast = _launched(await self.checked(campaign, start=start), self._clock.now())
        crowd = _Crowd(everybody=everybody)
        async for recipient, way in self._routes(campaign.audience):
            crowd.take(recipient, way)
        ends = _ends(broadcast)
        load = _Load(crowd.used, ends, everybody=everybody)
        others = [await self._added(other, load) for other in await self._others(ends)]
        seen = history.of(await self._store.presence_seen())
        return self._staged(broadcast, crowd, others, load, seen)

    def _staged(
        self, broadcast: Broadcast, crowd: _Crowd, others: Iterable[Broadcast], load: _Load, seen: history.History
    ) -> Prepared:
        total = crowd.seats.seen + load.deliveries.seen
        whole = crowd.everybody or total <= WHOLE
        below = 1.0 if whole else SAMPLE / total
        seats, deliveries = crowd.seats.below(below), load.deliveries.below(below)
        sample = None if whole else Sample(max(1, len(seats) + len(deliveries)), total)
        part = sample.share if sample else 1.0
        stage = Stage(
            now=broadcast.launched_at,
            broadcast=_slowed(_shared_out(broadcast, (seat.account for seat in seats)), part),
            seats=seats,
            accounts={key: _scaled(self._accounts[key], part) for key in sorted(crowd.used)},
            tells=self._tells,
            history=seen,
            others=[_slowed(_going_on(other), part) for other in others],
            load=[delivery for delivery, _ in deliveries],
            zones={delivery.recipient: zone for delivery, zone in deliveries},
        )
        return Prepared(stage, dict(crowd.skipped), crowd.seats.seen, sample)

    async def _routes(self, who: Audience) -> AsyncIterator[tuple[Recipient, Route | Unreachable]]:
        after = ""
        while people := await self._store.audience(who, after=after, limit=_PAGE):
            for recipient, conversations in people:
                way = audience.route(recipient, conversations, audience=who, accounts=self._channels)
                if way is not None:
                    yield recipient, way
            after = people[-1][0].id

    async def _others(self, until: datetime) -> list[Broadcast]:
        """The broadcasts that use time in which this one may send."""
        found = await every(
            self._store, BroadcastStatus.RUNNING, BroadcastStatus.INITIALIZING, BroadcastStatus.SCHEDULED
        )
        return [one for one in found if one.kind is BroadcastKind.CAMPAIGN and one.starts_at < until]

    async def _added(self, other: Broadcast, load: _Load) -> Broadcast:
        """With what is planned of it, or where it has not begun what would be: the broadcast as it runs then."""
        if other.status is BroadcastStatus.RUNNING:
            wanted = DeliveryFilter(other.id, states=[DeliveryState.PLANNED])
            async for delivery, recipient in self._store.all_deliveries(wanted):
                load.take(delivery, recipient)
            return other
        accounts: list[str] = []
        async for delivery, recipient in self._planned(other):
            load.take(delivery, recipient)
            if delivery.account is not None and delivery.state is DeliveryState.PLANNED:
                accounts.append(delivery.account)
        return _shared_out(replace(other, status=BroadcastStatus.RUNNING), accounts)

    async def _planned(self, other: Broadcast) -> AsyncIterator[tuple[Delivery, Recipient]]:
        calendars, first, position, at = Calendars(other), plan.drawn(other.seed), 0, self._clock.now()
        async for recipient, way in self._routes(other.audience):
            working = calendars.of(recipient)
            yield (
                launching.planned(other, recipient, way, position=position, working=working, first=first, at=at),
                recipient,
            )
            position += 1


class _Picked(Generic[_T]):
    """Counts all it is given and keeps those `WHOLE` whose draw is lowest: a sample that is the same for the same
    people, in memory that does not grow with their number. Where `everybody` is wanted, all are kept."""

    def __init__(self, *, everybody: bool) -> None:
        self.seen = 0
        self._most = inf if everybody else WHOLE
        self._kept: list[tuple[float, int, _T]] = []  # the highest draw first, as a heap wants it

    def take(self, key: str, item: _T) -> None:
        drawn = (-plan.unit(0, "sample", key), self.seen, item)
        self.seen += 1
        if len(self._kept) < self._most:
            heapq.heappush(self._kept, drawn)
        elif drawn[0] > self._kept[0][0]:
            heapq.heapreplace(self._kept, drawn)

    def below(self, share: float) -> list[_T]:
        """Those whose draw is below the share, in the order in which they were given."""
        return [item for draw, _, item in sorted(self._kept, key=itemgetter(1)) if -draw < share]


class _Crowd:
    """The audience: who has a seat, and who is skipped and why."""

    def __init__(self, *, everybody: bool) -> None:
        self.everybody = everybody
        self.seats: _Picked[Seat] = _Picked(everybody=everybody)
        self.skipped: Counter[Reason] = Counter()
        self.used: set[str] = set()

    def take(self, recipient: Recipient, way: Route | Unreachable) -> None:
        if isinstance(way, Unreachable):
            self.skipped[way.reason] += 1
            return
        conversation = way.conversation
        self.used.add(conversation.account)
        seat = Seat(recipient.id, recipient.timezone, conversation.id, conversation.account, conversation.channel)
        self.seats.take(recipient.id, seat)


class _Load:
    """What other broadcasts have to send through the accounts that are used, before this one's time is over."""

    def __init__(self, used: Collection[str], until: datetime, *, everybody: bool) -> None:
        self.deliveries: _Picked[tuple[Delivery, str | None]] = _Picked(everybody=everybody)
        self._used = used
        self._until = until

    def take(self, delivery: Delivery, recipient: Recipient) -> None:
        if delivery.state is not DeliveryState.PLANNED or delivery.account not in self._used:
            return
        if delivery.due_at is not None and delivery.due_at < self._until:
            self.deliveries.take(recipient.id, (delivery, recipient.timezone))


def _launched(campaign: Campaign, now: datetime) -> Broadcast:
    return Broadcast(
        id=_BROADCAST,
        campaign=campaign.id,
        name=campaign.name,
        message=campaign.message,
        audience=campaign.audience,
        schedule=calendar.with_holidays(campaign.schedule, launched_at=now),
        policies=campaign.policies,
        seed=0,
        launched_at=now,
        launched_by="forecast",
        starts_at=now,
    )


def _ends(broadcast: Broadcast) -> datetime:
    """When working time is over, wherever somebody lives."""
    schedule = broadcast.schedule
    zone = calendar.zone(schedule.timezone)
    ends = calendar.working_time(schedule, zone, not_before=broadcast.launched_at).ends
    return ends + _FURTHEST if schedule.recipient_timezone else ends


def _shared_out(broadcast: Broadcast, accounts: Iterable[str]) -> Broadcast:
    """With its own rate shared out over these accounts of its deliveries, as its start would do it."""
    return replace(broadcast, rates=pacing.shared_out(broadcast.policies.rate, Counter(accounts)))


def _going_on(other: Broadcast) -> Broadcast:
    """One that nobody has to approve half-way."""
    return replace(other, policies=replace(other.policies, canary=None))


def _slowed(broadcast: Broadcast, part: float) -> Broadcast:
    """For so many of the people as play; what it says to them is not looked at."""
    rate = broadcast.policies.rate
    policies = replace(broadcast.policies, rate=None if rate is None else rate * part)
    rates = {account: own * part for account, own in broadcast.rates.items()}
    return replace(broadcast, message=Message("forecast"), policies=policies, rates=rates)


def _scaled(account: Account, part: float) -> Account:
    return replace(account, rate=account.rate * part)


# --- what the runs come to ----------------------------------------------------------------------------


def concluded(prepared: Prepared, runs: Sequence[Run], seeds: Sequence[int]) -> Forecast:
    """The forecast that runs of a stage with these seeds make. `runs` are at least one."""
    stage = prepared.stage
    told = _Told(prepared, runs)
    reached = _number([run.reached * told.scale for run in runs])
    skipped = sum(prepared.skipped.values())
    return Forecast(
        campaign=stage.broadcast.campaign,
        as_of=stage.now,
        finish=_moment(stage.now, [run.finished_at for run in runs]),
        hours=tuple(told.hours()),
        people=prepared.planned + skipped,
        reached=reached,
        unreached=_rest(prepared.planned, reached),
        skipped=prepared.skipped,
        limit=told.limit(),
        warnings=tuple(told.warnings()),
        seeds=tuple(seeds),
        sample=prepared.sample,
    )


def _number(numbers: Sequence[float]) -> Number:
    return Number(round(fmean(numbers)), round(min(numbers)), round(max(numbers)))


def _rest(of: int, number: Number) -> Number:
    return Number(of - number.expected, of - number.high, of - number.low)


def _moment(since: datetime, instants: Sequence[datetime]) -> Moment:
    """To the second: more nobody can know."""
    since = since.replace(microsecond=0)
    seconds = [round((instant - since).total_seconds()) for instant in instants]
    mean, least, most = (
        timedelta(seconds=number) for number in (round(fmean(seconds)), min(seconds), max(seconds))
    )
    return Moment(since + mean, since + least, since + most)


class _Told:
    """What runs say, in numbers of people and in words."""

    def __init__(self, prepared: Prepared, runs: Sequence[Run]) -> None:
        self._prepared = prepared
        self._broadcast = prepared.stage.broadcast
        self._zone = calendar.zone(self._broadcast.schedule.timezone)
        self._runs = runs
        played = len(prepared.stage.seats)
        #: So many people stand behind everyone who played.
        self.scale = prepared.planned / played if played else 1.0

    def hours(self) -> Iterator[HourLine]:
        sent = sum((run.sent for run in self._runs), Counter[datetime]())
        for hour in sorted(sent):
            yield HourLine(hour, round(sent[hour] * self.scale / len(self._runs)))

    def _people(self, count: Callable[[Run], float]) -> int:
        """The mean over the runs."""
        return round(fmean(count(run) for run in self._runs) * self.scale)

    # --- the limit --------------------------------------------------------------------------------------

    def limit(self) -> Limit:
        """A rate binds where it makes somebody wait long, or miss the day; then presence where it costs people or
        many tries; else there is time enough, and working time is all that is kept to."""
        account = self._slowest()
        if account is not None:
            return Limit(LimitKind.RATE, account, f"{self._rate(account)}, {self._pace(account):g} a second")
        absent = fmean(run.absent_first / max(1, run.first_tries) for run in self._runs)
        missed = fmean(run.unreached / max(1, run.ends.total()) for run in self._runs)
        if missed >= _MISSED or absent >= _ABSENT:
            return Limit(LimitKind.PRESENCE, None, f"presence: {absent:.0%} are absent at their first moment")
        days = _counted(self._broadcast.schedule.working_days, "working day", "working days")
        return Limit(LimitKind.WORKING_TIME, None, f"working time: moments are spread over {days}")

    def _slowest(self) -> str | None:
        waits = {account: max(late.values()) for account, late in self._late().items()}
        bound = [account for account, wait in waits.items() if wait >= _BINDS or self._held(account)]
        return max(bound, key=lambda account: waits[account], default=None)

    def _late(self) -> Mapping[str, Mapping[datetime, timedelta]]:
        """By account and hour how long a send waits at most, the mean over the runs; where it is worth a word."""
        found: dict[str, dict[datetime, timedelta]] = {}
        for account, hour in sorted({of for run in self._runs for of in run.late}):
            waits = [run.late.get((account, hour), timedelta()) for run in self._runs]
            wait = sum(waits, timedelta()) / len(waits)
            if wait >= _LATE:
                found.setdefault(account, {})[hour] = wait
        return found

    def _held(self, account: str) -> int:
        return self._people(lambda run: run.held[account])

    def _rate(self, account: str) -> str:
        """Whose rate it is: a campaign may have one below the account's."""
        own = self._broadcast.rates.get(account)
        is_own = own is not None and own < self._prepared.stage.accounts[account].rate
        return f"the campaign's own rate on {account}" if is_own else f"the rate of {account}"

    def _pace(self, account: str) -> float:
        rate = self._prepared.stage.accounts[account].rate
        part = self._prepared.sample.share if self._prepared.sample else 1.0
        return min(rate, self._broadcast.rates.get(account, rate)) / part

    # --- warnings ---------------------------------------------------------------------------------------

    def warnings(self) -> Iterator[str]:
        yield from self._of_rates()
        yield from self._of_rounds()
        yield from self._of_days()
        yield from self._of_skipped()
        yield from self._of_presence()

    def _of_rates(self) -> Iterator[str]:
        for account, late in self._late().items():
            worst = max(late, key=lambda hour: late[hour])
            minutes = _counted(round(late[worst].total_seconds() / 60), "minute", "minutes")
            more = f", and {_counted(len(late) - 1, 'hour', 'hours')} more late" if len(late) > 1 else ""
            yield f"{self._rate(account)} makes {self._hour(worst)} run {minutes} late{more}"
        for account in self._prepared.stage.accounts:
            if held := self._held(account):
                yield f"{_counted(held, 'try waits', 'tries wait')} for the next opening: {account} is too slow"
        if left := self._people(lambda run: run.ends[DeliveryState.UNSCHEDULED, Reason.NO_TIME]):
            yield f"{_counted(left, 'person is', 'people are')} not reached for want of time"

    def _of_rounds(self) -> Iterator[str]:
        rounds = self._broadcast.policies.rounds
        for number in range(1, rounds):
            if people := self._people(lambda run, number=number: run.rounds[number]):  # type: ignore[misc]  # bound now
                which = "one round" if number == 1 else f"{number} of {rounds} rounds"
                yield f"{_counted(people, 'person gets', 'people get')} only {which}"

    def _of_days(self) -> Iterator[str]:
        """Days in between on which nothing goes out, though others would expect it."""
        schedule = self._broadcast.schedule
        dates = self._dates()
        for day in _OFFICE_DAYS:
            if not schedule.hours.get(day) and any(date.weekday() == day for date in dates):
                yield f"no hours on {_DAY_NAMES[day]}"
        for free in dates:
            if free in schedule.holidays and schedule.hours.get(free.weekday()):
                yield f"{free:%a %d %b} is a holiday"

    def _dates(self) -> list[date]:
        """From the first working day to the last, in the broadcast's zone."""
        broadcast = self._broadcast
        days = calendar.working_time(broadcast.schedule, self._zone, not_before=broadcast.launched_at).days
        return [days[0].date + timedelta(days=number) for number in range((days[-1].date - days[0].date).days + 1)]

    def _of_skipped(self) -> Iterator[str]:
        for reason, (one, many) in _SKIPPED.items():
            if people := self._prepared.skipped.get(reason):
                yield _counted(people, one, many)

    def _of_presence(self) -> Iterator[str]:
        asked = {of: known for run in self._runs for of, known in run.asked.items()}
        for channel in sorted({channel for channel, _ in asked}):
            hours = [known for (of, _), known in asked.items() if of is channel]
            if unknown := len(hours) - sum(hours):
                yield (
                    f"presence on {channel} is assumed in {unknown} of {len(hours)} hours of the week: "
                    "too little was seen there"
                )

    def _hour(self, hour: datetime) -> str:
        begins, ends = hour.astimezone(self._zone), (hour + timedelta(hours=1)).astimezone(self._zone)
        day = f"{begins:%a %d %b} " if len(self._dates()) > 1 else ""
        return f"{day}{begins:%H:%M}-{ends:%H:%M}"


_SKIPPED: Mapping[Reason, tuple[str, str]] = {
    Reason.NO_CONVERSATION: ("person has no conversation", "people have no conversation"),
    Reason.UNSUBSCRIBED: ("is unsubscribed", "are unsubscribed"),
    Reason.BLOCKED: ("has blocked us", "have blocked us"),
    Reason.GONE: ("can no longer be reached", "can no longer be reached"),
}


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
