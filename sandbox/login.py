"""Sign-in: Entra's token endpoint, and the keys that Bot Connector signs its calls with (PLATFORMS A10)."""

import secrets
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jwt
import orjson
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from sandbox.clock import iso
from sandbox.directory import Account
from sandbox.faults import Fault, carry_out
from sandbox.settings import Channel, TeamsBot
from sandbox.world import JSON_HEADERS, Json, World, plain

ISSUER = "https://api.botframework.com"
BOT_SCOPE = "https://api.botframework.com/.default"
GRAPH_SCOPE = "https://graph.microsoft.com/.default"
CALL_TOKEN_LIFETIME = 3600
"""Wall seconds that a token of Bot Connector is valid."""


@dataclass(frozen=True)
class Grant:
    """What a bearer token lets its holder do."""

    account: Account
    audience: str
    """`bot` or `graph`."""
    expires: float
    """Wall seconds since 1970."""


class SigningKey:
    """One RSA key of Bot Connector."""

    def __init__(self) -> None:
        self.kid = secrets.token_urlsafe(16)

    @cached_property
    def private(self) -> rsa.RSAPrivateKey:
        """Made when first used: a sandbox without Teams does not wait for it."""
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def as_jwk(self) -> Json:
        """The public half as the key document lists it."""
        public: Json = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "use": "sig", "kid": self.kid, "x5t": self.kid, "endorsements": ["msteams"]}


