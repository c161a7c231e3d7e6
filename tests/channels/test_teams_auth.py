"""Only Bot Connector gets in: each way to be refused, and what botbuilder makes of the same tokens."""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestServer
from botframework.connector.auth import (
    AuthenticationConstants,
    JwtTokenExtractor,
    JwtTokenValidation,
    SimpleCredentialProvider,
)
from botframework.connector.auth.jwt_token_extractor import _OpenIdMetadata
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bot.channels.http import Http
from bot.channels.teams import TeamsInbound
from bot.channels.teams.auth import KEYS_FRESH, KEYS_PAUSE, KEYS_USABLE, Key, Keys, Reason, Refusal, Verifier
from tests.channels.clocks import StillClock
from tests.channels.teams_server import APP_ID, OTHER, PRIVATE, TeamsServer, activity, jwk


class Seconds:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[TeamsServer]:
    teams = TeamsServer()
    async with TestServer(teams.app()) as listening:
        teams.url = str(listening.make_url("")).rstrip("/")
        yield teams


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
async def inbound(server: TeamsServer, seconds: Seconds) -> AsyncIterator[TeamsInbound]:
    http = Http()
    account = server.account()
    endpoint = TeamsInbound(account, StillClock(), http=http, keys=Keys(http, account.openid_url, seconds))
    yield endpoint
    await endpoint.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def body(server: TeamsServer, **changes: Any) -> bytes:
    return orjson.dumps(activity(server, text="hello", **changes))


def forged(server: TeamsServer, alg: str) -> str:
    """A token that claims another algorithm: none, or an HMAC keyed with what everybody can read."""
    claims = server.call_token().split(".")[1].encode()
    signed = _part(orjson.dumps({"alg": alg, "kid": "key-1", "typ": "JWT"})) + b"." + claims
    pem = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    mac = hmac.digest(pem, signed, "sha256") if alg == "HS256" else b""
    return (signed + b"." + _part(mac)).decode()


def _part(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


async def test_bot_connector_gets_in(inbound: TeamsInbound, server: TeamsServer) -> None:
    received = await inbound.receive(bearer(server.call_token()), body(server))
    assert (received.status, received.refused) == (200, None)
    assert [one.text for one in received.inbound] == ["hello"]


async def refused(inbound: TeamsInbound, headers: dict[str, str], content: bytes) -> tuple[int, str | None]:
    received = await inbound.receive(headers, content)
    assert received.inbound == ()
    assert received.receipts == ()
    assert received.body is None
    return received.status, received.refused


TOKENS: dict[str, tuple[dict[str, Any], int, Reason]] = {
    "wrong audience": ({"aud": "somebody-else"}, 403, Reason.AUDIENCE),
    "audience among others": ({"aud": [APP_ID, "x"]}, 403, Reason.AUDIENCE),
    "no audience": ({"aud": None}, 403, Reason.AUDIENCE),
    "wrong issuer": ({"iss": "https://evil.example"}, 403, Reason.ISSUER),
    "no issuer": ({"iss": None}, 403, Reason.ISSUER),
    "expired": ({"exp": int(time.time()) - 400}, 403, Reason.EXPIRED),
    "no end": ({"exp": None}, 403, Reason.EXPIRED),
    "not yet valid": ({"nbf": int(time.time()) + 4000}, 403, Reason.NOT_YET),
    "issued in the future": ({"iat": int(time.time()) + 4000}, 403, Reason.NOT_YET),
    "other service address": ({"serviceurl": "https://evil.example/teams"}, 403, Reason.SERVICE_URL),
    "no service address": ({"serviceurl": None}, 403, Reason.SERVICE_URL),
    "other key's signature": ({"private": OTHER}, 403, Reason.SIGNATURE),
    "unknown key": ({"kid": "key-9"}, 403, Reason.UNKNOWN_KEY),
    "no key id": ({"kid": None}, 403, Reason.UNKNOWN_KEY),
}


@pytest.mark.parametrize("case", TOKENS)
async def test_tokens_that_are_refused(inbound: TeamsInbound, server: TeamsServer, case: str) -> None:
    claims, status, reason = TOKENS[case]
    assert await refused(inbound, bearer(server.call_token(**claims)), body(server)) == (status, reason)


@pytest.mark.parametrize("alg", ["none", "HS256"])
async def test_algorithms_that_are_refused(inbound: TeamsInbound, server: TeamsServer, alg: str) -> None:
    assert await refused(inbound, bearer(forged(server, alg)), body(server)) == (403, Reason.ALGORITHM)
    assert server.key_fetches == 0


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, Reason.NO_TOKEN),
        ("", Reason.NO_TOKEN),
        ("Bearer", Reason.NO_TOKEN),
        ("Bearer ", Reason.NO_TOKEN),
        ("Basic YTpi", Reason.NO_TOKEN),
        ("Bearer nonsense", Reason.MALFORMED),
        ("Bearer a.b.c", Reason.MALFORMED),
        ("Bearer ünïcode.b.c", Reason.MALFORMED),
    ],
)
async def test_headers_that_are_refused(
    inbound: TeamsInbound, server: TeamsServer, header: str | None, reason: Reason
) -> None:
    headers = {} if header is None else {"Authorization": header}
    assert await refused(inbound, headers, body(server)) == (401, reason)
    assert server.key_fetches == 0


