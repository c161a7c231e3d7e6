"""What `clarion db` does: upgrade, back up, restore, copy. What must not be harmed is whole at every moment: a new
file takes the old one's name only when it is complete, and the old one is kept."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bot.clock import RealClock
from bot.settings import Settings
from broadcast.campaigns import every
from broadcast.errors import ClarionError
from broadcast.model import Broadcast, BroadcastReason, BroadcastStatus
from storage import archive, portable
from storage.errors import Damaged
from storage.open import open_store, sqlite_path
from storage.records import KINDS, Source, Target
from storage.sqlite import SqliteStore, backup, whole

Say = Callable[[str], None]

_GOING_ON = (BroadcastStatus.SCHEDULED, BroadcastStatus.INITIALIZING, BroadcastStatus.RUNNING)
_DAMAGE_OR_WRITES = (
    "not everything agrees: something still wrote to the source, or a disk is failing. The copy stays unusable; "
    "stop every process on the source and do it again"
)


async def upgrade(settings: Settings, *, say: Say) -> None:
    """Says from which schema to which, or that there was nothing to do."""
    before = await portable.version(settings.store)
    await (await open_store(settings.store)).close()
    after = await portable.version(settings.store)
    if not before:
        say(f"made a new database with schema {after}")
    elif before == after:
        say(f"up to date: schema {after}")
    else:
        say(f"upgraded from schema {before} to {after}")


# --- back up ------------------------------------------------------------------------------------------


async def back_up(settings: Settings, file: Path, *, force: bool, say: Say) -> int:
    """0 where the backup is whole. SQLite may be in use meanwhile; MongoDB may not."""
    path = sqlite_path(settings.store)
    await asyncio.to_thread(_refuse_place, file, path, force=force)
    if path is not None:
        with _bars() as told:
            await asyncio.to_thread(backup.back_up, path, file, partial(told, "pages"))
        say(f"{file}: {file.stat().st_size:,} bytes")  # noqa: ASYNC240 - one look at a file, nothing else runs
    elif not await _archive(settings.store, file, say):
        return 1
    say(await asyncio.to_thread(_keep_secret, settings, path, file))
    return 0


def _refuse_place(file: Path, path: Path | None, *, force: bool) -> None:
    if not file.parent.is_dir():
        raise ClarionError(f"{file}: the folder {file.parent} does not exist; create it or name another file")
    if path is not None and file.resolve() == path.resolve():
        raise ClarionError(f"{file}: is the database itself; name another file")
    if file.exists() and not force:
        raise ClarionError(f"{file}: is there already; name another file, or add --force to replace it")


async def _archive(url: str, file: Path, say: Say) -> bool:
    source = await portable.source(url)
    try:
        counts = {kind: await source.count(kind) for kind in KINDS}
        target = archive.ArchiveTarget(file, schema=await portable.version(url), counts=counts)
        return await _carry(source, target, say)
    finally:
        await source.close()


def _keep_secret(settings: Settings, path: Path | None, file: Path) -> str:
    """What to do about the secret: tracked links depend on it."""
    if settings.secret is not None or path is None:
        return "keep CLARION_SECRET too: tracked links in messages already sent depend on it"
    own, kept = _beside(path), _beside(file)
    if not own.is_file():
        return "no secret is kept beside the database yet"
    _copy_private(own, kept)
    return f"{kept}: keep it with the backup; tracked links in messages already sent depend on it"


def _beside(path: Path) -> Path:
    """Where the secret of a database is kept, see bot.secret."""
    return path.with_name(f"{path.name}.secret")


def _copy_private(source: Path, target: Path) -> None:
    """Readable by its owner only, from its first moment on."""
    draft = target.with_name(f"{target.name}.part")
    draft.unlink(missing_ok=True)
    with (
        source.open("rb") as given,
        os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made,
    ):
        shutil.copyfileobj(given, made)
    draft.replace(target)


# --- restore ------------------------------------------------------------------------------------------


async def restore(settings: Settings, file: Path, *, go_on: bool, say: Say) -> int:
    """0 where the store is what the backup was. What went out since the backup is not known to it: unless told to
    go on, broadcasts that had not ended are paused."""
    path = sqlite_path(settings.store)
    pause = None if go_on else partial(_paused, file)
    if await asyncio.to_thread(archive.is_archive, file):
        return await _restore_archive(settings, file, pause, say)
    if path is None:
        raise ClarionError(f"{file}: is a backup of SQLite; restore it there, then clarion db copy to MongoDB")
    await asyncio.to_thread(_refuse_in_use, path)
    draft = await asyncio.to_thread(backup.draft_of, file, path)
    try:
        if pause is not None:
            _say_paused(await _pause_in(draft, pause), say)
        await asyncio.to_thread(_refuse_in_use, path)
        await asyncio.to_thread(_swap, draft, path, file, say)
    finally:
        await asyncio.to_thread(backup.remove, draft)
    say(f"{path}: restored from {file}")
    return 0


def _paused(file: Path, broadcast: Broadcast) -> Broadcast:
    """Not by way of the table of moves: a start that was under way is paused too, and begins anew once resumed."""
    if broadcast.status not in _GOING_ON:
        return broadcast
    detail = f"restored from {file.name}; what went out after that backup would go out again"
    return replace(broadcast, status=BroadcastStatus.PAUSED, reason=BroadcastReason.BY_USER, reason_detail=detail)


async def _pause_in(draft: Path, pause: Callable[[Broadcast], Broadcast]) -> list[str]:
    """Names of the broadcasts it changed."""
    store = await SqliteStore.open(draft)
    changed = []
    try:
        for broadcast in await every(store, *_GOING_ON):
            paused = pause(broadcast)
            if paused is not broadcast:
                await store.save_broadcast(paused, expected=broadcast.status)
                changed.append(broadcast.name)
    finally:
        await store.close()
    return changed


def _say_paused(names: Sequence[str], say: Say) -> None:
    for name in names:
        say(f"paused {name!r}: what went out after the backup would go out again; look, then resume or stop it")


def _refuse_in_use(path: Path) -> None:
    """One that is damaged is held by nobody who could go on with it."""
    with suppress(Damaged):
        portable.refuse_held_by(str(path), whole.holders(path))


def _swap(draft: Path, path: Path, file: Path, say: Say) -> None:
    kept = path.with_name(f"{path.name}.{_stamp()}")
    if backup.replace_with(draft, path, kept):
        say(f"{kept}: the database that was there; to undo: clarion db restore --go-on {kept}")
    given, own = _beside(file), _beside(path)
    if given.is_file() and (not own.is_file() or own.read_bytes() != given.read_bytes()):
        if own.is_file():
            own.rename(_beside(kept))
        _copy_private(given, own)
        say(f"{own}: restored too")


def _stamp() -> str:
    now: datetime = RealClock().now()
    return now.strftime("%Y-%m-%dT%H%M%S")


async def _restore_archive(
    settings: Settings, file: Path, pause: Callable[[Broadcast], Broadcast] | None, say: Say
) -> int:
    """Into an empty database only: nothing would be left to undo it with."""
    source = archive.ArchiveSource(file)
    await asyncio.to_thread(source.check)
    names: dict[str, str] = {}

    def changed(broadcast: Broadcast) -> Broadcast:
        after = broadcast if pause is None else pause(broadcast)
        if after is not broadcast:
            names[broadcast.id] = broadcast.name
        return after

    target = await portable.target(settings.store)
    if not await _carry(portable.Changed(source, "broadcasts", changed), target, say):
        return 1
    _say_paused([*names.values()], say)
    say(f"{target.name}: restored from {file}")
    return 0


# --- copy ---------------------------------------------------------------------------------------------


async def copy(settings: Settings, origin: str, goal: str, *, say: Say) -> int:
    """0 where everything arrived and agrees, read again on both sides."""
    source = await portable.source(origin)
    try:
        target = await portable.target(goal)
        if not await _carry(source, target, say):
            return 1
    finally:
        await source.close()
    say(f"do not start Clarion on {source.name} again: both would send")
    say(await asyncio.to_thread(_carry_secret, settings, origin, goal))
    return 0


def _carry_secret(settings: Settings, origin: str, goal: str) -> str:
    path, file = sqlite_path(origin), sqlite_path(goal)
    own = None if path is None else _beside(path)
    if settings.secret is not None or own is None or not own.is_file():
        return "keep CLARION_SECRET as it is: tracked links in messages already sent depend on it"
    if file is None:
        return f"set CLARION_SECRET to what {own} holds: tracked links in messages already sent depend on it"
    _copy_private(own, _beside(file))
    return f"{_beside(file)}: copied too; tracked links in messages already sent depend on it"


async def _carry(source: Source, target: Target, say: Say) -> bool:
    """Carries and compares, and shows both. Closes the target."""
    try:
        with _bars() as told:
            compared = await portable.carry(source, target, told)
    finally:
        await target.close()
    for line in _table(compared):
        say(line)
    if all(one.agrees for one in compared):
        return True
    say(_DAMAGE_OR_WRITES)
    return False


def _table(compared: Sequence[portable.Compared]) -> Iterator[str]:
    yield f"{'':14}{'source':>12}{'target':>12}  {'checksum':18}"
    for one in compared:
        verdict = one.source.shown if one.agrees else f"{one.source.shown} is not {one.target.shown}"
        yield f"{one.kind:14}{one.source.count:>12,}{one.target.count:>12,}  {verdict}"


@contextmanager
def _bars() -> Iterator[portable.Progress]:
    """A bar for each kind, on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = {}

        def told(kind: str, done: int, total: int) -> None:
            if kind not in tasks:
                tasks[kind] = progress.add_task(kind, total=total)
            progress.update(tasks[kind], completed=done, total=total)

        yield told
