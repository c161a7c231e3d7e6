"""A way out for tests, and on which event loops those of a module run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from bot.channels.http import Http, HttpSettings

_PLAIN = {"asyncio": asyncio.new_event_loop}
_BOTH = {**_PLAIN, "uvloop": uvloop.new_event_loop}
#: What lies right on the transports of a loop runs on both that there are.
_ON_BOTH = "tests.channels.test_connections"

Factories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Factories:
    module = item.getparent(pytest.Module)
    return _BOTH if module is not None and module.obj.__name__ == _ON_BOTH else _PLAIN


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    client = Http(HttpSettings(connect=2.0, total=4.0, body_limit=1000))
    yield client
    await client.close()
