"""A scenario file as a value, or the one place in it that is at fault and its mend (RULES.md, simulate)."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeVar

from broadcast import calendar, simulation
from broadcast.calendar import YEARS, WorkingTime
from broadcast.campaigns import MAX_WORKING_DAYS
from broadcast.errors import Fault, Invalid
from broadcast.model import (
    AfterCrash,
    ChannelName,
    OutsideHours,
    Policies,
    PresenceState,
    Schedule,
    WhenUnknown,
)
from broadcast.simulation import Person, Scenario

T = TypeVar("T")

#: Messages a second of an account that the file says nothing of.
RATES: Mapping[ChannelName, float] = MappingProxyType(
    {ChannelName.TEAMS: 50.0, ChannelName.TELEGRAM: 30.0, ChannelName.VIBER: 50.0}
)
_SCENARIO = ("seed", "broadcast", "accounts", "recipients")
_SCHEDULE = (
    "start",
    "working_days",
    "timezone",
    "hours",
    "holidays",
    "holiday_country",
    "recipient_timezone",
    "immediate",
)
_POLICIES = (
    "presence",
    "when_unknown",
    "rounds",
    "retry_minutes",
    "slot_minutes",
    "after_crash",
    "outside_hours",
)
_PERSON = (
    "id",
    "channel",
    "timezone",
    "first_at",
    "presence",
    "answers",
    "retry_after",
    "unsubscribes_at",
)
_LONGEST_ID = 200
_DAY_MINUTES = 24 * 60
_STATES = tuple(state.value for state in PresenceState)
_WORDS = (simulation.TIMEOUT, simulation.BLOCKED)


def read(text: str) -> Scenario:
    """The scenario that JSON `text` describes. Raises `Invalid` with the first fault."""
    raw = _object(_parsed(text), "", _SCENARIO, required=("broadcast", "recipients"))
    told = _object(raw["broadcast"], "broadcast", (*_SCHEDULE, *_POLICIES), required=("start", "hours", "presence"))
    schedule = _schedule(told)
    policies = _policies(told)
    people = _people(raw["recipients"])
    rates = _rates(raw.get("accounts", {}))
    scenario = Scenario(
        seed=_whole(raw.get("seed", 0), "seed", least=-(2**63), most=2**63),
        schedule=schedule,
        policies=policies,
        rates={channel: rates[channel] for channel in ChannelName if any(p.channel is channel for p in people)},
        people=people,
    )
    _check_times(scenario)
    return scenario


# --- JSON ---------------------------------------------------------------------------------------------


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise _at(
            f"line {error.lineno}, column {error.colno}", f"is no JSON: {error.msg}; mend it there"
        ) from error
    except RecursionError as error:
        raise _at("the file", "is nested too deeply; write a scenario as the documentation shows it") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _at(twice, "is written twice in one object; remove one of them")
    return found


def _no_number(word: str) -> float:
    raise _at(word, "is no number of JSON; write a number")


def _at(place: str, message: str) -> Invalid:
    return Invalid([Fault(place, message)])


def _object(value: Any, place: str, known: Sequence[str], *, required: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _at(place or "the file", f"is {_kind(value)}; write an object with {', '.join(known)}")
    for key in value:
        if key not in known:
            raise _at(_in(place, key), f"is unknown; {_nearest(key, known)}")
    for key in required:
        if key not in value:
            raise _at(_in(place, key), "is missing; write it")
    return value


def _in(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _nearest(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"write one of {', '.join(known)}"


def _list(value: Any, place: str, of: str) -> list[Any]:
    if not isinstance(value, list):
        raise _at(place, f"is {_kind(value)}; write a list of {of}")
    return value


def _text(value: Any, place: str, example: str) -> str:
    if not isinstance(value, str):
        raise _at(place, f"is {_kind(value)}; write {example}")
    return value


def _yes(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise _at(place, f"is {_kind(value)}; write true or false")
    return value


def _number(value: Any, place: str, mend: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _at(place, f"is {_kind(value)}; {mend}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _at(place, f"is too large; {mend}")
    return number


def _whole(value: Any, place: str, *, least: int, most: int) -> int:
    mend = f"write a whole number from {least} to {most}"
    number = _number(value, place, mend)
    if number != int(number) or not least <= number <= most:
        raise _at(place, f"is {value}; {mend}")
    return int(value)


def _one_of(value: Any, place: str, known: Sequence[str]) -> str:
    text = _text(value, place, f"one of {', '.join(known)}")
    if text not in known:
        raise _at(place, f"{text or 'nothing'} is unknown; {_nearest(text, known)}")
    return text


def _instant(value: Any, place: str) -> datetime:
    example = "an instant with its offset such as 2026-03-27T14:27:00+01:00"
    text = _text(value, place, example)
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not None and instant.year in YEARS:
            return instant.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _at(place, f"{text or 'nothing'} is no instant; write {example}") from error
    if instant.tzinfo is None:
        raise _at(place, f"{text} has no offset from UTC; write {example}")
    raise _at(place, f"{text} is out of reach; write a year from {YEARS[0]} to {YEARS[-1]}")


# --- the broadcast ------------------------------------------------------------------------------------


def _schedule(told: Mapping[str, Any]) -> Schedule:
    schedule = Schedule(
        immediate=_yes(told.get("immediate", False), "broadcast.immediate"),
        start=_start(told["start"]),
        working_days=_whole(told.get("working_days", 1), "broadcast.working_days", least=1, most=MAX_WORKING_DAYS),
        timezone=_zone(told.get("timezone", "UTC"), "broadcast.timezone"),
        recipient_timezone=_yes(told.get("recipient_timezone", False), "broadcast.recipient_timezone"),
        holidays=_holidays(told.get("holidays", [])),
        holiday_country=_country(told.get("holiday_country")),
        hours=calendar.parse_hours(_hours(told["hours"]), "broadcast.hours"),
    )
    _working(schedule, schedule.timezone, "broadcast.hours")
    return schedule


def _start(value: Any) -> date | datetime:
    return calendar.parse_start(
        _text(value, "broadcast.start", "2026-03-27 or 2026-03-27T09:00"), "broadcast.start"
    )


def _zone(value: Any, place: str) -> str:
    return calendar.zone(_text(value, place, "a time zone such as Europe/Paris"), place).key


def _hours(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _at("broadcast.hours", f'is {_kind(value)}; write for example {{"mon": ["09:00-12:00"]}}')
    for day, windows in value.items():
        for index, window in enumerate(windows if isinstance(windows, list) else ()):
            _text(window, f"broadcast.hours.{day}[{index}]", "a window such as 09:00-12:00")
    return value


def _holidays(value: Any) -> frozenset[date]:
    dates = _list(value, "broadcast.holidays", 'dates such as "2026-03-30"')
    return frozenset(_date(text, f"broadcast.holidays[{index}]") for index, text in enumerate(dates))


def _date(value: Any, place: str) -> date:
    text = _text(value, place, "a date such as 2026-03-30")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise _at(place, f"{text or 'nothing'} is no date; write one such as 2026-03-30") from error


def _country(value: Any) -> str | None:
    if value is None:
        return None
    country = _text(value, "broadcast.holiday_country", "a country such as DE or DE-BY")
    calendar.holiday_dates(country, [YEARS[0]], "broadcast.holiday_country")
    return country


def _policies(told: Mapping[str, Any]) -> Policies:
    allowed = _allowed(told["presence"])
    defaults = Policies()
    return Policies(
        presence={channel: None if channel is ChannelName.TELEGRAM else allowed for channel in ChannelName},
        when_unknown=WhenUnknown(_choice(told, "when_unknown", WhenUnknown, defaults.when_unknown)),
        rounds=_count(told, "rounds", 100, defaults.rounds),
        retry_minutes=_count(told, "retry_minutes", _DAY_MINUTES, defaults.retry_minutes),
        slot_minutes=_count(told, "slot_minutes", _DAY_MINUTES, defaults.slot_minutes),
        after_crash=AfterCrash(_choice(told, "after_crash", AfterCrash, AfterCrash.RESEND)),
        outside_hours=OutsideHours(_choice(told, "outside_hours", OutsideHours, defaults.outside_hours)),
    )


def _allowed(value: Any) -> frozenset[PresenceState] | None:
    if value in ("any", ["any"]):
        return None
    place = "broadcast.presence"
    words = _list(value, place, f'states ({", ".join(_STATES)}), or ["any"]')
    if not words:
        raise _at(place, 'allows no state; name some, or write ["any"]')
    if "any" in words:
        raise _at(place, 'any beside other states; write ["any"] alone')
    return frozenset(PresenceState(_one_of(word, f"{place}[{index}]", _STATES)) for index, word in enumerate(words))


def _choice(told: Mapping[str, Any], key: str, words: Iterable[str], default: str) -> str:
    return _one_of(told.get(key, default), f"broadcast.{key}", [str(word) for word in words])


def _count(told: Mapping[str, Any], key: str, most: int, default: int) -> int:
    return _whole(told.get(key, default), f"broadcast.{key}", least=1, most=most)


def _rates(value: Any) -> Mapping[ChannelName, float]:
    accounts = _object(value, "accounts", [channel.value for channel in ChannelName])
    return {**RATES, **{ChannelName(key): _rate(told, f"accounts.{key}") for key, told in accounts.items()}}


def _rate(value: Any, place: str) -> float:
    told = _object(value, place, ("rate",), required=("rate",))
    mend = "write messages a second, more than 0, such as 30"
    rate = _number(told["rate"], f"{place}.rate", mend)
    if not 1e-5 <= rate <= 1e6:
        raise _at(f"{place}.rate", f"is {told['rate']}; {mend}")
    return rate


# --- people -------------------------------------------------------------------------------------------


def _people(value: Any) -> list[Person]:
    people = [
        _person(told, f"recipients[{index}]") for index, told in enumerate(_list(value, "recipients", "people"))
    ]
    if not people:
        raise _at("recipients", "is empty; write at least one")
    places: dict[str, int] = {}
    for index, person in enumerate(people):
        if places.setdefault(person.id, index) != index:
            other = places[person.id]
            raise _at(f"recipients[{index}].id", f"{person.id} is that of recipients[{other}] too; give it another")
    return people


def _person(value: Any, place: str) -> Person:
    told = _object(value, place, _PERSON, required=("id", "channel"))
    channel = ChannelName(_one_of(told["channel"], f"{place}.channel", [name.value for name in ChannelName]))
    if channel is ChannelName.TELEGRAM and "presence" in told:
        raise _at(f"{place}.presence", "Telegram tells no presence; remove it")
    return Person(
        id=_id(told["id"], f"{place}.id"),
        channel=channel,
        timezone=_optional(told, "timezone", place, _zone),
        first_at=_each(told.get("first_at", []), f"{place}.first_at", "instants", _instant),
        presence=_optional(told, "presence", place, _presence),
        answers=_each(told.get("answers", []), f"{place}.answers", "answers", _answer),
        retry_after=_optional(told, "retry_after", place, _seconds),
        unsubscribes_at=_optional(told, "unsubscribes_at", place, _instant),
    )


def _optional(told: Mapping[str, Any], key: str, place: str, read_one: Callable[[Any, str], T]) -> T | None:
    return None if told.get(key) is None else read_one(told[key], f"{place}.{key}")


def _each(value: Any, place: str, of: str, read_one: Callable[[Any, str], T]) -> tuple[T, ...]:
    return tuple(read_one(one, f"{place}[{index}]") for index, one in enumerate(_list(value, place, of)))


def _id(value: Any, place: str) -> str:
    id = _text(value, place, 'a text such as "ann"')
    if not 1 <= len(id) <= _LONGEST_ID:
        raise _at(place, f"has {len(id)} characters; write 1 to {_LONGEST_ID}")
    return id


def _presence(value: Any, place: str) -> tuple[tuple[datetime, PresenceState], ...]:
    steps = _each(value, place, 'steps such as ["2026-03-27T09:00:00+01:00", "away"]', _step)
    for index in range(1, len(steps)):
        if steps[index][0] <= steps[index - 1][0]:
            raise _at(f"{place}[{index}]", "is not after the step before it; write the steps in order of time")
    return steps


def _step(value: Any, place: str) -> tuple[datetime, PresenceState]:
    if not isinstance(value, list) or len(value) != 2:
        raise _at(place, 'is no step; write [instant, state] such as ["2026-03-27T09:00:00+01:00", "away"]')
    return _instant(value[0], f"{place}[0]"), PresenceState(_one_of(value[1], f"{place}[1]", _STATES))


def _answer(value: Any, place: str) -> simulation.Reply:
    mend = f"write an HTTP status from 200 to 299 or 400 to 599, {' or '.join(_WORDS)}"
    if isinstance(value, str):
        if value not in _WORDS:
            raise _at(place, f"{value or 'nothing'} is no answer; {mend}")
        return value
    status = _number(value, place, mend)
    if status != int(status) or not (200 <= status < 300 or 400 <= status < 600):
        raise _at(place, f"{value} is no final answer; {mend}")
    return int(status)


def _seconds(value: Any, place: str) -> timedelta:
    mend = "write seconds from 0 to 31536000"
    seconds = _number(value, place, mend)
    if not 0 <= seconds <= 366 * 24 * 3600:
        raise _at(place, f"is {value}; {mend}")
    return timedelta(seconds=seconds)


# --- times that depend on each other ------------------------------------------------------------------


def _check_times(scenario: Scenario) -> None:
    """That everybody has working time, and that pins lie in it."""
    launch = simulation.launched_at(scenario)
    schedule = calendar.with_holidays(scenario.schedule, launched_at=launch)
    working: dict[str, WorkingTime] = {}
    for index, (person, zone) in enumerate(zip(scenario.people, simulation.zones(scenario), strict=True)):
        place = f"recipients[{index}]"
        if zone not in working:
            own = zone == scenario.schedule.timezone
            working[zone] = _working(schedule, zone, "broadcast.hours" if own else f"{place}.timezone")
        if person.first_at:
            _check_pins(person, working[zone], scenario.policies.rounds, f"{place}.first_at")


def _working(schedule: Schedule, zone: str, place: str) -> WorkingTime:
    try:
        return calendar.working_time(schedule, calendar.zone(zone), not_before=None)
    except Invalid as error:
        raise _at(place, error.faults[0].message) from error


def _check_pins(person: Person, working: WorkingTime, rounds: int, place: str) -> None:
    latest = -1
    for number, pin in enumerate(person.first_at):
        at = f"{place}[{number}]"
        if number >= rounds:
            raise _at(at, f"is for round {number + 1}, and there are {rounds}; remove it or write more rounds")
        index = working.day_index(pin)
        if index is None:
            shown = pin.astimezone(working.zone).isoformat()
            raise _at(at, f"{shown} is not in working time of a working day; write a moment inside the hours")
        if index <= latest:
            raise _at(at, "is not on a later working day than the one before; write one a day, ascending")
        latest = index
