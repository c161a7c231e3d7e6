"""What the platforms and the people send to the bots: in order per person, many people at once, with retries."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from sandbox.agenda import Agenda
from sandbox.clock import SandboxClock, iso
from sandbox.stats import Stats

logger = logging.getLogger(__name__)

LOG_LENGTH = 2000
"""Callbacks remembered for /sandbox/callbacks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a bot answered; `status` None means it did not, and `error` says why."""

    status: int | None
    body: bytes = b""
    retry_after: str | None = None
    location: str | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the bot took it (2xx)."""
        return self.status is not None and 200 <= self.status < 300

    def as_json(self) -> dict[str, Any]:
        """As the control interface shows it."""
        return {"status": self.status, "error": self.error, "location": self.location, "body": readable(self.body)}


@dataclass(slots=True, eq=False)
class Errand:
    """One request to a bot (or to a link a person follows).

    `url` is asked for at each try and None means nobody listens; `retry` maps (tries so far, answer) to sandbox
    seconds until the next try, None gives up; `keeps_lane` makes the person's later errands wait meanwhile.
    """

    channel: str
    account: str
    person: str
    event: str
    url: Callable[[], str | None]
    body: bytes
    headers: Mapping[str, str]
    method: str = "POST"
    retry: Callable[[int, Answer], float | None] = lambda _tries, _answer: None
    on_answer: Callable[[Answer], None] = lambda _answer: None
    keeps_lane: bool = False
    tries: int = 0
    first: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def lane(self) -> tuple[str, str, str]:
        """Errands of one lane go one after the other."""
        return self.channel, self.account, self.person


class Callbacks:
    """Delivers errands with a bounded number of workers."""

    def __init__(
        self, *, clock: SandboxClock, agenda: Agenda, stats: Stats, workers: int, timeout_seconds: float
    ) -> None:
        self.log: deque[dict[str, Any]] = deque(maxlen=LOG_LENGTH)
        self._clock = clock
        self._agenda = agenda
        self._stats = stats
        self._workers = workers
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._lanes: dict[tuple[str, str, str], deque[Errand]] = {}
        self._ready: asyncio.Queue[tuple[str, str, str]] = asyncio.Queue()
        self._open: set[Errand] = set()
        self._generation = 0

    @property
    def pending(self) -> int:
        """Errands not yet delivered nor given up."""
        return len(self._open)

    def post(self, errand: Errand) -> asyncio.Future[Answer]:
        """Deliver when its turn comes; the future has the answer to the first try."""
        self._open.add(errand)
        lane = self._lanes.get(errand.lane)
        if lane is None:
            self._lanes[errand.lane] = deque([errand])
            self._ready.put_nowait(errand.lane)
        else:
            lane.append(errand)
        return errand.first

    async def run(self) -> None:
        """Deliver until cancelled; what is then undelivered gets an answer saying so."""
        connector = aiohttp.TCPConnector(limit=self._workers * 2)
        async with aiohttp.ClientSession(timeout=self._timeout, connector=connector) as session:
            try:
                async with asyncio.TaskGroup() as group:
                    for number in range(self._workers):
                        group.create_task(self._work(session), name=f"sandbox-callbacks-{number}")
            finally:
                self.clear()

    def clear(self) -> None:
        """Give everything up."""
        self._generation += 1
        for errand in self._open:
            _settle(errand, Answer(None, error="the sandbox gave up"))
        self._open.clear()
        self._lanes.clear()
        while not self._ready.empty():
            self._ready.get_nowait()

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            key = await self._ready.get()
            lane = self._lanes.get(key)
            if not lane:
                self._lanes.pop(key, None)
                continue
            generation = self._generation
            answer = await self._try(session, lane[0])
            if generation == self._generation:
                self._after(key, lane, lane[0], answer)

    async def _try(self, session: aiohttp.ClientSession, errand: Errand) -> Answer:
        errand.tries += 1
        url = errand.url()
        if url is None:
            return Answer(None, error="no address to call")
        begun = time.perf_counter()
        answer = await _exchange(session, errand, url)
        self.log.append(
            {
                "at": iso(self._clock.seconds()),
                "channel": errand.channel,
                "account": errand.account,
                "person": errand.person,
                "event": errand.event,
                "url": url,
                "try": errand.tries,
                "took_ms": round((time.perf_counter() - begun) * 1000, 1),
                "request": readable(errand.body),
                **answer.as_json(),
            }
        )
        return answer

    def _after(self, key: tuple[str, str, str], lane: deque[Errand], errand: Errand, answer: Answer) -> None:
        _settle(errand, answer)
        self._stats.callbacks[errand.channel, "delivered" if answer.ok else "refused"] += 1
        again = None if answer.ok or answer.error == "no address to call" else errand.retry(errand.tries, answer)
        if again is None:
            self._open.discard(errand)
            try:
                errand.on_answer(answer)
            except Exception:
                # A bot's odd answer is the bot's business; the worker goes on.
                logger.exception("sandbox_answer_not_understood")
        elif errand.keeps_lane:
            self._agenda.after(again, lambda: self._ready.put_nowait(key))
            return
        else:
            self._agenda.after(again, lambda: self._post_again(errand))
        lane.popleft()
        if lane:
            self._ready.put_nowait(key)
        else:
            self._lanes.pop(key, None)

    def _post_again(self, errand: Errand) -> None:
        if errand in self._open:
            self.post(errand)


async def _exchange(session: aiohttp.ClientSession, errand: Errand, url: str) -> Answer:
    try:
        async with session.request(
            errand.method, url, data=errand.body or None, headers=errand.headers, allow_redirects=False
        ) as response:
            body = await response.read()
            headers = response.headers
            return Answer(response.status, body, headers.get("Retry-After"), headers.get("Location"))
    except TimeoutError:
        return Answer(None, error="no answer in time")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Answer(None, error=f"{type(error).__name__}: {error}")


def _settle(errand: Errand, answer: Answer) -> None:
    if not errand.first.done():
        errand.first.set_result(answer)


def readable(body: bytes) -> Any:
    """JSON where it is JSON, else the beginning of the text."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:2000].decode(errors="replace")
