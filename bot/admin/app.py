"""The admin endpoint as an application of its own, to be mounted at `PREFIX`."""

from __future__ import annotations

from functools import cache

import orjson
from aiohttp import web

from bot.admin import accounts, broadcasts, campaigns, deliveries, forecasts, recipients
from bot.admin.openapi import describe
from bot.admin.problems import problems
from bot.admin.routing import JSON, Call, Route, RouteTable, handlers
from bot.admin.services import AdminServices
from bot.admin.validation import Nothing

PREFIX = "/api/v1"

description = RouteTable("description")


@description.download("/openapi.json", role=None, takes=Nothing, produces=JSON)
async def openapi(call: Call, _: Nothing) -> web.StreamResponse:  # noqa: ARG001 - the same for everybody
    """This description. It holds no secrets, so it needs no token."""
    return web.Response(body=_document(), content_type=JSON)


ROUTES: tuple[Route, ...] = (
    *recipients.routes.routes,
    *campaigns.routes.routes,
    *forecasts.routes.routes,
    *broadcasts.routes.routes,
    *deliveries.routes.routes,
    *accounts.routes.routes,
    *description.routes,
)


@cache
def _document() -> bytes:
    return orjson.dumps(describe(ROUTES, prefix=PREFIX))


def admin_app(services: AdminServices) -> web.Application:
    """What the host mounts: ``app.add_subapp(PREFIX, admin_app(services))``."""
    app = web.Application(middlewares=[problems])
    app.add_routes(handlers(ROUTES, services))
    app.on_response_prepare.append(_private)
    return app


async def _private(_: web.Request, response: web.StreamResponse) -> None:
    """Answers speak of people: nobody on the way keeps them, or takes them for anything but what they say."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
