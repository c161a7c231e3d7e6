"""A database file copied while it is in use, checked, and put in another one's place.

Whatever is made is made in a file beside its place, readable by its owner only, and renamed when it is whole: who
is interrupted finds what was there before.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from broadcast.errors import StoreUnavailable
from storage.errors import CannotOpen, Damaged, TooNew
from storage.sqlite.connection import connect, meaning, prepare
from storage.sqlite.schema import MIGRATIONS

Progress = Callable[[int, int], None]  # pages copied, pages in all

NEWEST = MIGRATIONS[-1].number
_MAGIC = b"SQLite format 3\0"
_APPLICATION = int.from_bytes(b"CLR1", "big")  # see storage.sqlite.connection
_PAGES = 2_048  # copied between two words on the progress: 8 MB
_BESIDE = ("-wal", "-shm", "-journal")


def is_database(file: Path) -> bool:
    """By what it begins with."""
    with file.open("rb") as opened:
        return opened.read(len(_MAGIC)) == _MAGIC


def version(path: Path) -> int:
    """The schema that the database has, read without changing it; 0 where there is none yet."""
    if not path.is_file():
        return 0
    with told(path), closing(connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def back_up(path: Path, file: Path, progress: Progress) -> None:
    """Makes `file` a copy of the database as it is at one moment, whoever writes meanwhile; replaces it. Raises
    `CannotOpen`, and leaves nothing behind."""
    if not path.is_file():
        raise CannotOpen(f"{path}: there is no database; check the address")
    draft = file.with_name(f"{file.name}.part")
    remove(draft)
    try:
        _make(draft)
        with told(path):
            _copy(path, draft, progress)
        check(draft)
        put_in_place(draft, file)
    finally:
        remove(draft)


def _make(draft: Path) -> None:
    """An empty file that is its owner's alone."""
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _copy(path: Path, draft: Path, progress: Progress | None = None) -> None:
    """A transaction that stays open holds the moment: without it every write of another process would begin the
    copy anew, and a busy service would never be copied."""

    def watched(_: int, left: int, total: int) -> None:
        if progress is not None:
            progress(total - left, total)

    with closing(connect(path)) as source, closing(sqlite3.connect(draft, isolation_level=None)) as target:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(target, pages=_PAGES, progress=watched)
        source.execute("ROLLBACK")
        target.execute("PRAGMA journal_mode = DELETE")  # one file, to be carried anywhere


def check(file: Path) -> None:
    """Raises `CannotOpen` unless the file is a whole database of Clarion, not newer than this version."""
    if not is_database(file):
        raise Damaged(f"{file}: is no backup of Clarion; name another file")
    left = file.with_name(f"{file.name}-wal")
    if left.exists() and left.stat().st_size:
        raise CannotOpen(f"{file}: is a database in use, not a backup; make one with clarion db backup")
    address = f"{file.resolve().as_uri()}?mode=ro&immutable=1"
    with told(file), closing(sqlite3.connect(address, uri=True)) as db:
        (application,), (number,) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if application != _APPLICATION:
            raise CannotOpen(f"{file}: is a database of another program; name another file")
        if number > NEWEST:
            raise TooNew(f"{file}: has schema {number} and this version knows {NEWEST}; upgrade Clarion first")
        (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise Damaged(f"{file}: is damaged; take another backup")


def draft_of(file: Path, path: Path) -> Path:
    """The backup as a database beside `path`, of this version, held by nobody; fences go on from those of the
    database that it is to replace. Put it in place with `replace_with`, or away with `remove`."""
    check(file)
    draft = path.with_name(f"{path.name}.restoring")
    remove(draft)
    try:
        _make(draft)
        with told(file):
            _copy(file, draft)
        prepare(draft)
        _release(draft, _fences(path))
    except BaseException:
        remove(draft)
        raise
    return draft


def _fences(path: Path) -> dict[str, int]:
    """Those of the database in place, as far as it can be read: it may be damaged, which is why another comes."""
    if not path.is_file():
        return {}
    try:
        with closing(connect(path)) as db:
            return dict(db.execute("SELECT account, fence FROM leases").fetchall())
    except sqlite3.Error:
        return {}


def _release(draft: Path, fences: dict[str, int]) -> None:
    """Nobody holds anything, and no fence is one that somebody had before."""
    with closing(connect(draft)) as db:
        db.execute("UPDATE leases SET owner = NULL, expires = 0")
        db.executemany(
            """
            INSERT INTO leases (account, owner, fence, expires) VALUES (?, NULL, ?, 0)
            ON CONFLICT (account) DO UPDATE SET fence = max(fence, excluded.fence)
            """,
            [*fences.items()],
        )
        db.execute("UPDATE leases SET fence = fence + 1")


def replace_with(draft: Path, path: Path, kept: Path) -> bool:
    """Puts the draft in the place of the database, which is kept under another name. Raises `CannotOpen` while
    another process has it open. False where there was none."""
    there = path.exists()
    if there:
        close_for_good(path)
        for name in ("", *_BESIDE):
            beside = path.with_name(f"{path.name}{name}")
            if beside.exists():
                beside.rename(kept.with_name(f"{kept.name}{name}"))
    put_in_place(draft, path)
    return there


def close_for_good(path: Path) -> None:
    """Folds what is beside the file into it, which SQLite does only for who is alone with it. One that is damaged
    is left as it is. Raises `CannotOpen` while another process has it open."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=1.0)) as db:
            db.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.Error as error:
        meant = meaning(error)
        if isinstance(meant, Damaged):
            return
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise CannotOpen(f"{path}: another process has the database open; stop it first") from error
        raise CannotOpen(f"{path}: {meant}") from error


def put_in_place(draft: Path, path: Path) -> None:
    """Names the finished draft `path`, on the disk when it returns."""
    with closing(sqlite3.connect(draft, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE").fetchone()
    _sync(draft)
    draft.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """The file and what SQLite puts beside it."""
    for name in ("", *_BESIDE):
        path.with_name(f"{path.name}{name}").unlink(missing_ok=True)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What SQLite reports of the file, in words that name it."""
    try:
        yield
    except sqlite3.Error as error:
        meant = meaning(error)
        raise (type(meant)(f"{path}: {meant}") if isinstance(meant, StoreUnavailable) else error) from error
