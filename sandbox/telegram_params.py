"""Parameters of the Bot API, however a client encodes them."""

import orjson
from aiohttp import web
from aiohttp.web_request import FileField

from sandbox.world import Json

NESTED = ("reply_markup", "entities", "caption_entities", "media", "allowed_updates", "commands", "message_ids",
          "link_preview_options", "reply_parameters", "reaction")  # fmt: skip
"""Parameters that are JSON inside a form."""


async def read_params(request: web.Request) -> Json:
    """Parameters from the query or the body, however they are encoded."""
    kind = request.headers.get("Content-Type", "")
    if kind.startswith("application/json"):
        body = await request.read()
        parsed = orjson.loads(body) if body else {}
        if not isinstance(parsed, dict):
            raise ValueError("object expected")
        return parsed
    params: Json = dict(request.query)
    if request.method == "POST":
        for key, value in (await request.post()).items():
            params[key] = _upload(value) if isinstance(value, FileField) else value
    for key in NESTED:
        if isinstance(params.get(key), str) and params[key]:
            params[key] = orjson.loads(params[key])
    return params


def _upload(part: FileField) -> Json:
    with part.file:
        return {"upload": part.filename, "content_type": part.content_type, "bytes": len(part.file.read())}
