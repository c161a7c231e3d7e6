"""Routes that say of themselves who may call them, what they take and what they give; and the way of every call:
who, what, once, then the handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from bot.admin import auth, bodies, problems
from bot.admin.auth import Principal, Role
from bot.admin.bodies import Body
from bot.admin.idempotency import Answers
from bot.admin.services import AdminServices
from bot.admin.validation import Nothing, Shape, read_json, read_query

log = structlog.get_logger(__name__)

SAFE = "GET"
JSON = "application/json"

Takes = TypeVar("Takes", bound=Shape)
Gives = TypeVar("Gives", bound=Shape)
Later = TypeVar("Later", bound=Shape)


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was let in. `body` is there for calls that are not safe."""

    services: AdminServices
    by: Principal
    request: web.Request
    body: Body | None = None

    @property
    def id(self) -> str:
        """The id in the address."""
        return self.request.match_info["id"]


Shaped = Callable[[Call, Takes], Awaitable[Gives]]
Streamed = Callable[[Call, Takes], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """`role` ``None`` is open to all. `takes` is the query of a safe call and else the body, unless it is an
    `upload`. `gives` ``None`` is an answer of its own kind, `produces`. `accepts` is what it gives instead,
    with 202, where the work goes on in the background."""

    method: str
    path: str
    role: Role | None
    takes: type[Shape]
    gives: type[Shape] | None
    handler: Callable[[Call, Any], Awaitable[Shape | web.StreamResponse]]
    tag: str
    status: int = 200
    upload: bool = False
    produces: str = JSON
    accepts: type[Shape] | None = None

    @property
    def summary(self) -> str:
        return (self.handler.__doc__ or "").strip()

    @property
    def name(self) -> str:
        return f"{self.tag}_{self.handler.__name__}"

    @property
    def limit(self) -> int:
        return bodies.MAX_UPLOAD if self.upload else bodies.MAX_JSON


@dataclass(frozen=True, slots=True)
class RouteTable:
    """The routes of one noun, in the order in which they are declared."""

    tag: str
    routes: list[Route] = field(default_factory=list)

    def get(
        self, path: str, *, role: Role, takes: type[Takes], gives: type[Gives]
    ) -> Callable[[Shaped[Takes, Gives]], Shaped[Takes, Gives]]:
        return self._shaped(SAFE, path, role=role, takes=takes, gives=gives)

    def post(
        self,
        path: str,
        *,
        role: Role,
        takes: type[Takes],
        gives: type[Gives],
        status: int = 200,
        upload: bool = False,
    ) -> Callable[[Shaped[Takes, Gives]], Shaped[Takes, Gives]]:
        return self._shaped("POST", path, role=role, takes=takes, gives=gives, status=status, upload=upload)

    def post_or_accept(
        self, path: str, *, role: Role, takes: type[Takes], gives: type[Gives], accepts: type[Later]
    ) -> Callable[[Shaped[Takes, Gives | Later]], Shaped[Takes, Gives | Later]]:
        """A POST that is answered at once, or accepted (202) and worked on in the background."""

        def declare(handler: Shaped[Takes, Gives | Later]) -> Shaped[Takes, Gives | Later]:
            self.routes.append(Route("POST", path, role, takes, gives, handler, self.tag, accepts=accepts))
            return handler

        return declare

    def patch(
        self, path: str, *, role: Role, takes: type[Takes], gives: type[Gives]
    ) -> Callable[[Shaped[Takes, Gives]], Shaped[Takes, Gives]]:
        return self._shaped("PATCH", path, role=role, takes=takes, gives=gives)

    def download(
        self, path: str, *, role: Role | None, takes: type[Takes], produces: str
    ) -> Callable[[Streamed[Takes]], Streamed[Takes]]:
        """A GET whose answer is no shape."""

        def declare(handler: Streamed[Takes]) -> Streamed[Takes]:
            self.routes.append(Route(SAFE, path, role, takes, None, handler, self.tag, produces=produces))
            return handler

        return declare

    def _shaped(
        self, method: str, path: str, *, role: Role, takes: type[Takes], gives: type[Gives], **more: Any
    ) -> Callable[[Shaped[Takes, Gives]], Shaped[Takes, Gives]]:
        def declare(handler: Shaped[Takes, Gives]) -> Shaped[Takes, Gives]:
            self.routes.append(Route(method, path, role, takes, gives, handler, self.tag, **more))
            return handler

        return declare


# --- the way of a call --------------------------------------------------------------------------------


def handlers(routes: Iterable[Route], services: AdminServices) -> list[web.RouteDef]:
    """The routes as aiohttp takes them. An id in an address holds no colon: what comes after one is a verb."""
    answers = Answers(services.store, services.clock)
    return [
        web.route(route.method, route.path.replace("{id}", "{id:[^:/]+}"), _handler(route, services, answers))
        for route in routes
    ]


def _handler(route: Route, services: AdminServices, answers: Answers) -> Handler:
    async def safe(request: web.Request) -> web.StreamResponse:
        by = await _admitted(request, route, services)
        given = read_query(route.takes, _query(request))
        return _rendered(route, await route.handler(Call(services, by, request), given))

    async def unsafe(request: web.Request) -> web.StreamResponse:
        by = await _admitted(request, route, services)
        read_query(Nothing, _query(request))
        async with bodies.received(request, route.limit, upload=route.upload) as body:
            call = Call(services, by, request, body)
            response = await answers.once(request, by, body.digest, lambda: _acted(route, call, body))
        log.info(
            "an admin call",
            action="admin_call",
            by=by.id,
            method=request.method,
            path=request.path,
            status=response.status,
        )
        return response

    return safe if route.method == SAFE else unsafe


async def _admitted(request: web.Request, route: Route, services: AdminServices) -> Principal:
    if route.role is None:
        return Principal("", Role.VIEWER)
    return await auth.admit(request, route.role, services.store, services.bootstrap_hash)


async def _acted(route: Route, call: Call, body: Body) -> web.Response:
    """The answer of an unsafe call, also where it is a problem: that is kept for its key as well."""
    try:
        given = Nothing() if route.upload else read_json(route.takes, body.file.read())
        answer = _rendered(route, await route.handler(call, given))
    except Exception as error:  # noqa: BLE001 - the outermost edge of a call; told and logged there
        return problems.problem(error, call.request)
    if not isinstance(answer, web.Response):
        raise TypeError(f"{route.name} streams, and cannot be kept for its key")
    return answer


def _query(request: web.Request) -> dict[str, str]:
    """Each parameter with its values, several of them with commas between."""
    return {name: ",".join(request.query.getall(name)) for name in request.query}


def _rendered(route: Route, answer: Shape | web.StreamResponse) -> web.StreamResponse:
    if isinstance(answer, web.StreamResponse):
        return answer
    accepted = route.accepts is not None and isinstance(answer, route.accepts)
    status = HTTPStatus.ACCEPTED if accepted else route.status
    return web.Response(status=status, body=answer.model_dump_json().encode(), content_type=JSON)
