"""Callbacks: verified, stored, answered, in this order."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import orjson
import pytest
import structlog.testing
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from bot import accounts as configured
from bot.accounts import Accounts
from bot.chance import SystemChance
from bot.channels.webhook import BODY_LIMIT, Received
from bot.clock import RealClock
from bot.intake import Deed, Intake
from bot.settings import load
from bot.webhooks import Webhooks
from broadcast.errors import StoreUnavailable
from broadcast.inbox import STOPPED, Reception
from broadcast.ports import Content, Page
from storage.memory import MemoryStore
from tests.host.stage import ANN, KEY, Inlet, Recorder, accounts, said

SECRET = {"X-Telegram-Bot-Api-Secret-Token": "the-secret"}
TELEGRAM = {
    "CLARION_TELEGRAM_TOKEN": "1:a",
    "CLARION_TELEGRAM_MODE": "webhook",
    "CLARION_TELEGRAM_WEBHOOK_SECRET": "the-secret",
    "CLARION_TELEGRAM_API_URL": "http://127.0.0.1:9",
    "CLARION_PUBLIC_URL": "https://clarion.example",
}
UPDATE = {
    "update_id": 1,
    "message": {
        "message_id": 1,
        "date": 1780300800,
        "chat": {"id": 184467, "type": "private"},
        "from": {"id": 184467, "is_bot": False, "first_name": "Ann"},
        "text": "hello",
    },
}
PATH = "/webhooks/telegram/default"

Client = TestClient[web.Request, web.Application]


class Silent:
    """A desk that has nothing to say."""

    async def answer(self, _: Deed) -> Content | None:
        return None


class Served:
    def __init__(self, client: Client, store: MemoryStore, webhooks: Webhooks) -> None:
        self.client = client
        self.store = store
        self.webhooks = webhooks

    async def post(self, path: str, body: bytes = b"{}", **headers: str) -> aiohttp.ClientResponse:
        kind = {"Content-Type": "application/json"}
        return await self.client.post(path, data=body, headers={**kind, **headers})


@asynccontextmanager
async def served(found: Accounts) -> AsyncIterator[Served]:
    store = MemoryStore()
    intake = Intake(Reception(store, RealClock(), SystemChance()), found, Silent())
    webhooks = Webhooks(found, intake)
    app = web.Application()
    app.router.add_routes(webhooks.routes())
    async with TestClient(TestServer(app)) as client:
        yield Served(client, store, webhooks)
        await intake.close()


@pytest.fixture
async def telegram() -> AsyncIterator[Served]:
    """The real way in of a Telegram account."""
    async with (
        AsyncExitStack() as stack,
        served(configured.opened(load(environ=TELEGRAM), RealClock(), stack)) as one,
    ):
        yield one


async def people(store: MemoryStore) -> int:
    return (await store.recipients("", Page())).total


async def test_what_is_verified_is_stored_before_the_answer(telegram: Served) -> None:
    """Once the platform reads 200 the person is there."""
    answer = await telegram.post(PATH, orjson.dumps(UPDATE), **SECRET)
    assert answer.status == 200
    assert await telegram.store.conversation(KEY, ANN) is not None


async def test_a_repeated_callback_counts_once(telegram: Served) -> None:
    """Platforms repeat what they think was lost."""
    for _ in range(3):
        await telegram.post(PATH, orjson.dumps(UPDATE), **SECRET)
    assert await people(telegram.store) == 1


@pytest.mark.parametrize("headers", [{}, {"X-Telegram-Bot-Api-Secret-Token": "wrong"}])
async def test_a_wrong_secret_stores_nothing_and_is_counted(telegram: Served, headers: dict[str, str]) -> None:
    """403, nothing stored, one log line with its reason and its count."""
    with structlog.testing.capture_logs() as logs:
        answer = await telegram.post(PATH, orjson.dumps(UPDATE), **headers)
    assert (answer.status, await people(telegram.store)) == (403, 0)
    assert telegram.webhooks.refused == {f"{KEY} bad_secret": 1}
    [line] = [log for log in logs if log.get("action") == "webhook_refused"]
    assert (line["account"], line["reason"], line["count"]) == (KEY, "bad_secret", 1)


async def test_an_unknown_event_is_ignored(telegram: Served) -> None:
    """200, nothing stored."""
    answer = await telegram.post(PATH, b'{"update_id": 7, "brand_new": {}}', **SECRET)
    assert (answer.status, await people(telegram.store)) == (200, 0)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_beyond_the_limit_is_not_read(*, announced: bool) -> None:
    """413 before the channel sees any of it, whether or not its length is announced."""
    inlet = Inlet()
    async with served(accounts(Recorder(), inlet)) as one:

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(BODY_LIMIT // 65536 + 2):
                yield b"x" * 65536

        body = io.BytesIO(b"x" * (BODY_LIMIT + 1)) if announced else pieces()
        try:
            answer = await one.client.post(PATH, data=body)
        except aiohttp.ClientConnectionError:  # closed while we still wrote
            pass
        else:
            assert answer.status == 413
        assert (inlet.bodies, one.webhooks.refused) == ([], {f"{KEY} too_large": 1})


async def test_a_store_that_does_not_answer_makes_the_platform_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """503: what was not stored was not received."""
    async with served(accounts(Recorder(), Inlet(Received(inbound=(said("hello"),))))) as one:

        async def fail(*_: object, **__: object) -> None:
            raise StoreUnavailable("the disk is full; make room")

        monkeypatch.setattr(one.store, "take_in", fail)
        answer = await one.post(PATH)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


async def test_the_body_of_a_channel_goes_back_to_the_platform() -> None:
    """Viber's welcome and Teams' answers to invokes are the callback's own answer."""
    async with served(accounts(Recorder(), Inlet(Received(body=b'{"hi": 1}')))) as one:
        answer = await one.post(PATH)
        assert (await answer.json(), answer.content_type) == ({"hi": 1}, "application/json")


