"""What people do with campaigns and broadcasts, whichever door they come through."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from itertools import count
from math import isfinite
from types import MappingProxyType
from zoneinfo import ZoneInfo

import structlog

from broadcast import audience, calendar, message, recurrence, report
from broadcast.brakes import Brake
from broadcast.errors import Ambiguous, Conflict, Fault, Invalid, NotFound, Removed
from broadcast.model import (
    BROADCAST_MOVES,
    OPEN_STATES,
    Audience,
    Broadcast,
    BroadcastKind,
    BroadcastReason,
    BroadcastStatus,
    Campaign,
    CampaignStatus,
    Canary,
    ChannelName,
    Message,
    Policies,
    Reason,
    Recipient,
    Schedule,
    Window,
    move_broadcast,
)
from broadcast.ports import Account, Clock, Page, Random, Store

log = structlog.get_logger()

MAX_NAME = 200
MAX_WORKING_DAYS = 366
#: The zone whose days begin first: nobody's working time on a date starts before it does there.
_EARLIEST_ZONE = "Etc/GMT-14"
_CANCEL_BATCH = 10_000
_PAGE = 1_000
_MAX_SEED = 2**31 - 1
#: Who launched what launches by itself.
REPEATED = "repeat"
#: Of a canary: the most sends it waits after, and the longest that it waits, a week.
_MOST_FIRST = 1_000_000
MOST_MINUTES = 7 * 24 * 60

#: Why a trial is refused.
_WHY_NOT: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.UNSUBSCRIBED: "has unsubscribed; nothing is sent to them until they write START",
        Reason.BLOCKED: "has blocked us; they can be reached again once they write to us",
        Reason.GONE: "can no longer be reached; they have to start a conversation with us anew",
        Reason.NO_CONVERSATION: "has no conversation with us yet; they have to start one",
    }
)

#: What a broadcast is paused for until somebody approves.
_ASKS = frozenset({BroadcastReason.HELD_LATE_START, BroadcastReason.CANARY})

ALWAYS = MappingProxyType({day: (Window(0, 24 * 60),) for day in range(7)})
#: A trial's working time: from now on, whatever the hour. Two days, since today may be about to end.
AT_ONCE = Schedule(immediate=True, working_days=2, hours=ALWAYS)


@dataclass(frozen=True, slots=True)
class Draft:
    """The editable part of a campaign."""

    name: str
    message: Message
    audience: Audience = field(default_factory=Audience)
    schedule: Schedule = field(default_factory=Schedule)
    policies: Policies = field(default_factory=Policies)


@dataclass(frozen=True, slots=True)
class LaunchOverrides:
    """What one launch does differently from its campaign."""

    start: date | datetime | None = None
    seed: int | None = None


class Campaigns:
    """Create, edit, try, launch. `accounts` are those this installation is configured with."""

    def __init__(self, store: Store, clock: Clock, random: Random, accounts: Mapping[str, Account]) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._accounts = accounts

    async def create(self, draft: Draft) -> Campaign:
        """A new draft. Raises `Invalid`."""
        campaign = Campaign(
            id=self._random.id("cmp"),
            name=draft.name.strip(),
            message=draft.message,
            audience=draft.audience,
            schedule=draft.schedule,
            policies=draft.policies,
            created_at=self._clock.now(),
        )
        _refuse(await self._draft_faults(campaign))
        await self._store.save_campaign(campaign, expected=None)
        return campaign

    async def get(self, id: str) -> Campaign:
        """Raises `NotFound`."""
        found = await self._store.campaign(id)
        if found is None:
            raise NotFound(f"there is no campaign {id}")
        return found

    async def named(self, who: str) -> Campaign:
        """By id or by name. Raises `NotFound`, or `Ambiguous` with the ids to choose from."""
        who = who.strip()
        found = await self._store.campaign(who)
        if found is not None:
            return found
        named = await self._store.campaigns_named(who)
        if not named:
            raise NotFound(f"there is no campaign called {who}")
        if len(named) > 1:
            choices = ", ".join(f"{campaign.id} ({campaign.status})" for campaign in named)
            raise Ambiguous(f"{len(named)} campaigns are called {who}; say which by id: {choices}")
        return named[0]

    async def edit(self, id: str, draft: Draft) -> Campaign:
        """Replaces the content of a draft. Raises `Conflict` once it was launched, `Invalid`, `NotFound`."""
        campaign = await self.get(id)
        _refuse_launched(campaign)
        edited = replace(
            campaign,
            name=draft.name.strip(),
            message=draft.message,
            audience=draft.audience,
            schedule=draft.schedule,
            policies=draft.policies,
        )
        _refuse(await self._draft_faults(edited))
        await self._store.save_campaign(edited, expected=CampaignStatus.DRAFT)
        return edited

    async def faults(self, campaign: Campaign) -> list[Fault]:
        """Everything wrong with a campaign that can be seen while it is edited."""
        attributes = await self._store.attribute_names()
        return [
            *_name_faults(campaign.name),
            *message.faults(campaign.message, attributes=attributes, limits=self._limits(campaign.audience)),
            *_schedule_faults(campaign.schedule, self._clock.now()),
            *_repeat_faults(campaign.schedule.repeat),
            *_policy_faults(campaign.policies),
            *await self._audience_faults(campaign.audience),
        ]

    async def _draft_faults(self, campaign: Campaign) -> list[Fault]:
        """Also people nobody knows: somebody erased later must not keep a campaign from its launch."""
        return [*await self.faults(campaign), *await self._people_faults(campaign.audience)]

    def _limits(self, who: Audience) -> dict[ChannelName, int]:
        """The text limit of each channel the audience may be reached on, its narrowest account's."""
        limits: dict[ChannelName, int] = {}
        for key, channel in audience.narrowed(who, self._channels()).items():
            limit = self._accounts[key].features.text_limit
            limits[channel] = min(limit, limits.get(channel, limit))
        return limits

    async def launch_faults(self, campaign: Campaign) -> list[Fault]:
        """What stands in the way of launching now, on top of `faults`."""
        found = await self.faults(campaign)
        found += _start_faults(campaign.schedule, self._clock.now())
        if await self.estimate(campaign.audience) == 0:
            found.append(Fault("audience", "is empty; import recipients, or choose lists that have people"))
        if not audience.narrowed(campaign.audience, self._channels()):
            found.append(
                Fault("audience.channels", "names no channel with an account; configure one in the settings")
            )
        return found

    async def estimate(self, who: Audience) -> int:
        """How many people the audience has right now: a hint, since it is resolved at the start (RULES.md)."""
        return await self._store.audience_size(who)

    async def launch(self, id: str, *, by: str, overrides: LaunchOverrides = LaunchOverrides()) -> Broadcast:
        """One more broadcast of the campaign, its content frozen. Raises `Invalid`, `NotFound`."""
        campaign = await self.get(id)
        schedule = campaign.schedule
        if overrides.start is not None:
            schedule = replace(schedule, start=overrides.start, immediate=False)
        campaign = replace(campaign, schedule=schedule)
        _refuse([*_seed_faults(overrides.seed), *await self.launch_faults(campaign)])
        broadcast = self._frozen(campaign, by=by, seed=overrides.seed)
        after = max(broadcast.launched_at, broadcast.starts_at)
        broadcast = replace(broadcast, repeats_at=_following(schedule, after))
        await self._store.save_broadcast(broadcast, expected=None)
        return broadcast

    async def awaited(self) -> dict[str, datetime]:
        """When each campaign that repeats launches next."""
        found = await self._store.repeating()
        return {campaign.id: campaign.next_launch_at for campaign in found if campaign.next_launch_at is not None}

    async def launch_due(self) -> list[Broadcast]:
        """Launches every campaign whose next launch has come: once, however many were missed, and of any number of
        hosts one does."""
        now = self._clock.now()
        due = [one for one in await self._store.repeating() if one.next_launch_at and one.next_launch_at <= now]
        launched = [await self._launch_again(campaign, now) for campaign in due]
        return [broadcast for broadcast in launched if broadcast is not None]

    async def _launch_again(self, campaign: Campaign, now: datetime) -> Broadcast | None:
        """The latest launch that was missed, counted from its own moment. One that is not valid any more is left
        out, and the next one waited for."""
        repeat, zone = _repetition(campaign.schedule)
        moment, following = recurrence.latest(repeat, now, zone), recurrence.following(repeat, now, zone)
        again = replace(campaign, schedule=replace(campaign.schedule, start=None))
        if faults := await self.faults(again):
            log.warning("not launched", action="repeat_skipped", campaign=campaign.id, faults=[*map(str, faults)])
            skipped = replace(campaign, next_launch_at=following)
            await self._store.save_campaign(skipped, expected=campaign.status)
            return None
        frozen = self._frozen(again, by=REPEATED, seed=None, now=moment)
        broadcast = replace(frozen, id=_repeated_id(campaign.id, moment), repeats_at=following)
        try:
            await self._store.save_broadcast(broadcast, expected=None)
        except Conflict:
            return None  # another host was first
        return broadcast

    async def end_repeat(self, id: str) -> Campaign:
        """Launches it no more by itself; what was launched goes on. Raises `Conflict` where it does not repeat."""
        campaign = await self.get(id)
        if campaign.schedule.repeat is None:
            raise Conflict(f"{campaign.name} does not repeat")
        ended = replace(campaign, schedule=replace(campaign.schedule, repeat=None), next_launch_at=None)
        await self._store.save_campaign(ended, expected=campaign.status)
        return ended

    async def try_out(self, id: str, *, to: Recipient, by: str) -> Broadcast:
        """Sends the real message to one person at once: TRY. Raises `Invalid`, `NotFound`, and `Conflict` where
        this person cannot be written to."""
        campaign = await self.get(id)
        _refuse([fault for fault in await self.faults(campaign) if fault.field.startswith("message")])
        trial = replace(
            campaign,
            audience=Audience(recipients=(to.id,)),
            schedule=AT_ONCE,
            policies=replace(campaign.policies, presence=dict.fromkeys(ChannelName), rate=None, canary=None),
        )
        await self._refuse_unreachable(to.id, trial.audience)
        broadcast = replace(self._frozen(trial, by=by, seed=None), kind=BroadcastKind.TRIAL)
        await self._store.save_broadcast(broadcast, expected=None)
        return broadcast

    async def _refuse_unreachable(self, id: str, who: Audience) -> None:
        """A trial that would be skipped is refused, so that whoever asks learns why."""
        found = await self._store.recipient(id)
        if found is None:
            raise NotFound(f"there is no recipient {id}")
        known = await self._store.conversations_of(id)
        way = audience.route(found, known, audience=who, accounts=self._channels())
        if isinstance(way, audience.Unreachable):
            raise Conflict(f"{found.name or found.email or found.id} {_WHY_NOT[way.reason]}")

    async def find_recipient(self, who: str) -> Recipient:
        """By id, e-mail or external id. Raises `NotFound`."""
        who = who.strip()
        found = await self._store.recipient(who)
        if found is None:
            by_mail = Recipient(id="", email=who) if "@" in who else Recipient(id="", external_id=who)
            [found] = await self._store.match_recipients([by_mail])
        if found is None:
            raise NotFound(f"there is no recipient {who}; name one by e-mail or id, or import them first")
        return found

    def _channels(self) -> dict[str, ChannelName]:
        return {key: account.channel for key, account in self._accounts.items()}

    async def _audience_faults(self, who: Audience) -> list[Fault]:
        lists = await self._store.list_ids()
        mend = "is no list; create it by importing people into it"
        accounts = f"is no account; there are {', '.join(self._accounts) or 'none'}"
        found = [
            *_unknown("audience.lists", who.lists, lists, mend),
            *_unknown("audience.segments", who.segments, (), "is no segment; choose lists or recipients"),
            *_unknown("audience.exclude_lists", who.exclude_lists, lists, mend),
            *_unknown("audience.accounts", who.accounts, self._accounts, accounts),
        ]
        if not who.channels:
            found.append(Fault("audience.channels", "is empty; name at least one channel, or leave it out for all"))
        return found

    async def _people_faults(self, who: Audience) -> list[Fault]:
        known = {id for id in who.recipients if await self._store.recipient(id) is not None}
        return list(_unknown("audience.recipients", who.recipients, known, "is no recipient; import them first"))

    def _frozen(self, campaign: Campaign, *, by: str, seed: int | None, now: datetime | None = None) -> Broadcast:
        now = now or self._clock.now()
        schedule = calendar.with_holidays(campaign.schedule, launched_at=now)
        starts_at, ends_at = _bounds(schedule, now)
        return Broadcast(
            id=self._random.id("brd"),
            campaign=campaign.id,
            name=campaign.name,
            message=campaign.message,
            audience=campaign.audience,
            schedule=schedule,
            policies=campaign.policies,
            seed=self._random.seed() if seed is None else seed,
            launched_at=now,
            launched_by=by,
            starts_at=starts_at,
            expected_finish_at=ends_at,
        )


