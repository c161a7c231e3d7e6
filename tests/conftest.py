"""Holds for every test: a clean environment, and plain words on what could not run.

A test that lacks something outside Python (a database server, a browser) calls ``pytest.skip`` with a reason that
names the thing and how to get it. Skipping is for nothing else, so every skip is listed at the end, and under
``CI=true`` it fails the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import mongod

PREFIX = "CLARION_"


def settings_in_environment() -> list[str]:
    return [name for name in os.environ if name.startswith(PREFIX)]


def pytest_configure() -> None:
    """Fixtures wider than one test must not see the developer's own settings either."""
    for name in settings_in_environment():
        del os.environ[name]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a setting that another one left behind."""
    for name in settings_in_environment():
        monkeypatch.delenv(name)


@pytest.fixture
def mongo(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty database on a real MongoDB."""
    with mongod.databases(request.config).one() as address:
        yield address


@pytest.fixture
def other_mongo(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of another one."""
    with mongod.databases(request.config).one() as address:
        yield address


def reasons_not_run(terminal: pytest.TerminalReporter) -> list[str]:
    skipped = terminal.stats.get("skipped", [])
    return sorted({str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = reasons_not_run(terminalreporter)
    if not reasons:
        return
    terminalreporter.section("could not run")
    for reason in reasons:
        terminalreporter.line(reason)
    if in_ci():
        terminalreporter.line("CI=true: that is a failure")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if in_ci() and terminal is not None and reasons_not_run(terminal) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def in_ci() -> bool:
    return os.environ.get("CI") == "true"
