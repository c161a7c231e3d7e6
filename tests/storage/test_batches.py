"""Whole batches in one step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from storage.sqlite.batches import Rows, in_one, read

INSERT = Rows("INSERT INTO things (key, word) VALUES", 2)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as made:
        made.execute("CREATE TABLE things (key INTEGER PRIMARY KEY, word TEXT)")
        yield made


@pytest.mark.parametrize("count", [0, 1, 2, 3, 63, 64, 65, 127, 200])
def test_all_rows_go_in_whatever_their_number(db: sqlite3.Connection, count: int) -> None:
    """Once each, in their order."""
    rows = [(number, f"word {number}") for number in range(count)]
    INSERT.run(db, rows)
    assert db.execute("SELECT key, word FROM things ORDER BY rowid").fetchall() == rows


def test_few_statements_are_ever_made(db: sqlite3.Connection) -> None:
    """A statement of each size would have to be prepared anew nearly every time."""
    seen: list[str] = []
    db.set_trace_callback(seen.append)
    for count in range(1, 130):
        INSERT.run(db, [(count * 1000 + number, None) for number in range(count)])
        db.execute("DELETE FROM things")
    assert len({sql.count("(") for sql in seen if sql.startswith("INSERT")}) == 7


@pytest.mark.parametrize("word", [None, "", 'a "quoted" \\ one', "naïve ☃ 𝄞", "tab\tand\x01", "nul\x00in", "[]"])
def test_what_is_read_in_one_is_what_stands_there(db: sqlite3.Connection, word: str | None) -> None:
    """No value changes on its way through JSON."""
    INSERT.run(db, [(2**62, word), (-1, word)])
    sql = in_one("key, word", "FROM things WHERE key < ? ORDER BY key")
    assert read(db, sql, (2**62 + 1,)) == [[-1, word], [2**62, word]]


def test_no_row_is_no_row(db: sqlite3.Connection) -> None:
    assert read(db, in_one("key", "FROM things"), ()) == []
