"""Rehearsals in a process of their own: a host that foretells goes on meanwhile.

A stage and its seeds come in, the runs go out, both pickled: between two processes of one program.
"""

from __future__ import annotations

import asyncio
import copyreg
import io
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NoReturn

import structlog

from broadcast import rehearsal
from broadcast.rehearsal import Run, Stage
from storage.memory import MemoryStore

#: A rehearsal gives way to everything else on the machine.
_NICE = 10

_PROGRAM = "from bot import rehearse; rehearse.main()"


class RehearsalFailed(RuntimeError):  # noqa: N818 - says what happened
    """The other process ended without an answer; it said why on standard error."""


def rehearsed(stage: Stage, seeds: Sequence[int]) -> list[Run]:
    """A run for each seed, here and now."""
    return [rehearsal.play(stage, seed, MemoryStore()) for seed in seeds]


async def elsewhere(stage: Stage, seeds: Sequence[int]) -> list[Run]:
    """The same in another process. Whoever stops waiting ends it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        told, _ = await process.communicate(packed((stage, list(seeds))))
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise RehearsalFailed(f"the rehearsal ended with status {process.returncode}")
    runs: list[Run] = pickle.loads(told)  # noqa: S301 - our own process
    return runs


def packed(value: object) -> bytes:
    """Pickled, with the read-only mappings that defaults are made of."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file)
    pickler.dispatch_table = _TABLE
    pickler.dump(value)
    return file.getvalue()


def read_only(mapping: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Named in what was pickled: read-only mappings name themselves wrongly."""
    return MappingProxyType(mapping)


def _read_only(mapping: MappingProxyType[Any, Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return read_only, (dict(mapping),)


_TABLE = {**copyreg.dispatch_table, MappingProxyType: _read_only}


def _drop(*_: object) -> NoReturn:
    """What the engine logs of a rehearsal did not happen."""
    raise structlog.DropEvent


def main() -> None:
    structlog.configure(processors=[_drop])
    if hasattr(os, "nice"):
        os.nice(_NICE)
    stage, seeds = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own process
    sys.stdout.buffer.write(packed(rehearsed(stage, seeds)))
