"""What an operator sees of a whole host whose store is in trouble, and when it is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.app import Host
from bot.settings import load
from sandbox.server import Sandbox
from storage.sqlite import SqliteStore
from tests.troubles.disks import SizeLimit
from tests.troubles.locks import LOCKED, locked
from tests.troubles.stage import Logged, Stage, eventually, platform, said

PEOPLE = 60
TOKEN = "token-of-these-tests-only"
ACCOUNT = "telegram/default"

pytestmark = pytest.mark.slow


class Visit:
    """A client of the host."""

    def __init__(self, host: Host, http: aiohttp.ClientSession) -> None:
        self._host = host
        self._http = http

    async def get(self, path: str) -> tuple[int, Any]:
        return await self.call("GET", path)

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"{self._host.settings.address}{path}"
        async with self._http.request(method, url, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def account(self) -> Any:
        _, answer = await self.get("/api/v1/accounts")
        [found] = [one for one in answer["items"] if one["account"] == ACCOUNT]
        return found


@asynccontextmanager
async def hosted(sandbox: Sandbox, path: Path) -> AsyncIterator[tuple[Host, Visit]]:
    environ = {
        "CLARION_STORE": f"sqlite:///{path}",
        "CLARION_PORT": "0",
        "CLARION_ADMIN_TOKEN": TOKEN,
        **{name: value for name, value in sandbox.env().items() if "TELEGRAM" in name},
    }
    host = Host(load(environ=environ))
    async with host.running(), aiohttp.ClientSession() as http:
        yield host, Visit(host, http)


@asynccontextmanager
async def full(path: Path, host: Host) -> AsyncIterator[None]:
    with SizeLimit.at(path.parent) as disk:
        assert isinstance(host.store, SqliteStore)
        await disk.fill(host.store)
        yield
        await disk.free(host.store)


@pytest.mark.parametrize("trouble", ["locked", "full"])
async def test_every_window_shows_the_trouble_and_its_end(
    trouble: str, tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive, not ready, and why; the account waits, and why; what is asked to be written is refused with the
    reason. When it is over all is well again, and everybody has their one message."""
    monkeypatch.setattr("storage.sqlite.connection._BUSY_SECONDS", 0.1)
    path = tmp_path / "clarion.db"
    async with platform(PEOPLE) as sandbox, hosted(sandbox, path) as (host, visit):
        stage = Stage(sandbox, host.store, key=ACCOUNT)
        try:
            await stage.launch()
            await stage.arrive(PEOPLE // 4)
            words = LOCKED if trouble == "locked" else "check it, and its free space"
            happens: AbstractAsyncContextManager[None] = locked(path) if trouble == "locked" else full(path, host)
            async with happens:
                await eventually(lambda: waits(visit, words), "the account does not say why it waits")
                assert await visit.get("/healthz") == (200, {"status": "ok"})
                status, ready = await visit.get("/readyz")
                assert (status, ready["status"]) == (503, "unavailable")
                assert words in ready["store"]
                status, refused = await visit.call(
                    "POST", "/api/v1/campaigns", {"name": "X", "message": {"text": "x"}}
                )
                assert status == 503
                assert words in refused["detail"]
                assert words in said(logged, "store_unavailable")[-1]["detail"]
                assert (await visit.get("/api/v1/broadcasts"))[0] == 200
            await stage.completed()
            await stage.assert_each_got_one()
            assert (await visit.get("/readyz"))[0] == 200
            assert (await visit.account())["status"] == "connected"
        finally:
            await stage.channel.close()


async def waits(visit: Visit, words: str) -> bool:
    account = await visit.account()
    return account["status"] == "not_connected" and words in account["detail"]
