"""All checks of the project, one after the other: what `make test` runs.

A failing step does not hide the next one: everything runs, then the exit status says whether all of it passed.
The last lines say what could not run for want of something outside Python; under ``CI=true`` that is a failure.
Further arguments go to pytest.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "build" / "tests.xml"
MOST_PROCESSES = 4

STATIC: dict[str, tuple[tuple[str, ...], ...]] = {
    "lint": (("ruff", "check", "."), ("ruff", "format", "--check", ".")),
    "types": (("mypy",), ("mypy", "scripts", "manifest")),
    "direction": (("lint-imports", "--no-logo"),),
}


@dataclass(frozen=True, slots=True)
class Tests:
    """What pytest's report says."""

    passed: int
    failed: int
    could_not_run: tuple[str, ...]


def execute(program: str, *arguments: str) -> bool:
    """Runs a program of this environment and tells whether it succeeded."""
    command = [str(Path(sys.executable).parent / program), *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def run_static(step: str) -> bool:
    outcomes = [execute(*command) for command in STATIC[step]]
    return all(outcomes)


def run_tests(arguments: Sequence[str]) -> bool:
    """In several processes, each with a MongoDB of its own: many tests wait for something, so that one more than
    there are cores keeps all of them busy. ``-n 0`` among the arguments runs them in this one."""
    REPORT.unlink(missing_ok=True)
    processes = min((os.cpu_count() or 1) + 1, MOST_PROCESSES)
    return execute("pytest", f"--junitxml={REPORT}", f"-n{processes}", "--dist=worksteal", *arguments)


def read_report(path: Path) -> Tests | None:
    """The counts of pytest's report, or ``None`` where it wrote none."""
    if not path.exists():
        return None
    cases = list(ET.parse(path).getroot().iter("testcase"))  # noqa: S314 - it is the file that pytest has just written
    failed = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    skips = [skip for case in cases if (skip := case.find("skipped")) is not None]
    missing = [skip.get("message", "") for skip in skips if skip.get("type") != "pytest.xfail"]
    return Tests(
        passed=len(cases) - failed - len(skips),
        failed=failed,
        could_not_run=tuple(sorted(set(missing))),
    )


def timed(step: Callable[[], bool]) -> tuple[bool, float]:
    begin = time.perf_counter()
    return step(), time.perf_counter() - begin


def announce(title: str) -> None:
    print(f"\n== {title} ==", flush=True)


def summarise(results: dict[str, tuple[bool, float]], tests: Tests | None) -> bool:
    """Prints how each step ended; true if the whole of it counts as passed."""
    announce(f"summary, Python {platform.python_version()}")
    for step, (passed, seconds) in results.items():
        print(f"{step:<10} {'passed' if passed else 'FAILED':<7} {seconds:6.1f} s")
    good = all(passed for passed, _ in results.values())
    if tests is None:
        return good
    for missing in tests.could_not_run:
        print(f"could not run: {missing}")
    if not tests.could_not_run:
        print("could not run: nothing, all tests had what they need")
    elif os.environ.get("CI") == "true":
        print("CI=true: a test that could not run is a failure")
        good = False
    print(f"{tests.passed} passed, {tests.failed} failed")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description="Lint, types, import direction and tests.")
    parser.add_argument("--only", choices=[*STATIC, "tests"], help="this step alone")
    options, rest = parser.parse_known_args()
    steps: dict[str, Callable[[], bool]] = {
        **{name: partial(run_static, name) for name in STATIC},
        "tests": partial(run_tests, rest),
    }
    results = {}
    for name, step in steps.items():
        if options.only in (None, name):
            announce(name)
            results[name] = timed(step)
    tests = read_report(REPORT) if "tests" in results else None
    return 0 if summarise(results, tests) else 1


if __name__ == "__main__":
    sys.exit(main())
