"""The one table: `python -m bench table [--markdown] [--small]`.

Runs what is needed, each benchmark in a process of its own with its own tables on the error output, and prints the
rows on the standard output: what was measured, the figure, the target, and whether it held. About a quarter of an
hour on two cores; `--small` is a minute to see that all of it works, and its figures mean little. The exit status
is 0 if every row was measured, whether it held or not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import figures
from bench.figures import Row

COLUMNS = ("what", "measured", "target", "held")

#: What is run, with the arguments of each.
Plan = Mapping[str, Sequence[str]]

SMALL: Plan = {
    "engine": ("--messages", "300", "--rounds", "1"),
    "workers": ("--seconds", "1", "--rounds", "1"),
    "store": ("--sizes", "2000,4000", "--batches", "500"),
    "store_mongo": ("--sizes", "2000,4000", "--batches", "500"),
    "million": ("--deliveries", "5000"),
    "intake": ("--events", "200", "--rounds", "1", "--burst", "400"),
}


def plan(chosen: argparse.Namespace) -> Plan:
    if chosen.small:
        return SMALL
    sizes = ("--sizes", chosen.sizes, "--batches", "500")
    return {
        "engine": ("--messages", str(chosen.messages), "--rounds", str(chosen.rounds)),
        "workers": ("--seconds", str(chosen.seconds), "--rounds", str(chosen.rounds)),
        "store": sizes,
        "store_mongo": sizes,
        "million": ("--deliveries", str(chosen.deliveries)),
        "intake": ("--events", str(chosen.events), "--rounds", str(chosen.rounds), "--burst", str(chosen.burst)),
    }


def main(arguments: Sequence[str]) -> int:
    chosen = _parser().parse_args(arguments)
    wanted = plan(chosen)
    if chosen.only:
        wanted = {name: wanted[name] for name in chosen.only}
    began = time.perf_counter()
    rows = [row for name, given in wanted.items() for row in measured(name, given)]
    print(f"\nall of it took {(time.perf_counter() - began) / 60:.0f} minutes", file=sys.stderr)
    show: Callable[[Sequence[Row]], None] = _markdown if chosen.markdown else _shown
    show(rows)
    return int(any(row.held is None for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--markdown", action="store_true", help="the rows as Markdown")
    parser.add_argument("--small", action="store_true", help="little of everything")
    parser.add_argument("--only", action="append", choices=[*SMALL], help="this benchmark alone; may be repeated")
    parser.add_argument("--messages", type=int, default=4_000, help="of a sender in a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="that workers send in a round (%(default)s)")
    parser.add_argument("--sizes", default="10000,100000,1000000", help="deliveries stored (%(default)s)")
    parser.add_argument("--deliveries", type=int, default=1_000_000, help="of the one broadcast (%(default)s)")
    parser.add_argument("--events", type=int, default=4_000, help="taken in in a round (%(default)s)")
    parser.add_argument("--burst", type=int, default=10_000, help="events at once (%(default)s)")
    return parser


def measured(name: str, arguments: Sequence[str]) -> Sequence[Row]:
    """The rows of one benchmark; one that failed is a row that was not measured."""
    print(f"\n== {name} {' '.join(arguments)}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", f"bench.bench_{name}", *arguments, "--rows", str(path)]
        status = subprocess.run(command, check=False, stdout=sys.stderr).returncode  # noqa: S603 - our own modules
        rows = figures.read(path)
    return rows or [Row(name, f"the benchmark ended with status {status}", "a figure", None)]


def _shown(rows: Sequence[Row]) -> None:
    table = Table()
    for column in COLUMNS:
        table.add_column(column, no_wrap=column == "held")
    for row in rows:
        table.add_row(*map(escape, (row.what, row.measured, row.target, row.verdict)))
    Console().print(table)


def _markdown(rows: Sequence[Row]) -> None:
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for row in rows:
        cells = (row.what, row.measured, row.target, row.verdict)
        print(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
