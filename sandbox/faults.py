"""Things that go wrong on request: rules set through /sandbox/faults, and how each kind is carried out."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from aiohttp import web

from sandbox import draws
from sandbox.clock import SandboxClock


class FaultKind(StrEnum):
    """What happens instead of, or besides, the right answer."""

    STATUS = "status"
    """The HTTP status `status`."""
    THROTTLE = "throttle"
    """The platform's "too many requests", with `retry_after` if given."""
    TIMEOUT = "timeout"
    """No answer for `seconds` (120), then the connection closes."""
    DROP = "drop"
    """The connection closes without an answer."""
    SLOW = "slow"
    """The right answer, `seconds` late."""
    REFUSE = "refuse"
    """The platform says the person blocked the bot."""
    PLATFORM_ERROR = "platform_error"
    """The platform's error named `code`."""


@dataclass(slots=True)
class Fault:
    """One rule. None matches anything; seconds are wall seconds, `seconds_active` sandbox seconds."""

    channel: str
    kind: FaultKind
    method: str | None = None
    person: str | None = None
    account: str | None = None
    status: int | None = None
    code: str | None = None
    retry_after: int | None = None
    seconds: float | None = None
    body: str | None = None
    after_effect: bool = False
    """The request takes effect (the message is delivered), only its answer is lost or replaced."""
    count: int | None = None
    """How many requests it hits; None is all of them."""
    probability: float = 1.0
    seconds_active: float | None = None
    id: str = ""
    hits: int = 0
    until: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As `/sandbox/faults` shows it."""
        return asdict(self)


class Faults:
    """The rules in force; the first that fits is carried out."""

    def __init__(self, seed: int, clock: SandboxClock) -> None:
        self.rules: list[Fault] = []
        self._seed = seed
        self._clock = clock
        self._ids = itertools.count(1)
        self._tries = 0

    def add(self, fault: Fault) -> Fault:
        """Put a rule in force."""
        fault.id = f"fault-{next(self._ids)}"
        if fault.seconds_active is not None:
            fault.until = self._clock.seconds() + fault.seconds_active
        self.rules.append(fault)
        return fault

    def remove(self, fault_id: str) -> bool:
        """Take a rule back; False when there is none of that name."""
        before = len(self.rules)
        self.rules = [rule for rule in self.rules if rule.id != fault_id]
        return len(self.rules) < before

    def clear(self) -> None:
        """Take all rules back."""
        self.rules.clear()

    def strike(
        self, channel: str, method: str, account: str | None = None, person: str | None = None
    ) -> Fault | None:
        """The fault that hits this request, if any."""
        for rule in self.rules:
            if rule.channel != channel or not self._in_force(rule):
                continue
            if not _same(rule.method, method) or rule.account not in {None, account}:
                continue
            if rule.person in {None, person} and self._drawn(rule):
                rule.hits += 1
                return rule
        return None

    def _in_force(self, rule: Fault) -> bool:
        if rule.count is not None and rule.hits >= rule.count:
            return False
        return rule.until is None or self._clock.seconds() < rule.until

    def _drawn(self, rule: Fault) -> bool:
        if rule.probability >= 1.0:
            return True
        self._tries += 1
        return draws.fraction(self._seed, rule.id, self._tries) < rule.probability


def _same(wanted: str | None, method: str) -> bool:
    return wanted is None or wanted.lower() == method.lower()


async def carry_out(
    fault: Fault,
    request: web.Request,
    right: Callable[[], Awaitable[web.Response]],
    wrong: Callable[[Fault], web.Response],
    closing: asyncio.Event,
) -> web.Response:
    """Answer a request as the fault says; `wrong` makes the platform's own form of an error."""
    if fault.kind is FaultKind.SLOW:
        await pause(fault.seconds or 1.0, closing)
        return await right()
    if fault.after_effect:
        await right()
    if fault.kind is FaultKind.TIMEOUT:
        await pause(fault.seconds or 120.0, closing)
    if fault.kind in {FaultKind.TIMEOUT, FaultKind.DROP}:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)
    return wrong(fault)


async def pause(seconds: float, closing: asyncio.Event) -> None:
    """Wait wall seconds, or until the sandbox closes."""
    try:
        async with asyncio.timeout(seconds):
            await closing.wait()
    except TimeoutError:
        return
