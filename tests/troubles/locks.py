"""A lock on the database file that another process holds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.architecture.sources import ROOT

LOCKED = "locked by another process"


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """By a process of its own, meanwhile."""
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.troubles.holder",
        str(path),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert await holder.stdout.readline() == b"held\n"
        yield
    finally:
        with suppress(BrokenPipeError, ConnectionResetError):
            holder.stdin.write(b"\n")
            await holder.stdin.drain()
        holder.stdin.close()
        await holder.wait()