class Login:
    """Issues bearer tokens to bots, and signs what is sent to them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._grants: dict[str, Grant] = {}
        self._keys = [SigningKey()]
        self._signed: dict[tuple[str, str], tuple[str, float]] = {}

    def routes(self) -> list[web.RouteDef]:
        """Where sign-in listens."""
        return [
            web.post("/login/{tenant}/oauth2/v2.0/token", self._token),
            web.get("/botframework/.well-known/openidconfiguration", self._openid),
            web.get("/botframework/v1/.well-known/openidconfiguration", self._openid),
            web.get("/botframework/.well-known/keys", self._jwks),
        ]

    def grant_of(self, request: web.Request, audience: str) -> Grant | None:
        """What the request's bearer token grants, if it is known, alive and for this audience."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        grant = self._grants.get(token.strip()) if scheme.lower() == "bearer" else None
        if grant is None or grant.audience != audience or grant.expires <= time.time():
            return None
        return grant

    def rotate(self) -> str:
        """Sign with a new key from now on and stop listing the old one; gives the new key id."""
        self._keys = [SigningKey()]
        self._signed.clear()
        return self._keys[0].kid

    def revoke(self) -> int:
        """Make all bearer tokens invalid; gives how many there were."""
        count = len(self._grants)
        self._grants.clear()
        return count

    def call_token(self, app_id: str, service_url: str, **claims: Any) -> str:
        """A token of Bot Connector for a call to a bot; `claims` replace its own, for tests of refusal."""
        now = time.time()
        known = self._signed.get((app_id, service_url))
        if known and not claims and known[1] > now:
            return known[0]
        key = self._keys[0]
        body = {
            "serviceurl": service_url,
            "nbf": int(now) - 60,
            "exp": int(now) + CALL_TOKEN_LIFETIME,
            "iss": ISSUER,
            "aud": app_id,
            **claims,
        }
        token = jwt.encode(body, key.private, algorithm="RS256", headers={"kid": key.kid, "x5t": key.kid})
        if not claims:
            # Signing takes a millisecond; one token serves many calls, as the platform does it.
            self._signed[app_id, service_url] = (token, now + CALL_TOKEN_LIFETIME / 2)
        return token

    async def _openid(self, _request: web.Request) -> web.Response:
        body = {
            "issuer": ISSUER,
            "authorization_endpoint": "https://invalid.botframework.com",
            "jwks_uri": f"{self._world.url}/botframework/.well-known/keys",
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        }
        return web.Response(body=orjson.dumps(body), headers=JSON_HEADERS)

    async def _jwks(self, _request: web.Request) -> web.Response:
        keys = [key.as_jwk() for key in self._keys]
        return web.Response(body=orjson.dumps({"keys": keys}), headers=JSON_HEADERS)

    async def _token(self, request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        tenant = request.match_info["tenant"]

        async def answer() -> web.Response:
            return self._issue(tenant, form)

        fault = self._world.faults.strike("login", "token")
        response = (
            await answer()
            if fault is None
            else await carry_out(fault, request, answer, self._wrong, self._world.closing)
        )
        self._world.stats.requests["login", "token", response.status] += 1
        return response

    def _issue(self, tenant: str, form: dict[str, str]) -> web.Response:
        account = self._account(form.get("client_id", ""))
        audience = self._audience(form.get("scope", ""))
        problem = self._problem(account, audience, tenant, form)
        if problem is not None or account is None or audience is None:
            return problem or self._error(400, "invalid_request", 900144, "The request body is incomplete.")
        lifetime = self._world.settings.token_lifetime
        token = _bearer(account, audience, lifetime)
        self._grants[token] = Grant(account, audience, time.time() + lifetime)
        body = {
            "token_type": "Bearer",
            "expires_in": lifetime,
            "ext_expires_in": lifetime,
            "access_token": token,
        }
        return web.Response(body=orjson.dumps(body), headers={**JSON_HEADERS, "Cache-Control": "no-store"})

    def _problem(
        self, account: Account | None, audience: str | None, tenant: str, form: dict[str, str]
    ) -> web.Response | None:
        if form.get("grant_type") != "client_credentials":
            return self._error(400, "unsupported_grant_type", 70003, "Only client_credentials is served here.")
        if account is None or not isinstance(account.bot, TeamsBot):
            return self._error(401, "invalid_client", 700016, "No application of that id is known here.")
        if tenant not in {account.bot.tenant_id, "botframework.com"}:
            return self._error(400, "invalid_request", 90002, f"Tenant '{tenant}' is not known here.")
        if form.get("client_secret") != account.bot.password:
            return self._error(401, "invalid_client", 7000215, "The client secret is wrong.")
        if audience is None:
            return self._error(400, "invalid_scope", 70011, "The value of 'scope' is not valid.")
        return None

    def _account(self, app_id: str) -> Account | None:
        for account in self._world.directory.on(Channel.TEAMS):
            if isinstance(account.bot, TeamsBot) and account.bot.app_id == app_id:
                return account
        return None

    def _audience(self, scope: str) -> str | None:
        graph = {GRAPH_SCOPE, f"{self._world.url}/graph/.default", f"{self._world.url}/graph/v1.0/.default"}
        return "bot" if scope == BOT_SCOPE else "graph" if scope in graph else None

    def _error(self, status: int, error: str, code: int, text: str) -> web.Response:
        stamp = iso(self._world.clock.seconds())
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        description = f"AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}"
        body = {
            "error": error,
            "error_description": description,
            "error_codes": [code],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
        }
        return web.Response(status=status, body=orjson.dumps(body), headers=JSON_HEADERS)

    def _wrong(self, fault: Fault) -> web.Response:
        if fault.kind == "throttle":
            wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            response = self._error(429, "temporarily_unavailable", 90055, "Too many requests.")
            response.headers.update(wait)
            return response
        if fault.kind == "status" and (fault.status or 500) >= 500:
            return plain(fault.status or 500, fault.body or "Service unavailable")
        return self._error(fault.status or 401, fault.code or "invalid_client", 7000215, "Refused on request.")


def _bearer(account: Account, audience: str, lifetime: int) -> str:
    """A bearer token; it is looked up, not verified, so any signature does."""
    now = int(time.time())
    claims = {
        "aud": audience,
        "appid": account.name,
        "iat": now,
        "exp": now + lifetime,
        "uti": secrets.token_hex(8),
    }
    return jwt.encode(claims, secrets.token_hex(32), algorithm="HS256")