@pytest.mark.parametrize("endorsements", [None, [], ["webchat"], "msteams"])
async def test_keys_that_do_not_speak_for_teams(
    inbound: TeamsInbound, server: TeamsServer, endorsements: object
) -> None:
    server.keys = [jwk(PRIVATE, "key-1", endorsements)]
    assert await refused(inbound, bearer(server.call_token()), body(server)) == (403, Reason.ENDORSEMENT)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"channelId": "webchat"}, Reason.ENDORSEMENT),
        ({"channelId": ...}, Reason.ENDORSEMENT),
        ({"channelId": ["msteams"]}, Reason.ENDORSEMENT),
        ({"serviceUrl": "https://evil.example/teams/"}, Reason.SERVICE_URL),
        ({"serviceUrl": ...}, Reason.SERVICE_URL),
        ({"serviceUrl": 7}, Reason.SERVICE_URL),
    ],
)
async def test_bodies_that_are_not_the_tokens(
    inbound: TeamsInbound, server: TeamsServer, changes: dict[str, Any], reason: Reason
) -> None:
    assert await refused(inbound, bearer(server.call_token()), body(server, **changes)) == (403, reason)


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 400, Reason.BODY),
        (b"{", 400, Reason.BODY),
        (b"[]", 400, Reason.BODY),
        (b'{"type": 7}', 400, Reason.BODY),
        (b" " * (1024 * 1024 + 1), 413, Reason.TOO_LARGE),
    ],
)
async def test_bodies_that_are_none(
    inbound: TeamsInbound, server: TeamsServer, content: bytes, status: int, reason: Reason
) -> None:
    assert await refused(inbound, bearer(server.call_token()), content) == (status, reason)


async def test_a_body_is_not_looked_at_before_its_sender_is_known(inbound: TeamsInbound) -> None:
    assert await refused(inbound, {}, b"no JSON at all") == (401, Reason.NO_TOKEN)


async def test_five_minutes_of_skew(inbound: TeamsInbound, server: TeamsServer) -> None:
    now = int(time.time())
    for token in (server.call_token(exp=now - 280), server.call_token(nbf=now + 280)):
        assert (await inbound.receive(bearer(token), body(server))).refused is None


async def test_for_unknown_keys_we_ask_at_most_once_a_minute(
    inbound: TeamsInbound, server: TeamsServer, seconds: Seconds
) -> None:
    """The platform changes its key: no sign-in breaks; made-up key ids do not make us ask and ask."""
    assert (await inbound.receive(bearer(server.call_token()), body(server))).refused is None
    server.keys = [jwk(OTHER, "key-2")]
    changed = bearer(server.call_token(OTHER, kid="key-2"))
    assert (await inbound.receive(changed, body(server))).refused is None
    assert server.key_fetches == 2
    for later, fetches in ((0, 2), (KEYS_PAUSE - 1, 2), (1, 3), (1, 3)):
        seconds.now += later
        made_up = bearer(server.call_token(kid=f"made-up-{seconds.now}"))
        assert await refused(inbound, made_up, body(server)) == (403, Reason.UNKNOWN_KEY)
        assert server.key_fetches == fetches


async def test_after_a_fetch_that_failed_there_is_a_pause(
    inbound: TeamsInbound, server: TeamsServer, seconds: Seconds
) -> None:
    server.keys_status = 500
    good = bearer(server.call_token())
    for later, fetches in ((0, 1), (KEYS_PAUSE - 1, 1), (1, 2)):
        seconds.now += later
        assert await refused(inbound, good, body(server)) == (503, Reason.NO_KEYS)
        assert server.key_fetches == fetches


async def test_a_withdrawn_key_is_not_remembered(
    inbound: TeamsInbound, server: TeamsServer, seconds: Seconds
) -> None:
    """A token found good before is checked again once the keys were fetched anew."""
    good = bearer(server.call_token())
    assert (await inbound.receive(good, body(server))).refused is None
    server.keys = [jwk(OTHER, "key-2")]
    seconds.now += KEYS_FRESH - 1
    assert (await inbound.receive(good, body(server))).refused is None
    seconds.now += 1
    assert await refused(inbound, good, body(server)) == (403, Reason.UNKNOWN_KEY)


