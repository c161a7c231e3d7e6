"""Tracked links: who is sent where, and what is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from bot.chance import SystemChance
from bot.clock import RealClock
from bot.redirect import Redirect, counts
from broadcast.campaigns import Campaigns
from broadcast.errors import StoreUnavailable
from broadcast.inbox import Reception
from broadcast.launching import Launching
from broadcast.model import BroadcastStatus, Button, ButtonType, Delivery, Event, EventType, Message
from broadcast.ports import DeliveryFilter, Page
from broadcast.tracking import Links, Press
from storage.memory import MemoryStore
from tests.host.stage import AT_ONCE, Recorder, accounts, add_ann

LATER = Button("later", ButtonType.REPLY, "Later", value="later")
LINKS = Links(secret="secret-of-this-test", public_url="https://clarion.example")


class Shop(SimpleNamespace):
    """A broadcast planned to Ann, and a client that follows its links."""

    store: MemoryStore
    client: TestClient[web.Request, web.Application]
    delivery: Delivery

    async def follow(self, button: str, *, token: str | None = None, **asked: object) -> aiohttp.ClientResponse:
        path = (
            f"/r/{token}"
            if token
            else LINKS.url(Press(self.delivery.id, button)).removeprefix("https://clarion.example")
        )
        return await self.client.request(str(asked.pop("method", "GET")), path, allow_redirects=False, **asked)  # type: ignore[arg-type]  # headers

    async def clicks(self) -> int:
        timeline = await self.store.timeline(self.delivery.id)
        return sum(isinstance(line, Event) and line.type is EventType.CLICKED for line in timeline)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    store, clock, chance = MemoryStore(), RealClock(), SystemChance()
    usable = accounts(Recorder()).usable
    await add_ann(store)
    campaigns = Campaigns(store, clock, chance, usable)
    draft = await campaigns.create(AT_ONCE)
    broadcast = await campaigns.launch(draft.id, by="test")
    await Launching(store, clock, usable).start_due()
    [(delivery, _)] = (await store.deliveries(DeliveryFilter(broadcast.id), Page())).items
    redirect = Redirect(store, Reception(store, clock, chance), LINKS, chance)
    app = web.Application()
    app.router.add_routes(redirect.routes())
    async with TestClient(TestServer(app)) as client:
        yield Shop(store=store, client=client, delivery=delivery)
    await redirect.close()


async def test_a_link_leads_where_the_message_says(shop: Shop) -> None:
    """302 to the button's address, the person's placeholders filled in and percent-encoded."""
    answer = await shop.follow("enrol")
    assert answer.status == 302
    assert answer.headers["Location"] == "https://intranet.example/enrol?who=Ann%20%26%20Co"


async def test_a_redirect_is_not_kept_and_tells_no_referrer(shop: Shop) -> None:
    """A second press comes back to us, and the target does not learn the token."""
    answer = await shop.follow("enrol")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_each_click_counts(shop: Shop) -> None:
    """Two clicks are two events, of one person."""
    await shop.follow("enrol")
    await shop.follow("enrol")
    tally = await shop.store.tally(shop.delivery.broadcast)
    assert (tally["button/enrol/people"], tally["button/enrol/total"]) == (1, 2)


async def test_head_counts_nothing(shop: Shop) -> None:
    """HEAD is answered alike and is no click."""
    answer = await shop.follow("enrol", method="HEAD")
    assert (answer.status, await shop.clicks()) == (302, 0)


@pytest.mark.parametrize(
    "agent",
    [
        "TelegramBot (like TwitterBot)",
        "facebookexternalhit/1.1",
        "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "WhatsApp/2.23",
    ],
)
async def test_a_preview_is_sent_on_but_not_counted(shop: Shop, agent: str) -> None:
    """Programs that look ahead see the page and are nobody."""
    answer = await shop.follow("enrol", headers={"User-Agent": agent})
    assert (answer.status, await shop.clicks()) == (302, 0)


@pytest.mark.parametrize(
    ("headers", "counted"),
    [
        ({"User-Agent": "Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 20) Chrome/90.0"}, True),
        ({"User-Agent": "Mozilla/5.0 (iPhone) Viber/21.0"}, True),
        ({"User-Agent": "curl/8.0"}, True),
        ({}, True),
        ({"User-Agent": "Mozilla/5.0", "Sec-Purpose": "prefetch;prerender"}, False),
        ({"User-Agent": "Mozilla/5.0", "Purpose": "prefetch"}, False),
        ({"User-Agent": "Slackbot-LinkExpanding 1.0"}, False),
    ],
)
def test_who_counts(headers: dict[str, str], *, counted: bool) -> None:
    """People on any device count; what says that it looks ahead does not."""
    assert counts(make_mocked_request("GET", "/r/x", headers=headers)) is counted


@pytest.mark.parametrize("token", ["x", "dlv_1.enrol.AAAAAAAAAAAAAAAA", "..", "a.b", "%2e%2e%2fetc"])
async def test_a_forged_link_leads_nowhere(shop: Shop, token: str) -> None:
    """A token that we did not sign is a page that does not exist."""
    answer = await shop.follow("", token=token)
    assert (answer.status, "Location" in answer.headers) == (404, False)


async def test_another_installation_signs_nothing_for_us(shop: Shop) -> None:
    """The signature holds for our own secret only."""
    press = Press(shop.delivery.id, "enrol")
    theirs = Links(secret="another-secret", public_url="https://x").url(press).removeprefix("https://x/r/")
    assert (await shop.follow("", token=theirs)).status == 404


@pytest.mark.parametrize("button", ["nothing", "later"])
async def test_a_button_that_is_no_link_leads_nowhere(shop: Shop, button: str) -> None:
    """Signed or not: the broadcast's message has no such link."""
    assert (await shop.follow(button)).status == 404


