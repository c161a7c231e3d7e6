"""What whoever starts a service on a store that cannot be used gets: one line with the mend, and exit status 2."""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner
from pymongo import MongoClient

from bot.cli import main
from storage.mongo import connection
from storage.sqlite.connection import prepare
from tests import mongod
from tests.architecture.sources import ROOT
from tests.troubles.disks import may_mount, mounted

_DROP_FROM_BOUNDING_SET = 24  # PR_CAPBSET_DROP of prctl(2)
_LAST_CAPABILITY = 40

commands = pytest.mark.parametrize("command", ["serve", "worker"])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test writes into the checkout, or changes how others log."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLARION_PORT", "0")
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def refused(command: str, store: str) -> str:
    """The one line that is said, and nothing else."""
    result = CliRunner().invoke(main, [command, "--store", store])
    return the_line(result.exit_code, result.stdout, result.stderr)


def the_line(status: int, out: str, err: str) -> str:
    assert (status, out) == (2, ""), err
    [line] = err.splitlines()
    assert line.startswith("clarion: ")
    return line


# --- SQLite -------------------------------------------------------------------------------------------


def of_nobody(path: Path) -> None:
    path.write_bytes(b"Dear Ann, " * 1_000)


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")


def damaged(path: Path) -> None:
    """In the middle, as a failing disk leaves it."""
    prepare(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x5a" * 4096 * 8)


def newer(path: Path) -> None:
    prepare(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def a_folder(path: Path) -> None:
    path.mkdir()


@commands
@pytest.mark.parametrize(
    ("made", "mend"),
    [
        (of_nobody, "the file is no database; restore a backup or name another file"),
        (of_another_program, "the file is a database of another program; name another file"),
        (damaged, "the database is damaged; restore a backup (clarion db restore)"),
        (newer, "upgrade Clarion, or restore a backup made before the upgrade"),
        (a_folder, "is a folder; name a file in it"),
    ],
)
def test_a_file_that_cannot_be_used(command: str, made: Callable[[Path], None], mend: str, tmp_path: Path) -> None:
    """Named, with the way to go on."""
    path = tmp_path / "c.db"
    made(path)
    line = refused(command, f"sqlite:///{path}")
    assert line.startswith(f"clarion: {path}: ")
    assert line.endswith(mend)


@commands
@pytest.mark.parametrize(
    ("store", "mend"),
    [
        ("postgres://db.example/clarion", "is no store; write sqlite:///clarion.db or mongodb://HOST/clarion"),
        ("sqlite://clarion.db", "write sqlite:///clarion.db"),
        (
            "sqlite:////no/such/folder/c.db",
            "the folder /no/such/folder does not exist; create it or name another file",
        ),
        ("mongodb://127.0.0.1:27017", "the address names no database; write mongodb://host:27017/clarion"),
        ("mongodb://ann:tell-nobody@127.0.0.1:99999/clarion", "write mongodb://host:27017/clarion"),
    ],
)
def test_an_address_that_is_none(command: str, store: str, mend: str) -> None:
    """What to write instead; never the password."""
    line = refused(command, store)
    assert mend in line
    assert "tell-nobody" not in line


def without_privileges() -> None:
    """In a child, before it becomes ours: root may no more than what the files' rights say, as anybody else."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in range(_LAST_CAPABILITY + 1):
            libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)


def refused_without_privileges(command: str, path: Path) -> str:
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-m", "bot.cli", command, "--store", f"sqlite:///{path}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=without_privileges,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return the_line(done.returncode, done.stdout, done.stderr)


@commands
def test_a_folder_that_may_not_be_written(command: str, tmp_path: Path) -> None:
    """Whose right is missing where."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o555)
    line = refused_without_privileges(command, folder / "c.db")
    assert f"{folder}/c.db: this user may not write in the folder {folder}; give the right to" in line


@commands
def test_a_file_that_may_not_be_written(command: str, tmp_path: Path) -> None:
    """Nor is it replaced."""
    folder = tmp_path / "ours"
    folder.mkdir()
    path = folder / "c.db"
    prepare(path)
    path.chmod(0o400)
    line = refused_without_privileges(command, path)
    assert line.endswith(
        f"{path}: this user may not read and write the file; give the right to, or name another file"
    )


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path) -> None:
    """It may be there or not."""
    folder = tmp_path / "hidden"
    (folder / "inner").mkdir(parents=True)
    folder.chmod(0o000)
    try:
        line = refused_without_privileges("serve", folder / "inner" / "c.db")
    finally:
        folder.chmod(0o700)
    assert f"{folder}/inner: Permission denied; check the name and its rights" in line


def read_only_disks() -> list[Any]:
    """One of ours where this process may mount; the kernel's own everywhere."""
    return [Path("/proc/c.db"), *([None] if may_mount() else [])]


@commands
@pytest.mark.parametrize("path", read_only_disks(), ids=str)
def test_a_disk_that_is_read_only(command: str, path: Path | None, tmp_path: Path) -> None:
    """Also where the database is there already. Of the kernel's own the system says that nobody may write it, or
    says nothing."""
    if path is not None:
        line = refused(command, f"sqlite:///{path}")
        assert line.startswith(
            (f"clarion: {path}: the database cannot be opened", f"clarion: {path}: this user may")
        )
        return
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "size=1m"):
        prepare(disk / "c.db")
        subprocess.run(["/bin/mount", "-o", "remount,ro", str(disk)], check=True)  # noqa: S603 - ours
        for name in ("c.db", "new.db"):
            line = refused(command, f"sqlite:///{disk / name}")
            assert line.endswith("the disk is read-only; mount it for writing, or name a file on another one")


