"""`python -m bench`: every benchmark in turn, each with tables of its own. Name some of them to run only those;
what follows a single name is handed on to it: `python -m bench engine --messages 1000`.

`python -m bench table` runs those that the README speaks of, and prints one table of what was measured, against
what, and whether it held (`--help` tells its options).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import table

PREFIX = "bench_"


def main() -> int:
    here = Path(__file__).parent
    names = sorted(path.stem.removeprefix(PREFIX) for path in here.glob(f"{PREFIX}*.py"))
    if sys.argv[1:2] == ["table"]:
        return table.main(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", help=f"which ones: {', '.join(names)}, or table; none named: all")
    if len(sys.argv) > 2 and sys.argv[1] in names and sys.argv[2].startswith("-"):
        return run(sys.argv[1], sys.argv[2:])
    chosen = parser.parse_args().name or names
    if unknown := set(chosen) - set(names):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are table, {', '.join(names)}")
    failed = [name for name in chosen if run(name)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, arguments: Sequence[str] = ()) -> int:
    """In a process of its own, so that none inherits another's memory or event loop."""
    print(f"\n== {name}", flush=True)
    command = [sys.executable, "-m", f"bench.{PREFIX}{name}", *arguments]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - our own modules


if __name__ == "__main__":
    sys.exit(main())
