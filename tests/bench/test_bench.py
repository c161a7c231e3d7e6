"""Every benchmark runs, and hands on its rows. How fast anything is, no test says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import bench_engine, bench_workers, figures, peering, table
from bench.figures import Figures, NotMeasured, Row
from bench.world import Run
from tests.mongod import program

_SECONDS = 100
_ROOT = Path(__file__).parents[2]
_TINY = {
    "store": ("--sizes", "1000,2000", "--batches", "500"),
    "store_mongo": ("--sizes", "1000,2000", "--batches", "500"),
    "million": ("--deliveries", "1000"),
    "intake": ("--events", "60", "--rounds", "1", "--burst", "100"),
}


def rows_of(name: str, arguments: Sequence[str], folder: Path) -> Sequence[Row]:
    path = folder / "rows.json"
    done = subprocess.run(  # noqa: S603 - our own modules
        [sys.executable, "-m", "bench", name, *arguments, "--rows", str(path)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    rows = figures.read(path)
    assert done.returncode == int(any(row.held is None for row in rows)), done.stderr
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["store", "million", "intake"])
def test_a_benchmark_measures_all_of_its_rows(name: str, tmp_path: Path) -> None:
    """Each runs to its end with little to do."""
    rows = rows_of(name, _TINY[name], tmp_path)
    assert len(rows) == 2
    assert all(row.held is not None for row in rows)


@pytest.mark.slow
def test_nothing_that_comes_in_is_lost(tmp_path: Path) -> None:
    """Neither one after the other nor all at once: the store knows every event that was answered."""
    burst = rows_of("intake", _TINY["intake"], tmp_path)[1]
    assert burst.held, burst


@pytest.mark.slow
def test_the_ledger_on_mongodb_is_measured(tmp_path: Path) -> None:
    """On the server that the tests run with."""
    program()
    rows = rows_of("store_mongo", _TINY["store_mongo"], tmp_path)
    assert len(rows) == 2
    assert all(row.held is not None for row in rows)


@pytest.mark.slow
def test_workers_are_measured(tmp_path: Path) -> None:
    """One worker, then two, each a process."""
    program()
    rows = rows_of("workers", ("--seconds", "0.3", "--rounds", "1"), tmp_path)
    assert [row.what for row in rows] == [bench_workers.WHAT_RATE, bench_workers.WHAT_CPU]
    assert all(row.held is not None for row in rows)


@pytest.mark.slow
def test_the_engine_is_measured_on_both_stores_beside_its_peers(tmp_path: Path) -> None:
    """The two libraries only where their environment was made already: a test fetches nothing."""
    program()
    peers = () if peering.is_ready() else ("--no-peers",)
    rows = rows_of("engine", ("--messages", "100", "--rounds", "1", *peers), tmp_path)
    assert len(rows) == (2 if peers else 4)
    assert all(row.held is not None for row in rows)


def test_what_cannot_take_part_is_said_and_asked_no_more() -> None:
    """One that is missing keeps the others from nothing, and its row tells why."""
    asked: list[str] = []

    def missing() -> Run:
        asked.append("aiogram")
        raise NotMeasured("no network")

    found = bench_engine.Rounds(
        {
            bench_engine.BARE: lambda: Run(100, 1.0, 0.5),
            bench_engine.SQLITE: lambda: Run(80, 1.0, 0.5),
            bench_engine.MONGODB: lambda: Run(50, 1.0, 0.5),
            "aiogram": missing,
        }
    )
    found.play(3)
    given = Figures()
    bench_engine.tell(found, given)
    assert asked == ["aiogram"]
    assert [(row.measured, row.held) for row in given.rows] == [
        ("0.80", True),
        ("0.50", False),
        ("no network", None),
    ]


def _missing() -> None:
    raise NotMeasured("no server")


def test_rows_come_back_as_they_were_written_and_a_missing_one_is_a_failure(tmp_path: Path) -> None:
    """A figure that does not hold is none."""
    given = Figures()
    given.add("a", "1", "2", held=False)
    assert given.close(tmp_path / "rows.json") == 0
    with given.row("b", "3"):
        _missing()
    assert given.close(tmp_path / "rows.json") == 1
    assert figures.read(tmp_path / "rows.json") == [Row("a", "1", "2", False), Row("b", "no server", "3", None)]


def test_the_table_tells_what_did_not_come_to_its_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A benchmark that fails is a row as well, and fails the run."""
    monkeypatch.setattr(table, "SMALL", {"engine": ("--no-such-option",)})
    assert table.main(["--small", "--markdown"]) == 1
    assert "| engine | the benchmark ended with status 2 | a figure | not measured |" in capfd.readouterr().out
