"""`clarion serve` as a process of its own, against the simulated platforms, and a client of its endpoint."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bot.listening import listen, port_of
from sandbox.server import Sandbox
from tests.architecture.sources import ROOT

TOKEN = "token-of-these-tests-only"


def free_port() -> int:
    with listen("127.0.0.1", 0) as probe:
        return port_of(probe)


@dataclass
class Served:
    """A running `clarion serve`; `kill` and `start` again as often as wanted."""

    environ: Mapping[str, str]
    url: str
    log: Path
    http: aiohttp.ClientSession
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot.cli", "serve", env=dict(self.environ), stdout=log, stderr=log
            )
        async with asyncio.timeout(30):
            while not await self._ready():
                if self.process.returncode is not None:
                    raise RuntimeError(self.log.read_text(encoding="utf-8"))
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """As a power cut does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        """As an operator does; the exit status."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    async def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.http.request(method, f"{self.url}/api/v1{path}", json=body, headers=headers) as answer:
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json()

    async def _ready(self) -> bool:
        try:
            async with self.http.get(f"{self.url}/readyz") as answer:
                accounts = (await answer.json())["accounts"]
        except (aiohttp.ClientError, OSError):
            return False
        return all(account["connected"] for account in accounts)


@asynccontextmanager
async def serving(sandbox: Sandbox, directory: Path, port: int) -> AsyncIterator[Served]:
    """Started, connected to the sandbox, and gone at the end whatever happened."""
    url = f"http://127.0.0.1:{port}"
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CLARION_")},
        **sandbox.env(),
        "CLARION_STORE": f"sqlite:///{directory / 'clarion.db'}",
        "CLARION_PORT": str(port),
        "CLARION_PUBLIC_URL": url,
        "CLARION_ADMIN_TOKEN": TOKEN,
        "PYTHONPATH": str(ROOT),
    }
    async with aiohttp.ClientSession() as http:
        served = Served(environ, url, directory / "serve.log", http)
        await served.start()
        try:
            yield served
        finally:
            if served.process is not None and served.process.returncode is None:
                await served.kill()


async def start_everyone(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """Everybody starts the bot, through the platforms' real callbacks."""
    async with http.post(f"{sandbox.url}/sandbox/acts:start_everyone", json={}) as answer:
        counts = await answer.json()
    assert counts["active"] == counts["people"], counts


async def received(sandbox: Sandbox, http: aiohttp.ClientSession, text: str) -> dict[str, int]:
    """How often each person received a message with these words, as the platforms tell."""
    counts: dict[str, int] = {}
    since = 0
    while True:
        async with http.get(f"{sandbox.url}/sandbox/messages?since_seq={since}&limit=1000") as answer:
            page = await answer.json()
        if not page["items"]:
            return counts
        for item in page["items"]:
            if text in item["text"]:
                who = f"{item['channel']}/{item['person']}"
                counts[who] = counts.get(who, 0) + 1
        since = page["next_seq"]
