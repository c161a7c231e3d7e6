"""Campaigns as bodies: what is written, and what is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from bot.admin.shapes.common import (
    Count,
    FaultOut,
    Id,
    Ids,
    Instant,
    Listed,
    Paged,
    Search,
    Short,
    Text,
    is_none,
)
from bot.admin.validation import Shape, checked_by, refused
from broadcast import calendar, recurrence
from broadcast.campaigns import MAX_NAME, MAX_WORKING_DAYS, MOST_MINUTES, Draft, LaunchOverrides
from broadcast.errors import Fault
from broadcast.model import (
    DEFAULT_PRESENCE,
    WEEKDAYS,
    AfterCrash,
    Audience,
    Button,
    ButtonType,
    Campaign,
    CampaignStatus,
    Canary,
    ChannelName,
    Hours,
    Media,
    MediaType,
    Message,
    OutsideHours,
    Policies,
    PresencePolicy,
    PresenceState,
    Schedule,
    Variant,
    WhenUnknown,
)

_ANY = "any"
_APPROVE = "approve"

# --- message ------------------------------------------------------------------------------------------


class MediaShape(Shape):
    type: MediaType
    url: Short
    alt: Short = ""


class ButtonShape(Shape):
    """`link` and `buy` have a `url`, `reply` has a `value`."""

    id: Short
    type: ButtonType
    label: Short
    url: Short | None = Field(default=None, exclude_if=is_none)
    value: Short | None = Field(default=None, exclude_if=is_none)


MediaList = Annotated[list[MediaShape], Field(max_length=100)]
ButtonList = Annotated[list[ButtonShape], Field(max_length=100)]


class VariantShape(Shape):
    """What one channel says differently; what is left out is the message's own."""

    text: Text | None = Field(default=None, exclude_if=is_none)
    media: MediaList | None = Field(default=None, exclude_if=is_none)
    buttons: ButtonList | None = Field(default=None, exclude_if=is_none)


class MessageShape(Shape):
    text: Text = ""
    media: MediaList = Field(default_factory=list)
    buttons: ButtonList = Field(default_factory=list)
    variants: dict[ChannelName, VariantShape] = Field(default_factory=dict)


def _media(shapes: Iterable[MediaShape]) -> tuple[Media, ...]:
    return tuple(Media(shape.type, shape.url, shape.alt) for shape in shapes)


def _buttons(shapes: Iterable[ButtonShape]) -> tuple[Button, ...]:
    return tuple(Button(shape.id, shape.type, shape.label, shape.url, shape.value) for shape in shapes)


def _variant(shape: VariantShape) -> Variant:
    return Variant(
        text=shape.text,
        media=None if shape.media is None else _media(shape.media),
        buttons=None if shape.buttons is None else _buttons(shape.buttons),
    )


def _media_out(media: Iterable[Media]) -> list[MediaShape]:
    return [MediaShape(type=item.type, url=item.url, alt=item.alt) for item in media]


def _buttons_out(buttons: Iterable[Button]) -> list[ButtonShape]:
    return [
        ButtonShape(id=button.id, type=button.type, label=button.label, url=button.url, value=button.value)
        for button in buttons
    ]


def _variant_out(variant: Variant) -> VariantShape:
    return VariantShape(
        text=variant.text,
        media=None if variant.media is None else _media_out(variant.media),
        buttons=None if variant.buttons is None else _buttons_out(variant.buttons),
    )


def _message_out(message: Message) -> MessageShape:
    return MessageShape(
        text=message.text,
        media=_media_out(message.media),
        buttons=_buttons_out(message.buttons),
        variants={channel: _variant_out(variant) for channel, variant in message.variants.items()},
    )


# --- audience -----------------------------------------------------------------------------------------


class AudienceShape(Shape):
    """Lists, segments and recipients add up; none of them is everybody. `channels` and `accounts` narrow it."""

    lists: Ids = Field(default_factory=list)
    segments: Ids = Field(default_factory=list)
    recipients: Ids = Field(default_factory=list)
    exclude_lists: Ids = Field(default_factory=list)
    channels: Annotated[list[ChannelName], Field(max_length=100)] = Field(default_factory=lambda: list(ChannelName))
    accounts: Ids = Field(default_factory=list)


