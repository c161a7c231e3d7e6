"""Clarion as it is run, on real ports: a database, simulated platforms, hosts and workers, each a process."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from broadcast.errors import StoreUnavailable
from broadcast.ports import Store
from storage.open import open_store
from tests.kills.judging import Arrival
from tests.kills.programs import Drivers, Program
from tests.mongod import SMALL, Mongod, ReplicaSet, free_ports

T = TypeVar("T")

TOKEN = "token-of-these-tests-only"
#: What the platforms take to answer, in seconds, each with its share of the rest: kills find sends on their way.
ANSWERS_AFTER = ((0.1, 0.33), (0.4, 0.5), (0.8, 1.0))
LONGEST_ANSWER = ANSWERS_AFTER[-1][0]
SENDS = {"teams": "sendToConversation", "telegram": "sendMessage", "viber": "send_message"}
TEXT = re.compile(r"This is message (\S+)\.")

#: As often as it is killed, it would never come to its checkpoint of every minute, and take longer at each start.
MONGOD = (*SMALL, "--syncdelay", "5")

_PAUSE = 0.1
_PATIENCE = 90.0  # seconds that a slow machine may take for one thing


class StoreKind(StrEnum):
    """Which database, and so which processes."""

    MONGODB = "mongodb"  # a host, two workers, a replica set of one
    SQLITE = "sqlite"  # one `clarion serve`


async def until(
    done: Callable[[], Awaitable[T | None]], otherwise: str, *, within: float = _PATIENCE, every: float = _PAUSE
) -> T:
    """What it answers once that is something. Raises `TimeoutError` with the words."""
    deadline = asyncio.get_running_loop().time() + within
    while not (found := await done()):
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"{otherwise}, for {within:g} s")
        await asyncio.sleep(every)
    return found


@dataclass(eq=False)
class Stage:
    """All of it, once it runs. `host` is what answers requests, `engines` are what sends."""

    folder: Path
    http: aiohttp.ClientSession
    sandbox: Program
    sandbox_url: str
    host: Program
    host_url: str
    engines: list[Program]
    drivers: Drivers
    mongo: Mongod | None
    store: Store
    arrivals: dict[str, list[Arrival]] = field(default_factory=dict)
    """What people received, by the broadcast's name."""
    _seq: int = 0
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def programs(self) -> list[Program]:
        return list(dict.fromkeys([self.host, *self.engines]))

    # --- the platforms --------------------------------------------------------------------------------

    async def platforms(self, method: str, path: str, body: object = None) -> Any:
        async with self.http.request(method, f"{self.sandbox_url}/sandbox{path}", json=body) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def look(self) -> dict[str, list[Arrival]]:
        """Everything that people received until now. Several ask at once: nothing is read twice."""
        async with self._looking:
            return await self._looked()

    async def _looked(self) -> dict[str, list[Arrival]]:
        while True:
            page = await self.platforms("GET", f"/messages?since_seq={self._seq}&limit=1000")
            for item in page["items"]:
                if told := TEXT.search(item["text"]):
                    at = datetime.fromisoformat(item["at"])
                    arrived = Arrival(item["person"], item["channel"], at)
                    self.arrivals.setdefault(told[1], []).append(arrived)
            self._seq = page["next_seq"]
            if not page["items"]:
                return self.arrivals

    async def first_after(self, moment: datetime) -> datetime | None:
        """When the first message arrived after that moment."""
        arrivals = (await self.look()).values()
        return min((one.at for of_one in arrivals for one in of_one if one.at > moment), default=None)

    async def answer_slowly(self) -> None:
        for channel, method in SENDS.items():
            for seconds, share in ANSWERS_AFTER:
                rule = {"kind": "slow", "channel": channel, "method": method, "seconds": seconds}
                await self.platforms("POST", "/faults", {**rule, "probability": share})

    # --- Clarion --------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Of the endpoint, once; raises `aiohttp.ClientError`."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.http.request(method, f"{self.host_url}/api/v1{path}", json=body, headers=headers) as answer:
            if answer.status >= 400 and answer.status != 503:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")
            answer.raise_for_status()
            return await answer.json()

    async def upload(self, people: str) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/csv"}
        url = f"{self.host_url}/api/v1/recipients:import"
        async with self.http.post(url, data=people.encode(), headers=headers) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def host_ready(self) -> bool:
        """Whether what comes in can be stored, and the platforms know where to send it."""
        try:
            async with self.http.get(f"{self.host_url}/readyz") as answer:
                accounts = (await answer.json())["accounts"]
                return answer.status == 200 and all(account["connected"] for account in accounts)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def durably(self, read: Callable[[], Awaitable[T]]) -> T:
        """From the store, however long it is away."""

        async def once() -> tuple[T] | None:
            try:
                return (await read(),)
            except StoreUnavailable:
                return None

        return (await until(once, "the store does not answer"))[0]


