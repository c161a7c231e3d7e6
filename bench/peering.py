"""The libraries that the engine is compared with, each a program of its own in an environment of its own.

They are no part of Clarion: one of them asks for other versions of what Clarion stands on. Their environment is
made on first use, in build/peers, from bench/peers/requirements.lock; that takes the network once.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.figures import NotMeasured

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "bench" / "peers" / "requirements.lock"
ENVIRONMENT = ROOT / "build" / "peers"
#: Seconds that a download may take, and that a peer may take for its messages.
_INSTALLING, _SENDING = 300, 600


def is_ready(environment: Path = ENVIRONMENT) -> bool:
    """Whether it is there, as the lock file has it now."""
    stamp = environment / ".locked"
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _digest()


def prepared(environment: Path = ENVIRONMENT) -> Path:
    """The peers' Python, with all they need. Raises `NotMeasured` where it cannot be made."""
    python = environment / "bin" / "python"
    if not is_ready(environment):
        print("Making the environment of the compared libraries; that happens once", file=sys.stderr)
        _run([sys.executable, "-m", "venv", "--clear", str(environment)])
        options = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--require-hashes")
        _run([str(python), "-m", "pip", "install", *options, "-r", str(LOCK)])
        (environment / ".locked").write_text(_digest(), encoding="utf-8")
    return python


def sent_by(name: str, order: Mapping[str, Any], python: Path) -> Mapping[str, float]:
    """Has a peer send what `order` says; answers its ``messages``, ``seconds`` and ``cpu``."""
    try:
        done = subprocess.run(  # noqa: S603 - our own program, in an environment of our own
            [str(python), "-m", f"bench.peers.{name}"],
            cwd=ROOT,
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=_SENDING,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise NotMeasured(f"{name} did not send: {_reason(error)}") from error
    result: Mapping[str, float] = json.loads(done.stdout)
    return result


def _run(command: list[str]) -> None:
    try:
        subprocess.run(  # noqa: S603 - our own commands
            command, capture_output=True, text=True, timeout=_INSTALLING, check=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise NotMeasured(f"the compared libraries could not be installed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The last line that was said, as that is where tools tell what went wrong."""
    said = getattr(error, "stderr", None) or str(error)
    return str(said).strip().splitlines()[-1]


def _digest() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()
