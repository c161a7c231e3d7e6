"""`python -m bench`: every benchmark in turn, each a table of its own. Name some of them to run only those."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PREFIX = "bench_"


def main() -> int:
    here = Path(__file__).parent
    names = sorted(path.stem.removeprefix(PREFIX) for path in here.glob(f"{PREFIX}*.py"))
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"which ones: {', '.join(names)}; none named: all")
    chosen = parser.parse_args().name or names
    if unknown := set(chosen) - set(names):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed = [name for name in chosen if _run(name)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str) -> int:
    """In a process of its own, so that none inherits another's memory or event loop."""
    print(f"\n== {name}", flush=True)
    return subprocess.run([sys.executable, "-m", f"bench.{PREFIX}{name}"], check=False).returncode  # noqa: S603 - our own modules


if __name__ == "__main__":
    sys.exit(main())
