"""The command line: help without anything, and faults in one line."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from bot.cli import VARIABLES, main
from bot.listening import listen, port_of
from tests.architecture.sources import ROOT

COMMANDS = ("serve", "worker", "sandbox", "demo", "forecast", "import", "try", "token", "db")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test writes into the checkout, or changes how others log."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def the_line(result: Result) -> str:
    """The one line on standard error of a command that failed."""
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("clarion: ")
    return line


def test_help_shows_variables_and_defaults() -> None:
    """Without credentials, and with every variable of the environment."""
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name, _, _ in VARIABLES)
    assert all(command in result.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    """Help needs nothing to be set up."""
    result = run(command, "--help")
    assert (result.exit_code, result.output.startswith("Usage: clarion")) == (0, True)


def test_without_a_command_there_is_help() -> None:
    """Who knows nothing yet is not scolded."""
    result = run()
    assert (result.exit_code, "Usage: clarion" in result.output) == (0, True)


def test_help_imports_nothing_heavy() -> None:
    """It comes at once: no library that takes its time is loaded for it."""
    heavy = "aiohttp,pydantic,telegram,botbuilder,viberbot,apscheduler,rich,openpyxl,storage,broadcast"
    script = (
        "import sys; from click.testing import CliRunner; from bot.cli import main;"
        "CliRunner().invoke(main, ['serve', '--help']);"
        f"print([name for name in '{heavy}'.split(',') if name in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_word_that_is_no_command_is_one_line() -> None:
    """With what was meant."""
    assert "Did you mean 'serve'" in the_line(run("sevre"))


def test_a_fault_of_the_settings_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 2, the variable and the mend."""
    monkeypatch.setenv("CLARION_PUBLIC_URL", "clarion.example")
    line = the_line(run("serve"))
    assert "CLARION_PUBLIC_URL" in line
    assert "write https://" in line


def test_a_port_in_use_is_one_line() -> None:
    """Another program has it."""
    with listen("127.0.0.1", 0) as taken:
        line = the_line(run("serve", "--port", str(port_of(taken))))
    assert line.endswith("is in use by another program; stop it, or choose another with --port")


def test_an_address_of_another_machine_is_one_line() -> None:
    """192.0.2.1 is nobody's (RFC 5737)."""
    assert "is no address of this machine" in the_line(run("serve", "--host", "192.0.2.1"))


def test_a_store_that_cannot_be_opened_is_one_line() -> None:
    """The folder is not there."""
    line = the_line(run("serve", "--port", "0", "--store", "sqlite:///no/such/folder/clarion.db"))
    assert "does not exist; create it or name another file" in line


def test_a_store_that_is_none_is_one_line() -> None:
    """Nobody knows what that is."""
    assert "is no store" in the_line(run("serve", "--store", "postgres://x"))


def test_a_token_is_said_alone() -> None:
    """So that a script can take it."""
    result = run("token", "create", "--role", "viewer", "--name", "dashboard")
    assert (result.exit_code, len(result.stdout.split())) == (0, 1)


def test_a_role_that_is_none_is_one_line() -> None:
    """The roles there are, are named."""
    assert "'viewer', 'editor', 'approver', 'admin'" in the_line(run("token", "create", "--role", "boss"))


def test_an_import_takes_good_rows_and_lists_bad_ones(tmp_path: Path) -> None:
    """Line and field of what was left out; status 1 says that something was."""
    file = tmp_path / "people.csv"
    file.write_text(
        "email,timezone\nann@example.com,Europe/Paris\nbob@example.com,Europe/Pariss\n", encoding="utf-8"
    )
    result = run("import", str(file))
    assert result.exit_code == 1, result.output
    assert result.stdout.splitlines()[0] == "created 1, updated 0, unchanged 0"
    assert "line 3: timezone: Europe/Pariss" in result.stdout


def test_an_import_that_is_all_good_says_so(tmp_path: Path) -> None:
    """Status 0; a second time nothing is new."""
    file = tmp_path / "people.csv"
    file.write_text("email\nann@example.com\n", encoding="utf-8")
    assert run("import", str(file)).exit_code == 0
    assert run("import", str(file)).stdout == "created 0, updated 0, unchanged 1\n"


@pytest.mark.parametrize(
    ("name", "says"), [("none.csv", "No such file"), ("people.doc", "the name says no format")]
)
def test_a_file_that_cannot_be_imported_is_one_line(name: str, says: str) -> None:
    """Named, with the mend."""
    assert says in the_line(run("import", name))


def test_a_trial_of_no_campaign_is_one_line() -> None:
    """There is none."""
    assert "there is no campaign called Bonus" in the_line(run("try", "Bonus", "--to", "ann@example.com"))


def test_speed_that_is_none_is_one_line() -> None:
    """Time runs forward only."""
    assert "above 0" in the_line(run("sandbox", "--speed", "0"))


def test_nobody_sees_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours is one line too, with how to see more."""

    def fail(**_: object) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr("bot.settings.load", fail)
    result = run("serve")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "--traceback" in result.stderr


def test_help_comes_at_once() -> None:
    """Fast enough to be asked for often."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bot.cli", "--help"], env=ENVIRONMENT, capture_output=True, check=True)
    assert time.perf_counter() - began < 3  # about 0.2 s where nothing else runs
