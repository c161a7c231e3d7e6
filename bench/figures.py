"""What a benchmark hands on besides what it prints: rows for the one table of `python -m bench table`.

A row tells what was measured, against what, and whether that held. What could not be measured is a row as well,
with the reason; then the benchmark ends with status 1. A figure that does not hold is no failure of the run: how
fast a machine is, is not for an exit status.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


class NotMeasured(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """Something outside the project is missing; the text says what, and how to get it."""


@dataclass(frozen=True, slots=True)
class Row:
    """`held` is ``None`` where nothing could be measured: then `measured` says why."""

    what: str
    measured: str
    target: str
    held: bool | None

    @property
    def verdict(self) -> str:
        return {True: "yes", False: "no", None: "not measured"}[self.held]


class Figures:
    """The rows of one benchmark, in the order they came in."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, what: str, measured: str, target: str, *, held: bool) -> None:
        self.rows.append(Row(what, measured, target, held))

    def missed(self, what: str, target: str, why: object) -> None:
        self.rows.append(Row(what, f"{why}", target, None))

    @contextmanager
    def row(self, what: str, target: str) -> Iterator[None]:
        """Whatever is not measured inside is a row that says so."""
        try:
            yield
        except NotMeasured as why:
            self.missed(what, target, why)

    def close(self, path: Path | None) -> int:
        """Writes them where they were asked for, says what was not measured, and answers the exit status."""
        if path is not None:
            path.write_text(json.dumps([asdict(row) for row in self.rows]), encoding="utf-8")
        missed = [row for row in self.rows if row.held is None]
        for row in missed:
            print(f"not measured: {row.what}: {row.measured}", file=sys.stderr)
        return 1 if missed else 0


def read(path: Path) -> Sequence[Row]:
    """What `Figures.close` wrote; nothing where a benchmark did not come so far."""
    if not path.exists():
        return []
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def parser(description: str | None) -> argparse.ArgumentParser:
    """With what every benchmark takes."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", type=Path, metavar="FILE", help="also write the rows of the table there, as JSON")
    return made


def sizes(text: str) -> list[int]:
    """``10000,100000`` as numbers."""
    return [int(number) for number in text.split(",")]
