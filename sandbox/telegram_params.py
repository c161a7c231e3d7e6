"""Parameters of the Bot API, however a client encodes them."""

from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from aiohttp.web_request import FileField

from sandbox.world import Json

MAX_FIELDS = 1000
"""Fields of a form that is read without aiohttp, which refuses more."""
NESTED = ("reply_markup", "entities", "caption_entities", "media", "allowed_updates", "commands", "message_ids",
          "link_preview_options", "reply_parameters", "reaction")  # fmt: skip
"""Parameters that are JSON inside a form."""


async def read_params(request: web.Request) -> Json:
    """Parameters from the query or the body, however they are encoded."""
    kind = request.headers.get("Content-Type", "")
    if kind.startswith("application/json"):
        return _object(await request.read())
    params: Json = dict(request.query)
    if request.method == "POST":
        for key, value in (await request.post()).items():
            params[key] = _upload(value) if isinstance(value, FileField) else value
    return _unfolded(params)


def params_of(kind: str, body: bytes) -> Json | None:
    """Parameters of a body of a content type, where there is no query; None of one that is seldom seen."""
    if kind.startswith("application/json"):
        return _object(body)
    if kind == "application/x-www-form-urlencoded" and body.count(b"&") < MAX_FIELDS:
        return _unfolded(dict(parse_qsl(body.rstrip().decode(), keep_blank_values=True)))
    return None if body else {}


def _object(body: bytes) -> Json:
    parsed = orjson.loads(body) if body else {}
    if not isinstance(parsed, dict):
        raise ValueError("object expected")  # noqa: TRY004 - of the sender's text
    return parsed


def _unfolded(params: Json) -> Json:
    for key in NESTED:
        if isinstance(params.get(key), str) and params[key]:
            params[key] = orjson.loads(params[key])
    return params


def _upload(part: FileField) -> Json:
    with part.file:
        return {"upload": part.filename, "content_type": part.content_type, "bytes": len(part.file.read())}
