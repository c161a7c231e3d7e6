"""A host that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

import structlog

from bot import memory
from bot.app import Host
from bot.settings import Settings

log = structlog.get_logger(__name__)


async def until_stopped(
    settings: Settings, *, say: Callable[[str], None], engine: bool = True, web: bool = True
) -> None:
    """Runs until SIGTERM or SIGINT; a second one does not wait for what is in flight."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows has none: there Ctrl-C cancels
            loop.add_signal_handler(number, _stop, stop)
    async with Host(settings, engine=engine, web=web, say=say, stopping=stop).running():
        memory.settle()
        log.info("started", action="started", engine=engine, web=web)
        if not web:
            say("Clarion's engine runs; Ctrl-C ends it")
        await stop.wait()
        log.info("stopping", action="stopping")


def _stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(1)
    stop.set()
