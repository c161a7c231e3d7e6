"""The first moments of a broadcast: drawn from its seed, or pinned by a scenario (RULES.md, first moment).

Chance here is a keyed hash, not a generator with a state: each draw is a function of its seed and key alone,
so neither the order nor the number of recipients changes anybody's moment, and a crash loses none.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import attrgetter

from broadcast.calendar import WorkingDay, WorkingTime
from broadcast.errors import Fault, Invalid
from broadcast.model import Policies, Rung, Schedule
from broadcast.rounds import FirstMoment, Step

__all__ = ["FirstMoment", "below", "drawn", "first_round_days", "first_step", "pinned", "unit"]

_BITS = 64
_FLOAT_BITS = 53  # what a float holds exactly
_SECONDS = attrgetter("seconds")


def unit(seed: int, *key: object) -> float:
    """A number in [0, 1), uniform over seeds and keys. See `below` for what may be a key."""
    return (_draw(_keyed(seed), key) >> (_BITS - _FLOAT_BITS)) / (1 << _FLOAT_BITS)


def below(limit: int, seed: int, *key: object) -> int:
    """A whole number from 0 to `limit` - 1, uniform but for a bias under `limit` / 2**64.

    The key is a list of texts and whole numbers, told apart by their text. The same seed and key give the same
    number on every machine and in every version: running broadcasts stand on it.
    """
    return _draw(_keyed(seed), key) * limit >> _BITS


def _keyed(seed: int) -> hashlib.blake2b:
    return hashlib.blake2b(f"{seed}/".encode(), digest_size=_BITS // 8)


def _draw(keyed: hashlib.blake2b, key: Sequence[object]) -> int:
    """64 even bits. Each part of the key goes in with its length, so that no two keys read the same."""
    hashed = keyed.copy()
    texts = map(str, key)
    hashed.update("".join([f"{len(text)}:{text}" for text in texts]).encode("utf-8", "surrogatepass"))
    return int.from_bytes(hashed.digest(), "big")


def drawn(seed: int) -> FirstMoment:
    """First moments uniform over the elapsed working time of the given days, on whole seconds.

    A function of seed, recipient and round, and of the days. Costs a hash, and a little per day.
    """
    keyed = _keyed(seed)

    def first(recipient: str, number: int, days: Sequence[WorkingDay]) -> dt.datetime:
        ends = list(accumulate(map(_SECONDS, days)))
        if not ends[-1]:  # a launch within the last second of the only day
            return days[0].spans[0].start
        second = _draw(keyed, ("first", recipient, number)) * ends[-1] >> _BITS
        day = bisect_right(ends, second)
        return days[day].second(second - (ends[day - 1] if day else 0))

    return first


def pinned(pins: Mapping[str, Sequence[dt.datetime]], otherwise: FirstMoment) -> FirstMoment:
    """First moments as a scenario pins them: the n-th of a recipient is that of round n. Beyond them, and where
    a round is over only after the pin of the next (a retry that lasted), `otherwise` answers.

    A pin names its own day, which may lie after the days given.
    """

    def first(recipient: str, number: int, days: Sequence[WorkingDay]) -> dt.datetime:
        own = pins.get(recipient, ())
        if number <= len(own) and own[number - 1] >= days[0].spans[0].start:
            return own[number - 1].astimezone(dt.UTC)
        return otherwise(recipient, number, days)

    return first


def first_round_days(working: WorkingTime, rounds: int) -> tuple[WorkingDay, ...]:
    """The days that the first moment of round 1 may fall in: all but those the later rounds need."""
    return working.days[: max(1, len(working.days) - rounds + 1)]


def first_step(
    working: WorkingTime,
    schedule: Schedule,
    policies: Policies,
    recipient: str,
    first: FirstMoment,
    *,
    launch: dt.datetime | None,
) -> Step:
    """The step every delivery starts with. An immediate broadcast starts at the launch or the next opening,
    and pacing spreads it; `launch` None is before everything. Raises `Invalid` if the launch comes too late
    for any working time."""
    if schedule.immediate:
        return Step(1, Rung.FIRST, _opening(working, launch))
    due = first(recipient, 1, first_round_days(working, policies.rounds))
    return Step(1, Rung.FIRST, due)


def _opening(working: WorkingTime, launch: dt.datetime | None) -> dt.datetime:
    opening = working.begins if launch is None else working.next_open(launch)
    if opening is None:
        raise Invalid([Fault("schedule", "no working time is left after the launch; write a later start")])
    return opening