async def test_a_delivery_that_is_gone_leads_nowhere(shop: Shop) -> None:
    """A signed link outlives its broadcast."""
    token = LINKS.url(Press("dlv_gone", "enrol")).removeprefix("https://clarion.example/r/")
    assert (await shop.follow("", token=token)).status == 404


async def test_a_link_of_somebody_who_was_erased(shop: Shop) -> None:
    """Made for them it leads nowhere; the same for everybody, where it always did."""
    await shop.store.erase_recipient(shop.delivery.recipient, RealClock().now())
    assert (await shop.follow("enrol")).status == 404
    found = await shop.store.broadcast(shop.delivery.broadcast)
    assert found is not None
    same = Message("x", buttons=(Button("enrol", ButtonType.LINK, "x", url="https://intranet.example/[[HR]]"),))
    await shop.store.save_broadcast(replace(found, message=same), expected=found.status)
    answer = await shop.follow("enrol")
    assert (answer.status, answer.headers["Location"]) == (302, "https://intranet.example/[HR]")


# --- links of messages whose deliveries are not kept any more ----------------------------------------------


async def fold(shop: Shop, *, url: str = "https://intranet.example/enrol", id: str | None = None) -> None:
    """The broadcast, or one more that is called alike, ended long ago; its link had this address."""
    found = await shop.store.broadcast(shop.delivery.broadcast)
    assert found is not None
    message = Message("x", buttons=(Button("enrol", ButtonType.LINK, "x", url=url), LATER))
    now = RealClock().now()
    old = replace(found, message=message, status=BroadcastStatus.STOPPED, deliveries_removed_at=now)
    await shop.store.save_broadcast(replace(old, id=id or old.id), expected=None if id else found.status)
    await shop.store.cancel_planned(old.id, now, 9)
    await shop.store.remove_deliveries(old.id, 9)
    assert await shop.store.delivery(shop.delivery.id) is None


async def test_a_link_leads_on_when_its_delivery_was_removed(shop: Shop) -> None:
    """To where it led everybody; it counts nowhere."""
    before = await shop.store.tally(shop.delivery.broadcast)
    await fold(shop)
    answer = await shop.follow("enrol")
    assert (answer.status, answer.headers["Location"]) == (302, "https://intranet.example/enrol")
    after = await shop.store.tally(shop.delivery.broadcast)
    assert [path for path in after if path not in before] == [
        "state/telegram/cancelled",
        "reason/cancelled/stopped",
    ]


async def test_a_link_that_was_a_persons_own_leads_nowhere_then(shop: Shop) -> None:
    """Whose it was is not known any more, and nobody is sent on as somebody else."""
    await fold(shop, url="https://intranet.example/enrol?who=[FIRSTNAME]")
    assert (await shop.follow("enrol")).status == 404


async def test_a_link_that_may_be_of_two_broadcasts_leads_nowhere_then(shop: Shop) -> None:
    """Their ids begin alike, their addresses differ: better no page than a wrong one."""
    await fold(shop)
    await fold(shop, url="https://elsewhere.example", id=shop.delivery.broadcast + "x")
    assert (await shop.follow("enrol")).status == 404


@pytest.mark.parametrize("button", ["later", "nothing"])
async def test_what_is_no_link_leads_nowhere_then(shop: Shop, button: str) -> None:
    """As before."""
    await fold(shop)
    assert (await shop.follow(button)).status == 404


async def test_a_folded_broadcast_is_no_open_redirect(shop: Shop) -> None:
    """What nobody signed leads nowhere, and what is no web address is no target, however it got there."""
    token = LINKS.url(Press(shop.delivery.id, "enrol")).rpartition("/")[2]
    await fold(shop, url="javascript:alert(1)")
    assert (await shop.follow("enrol")).status == 404
    forged = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert (await shop.follow("", token=forged)).status == 404


async def test_an_unknown_delivery_of_a_broadcast_that_is_kept_leads_nowhere(shop: Shop) -> None:
    """Only what was removed has lasting links."""
    token = LINKS.url(Press("dlv_aaaaaaaaaaaa" + shop.delivery.id[16:], "enrol")).rpartition("/")[2]
    assert (await shop.follow("", token=token)).status == 404


# --- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "//evil.example", "data:text/html,x", "https://a@evil.example"]
)
async def test_nothing_but_web_addresses_is_ever_a_target(
    shop: Shop, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one got into the store past validation."""
    broadcast = await shop.store.broadcast(shop.delivery.broadcast)
    assert broadcast is not None
    bad = replace(broadcast, message=Message("x", buttons=(Button("enrol", ButtonType.LINK, "x", url=url),)))

    async def found(_: str) -> object:
        return bad

    monkeypatch.setattr(shop.store, "broadcast", found)
    answer = await shop.follow("enrol")
    assert (answer.status, "Location" in answer.headers) == (404, False)


async def test_a_click_that_cannot_be_stored_keeps_nobody_from_the_page(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our trouble is not theirs."""

    async def fail(_: object) -> int:
        raise StoreUnavailable("the disk is full; make room")

    monkeypatch.setattr(shop.store, "add_events", fail)
    assert (await shop.follow("enrol")).status == 302


async def test_a_store_that_cannot_be_read_says_try_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is only in the store."""

    async def fail(_: object) -> None:
        raise StoreUnavailable("the disk cannot be read")

    monkeypatch.setattr(shop.store, "delivery", fail)
    answer = await shop.follow("enrol")
    assert (answer.status, "disk" in await answer.text()) == (503, False)
