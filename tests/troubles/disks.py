"""Disks that are full when a test wants it: by a limit of the system on real files.

A file system of its own is the plainest, and needs the right to mount; the limit on the size of files holds for any
process anywhere. SQLite's own limit on pages makes it say itself that the disk is full.
"""

from __future__ import annotations

import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol, Self

import pytest

from storage.sqlite import SqliteStore

MOUNT, UNMOUNT = "/bin/mount", "/bin/umount"


class SmallDisk(Protocol):
    """`fill` leaves no room, `free` makes some; `says` is how SQLite is told."""

    path: Path
    says: str

    @classmethod
    def at(cls, folder: Path) -> AbstractContextManager[Self]: ...

    async def fill(self, store: SqliteStore) -> None: ...

    async def free(self, store: SqliteStore) -> None: ...


class OwnFileSystem:
    """Some memory, mounted for the test alone."""

    says = "the disk is full; make room"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clarion.db"
        self._filler = folder / "filler"

    @classmethod
    @contextmanager
    def at(cls, folder: Path) -> Iterator[Self]:
        with mounted(folder, "size=64m"):
            yield cls(folder)

    async def fill(self, store: SqliteStore) -> None:
        with self._filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 4096):
                pass

    async def free(self, store: SqliteStore) -> None:
        self._filler.unlink()


class SizeLimit:
    """No file of this process may grow beyond what the largest of the database's has. SQLite hears of that as
    of any other write that failed."""

    says = "check it, and its free space"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clarion.db"

    @classmethod
    @contextmanager
    def at(cls, folder: Path) -> Iterator[Self]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            yield cls(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    async def fill(self, store: SqliteStore) -> None:
        largest = max(file.stat().st_size for file in self.path.parent.glob("clarion.db*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    async def free(self, store: SqliteStore) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class PageLimit:
    """The database itself may not grow: what SQLite answers is what it answers on a full disk."""

    says = "the disk is full; make room"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clarion.db"

    @classmethod
    @contextmanager
    def at(cls, folder: Path) -> Iterator[Self]:
        yield cls(folder)

    async def fill(self, store: SqliteStore) -> None:
        await self._allow(store, 1)  # SQLite takes the pages there are for the least

    async def free(self, store: SqliteStore) -> None:
        await self._allow(store, 1_000_000)

    async def _allow(self, store: SqliteStore, pages: int) -> None:
        sql = f"PRAGMA max_page_count = {pages}"
        await store._writer.call(lambda unit: unit.db.execute(sql).fetchone())  # noqa: SLF001 - the limit is the connection's


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of memory at the folder."""
    subprocess.run([MOUNT, "-t", "tmpfs", "-o", options, "clarion-test", str(folder)], check=True)  # noqa: S603 - ours
    try:
        yield
    finally:
        subprocess.run([UNMOUNT, "--lazy", str(folder)], check=True)  # noqa: S603 - ours


def may_mount() -> bool:
    """Whether this process has the right to: root in a machine of its own has, most containers have not."""
    if not Path(MOUNT).exists():
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = [MOUNT, "-t", "tmpfs", "-o", "size=64k", "clarion-test", folder]
        if subprocess.run(command, check=False, capture_output=True).returncode:  # noqa: S603 - ours
            return False
        subprocess.run([UNMOUNT, folder], check=True)  # noqa: S603 - ours
    return True


def small_disks() -> list[object]:
    """Those that this process can have; the last two anywhere."""
    kinds: list[type[SmallDisk]] = [SizeLimit, PageLimit]
    if may_mount():
        kinds.insert(0, OwnFileSystem)
    return [pytest.param(kind, id=kind.__name__) for kind in kinds]
