"""A real MongoDB for tests: found, started once a run, given out one database a test.

Looked for in this order: a server at MONGODB_URI (a replica set, this run's databases only), the program at
MONGOD_BIN, `mongod` on the path, the one in the wheel of the development requirements. Where there is none the test
is skipped with the mend, which `tests.conftest` lists at the end and counts as a failure under ``CI=true``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

MISSING = (
    "MongoDB: no server to test with; install the development requirements (x86-64 Linux), put mongod on the path, "
    "or set MONGOD_BIN to one or MONGODB_URI to a replica set"
)
_START_SECONDS = 30
_STOP_SECONDS = 20
_SETTINGS = ("--bind_ip", "127.0.0.1", "--nounixsocket")
SMALL = ("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64")
_PARAMETERS = (
    "enableTestCommands=1",
    "shutdownTimeoutMillisForSignaledShutdown=100",
    "diagnosticDataCollectionEnabled=0",
)


def find_mongod() -> Path | None:
    """The program, without importing what carries it."""
    if named := os.environ.get("MONGOD_BIN"):
        return Path(named)
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    found = importlib.util.find_spec("fiftyone")
    folders = found.submodule_search_locations if found else None
    carried = [Path(folder) / "db" / "bin" / "mongod" for folder in folders or ()]
    return next((path for path in carried if path.is_file()), None)


def free_ports(number: int) -> list[int]:
    """Ports that nobody had a moment ago."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Mongod:
    """One server process in a folder of its own."""

    def __init__(
        self, program: Path, folder: Path, port: int, *, replica_set: bool = True, options: Sequence[str] = ()
    ) -> None:
        self.address = f"127.0.0.1:{port}"
        self._program = program
        self._folder = folder
        self._port = port
        self._options = (*_SETTINGS, *options, *(("--replSet", "rs0") if replica_set else ()))
        folder.mkdir()
        self.start()

    def start(self) -> None:
        """Again after a stop or a kill, on what it left."""
        parameters = [word for parameter in _PARAMETERS for word in ("--setParameter", parameter)]
        command = [str(self._program), "--port", str(self._port), "--dbpath", str(self._folder)]
        self._process = subprocess.Popen(  # noqa: S603 - found by `find_mongod`
            [*command, "--logpath", str(self._folder / "log"), *parameters, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @contextmanager
    def client(self) -> Iterator[MongoClient[dict[str, Any]]]:
        """To this member alone, whatever it is in its set."""
        with MongoClient[dict[str, Any]](self.address, directConnection=True, timeoutMS=5_000) as client:
            yield client

    def command(self, command: dict[str, Any]) -> dict[str, Any]:
        with self.client() as client:
            return client.admin.command(command)

    def is_primary(self) -> bool:
        with suppress(PyMongoError):
            return bool(self.command({"hello": 1})["isWritablePrimary"])
        return False

    def answers(self) -> bool:
        with suppress(PyMongoError):
            return bool(self.command({"ping": 1}))
        return False

    def kill(self) -> None:
        """As a power cut would."""
        self._process.kill()
        self._process.wait(_STOP_SECONDS)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()


class ReplicaSet:
    """Members on ports of this machine; the first is the primary to begin with. In a `folder` of the caller's the
    files stay when it stops."""

    def __init__(
        self, program: Path, *, members: int = 1, options: Sequence[str] = SMALL, folder: Path | None = None
    ) -> None:
        shm = Path("/dev/shm")  # noqa: S108 - memory, so that a test's commits wait for no disk
        self._keep = folder is not None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="clarion-mongod-", dir=shm if shm.is_dir() else None))
        self._folder.mkdir(exist_ok=True)
        self.members = [
            Mongod(program, self._folder / str(number), port, options=options)
            for number, port in enumerate(free_ports(members))
        ]
        try:
            self._initiate()
        except BaseException:
            self.stop()
            raise

    def _initiate(self) -> None:
        for member in self.members:
            wait(member.answers, "mongod does not answer")
        hosts = [
            {"_id": number, "host": member.address, "priority": 2 if number == 0 else 1}
            for number, member in enumerate(self.members)
        ]
        settings = {"electionTimeoutMillis": 2_000, "heartbeatIntervalMillis": 250}
        self.members[0].command({"replSetInitiate": {"_id": "rs0", "members": hosts, "settings": settings}})
        wait(self.members[0].is_primary, "the replica set elects no primary")

    @property
    def primary(self) -> Mongod:
        return next(member for member in self.members if member.is_primary())

    def url(self, database: str, options: str = "") -> str:
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/{database}?replicaSet=rs0{options}"

    def stop(self) -> None:
        for member in reversed(self.members):
            member.stop()
        if not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)


def wait(done: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.05)


class Databases:
    """Where tests get theirs: a name nobody had before, gone again afterwards."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: MongoClient[dict[str, Any]] = MongoClient(url)

    @property
    def client(self) -> MongoClient[dict[str, Any]]:
        """For looking behind the store's back."""
        return self._client

    def url(self, database: str) -> str:
        parts = urlsplit(self._url)
        return parts._replace(path=f"/{database}").geturl()

    @contextmanager
    def one(self) -> Iterator[str]:
        """The address of a new one."""
        name = f"clarion_test_{uuid.uuid4().hex}"
        yield self.url(name)
        self._client.drop_database(name)

    def close(self) -> None:
        self._client.close()


_RUNNING = pytest.StashKey[Databases]()


def databases(config: pytest.Config) -> Databases:
    """This run's, started with the first test that wants it. Skips that test where there is no MongoDB."""
    if _RUNNING not in config.stash:
        config.stash[_RUNNING] = found = Databases(os.environ.get("MONGODB_URI") or _start(config))
        config.add_cleanup(found.close)
    return config.stash[_RUNNING]


def _start(config: pytest.Config) -> str:
    server = ReplicaSet(program())
    config.add_cleanup(server.stop)
    return server.url("")


def program() -> Path:
    """The server's program, for a test that starts some of its own; skips the test where there is none."""
    found = find_mongod()
    if found is None:
        pytest.skip(MISSING)
    return found