def _audience_out(audience: Audience) -> AudienceShape:
    return AudienceShape(
        lists=list(audience.lists),
        segments=list(audience.segments),
        recipients=list(audience.recipients),
        exclude_lists=list(audience.exclude_lists),
        channels=list(audience.channels),
        accounts=list(audience.accounts),
    )


# --- schedule -----------------------------------------------------------------------------------------


def read_start(text: str) -> date | datetime:
    return calendar.parse_start(text, "")


def _read_repeat(text: str) -> object:
    return recurrence.parse(text, "")


def _read_hours(raw: Mapping[str, object]) -> Hours:
    return calendar.parse_hours(raw, "")


def _read_holidays(country: str) -> object:
    return calendar.holiday_dates(country, (), "")


_HOURS_SCHEMA = {
    "type": "object",
    "description": "windows of each weekday; one that is left out is not worked",
    "properties": {day: {"type": "array", "items": {"type": "string"}} for day in WEEKDAYS},
    "additionalProperties": False,
    "examples": [{"mon": ["09:00-12:00", "14:00-18:00"], "fri": ["09:00-18:00"]}],
}

#: A local date or local date-time.
Start = Annotated[Short | None, AfterValidator(checked_by(read_start))]
HoursMap = Annotated[
    dict[str, Annotated[list[Short], Field(max_length=100)]],
    AfterValidator(checked_by(_read_hours)),
    WithJsonSchema(_HOURS_SCHEMA),
]
#: When it launches again by itself.
Repetition = Annotated[Short | None, AfterValidator(checked_by(_read_repeat))]
Country = Annotated[Short | None, AfterValidator(checked_by(_read_holidays))]


class ScheduleShape(Shape):
    """`start` is a local date, a local date-time, or null for the day of the launch. What is left out comes from
    the settings."""

    immediate: bool = False
    start: Start = None
    working_days: Annotated[int, Field(ge=1, le=MAX_WORKING_DAYS)] = 1
    timezone: Short = "UTC"
    recipient_timezone: bool = False
    holidays: Annotated[list[date], Field(max_length=1_000)] = Field(default_factory=list)
    holiday_country: Country = None
    hours: HoursMap = Field(default_factory=lambda: _hours_out(Schedule().hours))
    repeat: Repetition = Field(default=None, exclude_if=is_none)


def _hours_out(hours: Hours) -> dict[str, list[str]]:
    return {WEEKDAYS[day]: [str(window) for window in windows] for day, windows in hours.items()}


def _schedule_out(schedule: Schedule) -> ScheduleShape:
    return ScheduleShape(
        immediate=schedule.immediate,
        start=None if schedule.start is None else schedule.start.isoformat(),
        working_days=schedule.working_days,
        timezone=schedule.timezone,
        recipient_timezone=schedule.recipient_timezone,
        holidays=sorted(schedule.holidays),
        holiday_country=schedule.holiday_country,
        hours=_hours_out(schedule.hours),
        repeat=schedule.repeat,
    )


# --- policies -----------------------------------------------------------------------------------------


_STATES = [state.value for state in PresenceState if state is not PresenceState.UNKNOWN]
_ALLOWED = f'write {", ".join(_STATES)}, or ["{_ANY}"]'
_STATES_SCHEMA = {"type": "array", "items": {"type": "string", "enum": [*_STATES, _ANY]}, "minItems": 1}
_PRESENCE_SCHEMA = {
    "description": "states that allow a send, for all channels or by channel",
    "anyOf": [
        _STATES_SCHEMA,
        {
            "type": "object",
            "properties": {channel.value: _STATES_SCHEMA for channel in ChannelName},
            "additionalProperties": False,
        },
    ],
}


def _check_presence(value: Any) -> Any:
    faults = _by_channel_faults(value) if isinstance(value, dict) else _states_faults("", value)
    if faults:
        raise refused(faults)
    return value


def _by_channel_faults(value: Mapping[object, object]) -> list[Fault]:
    channels = [channel.value for channel in ChannelName]
    faults: list[Fault] = []
    for channel, states in value.items():
        if channel not in channels:
            faults.append(Fault(str(channel), f"is no channel; there are {', '.join(channels)}"))
        elif channel == ChannelName.TELEGRAM and states != [_ANY]:
            faults.append(Fault(str(channel), f'tells no presence; leave it out, or write ["{_ANY}"]'))
        else:
            faults += _states_faults(str(channel), states)
    return faults