def _repetition(schedule: Schedule) -> tuple[recurrence.Repeat, ZoneInfo]:
    if schedule.repeat is None:
        raise ValueError("what does not repeat has no next launch")
    return recurrence.parse(schedule.repeat), calendar.zone(schedule.timezone)


def _following(schedule: Schedule, after: datetime) -> datetime | None:
    if schedule.repeat is None:
        return None
    repeat, zone = _repetition(schedule)
    return recurrence.following(repeat, after, zone)


def _repeated_id(campaign: str, moment: datetime) -> str:
    """A function of both: of two hosts that launch the same one, the second finds it there."""
    digest = hashlib.blake2b(f"{campaign}\x1f{moment.isoformat()}".encode(), digest_size=10).digest()
    return "brd_" + base64.b32encode(digest).decode().lower()


def _bounds(schedule: Schedule, now: datetime) -> tuple[datetime, datetime]:
    """When the audience is to be resolved, and when working time is over at the latest in the broadcast's zone."""
    working = calendar.working_time(schedule, calendar.zone(schedule.timezone), not_before=now)
    if schedule.immediate:
        return now, working.ends
    if not schedule.recipient_timezone:
        return working.begins, working.ends
    return _earliest(schedule, now), working.ends


def _earliest(schedule: Schedule, now: datetime) -> datetime:
    """When working time may begin for whoever lives where days begin first. On a day that has begun, somewhere it
    is working time now."""
    if schedule.start is None:
        return now
    return max(now, calendar.working_time(schedule, calendar.zone(_EARLIEST_ZONE), not_before=None).begins)


