"""The endpoint described (OpenAPI 3.1), made from the very routes and shapes that serve it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from openapi_pydantic import (
    Components,
    Info,
    MediaType,
    OpenAPI,
    Operation,
    Parameter,
    ParameterLocation,
    PathItem,
    Reference,
    RequestBody,
    Response,
    Schema,
    SecurityScheme,
)
from openapi_pydantic.util import PydanticSchema, construct_open_api_with_schema_class

from bot import importing
from bot.admin import idempotency, problems
from bot.admin.routing import JSON, SAFE, Route
from bot.admin.shapes.common import Problem
from bot.admin.validation import Nothing, Shape

API_VERSION = "1"
_BEARER = "token"
_NOT_KEPT_FOR_EVER = "/broadcasts/{id}/deliveries"
_DESCRIPTION = (
    "Instants are ISO 8601 in UTC, dates are local dates, null means unknown or not reported. Every unsafe call "
    "takes an Idempotency-Key: the same key and body within 24 hours give the first answer again, another body is "
    "refused."
)


def describe(routes: Iterable[Route], *, prefix: str) -> dict[str, Any]:
    """The whole description as JSON values."""
    paths: dict[str, PathItem] = {}
    for route in routes:
        item = paths.setdefault(prefix + route.path, PathItem())
        setattr(item, route.method.lower(), _operation(route))
    bare = OpenAPI(
        info=Info(title="Clarion", version=API_VERSION, description=_DESCRIPTION),
        paths=paths,
        components=Components(
            securitySchemes={_BEARER: SecurityScheme(type="http", scheme="bearer")},
        ),
    )
    made = construct_open_api_with_schema_class(bare)
    return made.model_dump(by_alias=True, exclude_none=True, mode="json")


def _operation(route: Route) -> Operation:
    return Operation(
        tags=[route.tag],
        operationId=route.name,
        summary=route.summary,
        description=None if route.role is None else f"Needs the role {route.role}.",
        parameters=[*_parameters(route)],
        requestBody=_request(route),
        responses={str(status): response for status, response in _responses(route)},
        security=[] if route.role is None else [{_BEARER: []}],
    )


# --- what goes in -------------------------------------------------------------------------------------


def _parameters(route: Route) -> Iterator[Parameter | Reference]:
    if "{id}" in route.path:
        yield _parameter("id", ParameterLocation.PATH, {"type": "string"}, required=True)
    if route.method != SAFE:
        schema = {"type": "string", "minLength": 1, "maxLength": idempotency.MAX_KEY}
        yield _parameter(idempotency.HEADER, ParameterLocation.HEADER, schema)
        return
    described = route.takes.model_json_schema()
    for name, schema in described.get("properties", {}).items():
        yield _query(name, _without_references(schema, described.get("$defs", {})))


def _query(name: str, schema: dict[str, Any]) -> Parameter:
    """Several values of one parameter stand in one, with commas between."""
    listed = {"style": "form", "explode": False} if schema.get("type") == "array" else {}
    return _parameter(name, ParameterLocation.QUERY, schema, **listed)


def _parameter(name: str, location: ParameterLocation, schema: dict[str, Any], **more: Any) -> Parameter:
    return Parameter.model_validate({"name": name, "in": location, "schema": schema, **more})


def _without_references(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A parameter stands alone: what its schema refers to is put in its place."""
    if isinstance(schema, list):
        return [_without_references(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _without_references(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _without_references(value, definitions) for key, value in schema.items()}


def _request(route: Route) -> RequestBody | None:
    if route.upload:
        binary = Schema.model_validate({"type": "string", "format": "binary"})
        form = Schema.model_validate(
            {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
        )
        content = {kind: MediaType(media_type_schema=binary) for kind in importing.CONTENT_TYPES}
        return RequestBody(
            content=content | {"multipart/form-data": MediaType(media_type_schema=form)}, required=True
        )
    if route.method == SAFE or route.takes is Nothing:
        return None
    needed = any(field.is_required() for field in route.takes.model_fields.values())
    return RequestBody(content={JSON: _shaped(route.takes)}, required=needed)


# --- what comes out -----------------------------------------------------------------------------------


def _responses(route: Route) -> Iterator[tuple[str, Response]]:
    content = (
        MediaType(media_type_schema=Schema.model_validate({})) if route.gives is None else _shaped(route.gives)
    )
    yield str(route.status), Response(description=route.summary, content={route.produces: content})
    if route.accepts is not None:
        accepted = HTTPStatus.ACCEPTED
        yield (
            str(int(accepted)),
            Response(description=accepted.phrase, content={JSON: _shaped(route.accepts)}),
        )
    for status in _errors(route):
        yield (
            str(int(status)),
            Response(description=status.phrase, content={problems.CONTENT_TYPE: _shaped(Problem)}),
        )


def _errors(route: Route) -> Iterator[HTTPStatus]:
    """The errors that a caller of this route may get."""
    if route.role is not None:
        yield HTTPStatus.UNAUTHORIZED
        yield HTTPStatus.FORBIDDEN
    if "{id}" in route.path:
        yield HTTPStatus.NOT_FOUND
    if route.path.startswith(_NOT_KEPT_FOR_EVER):
        yield HTTPStatus.GONE
    if route.method != SAFE:
        yield from (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if route.upload:
        yield HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    yield HTTPStatus.UNPROCESSABLE_ENTITY
    yield HTTPStatus.SERVICE_UNAVAILABLE


def _shaped(shape: type[Shape]) -> MediaType:
    return MediaType(media_type_schema=PydanticSchema(schema_class=shape))
