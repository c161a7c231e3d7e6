"""What a caller sends, taken in up to a limit and never held in memory as a whole when it is a file."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

MAX_JSON = 1024 * 1024
MAX_UPLOAD = 64 * 1024 * 1024
_IN_MEMORY = 1024 * 1024
_CHUNK = 64 * 1024
_MAX_PARTS = 20


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent. `file` stands at its start; `digest` tells two bodies apart, whatever they were wrapped in."""

    file: BinaryIO
    digest: str
    content_type: str
    filename: str = ""


@asynccontextmanager
async def received(request: web.Request, limit: int, *, upload: bool) -> AsyncIterator[Body]:
    """The body, for as long as the context lasts. Of a form (uploads only) it is the first file. Raises 413 beyond
    `limit` bytes, counted as they unpack."""
    if (request.content_length or 0) > limit and not upload:
        raise _too_large(limit)
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
        file = cast("BinaryIO", spool)
        if upload and request.content_type.startswith("multipart/"):
            yield await _form_file(request, file, limit)
        else:
            digest = await _keep(request.content.iter_chunked(_CHUNK), file, limit)
            yield Body(file, digest, request.content_type)


async def _form_file(request: web.Request, file: BinaryIO, limit: int) -> Body:
    try:
        part = await _first_file(request)
        if part is None:
            raise web.HTTPBadRequest(text="the form has no file; send one, such as curl -F file=@people.csv")
        digest = await _keep(_chunks(part), file, limit)
    except (ValueError, AssertionError, HttpProcessingError) as error:
        raise web.HTTPBadRequest(text="the form cannot be read") from error
    return Body(file, digest, part.headers.get("Content-Type", "").partition(";")[0].strip(), part.filename or "")


async def _first_file(request: web.Request) -> BodyPartReader | None:
    reader = await request.multipart()
    for _ in range(_MAX_PARTS):
        part = await reader.next()
        if part is None:
            return None
        if isinstance(part, BodyPartReader) and (part.filename or part.name == "file"):
            return part
    return None


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(_CHUNK):
        yield chunk


async def _keep(chunks: AsyncIterator[bytes], file: BinaryIO, limit: int) -> str:
    """Writes what comes to the file, and rewinds it. Answers the digest."""
    digest, size = hashlib.sha256(), 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        digest.update(chunk)
        file.write(chunk)
    file.seek(0)
    return digest.hexdigest()


def _too_large(limit: int) -> web.HTTPRequestEntityTooLarge:
    return web.HTTPRequestEntityTooLarge(limit, limit, text=f"the body is too large; {limit} bytes is the most")