def _states_faults(field: str, states: object) -> list[Fault]:
    if not isinstance(states, list) or not states:
        return [Fault(field, f"must be a list of states; {_ALLOWED}")]
    if states == [_ANY]:
        return []
    if _ANY in states:
        return [Fault(field, f'["{_ANY}"] stands alone; {_ALLOWED}')]
    return [
        Fault(f"{field}[{place}]", f"{state} is no state; {_ALLOWED}")
        for place, state in enumerate(states)
        if state not in _STATES
    ]


Presence = Annotated[Any, AfterValidator(_check_presence), WithJsonSchema(_PRESENCE_SCHEMA)]


def _presence(given: list[str] | dict[str, list[str]]) -> PresencePolicy:
    """Telegram tells none, which is always allowed (RULES.md, presence). A channel that an object leaves out has
    its default."""
    if isinstance(given, list):
        return {channel: None if channel is ChannelName.TELEGRAM else _states(given) for channel in ChannelName}
    defaults = {channel: states for channel, states in DEFAULT_PRESENCE.items() if states is not None}
    return defaults | {ChannelName(channel): _states(states) for channel, states in given.items()}


def _states(given: Sequence[str]) -> frozenset[PresenceState] | None:
    return None if list(given) == [_ANY] else frozenset(PresenceState(state) for state in given)


def _presence_out(policy: PresencePolicy) -> list[str] | dict[str, list[str]]:
    """As it was given: a list where it is one for all channels."""
    telling = {tuple(_states_out(policy.get(channel))) for channel in ChannelName if channel in _TELLING}
    if len(telling) == 1 and set(policy) == set(ChannelName):
        return list(telling.pop())
    return {channel.value: _states_out(policy[channel]) for channel in ChannelName if channel in policy}


_TELLING = frozenset(ChannelName) - {ChannelName.TELEGRAM}


def _states_out(states: frozenset[PresenceState] | None) -> list[str]:
    return [_ANY] if states is None else [state for state in _STATES if state in states]


_THEN_SCHEMA = {
    "description": "what the rest waits for: an approval, or so many minutes without a failure",
    "anyOf": [{"const": "approve"}, {"type": "integer"}],
}


def _check_then(value: Any) -> Any:
    if value != _APPROVE and (isinstance(value, bool) or not isinstance(value, int)):
        raise refused([Fault("", f'is "{_APPROVE}", or a number of minutes from 1 to {MOST_MINUTES}')])
    return value


class CanaryShape(Shape):
    """After the first so many sends the rest waits."""

    first: int
    then: Annotated[Any, AfterValidator(_check_then), WithJsonSchema(_THEN_SCHEMA)] = _APPROVE


def _canary(shape: CanaryShape | None) -> Canary | None:
    return None if shape is None else Canary(shape.first, None if shape.then == _APPROVE else shape.then)


def _canary_out(canary: Canary | None) -> CanaryShape | None:
    return None if canary is None else CanaryShape(first=canary.first, then=canary.minutes or _APPROVE)


class PoliciesShape(Shape):
    presence: Presence = Field(default_factory=lambda: _presence_out(DEFAULT_PRESENCE))
    when_unknown: WhenUnknown = WhenUnknown.SEND
    rounds: Annotated[int, Field(ge=1, le=100)] = 3
    retry_minutes: Annotated[int, Field(ge=1, le=24 * 60)] = 10
    slot_minutes: Annotated[int, Field(ge=1, le=24 * 60)] = 60
    after_crash: AfterCrash = AfterCrash.RESEND
    outside_hours: OutsideHours = OutsideHours.HOLD
    rate: float | None = None
    canary: CanaryShape | None = Field(default=None, exclude_if=is_none)


def _policies_out(policies: Policies) -> PoliciesShape:
    return PoliciesShape(
        presence=_presence_out(policies.presence),
        when_unknown=policies.when_unknown,
        rounds=policies.rounds,
        retry_minutes=policies.retry_minutes,
        slot_minutes=policies.slot_minutes,
        after_crash=policies.after_crash,
        outside_hours=policies.outside_hours,
        rate=policies.rate,
        canary=_canary_out(policies.canary),
    )


