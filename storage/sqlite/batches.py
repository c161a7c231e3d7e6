"""Whole batches in one step of a statement.

With every step the interpreter's lock is let go and taken again, while the loop wants it too: where each row is a
step, the hand-overs cost more than the work (bench/bench_engine.py). So rows go in many at a time, and what is read
comes out as one JSON text.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import orjson

Row = Sequence[Any]

#: Rows in one statement at most; smaller powers of two take what is left, so that few statements are ever prepared.
_MOST = 64
#: Where rows of nothing may be added, their number is a multiple of this: again, so that few are prepared.
_STEP = 8


class Rows:
    """A statement over rows of values: `head`, as many of ``(?, …)`` as there are rows, `tail`."""

    def __init__(self, head: str, width: int, tail: str = "") -> None:
        self._head, self._tail, self._width = head, tail, width
        self._made: dict[int, str] = {}

    def run(self, db: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """All rows, in their order."""
        for part in _parts(rows):
            db.execute(self.sql(len(part)), [*chain.from_iterable(part)])

    def sql(self, count: int) -> str:
        if count not in self._made:
            self._made[count] = f"{self._head} {_values(self._width, count)} {self._tail}"
        return self._made[count]


class Padded(Rows):
    """The same for a statement that leaves out rows of nothing: so they may be added, and few rows are one step."""

    def run(self, db: sqlite3.Connection, rows: Sequence[Row]) -> None:
        for count, values in _filled(rows, self._width):
            db.execute(self.sql(count), values)


def _filled(rows: Sequence[Row], width: int) -> Iterator[tuple[int, list[Any]]]:
    """How many rows a statement has, and their values: rows of nothing are added, so that few are ever prepared."""
    for begin in range(0, len(rows), _MOST):
        part = rows[begin : begin + _MOST]
        count = 1 if len(part) == 1 else -(-len(part) // _STEP) * _STEP
        yield count, [*chain.from_iterable(part), *(None,) * (width * (count - len(part)))]


def _values(width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return ", ".join([row] * count)


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    done, size = 0, _MOST
    while done < len(rows):
        while size > len(rows) - done:
            size //= 2
        yield rows[done : done + size]
        done += size


class Asked:
    """A query over what is asked for at once: `source` selects from `asked`, a table of the rows given with these
    names, beside whatever else. Its rows come in the order of what was asked where `source` says so."""

    def __init__(self, names: str, columns: str, source: str) -> None:
        self._names = names
        self._width = names.count(",") + 1
        self._query = in_one(columns, source)
        self._made: dict[int, str] = {}

    def read(self, db: sqlite3.Connection, rows: Sequence[Row]) -> list[list[Any]]:
        found: list[list[Any]] = []
        for count, values in _filled(rows, self._width):
            found += read(db, self.sql(count), values)
        return found

    def sql(self, count: int) -> str:
        if count not in self._made:
            values = _values(self._width, count)
            self._made[count] = f"WITH asked({self._names}) AS (VALUES {values}) {self._query}"
        return self._made[count]


def in_one(columns: str, source: str) -> str:
    """A query whose only row is a JSON array of rows: these columns of what `source` selects from, in its order."""
    lines = f"SELECT json_array({columns}) AS line {source}"
    return f"SELECT '[' || coalesce(group_concat(line, ','), '') || ']' FROM ({lines})"  # noqa: S608 - our columns


def read(db: sqlite3.Connection, sql: str, parameters: Any) -> list[list[Any]]:
    """The rows of a query made by `in_one`."""
    found: list[list[Any]] = orjson.loads(db.execute(sql, parameters).fetchone()[0])
    return found