@asynccontextmanager
async def staged(
    folder: Path, kind: StoreKind, mongod: Path | None, *, people: int, seed: int
) -> AsyncIterator[Stage]:
    """Everything started and connected; all of it gone at the end, whatever happened. Files and logs stay."""
    host_port, sandbox_port = free_ports(2)
    host_url, sandbox_url = f"http://127.0.0.1:{host_port}", f"http://127.0.0.1:{sandbox_port}"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("CLARION_")}
    endpoint = ("--teams-endpoint", f"{host_url}/api/messages")
    world = ("--seed", str(seed), "--people", str(people), "--quiet-people")
    sandbox = Program("sandbox", ("sandbox", "--port", str(sandbox_port), *world, *endpoint), bare, folder)
    replicas = ReplicaSet(mongod, folder=folder / "mongod", options=MONGOD) if mongod is not None else None
    address = replicas.url("clarion") if replicas else f"sqlite:///{folder / 'clarion.db'}"
    programs: list[Program] = [sandbox]
    timeout = aiohttp.ClientTimeout(total=60)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            await sandbox.start()
            environ = {
                **bare,
                **await _credentials(http, sandbox_url),
                "CLARION_STORE": address,
                "CLARION_PORT": str(host_port),
                "CLARION_PUBLIC_URL": host_url,
                "CLARION_SECRET": "secret-of-these-tests-only",
                "CLARION_ADMIN_TOKEN": TOKEN,
                "CLARION_LOG": "json",
            }
            host, engines = _programs(kind, environ, folder)
            programs += dict.fromkeys([host, *engines])
            for program in programs[1:]:
                await program.start()
            stage = Stage(
                folder=folder,
                http=http,
                sandbox=sandbox,
                sandbox_url=sandbox_url,
                host=host,
                host_url=host_url,
                engines=engines,
                drivers=Drivers(engines),
                mongo=replicas.members[0] if replicas else None,
                store=await open_store(address),
            )
            try:
                await until(stage.host_ready, "the host is not ready")
                yield stage
            finally:
                await stage.store.close()
    finally:
        for program in programs:
            await program.kill()
        if replicas is not None:
            replicas.stop()


def _programs(kind: StoreKind, environ: dict[str, str], folder: Path) -> tuple[Program, list[Program]]:
    if kind is StoreKind.SQLITE:
        alone = Program("serve", ("bot.cli", "serve"), environ, folder)
        return alone, [alone]
    host = Program("host", ("bot.cli", "serve", "--no-engine"), environ, folder)
    return host, [Program(f"worker-{number}", ("bot.cli", "worker"), environ, folder) for number in (1, 2)]


async def _credentials(http: aiohttp.ClientSession, sandbox_url: str) -> dict[str, str]:
    async def asked() -> str | None:
        try:
            async with http.get(f"{sandbox_url}/sandbox/env") as answer:
                return await answer.text()
        except (aiohttp.ClientError, OSError):
            return None

    text = await until(asked, "the sandbox does not answer")
    return dict(line.split("=", 1) for line in text.splitlines() if line)
