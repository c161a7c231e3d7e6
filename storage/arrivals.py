"""Inbounds that come at once and are taken in together: which of them may be decided on what was read for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broadcast.model import Recipient
from broadcast.ports import Inbound, Known, Turn
from storage import changes


@dataclass(frozen=True, slots=True)
class Arrival:
    """One call of `take_in`."""

    inbound: Inbound
    decide: Callable[[Known], Turn[Any]]
    at: datetime
    delivery: str | None

    @property
    def mail(self) -> str | None:
        """The e-mail as it is compared."""
        email = self.inbound.person.email
        return None if email is None else changes.fold(email)


def apart(arrivals: Sequence[Arrival], known: Sequence[Known | None]) -> int:
    """How many, from the first on, are of people of whom none before them is: what one of these writes is nothing
    that another was decided on. At least one, where there is one. `known` is ``None`` for a key that is noted."""
    spoken_of: set[tuple[str, ...]] = set()
    for place, (arrival, knows) in enumerate(zip(arrivals, known, strict=True)):
        names = _names(arrival, knows)
        if not spoken_of.isdisjoint(names):
            return place
        spoken_of.update(names)
    return len(arrivals)


def _names(arrival: Arrival, known: Known | None) -> list[tuple[str, ...]]:
    inbound = arrival.inbound
    names: list[tuple[str, ...]] = [("key", inbound.account, inbound.key)]
    if known is None:
        return names
    names.append(("id", inbound.channel, inbound.person.user_id))
    if arrival.mail is not None:
        names.append(("mail", arrival.mail))
    people: tuple[Recipient | None, ...] = (known.recipient, known.named, known.mailed)
    names += [("person", person.id) for person in people if person is not None]
    return names
