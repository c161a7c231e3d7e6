"""Every error of the endpoint as one kind of body (RFC 9457), decided in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from bot.admin.shapes.common import Problem, faults_out
from bot.admin.validation import NotJson
from broadcast.errors import Ambiguous, Conflict, Fault, Invalid, NotFound, Removed, StoreUnavailable

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
_STARTED = web.RequestKey("clarion_started", bool)
_KEPT = ("Allow", "WWW-Authenticate")

log = structlog.get_logger(__name__)

#: What an error of ours is to a caller.
STATUSES: Mapping[type[Exception], HTTPStatus] = MappingProxyType(
    {
        NotJson: HTTPStatus.BAD_REQUEST,
        NotFound: HTTPStatus.NOT_FOUND,
        Ambiguous: HTTPStatus.CONFLICT,
        Conflict: HTTPStatus.CONFLICT,
        Removed: HTTPStatus.GONE,
        Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
        StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    }
)


def starts(request: web.Request) -> None:
    """Says that the answer is on its way: what goes wrong now can only cut it off."""
    request[_STARTED] = True


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever is raised into a problem."""
    try:
        return await handler(request)
    except Exception as error:
        if request.get(_STARTED):
            raise
        return problem(error, request)


def problem(error: Exception, request: web.Request) -> web.Response:
    """The answer that an error is. One that nobody foresaw is logged and says nothing of itself."""
    if isinstance(error, web.HTTPException):
        return _http(error, request)
    status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), None)
    if status is None:
        log.error(
            "an admin call failed",
            action="admin_call_failed",
            method=request.method,
            path=request.path,
            exc_info=error,
        )
        return _response(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong here; the log says what")
    if isinstance(error, Invalid):
        return invalid(error.faults)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    return _response(status, str(error), headers=headers)


def invalid(faults: Sequence[Fault]) -> web.Response:
    count = len(faults)
    detail = "1 field is at fault" if count == 1 else f"{count} fields are at fault"
    return _response(HTTPStatus.UNPROCESSABLE_ENTITY, detail, title="Invalid input", faults=faults)


def _http(error: web.HTTPException, request: web.Request) -> web.Response:
    if error.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        log.warning(
            "an admin call was refused",
            action="admin_call_refused",
            method=request.method,
            path=request.path,
            status=error.status,
        )
    kept = {name: error.headers[name] for name in _KEPT if name in error.headers}
    match error:
        case web.HTTPMethodNotAllowed():
            detail = f"{error.method} is not possible here; possible: {', '.join(sorted(error.allowed_methods))}"
        case web.HTTPNotFound():
            detail = f"there is nothing at {request.path}"
        case web.HTTPRequestEntityTooLarge():
            detail = error.text or "the body is too large"
        case _:
            detail = error.text or error.reason
    return _response(HTTPStatus(error.status), detail, headers=kept)


def _response(
    status: HTTPStatus,
    detail: str,
    *,
    title: str | None = None,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] = MappingProxyType({}),
) -> web.Response:
    body = Problem(title=title or status.phrase, status=status, detail=detail, errors=faults_out(faults))
    return web.Response(
        status=status, body=body.model_dump_json().encode(), content_type=CONTENT_TYPE, headers=dict(headers)
    )