async def test_people_are_answered_on_the_account_they_wrote_to() -> None:
    """STOP is confirmed, once, however often the platform repeats it."""
    channel = Recorder()
    async with served(accounts(channel, Inlet(Received(inbound=(said("STOP"),))))) as one:
        for _ in range(2):
            assert (await one.post(PATH)).status == 200
    assert [(user, content.text) for user, content in channel.sent] == [(ANN, STOPPED)]


@pytest.mark.parametrize("path", ["/webhooks/telegram/other", "/webhooks/viber/default", "/webhooks/smoke/x"])
async def test_an_account_that_is_not_there_is_not_found(telegram: Served, path: str) -> None:
    """404 for accounts and platforms nobody configured."""
    assert (await telegram.post(path)).status == 404


# --- Teams --------------------------------------------------------------------------------------------

ACTIVITY = {
    "type": "message",
    "id": "1",
    "channelId": "msteams",
    "serviceUrl": "http://localhost:9/",
    "text": "hello",
    "from": {"id": "29:ann", "aadObjectId": "8c1f"},
    "recipient": {"id": "28:bot"},
    "conversation": {"id": "a:1", "conversationType": "personal"},
}


@asynccontextmanager
async def teams(**environ: str) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        found = configured.opened(load(environ=environ), RealClock(), stack)
        yield await stack.enter_async_context(served(found))


async def test_without_an_app_the_teams_endpoint_is_open_to_this_machine() -> None:
    """Local emulators sign nothing."""
    async with teams() as one:
        assert (await one.post("/api/messages", orjson.dumps(ACTIVITY))).status == 200
        assert await people(one.store) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Content-Type": "text/plain"},
    ],
)
async def test_a_page_in_a_browser_cannot_speak_as_teams(headers: dict[str, str]) -> None:
    """Neither under another name for this machine nor without asking first."""
    async with teams() as one:
        assert (await one.post("/api/messages", orjson.dumps(ACTIVITY), **headers)).status == 403
        assert await people(one.store) == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"CLARION_HOST": "0.0.0.0"},  # noqa: S104 - read, not bound
        {"CLARION_PUBLIC_URL": "https://clarion.example"},
    ],
)
async def test_the_endpoint_is_never_open_where_others_can_reach_it(environ: dict[str, str]) -> None:
    """Not on other addresses, and not behind something that passes requests on."""
    async with teams(**environ) as one:
        assert (await one.post("/api/messages", orjson.dumps(ACTIVITY))).status == 404
        assert await people(one.store) == 0


async def test_half_a_teams_account_takes_nothing_in() -> None:
    """An app id without its password is not open, but not connected."""
    async with teams(CLARION_TEAMS_APP_ID="id") as one:
        assert (await one.post("/api/messages", orjson.dumps(ACTIVITY))).status == 503
        assert one.webhooks.refused == {"teams/default not_connected": 1}


async def test_a_teams_account_verifies() -> None:
    """Without a token of the Bot Connector nothing is read."""
    credentials = {
        "CLARION_TEAMS_APP_ID": "id",
        "CLARION_TEAMS_APP_PASSWORD": "password",
        "CLARION_TEAMS_TENANT_ID": "tenant",
    }
    async with teams(**credentials) as one:
        assert (await one.post("/api/messages", orjson.dumps(ACTIVITY))).status in {401, 403}
        assert await people(one.store) == 0
