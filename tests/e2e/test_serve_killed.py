"""A power cut in the middle of a broadcast: nothing is lost, and what may be doubled is said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sandbox.server import Sandbox
from sandbox.settings import Behaviour, SandboxSettings, TeamsBot
from tests.e2e.served import Served, free_port, received, serving, start_everyone

PEOPLE = 60  # on each of the three platforms
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CAMPAIGN: dict[str, Any] = {
    "name": "Power cut",
    "message": {
        "text": "Hello [FIRSTNAME], the lights are on.",
        "buttons": [{"id": "more", "type": "link", "label": "More", "url": "https://intranet.example/lights"}],
    },
    "schedule": {"immediate": True, "hours": {day: ["00:00-24:00"] for day in DAYS}},
    "policies": {"presence": ["any"], "rate": 20},
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def until(served: Served, broadcast: str, *, sent: int = 0, status: str = "running") -> dict[str, Any]:
    """The broadcast once it has sent so many, or has come to this status."""
    async with asyncio.timeout(60):
        while True:
            found: dict[str, Any] = await served.call("GET", f"/broadcasts/{broadcast}")
            if found["status"] == status and found["deliveries"]["sent"] >= sent:
                return found
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("cuts", [1, 2])
async def test_a_broadcast_goes_on_after_a_power_cut(cuts: int, tmp_path: Path) -> None:
    """`kill -9` of `clarion serve` and a restart: everybody gets the message; more than once only who is listed."""
    port = free_port()
    settings = SandboxSettings(
        people=PEOPLE,
        behaviour=Behaviour(auto=False),
        teams_bots=(TeamsBot(endpoint=f"http://127.0.0.1:{port}/api/messages"),),
    )
    async with Sandbox(settings).serve() as sandbox, serving(sandbox, tmp_path, port) as served:
        await start_everyone(sandbox, served.http)
        campaign = await served.call("POST", "/campaigns", CAMPAIGN)
        broadcast = (await served.call("POST", f"/campaigns/{campaign['id']}:launch"))["id"]
        for cut in range(1, cuts + 1):
            await until(served, broadcast, sent=cut * PEOPLE // 2)
            await served.kill()
            await served.start()
        ended = await until(served, broadcast, status="completed")
        report = await served.call("GET", f"/broadcasts/{broadcast}/report")
        copies = await received(sandbox, served.http, "the lights are on")
        assert await served.stop() == 0

    assert ended["deliveries"] | {"sent": 0} == dict.fromkeys(ended["deliveries"], 0)
    assert ended["planned"] == ended["deliveries"]["sent"] == len(copies) == 3 * PEOPLE
    doubled = sum(count - 1 for count in copies.values())
    assert doubled <= report.get("possibly_doubled", 0)


async def test_an_operators_stop_doubles_nothing(tmp_path: Path) -> None:
    """SIGTERM lets what is in flight end within ten seconds; the next start goes on where it ended."""
    port = free_port()
    settings = SandboxSettings(
        people=PEOPLE,
        behaviour=Behaviour(auto=False),
        teams_bots=(TeamsBot(endpoint=f"http://127.0.0.1:{port}/api/messages"),),
    )
    async with Sandbox(settings).serve() as sandbox, serving(sandbox, tmp_path, port) as served:
        await start_everyone(sandbox, served.http)
        campaign = await served.call("POST", "/campaigns", CAMPAIGN)
        broadcast = (await served.call("POST", f"/campaigns/{campaign['id']}:launch"))["id"]
        await until(served, broadcast, sent=PEOPLE // 2)
        async with asyncio.timeout(10):
            assert await served.stop() == 0
        await served.start()
        await until(served, broadcast, status="completed")
        copies = await received(sandbox, served.http, "the lights are on")
    assert set(copies.values()) == {1}
    assert len(copies) == 3 * PEOPLE
