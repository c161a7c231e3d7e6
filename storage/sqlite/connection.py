"""Opening a database file: settings, migrations, and what SQLite's errors mean to a person."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from broadcast.errors import StoreUnavailable
from storage.errors import CannotOpen, Damaged, TooNew
from storage.sqlite.schema import MIGRATIONS, Migration

_APPLICATION_ID = 0x434C_5231  # "CLR1" in the file's header: this database is Clarion's
_BUSY_SECONDS = 5.0
_CACHE_KIB = 65_536
_WAL_PAGES = 4_000  # pages between checkpoints: 16 MB
_CHECKED_BYTES = 64 * 2**20  # a file up to this size is checked whole at every start

#: What SQLite reports, by primary result code, as a sentence with its mend. Anything else is a fault of ours.
_MEANING: dict[int, tuple[type[StoreUnavailable], str]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailable, "the database is locked by another process; it is tried again"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailable, "the database is locked; it is tried again"),
    sqlite3.SQLITE_FULL: (StoreUnavailable, "the disk is full; make room"),
    sqlite3.SQLITE_IOERR: (StoreUnavailable, "the disk cannot be read or written; check it, and its free space"),
    sqlite3.SQLITE_NOMEM: (StoreUnavailable, "there is no memory left"),
    sqlite3.SQLITE_INTERRUPT: (StoreUnavailable, "the database was interrupted"),
    sqlite3.SQLITE_READONLY: (CannotOpen, "the database is read-only; give this user the right to write it"),
    sqlite3.SQLITE_PERM: (CannotOpen, "no permission; give this user the right to read and write the database"),
    sqlite3.SQLITE_CANTOPEN: (CannotOpen, "the database cannot be opened; check its path and its rights"),
    sqlite3.SQLITE_CORRUPT: (Damaged, "the database is damaged; restore a backup (clarion db restore)"),
    sqlite3.SQLITE_NOTADB: (Damaged, "the file is no database; restore a backup or name another file"),
}


def meaning(error: sqlite3.Error) -> Exception:
    """The error as the callers of a store know it; one that is not the world's doing stays what it is."""
    code = getattr(error, "sqlite_errorcode", None)
    kind, text = _MEANING.get((code or 0) & 0xFF, (None, ""))
    return error if kind is None else kind(text)


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, for the thread that calls. A commit is on the disk when it returns."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS, cached_statements=256)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def prepare(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Makes the file a database of this version, creating or migrating it; safe beside others that do the same.
    Raises `CannotOpen`, with the path and the mend, if it cannot be used."""
    if not path.parent.is_dir():
        raise CannotOpen(f"{path}: the folder {path.parent} does not exist; create it or name another file")
    try:
        _create(path)
        with closing(connect(path)) as connection:
            _check_is_ours(connection)
            _use_wal(connection)
            _migrate(connection, migrations)
            if path.stat().st_size <= _CHECKED_BYTES:
                _check_whole(connection)
    except sqlite3.Error as error:
        raise _named(path, _explained(path, meaning(error))) from error
    except CannotOpen as error:
        raise _named(path, error) from error


def _create(path: Path) -> None:
    """A new database belongs to its owner alone: it holds what people are called and where they are reached. The
    files SQLite puts beside it take its permissions. A file that cannot be made is told of by who opens it."""
    with suppress(OSError):
        path.touch(mode=0o600)


def _named(path: Path, error: Exception) -> Exception:
    return type(error)(f"{path}: {error}") if isinstance(error, StoreUnavailable) else error


def _explained(path: Path, error: Exception) -> Exception:
    """Where SQLite only says that it cannot, the system may know why."""
    why = _why_not_opened(path) if type(error) is CannotOpen else None
    return error if why is None else CannotOpen(why)


def _why_not_opened(path: Path) -> str | None:
    if path.is_dir():
        return "is a folder; name a file in it"
    if hasattr(os, "statvfs") and os.statvfs(path.parent).f_flag & os.ST_RDONLY:
        return "the disk is read-only; mount it for writing, or name a file on another one"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"this user may not write in the folder {path.parent}; give the right to, or name a file elsewhere"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return "this user may not read and write the file; give the right to, or name another file"
    return None


def _check_is_ours(connection: sqlite3.Connection) -> None:
    """Counted before the mark is read: whoever makes the tables in between makes the mark with them."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if tables and application != _APPLICATION_ID:
        raise CannotOpen("the file is a database of another program; name another file")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switching a new file needs it for oneself; SQLite does not wait for that, so we do."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """All missing steps in one transaction, under a lock: of two who start at once, the second finds them done."""
    connection.execute("PRAGMA foreign_keys = OFF")  # else a table that is replaced takes along what refers to it
    connection.execute("PRAGMA temp_store = FILE")  # what it held is kept until it is gone: not in memory
    connection.execute("BEGIN EXCLUSIVE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        newest = migrations[-1].number
        if version > newest:
            raise TooNew(
                f"the database has schema {version} and this version knows {newest}; "
                "upgrade Clarion, or restore a backup made before the upgrade"
            )
        for migration in migrations[version:]:
            for statement in migration.statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {newest}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _check_whole(connection: sqlite3.Connection) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise Damaged("the database is damaged; restore a backup (clarion db restore)")
