"""Rehearsals in a process of their own: a host that foretells goes on meanwhile.

A stage and its seeds come in, the runs go out, both pickled: between two processes of one program. Before the runs
come lines, each the share of the deliveries over all seeds that have an end by then, and an empty line after them.
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
from typing import Any, NoReturn, cast

import structlog

from broadcast import rehearsal
from broadcast.rehearsal import Run, Stage
from storage.memory import MemoryStore

#: A rehearsal gives way to everything else on the machine.
_NICE = 10

#: Progress is told in so many steps.
_STEPS = 1_000

#: Hears the share of the whole that is done, from 0 to 1; it only rises.
Told = Callable[[float], None]

_PROGRAM = "from bot import rehearse; rehearse.main()"


class RehearsalFailed(RuntimeError):  # noqa: N818 - says what happened
    """The other process ended without an answer; it said why on standard error."""


def _unheard(_: float) -> None:
    pass


def rehearsed(stage: Stage, seeds: Sequence[int], told: Told = _unheard) -> list[Run]:
    """A run for each seed, here and now. `told` hears how far it is."""
    share = _Share(len(stage.seats) * len(seeds), told)
    runs = []
    for seed in seeds:
        runs.append(rehearsal.play(stage, seed, MemoryStore(), share))
        share.before += len(stage.seats)
        share(0)
    return runs


class _Share:
    """Makes shares of the whole of the counts of one run after the other. `before` is what earlier runs came to."""

    def __init__(self, whole: int, told: Told) -> None:
        self.before = 0
        self._whole = whole
        self._told = told
        self._step = 0

    def __call__(self, ended: int) -> None:
        step = _STEPS * (self.before + ended) // self._whole if self._whole else _STEPS
        if step > self._step:
            self._step = step
            self._told(step / _STEPS)


async def elsewhere(stage: Stage, seeds: Sequence[int], told: Told = _unheard) -> list[Run]:
    """The same in another process. Whoever stops waiting ends it; Ctrl-C on a terminal is no matter of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-c",
        _PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        answer = await _answer(process, await asyncio.to_thread(packed, (stage, list(seeds))), told)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise RehearsalFailed(f"the rehearsal ended with status {process.returncode}")
    runs: list[Run] = pickle.loads(answer)  # noqa: S301 - our own process
    return runs


async def _answer(process: asyncio.subprocess.Process, question: bytes, told: Told) -> bytes:
    """What the other process says after its lines of progress; whatever there is of it, where it crashed."""
    stdin, stdout = cast("asyncio.StreamWriter", process.stdin), cast("asyncio.StreamReader", process.stdout)
    with suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(question)
        await stdin.drain()
    stdin.close()
    while (line := await stdout.readline()) not in (b"", b"\n"):
        told(float(line))
    answer = await stdout.read()
    await process.wait()
    return answer


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
    runs = rehearsed(stage, seeds, _tell)
    sys.stdout.buffer.write(b"\n" + packed(runs))


def _tell(share: float) -> None:
    sys.stdout.buffer.write(b"%.3f\n" % share)
    sys.stdout.buffer.flush()
