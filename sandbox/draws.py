"""Chance that repeats: every draw is a function of what it is for, so its order does not matter."""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")


def token(*parts: object, size: int = 8) -> bytes:
    """`size` bytes (at most 64) that depend on the parts alone."""
    return blake2b(":".join(map(str, parts)).encode(), digest_size=size).digest()


def fraction(*parts: object) -> float:
    """A number in [0, 1), uniform over different parts."""
    return int.from_bytes(token(*parts), "big") / 2**64


def pick(options: Sequence[T], *parts: object) -> T:
    """One of the options, each as likely as the others."""
    return options[int(fraction(*parts) * len(options))]


def exponential(mean: float, *parts: object) -> float:
    """A waiting time around `mean`, in the unit of `mean`."""
    return -mean * math.log(1.0 - fraction(*parts))
