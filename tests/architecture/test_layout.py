"""What the import check cannot hold: time, words, reasons and the papers that go with a release."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.architecture.clock_reads import clock_reads
from tests.architecture.coverage_of_words import enum_members, error_classes, words_of_tests
from tests.architecture.sources import EVERYTHING, PACKAGES, ROOT, comments, python_files, tree

# Words of the domain that no test need speak of, each with its reason.
NEEDS_NO_TEST: dict[str, str] = {
    "ClarionError": "the root of the tree, never raised itself",
}
IGNORE = re.compile(
    r"#\s*(?P<kind>type:\s*ignore|noqa)(?P<code>\[[\w,\s-]+\]|:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?(?P<rest>.*)"
)
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
HEADINGS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Upgrading"}


@pytest.mark.parametrize("path", python_files("broadcast"), ids=lambda path: path.name)
def test_the_domain_reads_no_clock(path: Path) -> None:
    """Time enters the domain through the Clock port alone."""
    assert list(clock_reads(tree(path))) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from datetime import datetime\ndatetime.now()", ["datetime.datetime.now"]),
        ("from datetime import datetime as dt\ndt.utcnow()", ["datetime.datetime.utcnow"]),
        ("import datetime\ndatetime.date.today()", ["datetime.date.today"]),
        ("import time\ntime.monotonic()", ["time.monotonic", "time"]),
        ("from time import monotonic\nmonotonic()", ["time.monotonic"]),
        ("import asyncio\nasyncio.sleep(1)", ["asyncio.sleep"]),
        ("import asyncio\nasyncio.sleep(0)", []),
        ("clock.now()\nclock.sleep_until(then)", []),
        ("from datetime import datetime, time\ntime(9), datetime.fromisoformat('2026-01-01')", []),
    ],
)
def test_a_clock_read_is_found_under_any_name(source: str, found: list[str]) -> None:
    """The check itself sees through aliases and leaves the Clock port alone."""
    assert [name for _, name in clock_reads(ast.parse(source))] == found


@pytest.mark.parametrize("words", [enum_members, error_classes])
def test_every_word_of_the_domain_appears_in_some_test(words: object) -> None:
    """Every enum member and every error class of the domain is spoken of by a test."""
    assert callable(words)
    spoken = words_of_tests() | NEEDS_NO_TEST.keys()
    assert [word for word in words() if word not in spoken] == []


def test_no_exception_from_the_rule_outlives_its_word() -> None:
    """What is excused from tests still exists."""
    assert NEEDS_NO_TEST.keys() <= {*enum_members(), *error_classes()}


@pytest.mark.parametrize("path", python_files(*EVERYTHING), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_ignore_has_its_code_and_reason(path: Path) -> None:
    """An ignored finding names its code, and where a file first ignores that code it says why."""
    bare, unexplained, explained = [], [], set()
    for comment in comments(path):
        for match in IGNORE.finditer(comment.text):
            code = (match["code"] or "").strip("[]: ")
            if not code:
                bare.append(comment.place)
            elif match["rest"].strip(" -#"):
                explained.add(code)
            elif code not in explained:
                unexplained.append(comment.place)
    assert (bare, unexplained) == ([], [])


@pytest.mark.parametrize("path", python_files(*EVERYTHING), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_for_later(path: Path) -> None:
    """What is not done is an issue, not a remark in the code."""
    assert [comment.place for comment in comments(path) if UNFINISHED.search(comment.text)] == []


def changelog_headings(level: str) -> list[str]:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(level).strip() for line in lines if line.startswith(level + " ")]


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    """The newest section is Unreleased, and changes stand under fixed headings."""
    assert changelog_headings("##")[0] == "Unreleased"
    assert set(changelog_headings("###")) <= HEADINGS


def project_version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def test_the_version_is_written_in_one_place() -> None:
    """No source repeats the version of pyproject.toml: whoever needs it asks the installed package."""
    version = project_version()
    repeats = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in python_files(*PACKAGES)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and node.value == version
    ]
    assert repeats == []


def locked(name: str) -> dict[str, str]:
    """Package and version of each line of a lock file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", text, flags=re.MULTILINE))


def test_the_lock_files_agree() -> None:
    """What is tested is what is run: the developers' lock holds the runtime one."""
    assert locked("requirements.lock").items() <= locked("requirements-dev.lock").items()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_file_pins_every_package_by_hash_and_names_no_place(name: str) -> None:
    """A lock installs from whatever index a machine is set up for, and only the files it was made with."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert len(re.findall(r"^[a-z0-9-]+==[^\n]*\\\n    --hash=sha256:", text, flags=re.MULTILINE)) == len(
        locked(name)
    )
    assert not re.search(r"://|--index|--find-links", text)


def test_every_dependency_is_locked() -> None:
    """A dependency that is added without `make lock` is noticed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    wanted = [*project["project"]["dependencies"], *groups["build"]]
    wanted += [each for each in groups["dev"] if isinstance(each, str)]
    names = {re.split(r"[\[<>=!~; ]", each, maxsplit=1)[0].lower() for each in wanted}
    assert names <= locked("requirements-dev.lock").keys()
