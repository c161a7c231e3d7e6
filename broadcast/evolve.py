"""Changed copies of frozen values, for the few places that make one for every attempt.

`dataclasses.replace` looks at every field of a value each time; an evolver looks at the class once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


def evolver(kind: type[T]) -> Callable[..., T]:
    """A function as `replace`, for values of exactly this dataclass: all its fields are taken by its constructor,
    in their order."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    places = {name: place for place, name in enumerate(names)}
    values_of = attrgetter(*names)

    def evolve(value: T, **changes: Any) -> T:
        values = list(values_of(value))
        for name, changed in changes.items():
            values[places[name]] = changed
        return kind(*values)

    return evolve