# --- campaign -----------------------------------------------------------------------------------------

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


class CampaignPatch(Shape):
    """Each field that is given replaces that field; sections (`message`, `audience`, `schedule`, `policies`) are
    merged field by field."""

    name: Name = ""
    message: MessageShape = Field(default_factory=MessageShape)
    audience: AudienceShape = Field(default_factory=AudienceShape)
    schedule: ScheduleShape = Field(default_factory=ScheduleShape)
    policies: PoliciesShape = Field(default_factory=PoliciesShape)


class CampaignBody(CampaignPatch):
    """A new campaign. What is left out has the value shown, or the default of the settings."""

    name: Name
    message: MessageShape


class CampaignOut(CampaignBody):
    """`estimate` is how many people the audience has now; `broadcasts` counts the launches; `next_launch_at` is
    when it launches again by itself."""

    audience: AudienceShape
    schedule: ScheduleShape
    policies: PoliciesShape
    id: str
    status: CampaignStatus
    created_at: Instant
    estimate: Count
    broadcasts: Count
    last_launched_at: Instant | None
    next_launch_at: Instant | None = Field(default=None, exclude_if=is_none)


#: How a field becomes its value; one that is not named is its value already.
_Kinds = Mapping[str, Callable[[Any], object]]
_MESSAGE: _Kinds = {
    "media": _media,
    "buttons": _buttons,
    "variants": lambda variants: {channel: _variant(shape) for channel, shape in variants.items()},
}
_AUDIENCE: _Kinds = dict.fromkeys(AudienceShape.model_fields, tuple)
_SCHEDULE: _Kinds = {"start": lambda text: text and read_start(text), "holidays": frozenset, "hours": _read_hours}
_POLICIES: _Kinds = {"presence": _presence, "canary": _canary}


def _given(shape: Shape, kinds: _Kinds) -> dict[str, Any]:
    """The fields that were given, as values."""
    return {name: kinds.get(name, _same)(getattr(shape, name)) for name in sorted(shape.model_fields_set)}


def _same(value: object) -> object:
    return value


def merged(patch: CampaignPatch, onto: Draft) -> Draft:
    """The draft with what was given; everything else stays."""
    return Draft(
        name=patch.name if "name" in patch.model_fields_set else onto.name,
        message=replace(onto.message, **_given(patch.message, _MESSAGE)),
        audience=replace(onto.audience, **_given(patch.audience, _AUDIENCE)),
        schedule=replace(onto.schedule, **_given(patch.schedule, _SCHEDULE)),
        policies=replace(onto.policies, **_given(patch.policies, _POLICIES)),
    )


def new_draft(body: CampaignBody, *, schedule: Schedule, policies: Policies) -> Draft:
    """What was given on top of the defaults of the settings."""
    return merged(body, Draft(body.name, Message(""), Audience(), schedule, policies))


def draft_of(campaign: Campaign) -> Draft:
    return Draft(campaign.name, campaign.message, campaign.audience, campaign.schedule, campaign.policies)


def campaign_out(campaign: Campaign, *, estimate: int) -> CampaignOut:
    return CampaignOut(
        id=campaign.id,
        name=campaign.name,
        message=_message_out(campaign.message),
        audience=_audience_out(campaign.audience),
        schedule=_schedule_out(campaign.schedule),
        policies=_policies_out(campaign.policies),
        status=campaign.status,
        created_at=campaign.created_at,
        estimate=estimate,
        broadcasts=campaign.broadcasts,
        last_launched_at=campaign.last_launched_at,
        next_launch_at=campaign.next_launch_at,
    )


class LaunchBody(Shape):
    """Each field overrides the campaign for this broadcast only."""

    start: Start = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None


def overrides(body: LaunchBody) -> LaunchOverrides:
    return LaunchOverrides(start=read_start(body.start) if body.start else None, seed=body.seed)


class TryBody(Shape):
    """To whom: an e-mail, an external id or an id."""

    to: Id


class FaultsOut(Shape):
    """Everything that stands in the way of a launch; nothing if the list is empty."""

    faults: list[FaultOut]


class CampaignQuery(Paged):
    status: CampaignStatus | None = None
    q: Search = ""
    channel: ChannelName | None = None


class CampaignList(Listed):
    items: list[CampaignOut]
