"""A small HTTP server on loopback that answers as it is told and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

#: Answers nothing: the connection closes once the request was read.
LOST = object()


@dataclass
class Platform:
    """`answers` are used up in turn, the last one stays: a status with a body, or `LOST`."""

    url: str = ""
    answers: deque[Any] = field(default_factory=deque)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def says(self, *answers: Any) -> None:
        self.answers = deque(answers)

    async def serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append((request.path, orjson.loads(body) if body else None))
        self.headers.append(dict(request.headers))
        self.arrived.set()
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if answer is LOST:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        status, said = answer
        return web.Response(status=status, body=said if isinstance(said, bytes) else orjson.dumps(said))


@asynccontextmanager
async def platform() -> AsyncIterator[Platform]:
    """A running server."""
    served = Platform()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", served.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield served
    finally:
        await runner.cleanup()
