"""The secret that signs links and questions. It has to survive a restart, or links that were sent are dead."""

from __future__ import annotations

import os
from pathlib import Path

from bot.settings import Settings
from broadcast.errors import ClarionError
from broadcast.ports import Random


class NoSecret(ClarionError):  # noqa: N818 - reads as a sentence where it is raised
    """There is none and none can be kept; the text has the mend."""


def kept_secret(settings: Settings, random: Random) -> str:
    """That of the settings; else the one in a file beside the embedded store, made at the first start. Raises
    `NoSecret`."""
    if settings.secret is not None:
        return settings.secret.get_secret_value()
    if settings.sqlite_path is not None:
        return _beside(settings.sqlite_path, random)
    if settings.store.startswith("memory:"):
        return random.secret()
    raise NoSecret("CLARION_SECRET is not set; set it to the same random characters on every process of this store")


def _beside(database: Path, random: Random) -> str:
    path = database.with_name(f"{database.name}.secret")
    try:
        if not path.exists():
            _write(path, random.secret())
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NoSecret(f"{path}: cannot be used ({error}); make it readable, or set CLARION_SECRET") from error
    if not secret:
        raise NoSecret(f"{path}: is empty; delete it (links already sent end then), or set CLARION_SECRET")
    return secret


def _write(path: Path, secret: str) -> None:
    """Readable by its owner only, and whole from the first moment; whoever comes second keeps the first one's."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secret}\n")
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()
