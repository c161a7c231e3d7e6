"""Microsoft Graph: presence, users, and installing the app for a user (PLATFORMS B, A3)."""

import re
import uuid
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from sandbox.clock import iso
from sandbox.directory import Account, Contact, Standing
from sandbox.faults import Fault, FaultKind, carry_out
from sandbox.limits import Window, whole_seconds
from sandbox.login import Login
from sandbox.people import Person
from sandbox.teams import Teams
from sandbox.world import JSON_HEADERS, Json, World, plain

MAX_IDS = 650
USER_FIELDS = ("id", "displayName", "givenName", "surname", "mail", "userPrincipalName", "preferredLanguage")
FILTER = re.compile(r"^\s*(mail|userPrincipalName|id)\s+eq\s+'((?:[^']|'')*)'\s*$", re.IGNORECASE)
PAGE = 100

Serve = Callable[[web.Request, bytes, Account], web.Response]


class Graph:
    """The part of Graph that a bot with presence needs."""

    channel = "graph"

    def __init__(self, world: World, login: Login, teams: Teams) -> None:
        self._world = world
        self._login = login
        self._teams = teams
        self._windows: dict[str, Window] = {}

    def routes(self) -> list[web.RouteDef]:
        """Where Graph listens."""
        base = "/graph/v1.0"
        installed = base + "/users/{user}/teamwork/installedApps"
        return [
            web.post(base + "/communications/getPresencesByUserId", self._served("getPresences", self._presences)),
            web.get(base + "/communications/presences/{user}", self._served("getPresence", self._presence)),
            web.get(base + "/users/{user}/presence", self._served("getPresence", self._presence)),
            web.get(base + "/users", self._served("listUsers", self._users)),
            web.get(base + "/users/{user}", self._served("getUser", self._user)),
            web.post(installed, self._served("installApp", self._install)),
        ]

    def reset(self) -> None:
        """Forget what was asked so far."""
        self._windows.clear()

    def _served(self, method: str, serve: Serve) -> Callable[[web.Request], Any]:
        async def handler(request: web.Request) -> web.Response:
            raw = await request.read()

            async def answer() -> web.Response:
                return self._checked(request, raw, serve)

            fault = self._world.faults.strike(self.channel, method)
            response = (
                await answer()
                if fault is None
                else await carry_out(fault, request, answer, self._wrong, self._world.closing)
            )
            self._world.stats.requests[self.channel, method, response.status] += 1
            return response

        return handler

    def _checked(self, request: web.Request, raw: bytes, serve: Serve) -> web.Response:
        grant = self._login.grant_of(request, "graph")
        if grant is None:
            return self._error(401, "InvalidAuthenticationToken", "The access token is not valid.")
        now = self._world.clock.seconds()
        most = self._world.settings.limits.graph_per_30_seconds
        window = self._windows.setdefault(grant.account.name, Window(most, 30.0))
        wait = window.wait(now)
        if wait > 0 and self._world.breach(self.channel, grant.account.name, "requests_per_30_seconds"):
            return self._throttled(whole_seconds(wait))
        window.note(now)
        return serve(request, raw, grant.account)

    def _presences(self, _request: web.Request, raw: bytes, account: Account) -> web.Response:
        try:
            ids = orjson.loads(raw)["ids"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return self._error(400, "BadRequest", "The body must hold a list 'ids'.")
        if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_IDS:
            return self._error(400, "BadRequest", f"Between 1 and {MAX_IDS} user ids are allowed.")
        value = []
        for user_id in ids:
            contact = account.by_user.get(str(user_id).lower())
            if contact is not None:
                value.append(self._presence_json(contact.person))
        return _json({"@odata.context": self._context("communications/presences"), "value": value})

    def _presence(self, request: web.Request, _raw: bytes, account: Account) -> web.Response:
        contact = _find(account, request.match_info["user"])
        if contact is None:
            return self._missing(request.match_info["user"])
        return _json(self._presence_json(contact.person))

    def _presence_json(self, person: Person) -> Json:
        presence = self._world.presence_of(person)
        return {"id": person.entra_id, "availability": presence.availability, "activity": presence.activity}

    def _user(self, request: web.Request, _raw: bytes, account: Account) -> web.Response:
        contact = _find(account, request.match_info["user"])
        if contact is None:
            return self._missing(request.match_info["user"])
        return _json({"@odata.context": self._context("users/$entity"), **_chosen(request, contact.person)})

    def _users(self, request: web.Request, _raw: bytes, account: Account) -> web.Response:
        people = [contact.person for contact in account.by_person.values()]
        condition = request.query.get("$filter")
        if condition is not None:
            match = FILTER.match(condition)
            if match is None:
                return self._error(400, "Request_UnsupportedQuery", "This filter is not served here.")
            people = [one for one in people if _fits(one, match[1].lower(), match[2].replace("''", "'"))]
        top = int(request.query.get("$top", PAGE))
        skip = int(request.query.get("$skiptoken", 0))
        page = people[skip : skip + top]
        body: Json = {"@odata.context": self._context("users"), "value": [_chosen(request, one) for one in page]}
        if skip + top < len(people):
            query = {**request.query, "$skiptoken": str(skip + top)}
            body["@odata.nextLink"] = str(request.url.with_query(query))
        return _json(body)

    def _install(self, request: web.Request, _raw: bytes, account: Account) -> web.Response:
        contact = _find(account, request.match_info["user"])
        if contact is None:
            return self._missing(request.match_info["user"])
        if contact.standing in {Standing.ACTIVE, Standing.BLOCKED}:
            return self._error(409, "Conflict", "The app is installed for this user already.")
        self._teams.start(contact, "")
        return web.Response(status=201)

    def _missing(self, user: str) -> web.Response:
        text = f"Resource '{user}' does not exist or one of its queried reference-property objects are not present."
        return self._error(404, "Request_ResourceNotFound", text)

    def _error(self, status: int, code: str, text: str) -> web.Response:
        inner = {
            "date": iso(self._world.clock.seconds())[:19],
            "request-id": str(uuid.uuid4()),
            "client-request-id": str(uuid.uuid4()),
        }
        return _json({"error": {"code": code, "message": text, "innerError": inner}}, status=status)

    def _throttled(self, retry_after: int | None) -> web.Response:
        response = self._error(429, "TooManyRequests", "Too many requests.")
        if retry_after is not None:
            response.headers["Retry-After"] = str(retry_after)
        return response

    def _wrong(self, fault: Fault) -> web.Response:
        if fault.kind is FaultKind.THROTTLE:
            return self._throttled(fault.retry_after)
        if fault.kind is FaultKind.STATUS and fault.body is not None:
            return plain(fault.status or 500, fault.body)
        status = fault.status or (403 if fault.kind is FaultKind.REFUSE else 500)
        return self._error(status, fault.code or _code_of(status), "An error on request.")

    def _context(self, what: str) -> str:
        return f"{self._world.url}/graph/v1.0/$metadata#{what}"


def _code_of(status: int) -> str:
    codes = {401: "InvalidAuthenticationToken", 403: "Forbidden", 503: "ServiceUnavailable"}
    return codes.get(status, "InternalServerError" if status >= 500 else "BadRequest")


def _find(account: Account, user: str) -> Contact | None:
    wanted = user.lower()
    contact = account.by_user.get(wanted)
    if contact is not None:
        return contact
    return next((one for one in account.by_person.values() if one.person.email.lower() == wanted), None)


def _fits(person: Person, field: str, wanted: str) -> bool:
    return (person.entra_id if field == "id" else person.email).lower() == wanted.lower()


def _chosen(request: web.Request, person: Person) -> Json:
    user = {
        "id": person.entra_id,
        "displayName": person.name,
        "givenName": person.first_name,
        "surname": person.last_name,
        "mail": person.email,
        "userPrincipalName": person.email,
        "preferredLanguage": person.locale,
    }
    wanted = [one.strip() for one in request.query.get("$select", ",".join(USER_FIELDS)).split(",")]
    return {field: user[field] for field in wanted if field in user}


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), headers=JSON_HEADERS)
