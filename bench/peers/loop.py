"""What the compared programs share: the order on standard input, the loop, the figures on standard output."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

Order = dict[str, Any]
Send = Callable[[str], Awaitable[object]]


def order() -> Order:
    told: Order = json.load(sys.stdin)
    return told


async def send_all(told: Order, send: Send) -> None:
    """As many at once as the order says, each taking the next chat when it has sent."""
    for chat in told["chats"][: told["concurrency"]]:
        await send(chat)  # connections and code are warm before the clock runs, as the others' are
    left = iter(told["chats"])

    async def worker() -> None:
        for chat in left:
            await send(chat)

    cpu, began = _cpu(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(told["concurrency"])))
    seconds, used = time.perf_counter() - began, _cpu() - cpu
    print(json.dumps({"messages": len(told["chats"]), "seconds": seconds, "cpu": used}))


def run(main: Callable[[], Any]) -> None:
    """On uvloop, as everybody here."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
