"""Processes that are killed and started again, and what their logs tell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from tests.architecture.sources import ROOT

_AGAIN = 0.5  # seconds after which one that ended by itself is started again, as a supervisor would


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(eq=False)
class Program:
    """One process in an empty home of its own; all its runs write to one log."""

    name: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    folder: Path
    ended_by_itself: int = 0
    _process: asyncio.subprocess.Process | None = None
    _wanted: bool = False
    _watch: asyncio.Task[None] | None = None
    _read: int = 0

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """And again, as often as it ends by itself, until it is killed."""
        self._wanted = True
        await self._begin()
        self._watch = asyncio.create_task(self._supervise(), name=f"{self.name} is watched")

    async def _begin(self) -> None:
        home = self.folder / f"home-{self.name}"
        home.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self.arguments,
                cwd=home,
                env={**self.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def _supervise(self) -> None:
        while self._process is not None:
            await self._process.wait()
            if not self._wanted:
                return
            self.ended_by_itself += 1
            await asyncio.sleep(_AGAIN)
            if self._wanted:
                await self._begin()

    async def kill(self) -> datetime:
        """As a power cut does; the moment of death."""
        self._wanted = False
        at = now()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._watch is not None:
            await asyncio.wait({self._watch})  # also where everything is being cancelled
        return at

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it logged since it was asked last."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    return  # half of one
                self._read += len(line)
                if line.startswith(b"{"):
                    with suppress(orjson.JSONDecodeError):
                        yield orjson.loads(line)


@dataclass(slots=True)
class Drivers:
    """Who drives which account, and since when, as the programs' logs tell."""

    programs: Sequence[Program]
    _of: dict[str, tuple[datetime, Program]] = field(default_factory=dict)

    def look(self) -> None:
        for program in self.programs:
            for line in program.lines():
                self._note(program, line)

    def _note(self, program: Program, line: Mapping[str, Any]) -> None:
        # leases beside the accounts (starts of broadcasts, updates) have other names
        if line.get("action") != "lease_standing" or not str(line["account"]).endswith("/default"):
            return
        at, account = datetime.fromisoformat(line["timestamp"]), str(line["account"])
        if line["standing"] == "holding" and (account not in self._of or at > self._of[account][0]):
            self._of[account] = at, program

    def driven_by(self, program: Program) -> list[str]:
        self.look()
        return sorted(account for account, (_, driver) in self._of.items() if driver is program)

    def taken_over(self, account: str, since: datetime) -> datetime | None:
        """When somebody began to drive it after that moment."""
        self.look()
        at, _ = self._of[account]
        return at if at > since else None
