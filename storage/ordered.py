"""Keys kept in order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=tuple[Any, ...])

_CHUNK = 512


class Ordered(Generic[K]):
    """A set of tuples in ascending order: a list of short sorted lists, so that adding and removing move a few
    hundred entries and never all of them."""

    def __init__(self) -> None:
        self._chunks: list[list[K]] = []
        self._lasts: list[K] = []  # the last key of each chunk

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def add(self, key: K) -> None:
        if not self._chunks:
            self._chunks.append([key])
            self._lasts.append(key)
            return
        at = min(bisect_left(self._lasts, key), len(self._chunks) - 1)
        chunk = self._chunks[at]
        insort(chunk, key)
        self._lasts[at] = chunk[-1]
        if len(chunk) > 2 * _CHUNK:
            self._chunks[at : at + 1] = [chunk[:_CHUNK], chunk[_CHUNK:]]
            self._lasts[at : at + 1] = [chunk[_CHUNK - 1], chunk[-1]]

    def remove(self, key: K) -> None:
        """Takes away a key that is there."""
        at = bisect_left(self._lasts, key)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, key)]
        if chunk:
            self._lasts[at] = chunk[-1]
        else:
            del self._chunks[at], self._lasts[at]

    def after(self, key: K | None) -> Iterator[K]:
        """The keys behind `key` (``None``: all), in order; the set must not change meanwhile."""
        if key is None:
            for chunk in self._chunks:
                yield from chunk
            return
        at = bisect_right(self._lasts, key)
        for number, chunk in enumerate(self._chunks[at:]):
            yield from chunk[bisect_right(chunk, key) :] if number == 0 else chunk
