"""From a store's address to the store."""

from __future__ import annotations

from pathlib import Path

from broadcast.ports import Store
from storage.errors import CannotOpen
from storage.memory import MemoryStore
from storage.mongo import MongoStore
from storage.mongo.whole import refuse_unfinished
from storage.sqlite import SqliteStore

_HELP = "write sqlite:///clarion.db, sqlite:////absolute/path.db, mongodb://host:27017/clarion or memory:"


async def open_store(url: str) -> Store:
    """The store at ``sqlite:///file.db`` (relative), ``sqlite:////path/file.db``, ``mongodb://host:27017/name`` or
    ``memory:``, ready for use. Its caller closes it. Raises `CannotOpen`, in one line with the mend, for an
    address, file or server that cannot be used."""
    scheme, colon, rest = url.partition(":")
    match scheme.lower():
        case "memory" if colon and rest in {"", "//"}:
            return MemoryStore()
        case "sqlite":
            return await SqliteStore.open(_path(url, rest))
        case "mongodb" | "mongodb+srv":
            return await _finished(url)
    raise CannotOpen(f"{scheme or 'an empty address'} is no store that Clarion knows; {_HELP}")


async def _finished(url: str) -> Store:
    """A database into which nothing is being copied."""
    store = await MongoStore.open(url)
    try:
        await refuse_unfinished(url)
    except BaseException:
        await store.close()
        raise
    return store


def sqlite_path(url: str) -> Path | None:
    """The file at an address of SQLite, ``None`` at one of MongoDB. Raises `CannotOpen` at any other."""
    scheme, _, rest = url.partition(":")
    match scheme.lower():
        case "sqlite":
            return _path(url, rest)
        case "mongodb" | "mongodb+srv":
            return None
        case "memory":
            raise CannotOpen("memory: keeps nothing; name the address of a database")
    raise CannotOpen(f"{scheme or 'an empty address'} is no store that Clarion knows; {_HELP}")


def _path(url: str, rest: str) -> Path:
    name = rest.removeprefix("///")
    if name == rest or not name or name.endswith("/") or "?" in name:
        raise CannotOpen(f"{url} names no database file; {_HELP}")
    return Path(name)
