"""The endpoint over real HTTP, mounted as the host mounts it, on the store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from bot.admin import PREFIX, admin_app
from bot.admin.auth import Role, new_token, token_hash
from bot.admin.services import AdminServices, Connection, Pace
from bot.forecast import Forecasts
from broadcast.campaigns import Broadcasts, Campaigns
from broadcast.forecast import Preparing
from broadcast.model import ChannelName
from broadcast.ports import Account, Features
from broadcast.recipients import Recipients, Row
from storage.memory import MemoryStore
from tests.admin.fakes import NOW, Counted, StillClock
from tests.forecast.foretold import beside

BOOTSTRAP = "bootstrap-token-of-the-settings"

ACCOUNTS = {
    key: Account(key, channel, Features(delivered, read, rate, (), limit), rate)
    for key, channel, delivered, read, rate, limit in (
        ("teams/hr", ChannelName.TEAMS, False, True, 30.0, 28_000),
        ("telegram/news", ChannelName.TELEGRAM, False, False, 30.0, 4_096),
        ("viber/default", ChannelName.VIBER, True, True, 50.0, 7_000),
    )
}


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back of one call."""

    status: int
    body: Any
    headers: dict[str, str]
    content_type: str

    @property
    def fields(self) -> list[str]:
        """The fields at fault."""
        return [error["field"] for error in self.body["errors"]]


class Api:
    """Calls as scripts make them."""

    def __init__(self, client: TestClient[web.Request, web.Application], token: str | None) -> None:
        self.client = client
        self.token = token

    async def call(self, method: str, path: str, *, raw: Any = None, **more: Any) -> Answered:
        headers = {name: value for name, value in more.pop("headers", {}).items() if value is not None}
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if raw is not None:
            more["data"] = raw
        response = await self.client.request(method, PREFIX + path, headers=headers, **more)
        is_json = response.content_type.endswith("json")
        return Answered(
            response.status,
            await response.json(content_type=None) if is_json else await response.read(),
            dict(response.headers),
            response.content_type,
        )

    async def get(self, path: str, **more: Any) -> Answered:
        return await self.call("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Answered:
        return (
            await self.call("POST", path, json=body, **more)
            if body is not None
            else await self.call("POST", path, **more)
        )

    async def patch(self, path: str, body: Any, **more: Any) -> Answered:
        return await self.call("PATCH", path, json=body, **more)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def services(store: MemoryStore, clock: StillClock) -> AdminServices:
    random = Counted()
    campaigns = Campaigns(store, clock, random, ACCOUNTS)
    forecasts = Forecasts(
        Preparing(store, clock, campaigns, ACCOUNTS, {"teams/hr"}), clock, rehearse=beside, rehearse_full=beside
    )
    return AdminServices(
        store=store,
        clock=clock,
        campaigns=campaigns,
        broadcasts=Broadcasts(store, clock),
        recipients=Recipients(store, clock, random),
        accounts=ACCOUNTS,
        foretell=forecasts.of,
        full_forecasts=forecasts.full,
        connection={
            "teams/hr": Connection(connected=True),
            "viber/default": Connection(connected=False, detail="set CLARION_VIBER_TOKEN"),
        }.get,
        pace={"teams/hr": Pace(achieved_rate=29.8, waiting_until=NOW)}.get,
        bootstrap_hash=token_hash(BOOTSTRAP),
    )


@pytest.fixture
async def client(services: AdminServices) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    host = web.Application()
    host.add_subapp(PREFIX, admin_app(services))
    async with TestClient(TestServer(host)) as made:
        yield made


@pytest.fixture
async def tokens(store: MemoryStore, clock: StillClock) -> dict[Role, str]:
    """A token of each role."""
    random = Counted()
    secrets = {}
    for role in Role:
        secrets[role], token = new_token(random, clock, role=role, name=role)
        await store.save_token(token)
    return secrets


@pytest.fixture
def api(client: TestClient[web.Request, web.Application], tokens: dict[Role, str]) -> Api:
    """As an editor."""
    return Api(client, tokens[Role.EDITOR])


@pytest.fixture
async def staff(services: AdminServices) -> None:
    """Three people on the list of staff, one a channel."""
    ann = {"external_id": "E1007", "first_name": "Ann", "last_name": "Ash", "teams_id": "entra-ann"}
    people = {
        "ann@example.com": ann,
        "ben@example.com": {"first_name": "Ben", "telegram_id": "184467"},
        "cat@example.com": {"first_name": "Cat", "viber_id": "v=="},
    }
    rows = (
        Row(line, {"email": email, "lists": "lst_staff", **cells})
        for line, (email, cells) in enumerate(people.items(), start=2)
    )
    imported = await services.recipients.take(rows)
    assert imported.created == 3