def _start_anew(broadcast: Broadcast, now: datetime) -> dict[str, object]:
    """What becomes of a start that went by while it was held: it begins now, never in the past."""
    if broadcast.planned is not None or broadcast.starts_at > now:
        return {}
    starts_at, ends_at = _bounds(broadcast.schedule, now)
    return {"plans_from": now, "starts_at": starts_at, "expected_finish_at": ends_at}


class Broadcasts:
    """Pause, resume, stop, and the end of a broadcast. Every change is guarded by the status it starts from."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(self, id: str) -> Broadcast:
        """Raises `NotFound`."""
        found = await self._store.broadcast(id)
        if found is None:
            raise NotFound(f"there is no broadcast {id}")
        return found

    async def with_deliveries(self, id: str) -> Broadcast:
        """One whose deliveries can be looked at one by one. Raises `NotFound`, or `Removed` where only its counters
        are kept (`retention`)."""
        broadcast = await self.get(id)
        if broadcast.deliveries_removed_at is not None:
            since = f"{broadcast.deliveries_removed_at:%Y-%m-%d}"
            raise Removed(
                f"the single deliveries of {broadcast.name} were removed on {since}, as the setting retention_days "
                "asks for broadcasts that ended long ago; its report is kept"
            )
        return broadcast

    async def pause(
        self, id: str, reason: BroadcastReason = BroadcastReason.BY_USER, *, detail: str | None = None
    ) -> Broadcast:
        """Nothing more goes out but what is in flight, until `resume`. Raises `Conflict`."""
        return await self._move(id, BroadcastStatus.PAUSED, "be paused", reason=reason, reason_detail=detail)

    async def pull(self, id: str, brake: Brake) -> Broadcast:
        """Pauses it for a brake. Raises `Conflict`."""
        return await self._move(
            id,
            BroadcastStatus.PAUSED,
            "be paused",
            reason=brake.reason,
            reason_detail=brake.detail,
            resumes_at=brake.resumes_at,
        )

    async def approve(self, id: str) -> Broadcast:
        """Lets go on what asks before it does: a start that came too late, a canary. Raises `Conflict`."""
        broadcast = await self.get(id)
        if broadcast.status is not BroadcastStatus.PAUSED or broadcast.reason not in _ASKS:
            raise Conflict(f"{broadcast.name} is {broadcast.status} and waits for nobody's approval")
        return await self.resume(id)

    async def resume(self, id: str) -> Broadcast:
        """Goes on with what is due, inside working time; one whose start went by meanwhile starts now, and its
        working time counts from now. Raises `Conflict`."""
        broadcast = await self.get(id)
        to = BroadcastStatus.SCHEDULED if broadcast.planned is None else BroadcastStatus.RUNNING
        if broadcast.status is not BroadcastStatus.PAUSED:
            raise Conflict(f"{broadcast.name} is {broadcast.status}; only a paused broadcast can be resumed")
        resumed = await self._move(
            id,
            to,
            "be resumed",
            reason=None,
            reason_detail=None,
            resumes_at=None,
            canary_passed=broadcast.canary_passed or broadcast.reason is BroadcastReason.CANARY,
            **_start_anew(broadcast, self._clock.now()),
        )
        return await self.settle(resumed.id) or resumed

    async def stop(self, id: str) -> Broadcast:
        """Ends it for good: what is planned is cancelled, what is in flight arrives. Stopping twice is once."""
        now = self._clock.now()
        try:
            broadcast = await self._move(
                id,
                BroadcastStatus.STOPPED,
                "be stopped",
                reason=None,
                reason_detail=None,
                resumes_at=None,
                finished_at=now,
            )
        except Conflict:
            broadcast = await self.get(id)
            if broadcast.status is not BroadcastStatus.STOPPED:
                raise
        await self.cancel_rest(broadcast)
        return broadcast

    async def cancel_rest(self, broadcast: Broadcast) -> None:
        """Cancels what a stopped broadcast had planned; does nothing where that was done."""
        at = broadcast.finished_at or self._clock.now()
        while await self._store.cancel_planned(broadcast.id, at, _CANCEL_BATCH) == _CANCEL_BATCH:
            pass

    async def settle(self, id: str) -> Broadcast | None:
        """Completes a running broadcast in which every delivery has an end; ``None`` where it has not."""
        broadcast = await self.get(id)
        if broadcast.status is not BroadcastStatus.RUNNING or _open(await self._store.tally(id)):
            return None
        with suppress(Conflict):  # somebody else settled, paused or stopped it first
            return await self._move(
                id,
                BroadcastStatus.COMPLETED,
                "be completed",
                reason=None,
                reason_detail=None,
                finished_at=self._clock.now(),
            )
        return None

    async def pause_account(self, account: str, detail: str) -> list[str]:
        """Pauses every running broadcast with something left to send through the account, and says which."""
        paused = []
        for running in await self._store.running_on(account):
            with suppress(Conflict):
                await self.pause(running, BroadcastReason.ACCOUNT_DISCONNECTED, detail=f"{account}: {detail}")
                paused.append(running)
        return paused

    async def _move(self, id: str, to: BroadcastStatus, verb: str, **changes: object) -> Broadcast:
        while True:
            broadcast = await self.get(id)
            if to not in BROADCAST_MOVES[broadcast.status]:
                raise Conflict(f"{broadcast.name} is {broadcast.status} and cannot {verb}")
            moved = move_broadcast(broadcast, to, **changes)
            try:
                await self._store.save_broadcast(moved, expected=broadcast.status)
            except Conflict:
                continue  # it moved meanwhile: judge again by where it is now
            return moved


async def every(store: Store, *statuses: BroadcastStatus) -> list[Broadcast]:
    """All broadcasts that stand in one of the statuses, newest launch first."""
    found: dict[str, Broadcast] = {}
    for number in count(1):
        listing = await store.broadcasts(statuses=statuses, page=Page(number, _PAGE))
        found.update((broadcast.id, broadcast) for broadcast in listing.items)
        if len(listing.items) < _PAGE:
            break
    return list(found.values())


def _open(tally: Mapping[str, int]) -> int:
    states = report.deliveries(tally)
    return sum(states[state] for state in OPEN_STATES)


# --- validation ---------------------------------------------------------------------------------------


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise Invalid(faults)


def _refuse_launched(campaign: Campaign) -> None:
    if campaign.status is not CampaignStatus.DRAFT:
        raise Conflict(f"{campaign.name} was launched, its content is locked; copy it to change it")


def _unknown(field: str, wanted: Collection[str], known: Collection[str], mend: str) -> Iterator[Fault]:
    for index, one in enumerate(wanted):
        if one not in known:
            yield Fault(f"{field}[{index}]", f"{one} {mend}")


def _seed_faults(seed: int | None) -> Iterator[Fault]:
    if seed is not None and not 0 <= seed <= _MAX_SEED:
        yield Fault("seed", f"is a whole number from 0 to {_MAX_SEED}; leave it out for a new one")


def _name_faults(name: str) -> Iterator[Fault]:
    if not 1 <= len(name.strip()) <= MAX_NAME:
        yield Fault("name", f"is 1 to {MAX_NAME} characters")


def _schedule_faults(schedule: Schedule, now: datetime) -> Iterator[Fault]:
    if not 1 <= schedule.working_days <= MAX_WORKING_DAYS:
        yield Fault("schedule.working_days", f"is a number of days from 1 to {MAX_WORKING_DAYS}")
        return
    try:
        zone = calendar.zone(schedule.timezone, "schedule.timezone")
        calendar.working_time(
            calendar.with_holidays(schedule, launched_at=now), zone, not_before=None if schedule.start else now
        )
    except Invalid as error:
        for fault in error.faults:  # the calendar knows a country, not whose it is
            yield Fault(f"schedule.{fault.field.removeprefix('schedule.')}", fault.message)


def _repeat_faults(repeat: str | None) -> Iterator[Fault]:
    try:
        if repeat is not None:
            recurrence.parse(repeat)
    except Invalid as error:
        yield from error.faults


def _start_faults(schedule: Schedule, now: datetime) -> Iterator[Fault]:
    if schedule.start is None or schedule.immediate:
        return
    try:
        zone = calendar.zone(schedule.timezone, "schedule.timezone")
    except Invalid:
        return  # said by `_schedule_faults`
    if isinstance(schedule.start, datetime):
        late = calendar.first_instant(schedule.start, zone) < now
    else:
        late = schedule.start < now.astimezone(zone).date()
    if late:
        yield Fault(
            "schedule.start", f"{schedule.start} is past; write a later one, or leave it out to start today"
        )


def _canary_faults(canary: Canary | None) -> Iterator[Fault]:
    if canary is None:
        return
    if not 1 <= canary.first <= _MOST_FIRST:
        yield Fault("policies.canary.first", f"is a number of sends from 1 to {_MOST_FIRST}")
    if canary.minutes is not None and not 1 <= canary.minutes <= MOST_MINUTES:
        yield Fault("policies.canary.then", f'is "approve", or a number of minutes from 1 to {MOST_MINUTES}')


def _policy_faults(policies: Policies) -> Iterator[Fault]:
    bounds = {"rounds": (1, 100), "retry_minutes": (1, 24 * 60), "slot_minutes": (1, 24 * 60)}
    for name, (least, most) in bounds.items():
        if not least <= getattr(policies, name) <= most:
            yield Fault(f"policies.{name}", f"is a number from {least} to {most}")
    if policies.rate is not None and not (isfinite(policies.rate) and policies.rate > 0):
        yield Fault("policies.rate", "is messages per second, more than 0; leave it out for the account's own rate")
    yield from _canary_faults(policies.canary)
    for channel, allowed in policies.presence.items():
        if allowed is not None and not allowed:
            yield Fault(f"policies.presence.{channel}", 'allows no state; name some, or write ["any"]')