async def test_old_keys_serve_while_new_ones_cannot_be_had(
    inbound: TeamsInbound, server: TeamsServer, seconds: Seconds
) -> None:
    good = bearer(server.call_token())
    assert (await inbound.receive(good, body(server))).refused is None
    server.keys_status = 500
    seconds.now += KEYS_USABLE - 1
    assert (await inbound.receive(good, body(server))).refused is None
    seconds.now += 1
    assert await refused(inbound, good, body(server)) == (503, Reason.NO_KEYS)


async def test_many_wait_for_one_fetch(inbound: TeamsInbound, server: TeamsServer) -> None:
    good = bearer(server.call_token())
    received = await asyncio.gather(*(inbound.receive(good, body(server)) for _ in range(20)))
    assert {one.refused for one in received} == {None}
    assert server.key_fetches == 1


class CountedKeys(Keys):
    """Counts how often a signature was about to be checked."""

    asked = 0

    async def key(self, id: str) -> Key | Refusal:
        self.asked += 1
        return await super().key(id)


async def test_a_token_found_good_is_checked_again_in_time(server: TeamsServer) -> None:
    """Past its end, skew allowed for, and once the platform's keys were fetched anew."""
    wall = Seconds()
    wall.now = time.time()
    http, account = Http(), server.account()
    keys = CountedKeys(http, account.openid_url)
    verifier = Verifier(account, keys, wall)
    token = "Bearer " + server.call_token(exp=int(wall.now) - 200)
    for later, asked in ((0, 1), (0, 1), (90, 1), (11, 2), (-101, 2)):
        wall.now += later
        assert not isinstance(await verifier.sender(token), Refusal)
        assert keys.asked == asked
    assert await verifier.sender("Bearer " + server.call_token(kid="new")) == Refusal(Reason.UNKNOWN_KEY)
    assert not isinstance(await verifier.sender(token), Refusal)
    assert keys.asked == 4
    await http.close()


async def test_broken_keys_beside_a_good_one(inbound: TeamsInbound, server: TeamsServer) -> None:
    ec = {"kty": "EC", "kid": "key-1", "crv": "P-256", "x": "AA", "y": "AA"}
    server.keys = [ec, {"kid": "key-1"}, {"kty": "RSA", "kid": "key-1"}, jwk(PRIVATE, "key-1")]
    assert (await inbound.receive(bearer(server.call_token()), body(server))).refused is None


async def test_an_account_without_app_id_lets_nobody_in(server: TeamsServer) -> None:
    """Unless the host opened it on loopback."""
    account = server.account(app_id="")
    closed = TeamsInbound(account, StillClock())
    opened = TeamsInbound(account, StillClock(), unverified_loopback=True)
    token = bearer(server.call_token(aud=""))
    assert (await closed.receive(token, body(server))).refused == Reason.AUDIENCE
    assert (await opened.receive({}, body(server))).refused is None
    assert (await opened.receive({}, b"{")).refused == Reason.BODY
    for endpoint in (closed, opened):
        await endpoint.close()


async def test_no_switch_turns_verification_off(server: TeamsServer) -> None:
    with pytest.raises(ValueError, match="always verified"):
        TeamsInbound(server.account(), StillClock(), unverified_loopback=True)


# --- side by side with botbuilder ---------------------------------------------------------------------


async def botbuilder_lets_in(server: TeamsServer, token: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Its key cache is filled by hand: its own fetch blocks the loop."""
    url = AuthenticationConstants.TO_BOT_FROM_CHANNEL_OPENID_METADATA_URL
    metadata = _OpenIdMetadata(url)
    metadata.keys, metadata.last_updated = server.keys, datetime.max  # noqa: DTZ901 - it compares naive ones
    monkeypatch.setitem(JwtTokenExtractor.metadataCache, url, metadata)
    try:
        identity = await JwtTokenValidation.validate_auth_header(
            f"Bearer {token}", SimpleCredentialProvider(APP_ID, "x"), "", "msteams", f"{server.url}/teams"
        )
    except Exception:  # noqa: BLE001 - it refuses with whatever comes along
        return False
    return bool(identity.is_authenticated)


@pytest.mark.parametrize("case", ["good", *TOKENS, "alg none", "alg HS256"])
async def test_verdicts_agree_with_botbuilders(
    inbound: TeamsInbound, server: TeamsServer, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it refuses we refuse; what it lets in we do, too, but for tokens without an end."""
    if case.startswith("alg"):
        token = forged(server, case.partition(" ")[2])
    else:
        token = server.call_token(**TOKENS[case][0] if case in TOKENS else {})
    content = body(server, serviceUrl=f"{server.url}/teams")
    ours = (await inbound.receive(bearer(token), content)).refused is None
    theirs = await botbuilder_lets_in(server, token, monkeypatch)
    assert ours == (case == "good")
    assert theirs == (case in {"good", "no end"})
