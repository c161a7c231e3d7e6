"""A small Bot Connector with its sign-in and keys, on loopback: answers as told, and keeps what it got."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from bot.channels.teams import TeamsAccount
from broadcast.model import ChannelName, Conversation

APP_ID = "5a4db0c5-0000-4000-8000-000000000001"
TENANT = "5a4db0c5-0000-4000-8000-0000000000aa"
PASSWORD = "correct horse"
ANN = "0a1b2c3d-0000-4000-8000-00000000ann0".replace("ann", "abc")
ISSUER = "https://api.botframework.com"

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(private: rsa.RSAPrivateKey, kid: str, endorsements: object = ("msteams",)) -> dict[str, Any]:
    public: dict[str, Any] = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return {**public, "kid": kid, "use": "sig", "endorsements": endorsements}


@dataclass
class Scripted:
    """One answer; `hang` closes the connection without any."""

    status: int = 201
    body: bytes = b'{"id":"1692206589131"}'
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False


@dataclass
class Got:
    path: str
    authorization: str | None
    body: dict[str, Any]


class TeamsServer:
    def __init__(self) -> None:
        self.got: list[Got] = []
        self.creations: list[Scripted] = []
        self.posts: list[Scripted] = []
        self.sign_ins = 0
        self.key_fetches = 0
        self.keys = [jwk(PRIVATE, "key-1")]
        self.keys_status = 200
        self.lifetime: object = 3599
        self.sign_in_answers: list[Scripted] = []
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/login/{tenant}/oauth2/v2.0/token", self._token)
        app.router.add_get("/openid", self._openid)
        app.router.add_get("/keys", self._jwks)
        app.router.add_post("/{cloud}/v3/conversations", self._create)
        app.router.add_post("/{cloud}/v3/conversations/{id}/activities", self._post)
        return app

    def account(self, **changes: Any) -> TeamsAccount:
        settings: dict[str, Any] = {
            "key": "teams/hr",
            "app_id": APP_ID,
            "app_password": PASSWORD,
            "tenant_id": TENANT,
            "login_url": f"{self.url}/login",
            "openid_url": f"{self.url}/openid",
            "service_hosts": (self.url,),
            "service_url": f"{self.url}/teams/",
            "gcc_service_url": f"{self.url}/gcc/",
        }
        return TeamsAccount(**{**settings, **changes})

    def call_token(
        self, private: Any = PRIVATE, *, kid: str | None = "key-1", alg: str = "RS256", **claims: Any
    ) -> str:
        now = int(time.time())
        body = {
            "iss": ISSUER,
            "aud": APP_ID,
            "nbf": now - 60,
            "exp": now + 3600,
            "serviceurl": f"{self.url}/teams",
            **claims,
        }
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode(body, private, algorithm=alg, headers={"kid": kid} if kid else None)

    async def _token(self, request: web.Request) -> web.Response:
        self.sign_ins += 1
        form = await request.post()
        if self.sign_in_answers:
            return _response(request, self.sign_in_answers.pop(0))
        assert form["grant_type"] == "client_credentials"
        if form["client_secret"] != PASSWORD:
            body = {"error": "invalid_client", "error_description": "AADSTS7000215", "error_codes": [7000215]}
            return web.json_response(body, status=401)
        return web.json_response({"access_token": f"token-{self.sign_ins}", "expires_in": self.lifetime})

    async def _openid(self, _request: web.Request) -> web.Response:
        self.key_fetches += 1
        return web.json_response({"jwks_uri": f"{self.url}/keys"}, status=self.keys_status)

    async def _jwks(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": self.keys})

    async def _create(self, request: web.Request) -> web.Response:
        await self._keep(request)
        created = Scripted(body=orjson.dumps({"id": "a:1new", "serviceUrl": f"{self.url}/emea/"}))
        return _response(request, self.creations.pop(0) if self.creations else created)

    async def _post(self, request: web.Request) -> web.Response:
        await self._keep(request)
        return _response(request, self.posts.pop(0) if self.posts else Scripted())

    async def _keep(self, request: web.Request) -> None:
        body = orjson.loads(await request.read())
        self.got.append(Got(request.raw_path, request.headers.get("Authorization"), body))


def _response(request: web.Request, scripted: Scripted) -> web.Response:
    if scripted.hang:
        assert request.transport is not None
        request.transport.abort()
    content_type = "text/html" if scripted.body.startswith(b"<") else "application/json"
    return web.Response(
        status=scripted.status, body=scripted.body, headers={"Content-Type": content_type, **scripted.headers}
    )


def conversation(**reference: object) -> Conversation:
    return Conversation("cnv_ann", "teams/hr", ChannelName.TEAMS, "rcp_ann", ANN, reference=reference)


def activity(server: TeamsServer, **changes: Any) -> dict[str, Any]:
    frame: dict[str, Any] = {
        "type": "message",
        "id": "1692206589131",
        "timestamp": "2026-03-27T14:00:00.1234567Z",
        "channelId": "msteams",
        "serviceUrl": f"{server.url}/teams/",
        "from": {"id": "29:ann", "name": "Ann Ash", "aadObjectId": ANN},
        "recipient": {"id": f"28:{APP_ID}", "name": "HR"},
        "conversation": {"conversationType": "personal", "tenantId": "wrong", "id": "a:1ann"},
        "channelData": {"tenant": {"id": TENANT}},
        "locale": "en-US",
        "entities": [
            {
                "type": "clientInfo",
                "locale": "fr-FR",
                "country": "FR",
                "platform": "Web",
                "timezone": "Europe/Paris",
            }
        ],
    }
    merged = {**frame, **changes}
    return {name: value for name, value in merged.items() if value is not ...}
