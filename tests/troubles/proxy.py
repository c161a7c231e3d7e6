"""A network between a store and its database that can be cut, and that can lose an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_CHUNK = 65_536


class Proxy:
    """Passes on whatever comes to `port`. `cut` breaks every connection and refuses new ones until `mend`;
    `lose_answer_to` cuts once a request with these bytes was answered, and keeps the answer."""

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._lose: bytes | None = None
        self.port = 0
        self.lost = asyncio.Event()

    async def mend(self) -> None:
        self.lost.clear()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def cut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in self._writers:
            writer.transport.abort()

    def lose_answer_to(self, words: bytes) -> None:
        self._lose = words

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError):
                there_reader, there_writer = await asyncio.open_connection(*self._there)
                self._writers.add(there_writer)
                try:
                    await self._pass_on(reader, writer, there_reader, there_writer)
                finally:
                    self._writers.discard(there_writer)
                    there_writer.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> None:
        """Until either side ends."""
        doomed = asyncio.Event()

        async def up() -> None:
            while data := await reader.read(_CHUNK):
                if self._lose is not None and self._lose in data:
                    self._lose = None
                    doomed.set()
                there_writer.write(data)
                await there_writer.drain()

        async def down() -> None:
            while data := await there_reader.read(_CHUNK):
                if doomed.is_set():
                    await self.cut()
                    self.lost.set()
                    return
                writer.write(data)
                await writer.drain()

        ways = [asyncio.create_task(way(), name="proxy") for way in (up, down)]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


@asynccontextmanager
async def proxied(host: str, port: int) -> AsyncIterator[Proxy]:
    """Whole to begin with."""
    proxy = Proxy(host, port)
    await proxy.mend()
    try:
        yield proxy
    finally:
        await proxy.cut()
        await asyncio.sleep(0)
