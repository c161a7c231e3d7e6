"""A whole host, from settings to HTTP."""

from __future__ import annotations

import logging
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import structlog

from bot import log
from bot.app import Host
from bot.chance import SystemChance
from bot.secret import NoSecret, kept_secret
from bot.settings import LogFormat, load
from broadcast.errors import StoreUnavailable


class Visit:
    def __init__(self, host: Host, lines: list[str], http: aiohttp.ClientSession) -> None:
        self.host = host
        self.lines = lines
        self.http = http

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    async def get(self, path: str, token: str = "") -> tuple[int, object]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.http.get(f"{self.host.settings.address}{path}", headers=headers) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def visited(**environ: str) -> AsyncIterator[Visit]:
    lines: list[str] = []
    own = {"CLARION_STORE": "memory:", "CLARION_PORT": "0"}
    host = Host(load(environ=own | environ), say=lines.append)
    async with host.running(), aiohttp.ClientSession() as http:
        yield Visit(host, lines, http)


async def test_without_settings_it_says_where_to_go_and_how_to_get_in() -> None:
    """An address, a token that works, and how to connect a platform."""
    async with visited() as visit:
        [line] = [line for line in visit.lines if "Admin token" in line]
        status, _ = await visit.get("/api/v1/accounts", token=line.split()[-1])
        assert status == 200
        assert visit.host.settings.address in visit.said
        assert "CLARION_TELEGRAM_TOKEN=TOKEN clarion serve" in visit.said


async def test_a_token_is_made_only_where_there_is_none(tmp_path: Path) -> None:
    """The second start says none, and the settings' own token makes one needless."""
    store = f"sqlite:///{tmp_path / 'c.db'}"
    async with visited(CLARION_STORE=store) as visit:
        assert "Admin token" in visit.said
    async with visited(CLARION_STORE=store) as visit:
        assert "Admin token" not in visit.said
    async with visited(CLARION_ADMIN_TOKEN="a-token-of-the-settings") as visit:
        assert "Admin token" not in visit.said
        assert (await visit.get("/api/v1/accounts", token="a-token-of-the-settings"))[0] == 200


async def test_an_open_endpoint_is_said_loudly() -> None:
    """Whoever starts it reads that it takes anything from this machine."""
    async with visited() as visit:
        assert "teams/default  OPEN" in visit.said


async def test_a_missing_credential_is_said_everywhere() -> None:
    """The host starts; the account is marked with what to do, at the start, in readyz and at the endpoint."""
    async with visited(CLARION_VIBER_NAME="News", CLARION_ADMIN_TOKEN="a-token-of-the-settings") as visit:
        assert "viber/default  NOT CONNECTED, do this: has no token: set CLARION_VIBER_TOKEN" in visit.said
        _, ready = await visit.get("/readyz")
        assert "set CLARION_VIBER_TOKEN" in str(ready)
        _, accounts = await visit.get("/api/v1/accounts", token="a-token-of-the-settings")
        assert "set CLARION_VIBER_TOKEN" in str(accounts)


async def test_a_platform_that_cannot_be_reached_is_said() -> None:
    """A whole credential is not enough to be connected."""
    unreachable = {"CLARION_TELEGRAM_TOKEN": "1:a", "CLARION_TELEGRAM_API_URL": "http://127.0.0.1:9"}
    async with visited(**unreachable) as visit:
        assert "telegram/default  NOT CONNECTED, do this: http://127.0.0.1:9 could not be used" in visit.said


async def test_a_platform_that_cannot_reach_us_is_said() -> None:
    """Viber calls a public address only: nothing is registered without one."""
    async with visited(CLARION_VIBER_TOKEN="v") as visit:
        face = visit.host.accounts.all["viber/default"].face
        assert face is not None
        assert face.address is None


async def test_alive_and_ready() -> None:
    """Two questions, two answers."""
    async with visited() as visit:
        assert await visit.get("/healthz") == (200, {"status": "ok"})
        status, ready = await visit.get("/readyz")
        assert (status, "'status': 'ready'" in str(ready)) == (200, True)


async def test_a_store_that_does_not_answer_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """503, and why; the process is alive all the same."""
    async with visited() as visit:

        async def fail() -> None:
            raise StoreUnavailable("the disk is full; make room")

        monkeypatch.setattr(visit.host.store, "ping", fail)
        status, ready = await visit.get("/readyz")
        assert (status, "the disk is full" in str(ready)) == (503, True)
        assert (await visit.get("/healthz"))[0] == 200


async def test_nobody_learns_what_runs_here() -> None:
    """No versions in the headers."""
    async with visited() as visit, visit.http.get(f"{visit.host.settings.address}/healthz") as answer:
        assert answer.headers["Server"] == "clarion"


# --- secrets ------------------------------------------------------------------------------------------


def test_the_secret_survives_a_restart_and_is_its_owners_own(tmp_path: Path) -> None:
    """Links that were sent work on; nobody else on the machine can read it."""
    settings = load(environ={"CLARION_STORE": f"sqlite:///{tmp_path / 'c.db'}"})
    first, second = (kept_secret(settings, SystemChance()) for _ in range(2))
    assert first == second
    [file] = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_secret_of_the_settings_is_taken(tmp_path: Path) -> None:
    """And nothing is written."""
    environ = {"CLARION_STORE": f"sqlite:///{tmp_path / 'c.db'}", "CLARION_SECRET": "a-secret-of-the-settings"}
    assert kept_secret(load(environ=environ), SystemChance()) == "a-secret-of-the-settings"
    assert list(tmp_path.iterdir()) == []


def test_several_processes_on_one_database_need_one_secret() -> None:
    """There is no place beside a MongoDB where each of them would find it."""
    with pytest.raises(NoSecret, match="CLARION_SECRET"):
        kept_secret(load(environ={"CLARION_STORE": "mongodb://db.example/clarion"}), SystemChance())


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    """A file that was cut short must not sign anything."""
    (tmp_path / "c.db.secret").touch()
    with pytest.raises(NoSecret, match="is empty"):
        kept_secret(load(environ={"CLARION_STORE": f"sqlite:///{tmp_path / 'c.db'}"}), SystemChance())


@pytest.mark.parametrize("format", [LogFormat.JSON, LogFormat.TEXT])
def test_no_secret_gets_into_the_log(format: LogFormat, tmp_path: Path) -> None:
    """Whoever logs it, ours or a library."""
    path = tmp_path / "log"
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        with path.open("w") as stream:
            log.configure(format, secrets={"1:secret"}, stream=stream)
            structlog.get_logger("ours").warning("asked", action="asked", url="https://x/bot1:secret/getMe")
            logging.getLogger("theirs").warning("asked https://x/bot%s/getMe", "1:secret")
    finally:
        root.handlers[:], root.level = before, level
        structlog.reset_defaults()
    assert "1:secret" not in path.read_text()
    assert path.read_text().count("bot***/getMe") == 2