# --- MongoDB ------------------------------------------------------------------------------------------


@commands
def test_a_host_that_nobody_is(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is nobody's is not waited for."""

    known = socket.getaddrinfo

    def asked(host: str, *more: Any, **named: Any) -> Any:
        if host == "databse.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    monkeypatch.setattr("bot.cli._run", run_without_uvloop)
    line = refused(command, "mongodb://databse.example/clarion?serverSelectionTimeoutMS=100")
    assert line.endswith("there is no host called databse.example; check the address")


def run_without_uvloop(work: Any) -> Any:
    """It resolves names by itself, past Python."""
    import asyncio  # noqa: PLC0415 - its only user

    return asyncio.run(work)


@commands
def test_a_database_of_a_newer_version(command: str, request: pytest.FixtureRequest) -> None:
    """Never downgraded."""
    databases = mongod.databases(request.config)
    with databases.one() as url:
        name = url.rpartition("/")[2].partition("?")[0]
        databases.client[name].meta.insert_one({"_id": "schema", "version": 99})
        assert "schema 99 and this version knows" in (line := refused(command, url))
        assert "upgrade Clarion" in line


@commands
def test_a_server_that_is_too_old(
    command: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To which version to upgrade it."""
    monkeypatch.setattr(connection, "_OLDEST", (99, 1))
    with mongod.databases(request.config).one() as url:
        assert refused(command, url).endswith("is too old; upgrade it to 99.1 or newer")


@pytest.mark.slow
def test_a_server_on_its_own(tmp_path: Path) -> None:
    """How to make a replica set of it."""
    [port] = mongod.free_ports(1)
    alone = mongod.Mongod(mongod.program(), tmp_path / "db", port, replica_set=False)
    try:
        mongod.wait(alone.answers, "mongod does not answer")
        for command in ("serve", "worker"):
            line = refused(command, f"mongodb://{alone.address}/clarion")
            assert line.endswith("no replica set; start mongod with --replSet and run rs.initiate() once")
    finally:
        alone.stop()


@pytest.mark.slow
def test_a_password_that_is_wrong_or_a_user_who_may_not(tmp_path: Path) -> None:
    """What to check, and which role to give; never the password."""
    key = tmp_path / "key"
    key.write_text("onlyForThisTest")
    key.chmod(0o600)
    guarded = mongod.ReplicaSet(mongod.program(), options=(*mongod.SMALL, "--keyFile", str(key)))
    try:
        guarded.members[0].command({"createUser": "root", "pwd": "r", "roles": ["root"]})
        with MongoClient[dict[str, Any]](guarded.url("").replace("//", "//root:r@")) as admin:
            reads = [{"role": "read", "db": "clarion"}]
            admin.clarion.command({"createUser": "eve", "pwd": "tell-nobody", "roles": reads})
        for user, mend in (
            ("eve:wrong-and-secret", "user or password are refused; check the address, and authSource in it"),
            ("eve:tell-nobody", "give it the role readWrite on the database"),
        ):
            for command in ("serve", "worker"):
                line = refused(command, guarded.url("clarion").replace("//", f"//{user}@"))
                assert line.endswith(mend)
                assert user not in line
    finally:
        guarded.stop()
