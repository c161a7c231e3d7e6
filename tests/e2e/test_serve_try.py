"""`clarion try` beside a running `clarion serve`: handed over through the store, so that one process drives an
account."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from sandbox.server import Sandbox
from sandbox.settings import Behaviour, SandboxSettings, TeamsBot
from tests.e2e.served import Served, free_port, received, serving, start_everyone

CAMPAIGN = {"name": "Fire drill", "message": {"text": "Hello [FIRSTNAME], this is a drill."}}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


async def clarion(served: Served, *arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a command with the settings of the server."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bot.cli",
        *arguments,
        env={**served.environ, "CLARION_LOG": "json"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_trial_is_sent_by_who_drives_the_account(tmp_path: Path) -> None:
    """With a server it is sent at once; without one nothing is sent, and it is said that nobody would."""
    port = free_port()
    settings = SandboxSettings(
        people=2,
        behaviour=Behaviour(auto=False),
        teams_bots=(TeamsBot(endpoint=f"http://127.0.0.1:{port}/api/messages"),),
    )
    async with Sandbox(settings).serve() as sandbox, serving(sandbox, tmp_path, port) as served:
        await start_everyone(sandbox, served.http)
        await served.call("POST", "/campaigns", CAMPAIGN)
        person = (await served.call("GET", "/recipients"))["items"][0]
        status, out, err = await clarion(served, "try", "Fire drill", "--to", person["id"])
        assert (status, out.startswith("sent to "), err) == (0, True, "")
        assert sum((await received(sandbox, served.http, "this is a drill")).values()) == 1

        await served.stop()
        status, out, err = await clarion(served, "try", "fire drill", "--to", person["id"])
        assert (status, out) == (2, "")
        assert err.splitlines()[-1].endswith("start clarion serve on this store, and try again")
        assert sum((await received(sandbox, served.http, "this is a drill")).values()) == 1
