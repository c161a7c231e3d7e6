"""Who is available when: a pure function of (seed, person, instant), so nothing runs in the background."""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from sandbox import draws
from sandbox.people import Person
from sandbox.settings import Behaviour, PresenceShares

WORKDAY_HOURS = range(8, 18)


@dataclass(frozen=True)
class Presence:
    """Words of Microsoft Graph (PLATFORMS B)."""

    availability: str
    activity: str


ACTIVITIES = {
    "Available": ("Available",),
    "Away": ("Away", "Inactive"),
    "Busy": ("InACall", "InAMeeting", "Busy"),
    "DoNotDisturb": ("Presenting", "DoNotDisturb"),
    "Offline": ("Offline",),
}


def presence_at(seed: int, person: Person, instant: float, behaviour: Behaviour) -> Presence:
    """What the person's presence is at a sandbox instant (seconds since 1970)."""
    slot = _slot(seed, person.id, instant, behaviour.presence_minutes * 60)
    shares = _shares(person, instant, behaviour)
    availability = _word(shares, draws.fraction(seed, person.id, "state", slot))
    activities = ACTIVITIES[availability]
    return Presence(availability, draws.pick(activities, seed, person.id, "activity", slot))


def _slot(seed: int, person_id: str, instant: float, length: float) -> int:
    """The number of the stretch that holds the instant; its borders wander by up to a third of its length."""
    number = int(instant // length)
    moved = length * draws.fraction(seed, person_id, "border", number) / 3 * 2
    return number if instant - number * length >= moved else number - 1


def _shares(person: Person, instant: float, behaviour: Behaviour) -> PresenceShares:
    local = datetime.fromtimestamp(instant, UTC).astimezone(ZoneInfo(person.timezone))
    at_work = local.weekday() < 5 and local.hour in WORKDAY_HOURS
    return behaviour.at_work if at_work else behaviour.off_work


def _word(shares: PresenceShares, drawn: float) -> str:
    steps = (
        ("Available", shares.available),
        ("Away", shares.away),
        ("Busy", shares.busy),
        ("DoNotDisturb", shares.do_not_disturb),
    )
    for word, share in steps:
        if drawn < share:
            return word
        drawn -= share
    return "Offline"
