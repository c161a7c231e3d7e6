"""How fast webhooks are taken in, against a bare aiohttp handler that only answers.

    python -m bench intake [--events 4000] [--rounds 3] [--burst 10000]

One process serves both on loopback ports of their own: the webhooks of a Telegram and a Viber account as the host
serves them, on SQLite, and a handler that reads the body and answers 200. Nothing is answered by the webhooks
before it is durable. The client is this process: 64 connections that hold finished requests and only read status
and length of an answer, so that the server is what limits both. In each round both get as many requests of the same
sizes.

Of twenty events two are `/start` of somebody new, three are texts and five are presses of a button on Telegram,
five are delivery and five are seen receipts on Viber. Presses and receipts speak of messages that were sent. What
people are answered goes to a stand-in that accepts everything, as sending is measured elsewhere.

At the end comes a burst, over many more connections, and the store is asked what became of every event of the run.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import orjson
import structlog
import uvloop
from aiohttp import web

from bench import figures, world
from bench.bench_million import StandIn
from bench.figures import Figures
from bench.world import Run
from bot.accounts import Accounts, ConfiguredAccount, Face
from bot.chance import SystemChance
from bot.channels.http import Exchange, Http, Reply
from bot.channels.telegram import TelegramAccount, TelegramInbound
from bot.channels.viber import ViberAccount, ViberInbound
from bot.clock import RealClock
from bot.intake import Deed, Intake
from bot.memory import settle
from bot.settings import TelegramSettings, ViberSettings
from bot.webhooks import Webhooks
from broadcast.inbox import Reception
from broadcast.model import (
    BroadcastStatus,
    Button,
    ButtonType,
    ChannelName,
    Conversation,
    Delivery,
    Message,
    Recipient,
    conversation_id,
)
from broadcast.ports import Content, Lease, Page, Store
from broadcast.report import report
from broadcast.tracking import Press, payload
from storage.open import open_store

LEAST = 0.5
WHAT_RATE = "webhook intake, durable on SQLite: requests a second against a bare aiohttp handler"
CONNECTIONS, BURST_CONNECTIONS = 64, 1_000
TELEGRAM, VIBER = "telegram/default", "viber/default"
_TOKEN, _SECRET, _VIBER_TOKEN = "1:bench", "bench-secret", "bench-viber-token"
_BROADCAST = "brd_bench"
_LATER = Button("later", ButtonType.REPLY, "Later", value="later")
_PAGE = 2_000
_NEW, _KNOWN, _MESSAGE = 1_000_000_000, 2_000_000_000, 5_000_000_000_000_000_000


# --- the events ---------------------------------------------------------------------------------------

#: What twenty events are, in their order: mixed, and a receipt of either kind for each Viber message.
_TWENTY = "start press delivered text press seen press delivered seen text delivered start seen press delivered seen text press delivered seen".split()  # noqa: E501, SIM905 - one line reads as what it is


@dataclass(frozen=True, slots=True)
class Counts:
    """How many events of each kind there are, or have been noted."""

    started: int = 0
    texts: int = 0
    pressed: int = 0
    delivered: int = 0
    seen: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.started + other.started,
            self.texts + other.texts,
            self.pressed + other.pressed,
            self.delivered + other.delivered,
            self.seen + other.seen,
        )

    @property
    def total(self) -> int:
        return self.started + self.texts + self.pressed + self.delivered + self.seen


_FIELD = {"start": "started", "text": "texts", "press": "pressed", "delivered": "delivered", "seen": "seen"}


@dataclass(slots=True)
class Events:
    """Makes events that never were before, each of the next person it can be of."""

    _numbers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_FIELD, 0))
    _updates: int = 0

    def make(self, number: int) -> tuple[list[bytes], Counts]:
        """So many requests, ready to be written to a connection."""
        kinds = [_TWENTY[place % len(_TWENTY)] for place in range(number)]
        counts = Counts(**{name: kinds.count(kind) for kind, name in _FIELD.items()})
        return [self._request(kind) for kind in kinds], counts

    def _request(self, kind: str) -> bytes:
        person = self._numbers[kind]
        self._numbers[kind] += 1
        if kind in {"delivered", "seen"}:
            return _viber(kind, person)
        self._updates += 1
        return _telegram(kind, self._updates, person)


def people_for(events: int) -> int:
    """How many people known on each channel are enough for so many events."""
    return events // 4 + len(_TWENTY)


def _telegram(kind: str, update: int, person: int) -> bytes:
    user = (_NEW if kind == "start" else _KNOWN) + person
    sender = {"id": user, "is_bot": False, "first_name": "Ann", "last_name": "Ash", "language_code": "en"}
    message = {"message_id": 7, "date": 1_780_300_800, "chat": {"id": user, "type": "private"}}
    body: dict[str, object]
    if kind == "press":
        data = payload(Press(_delivery(ChannelName.TELEGRAM, person), _LATER.id))
        query = {"id": f"{update}", "from": sender, "message": message, "chat_instance": "1", "data": data}
        body = {"update_id": update, "callback_query": query}
    else:
        text = "/start" if kind == "start" else "What is this about?"
        body = {"update_id": update, "message": {**message, "from": sender, "text": text}}
    headers = {"X-Telegram-Bot-Api-Secret-Token": _SECRET}
    return request(f"/webhooks/{TELEGRAM}", orjson.dumps(body), headers)


def _viber(kind: str, person: int) -> bytes:
    body = orjson.dumps(
        {
            "event": kind,
            "timestamp": 1_780_300_800_000,
            "message_token": _MESSAGE + person,
            "user_id": f"viber-user-{person}",
        }
    )
    signature = hmac.new(_VIBER_TOKEN.encode(), body, hashlib.sha256).hexdigest()
    return request(f"/webhooks/{VIBER}", body, {"X-Viber-Content-Signature": signature})


def request(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def to_bare(one: bytes) -> bytes:
    """The same, to the handler that only answers."""
    path = one.split(b" ", 2)[1]
    return one.replace(path, b"/bare".ljust(len(path), b"-"), 1)


# --- the server ---------------------------------------------------------------------------------------


class _Accepted(Http):
    """Whatever is asked of a platform is done."""

    async def request(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Exchange:
        del method, url, body, headers
        return Reply(200, b'{"ok":true,"result":true}')


class _Silent:
    """A desk that has nothing to say beyond what everybody is told."""

    async def answer(self, _: Deed) -> Content | None:
        return None


async def _done() -> str | None:
    return None


def _accounts() -> Accounts:
    telegram = TelegramAccount(TELEGRAM, _TOKEN, webhook_secret=_SECRET)
    viber = ViberAccount(VIBER, _VIBER_TOKEN, sender="Bench")
    clock, accepted = RealClock(), _Accepted()
    inbound = TelegramInbound(telegram, clock, http=accepted)
    on_telegram = ConfiguredAccount(TelegramSettings(name="default"), Face(StandIn(), inbound, _done), None)
    on_viber = ConfiguredAccount(
        ViberSettings(name="default"), Face(StandIn(), ViberInbound(viber, clock, http=accepted), _done), None
    )
    return Accounts({TELEGRAM: on_telegram, VIBER: on_viber})


async def _bare(request: web.Request) -> web.Response:
    await request.read()
    return web.Response()


@asynccontextmanager
async def _serving(store: Store) -> AsyncIterator[tuple[int, int]]:
    """The ports of the webhooks and of the bare handler."""
    accounts = _accounts()
    intake = Intake(Reception(store, RealClock(), SystemChance()), accounts, _Silent())
    full, bare = web.Application(), web.Application()
    full.router.add_routes(Webhooks(accounts, intake).routes())
    bare.router.add_post("/{name}", _bare)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(intake.close)
        yield await _port(full, stack), await _port(bare, stack)


async def _port(app: web.Application, stack: AsyncExitStack) -> int:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.5)  # as the host starts it
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=BURST_CONNECTIONS).start()
    return int(runner.addresses[0][1])


def _delivery(channel: ChannelName, person: int) -> str:
    return f"dlv_{channel}{person}"


async def _sent(store: Store, people: int) -> None:
    """A broadcast that reached so many people on each channel."""
    broadcast = world.at_once(_BROADCAST, TELEGRAM)
    message = Message("Hello", buttons=(_LATER,))
    await store.save_broadcast(
        replace(broadcast, message=message, status=BroadcastStatus.RUNNING, planned=2 * people), expected=None
    )
    for key, name in ((TELEGRAM, _KNOWN), (VIBER, None)):
        lease = await store.acquire_lease(key, "bench", 3_600)
        assert lease is not None
        for begin in range(0, people, _PAGE):
            page = range(begin, min(begin + _PAGE, people))
            users = {n: f"viber-user-{n}" if name is None else str(name + n) for n in page}
            await _sent_page(store, lease, ChannelName(key.partition("/")[0]), users)


async def _sent_page(store: Store, lease: Lease, channel: ChannelName, users: Mapping[int, str]) -> None:
    now = RealClock().now()
    await store.save_recipients(
        [
            Recipient(
                f"rcp_{channel}{n}", first_name="Ann", last_name="Ash", locale="en", identities={channel: user}
            )
            for n, user in users.items()
        ]
    )
    await store.save_conversations(
        [
            Conversation(conversation_id(lease.account, user), lease.account, channel, f"rcp_{channel}{n}", user)
            for n, user in users.items()
        ]
    )
    planned = [
        Delivery(
            id=_delivery(channel, n),
            broadcast=_BROADCAST,
            recipient=f"rcp_{channel}{n}",
            position=n,
            channel=channel,
            account=lease.account,
            conversation=conversation_id(lease.account, user),
            due_at=now,
        )
        for n, user in users.items()
    ]
    await store.plan(planned)
    await store.intend(lease, [replace(one, sends=1, rung_at=now) for one in planned], now)
    await store.record(lease, [world.accepted(one, now, str(_MESSAGE + one.position)) for one in planned])


async def _noted(store: Store, updates: int, people: int) -> Counts:
    """What the store knows of. Texts leave nothing but their keys."""
    broadcast = await store.broadcast(_BROADCAST)
    assert broadcast is not None
    reporting = {name: replace(StandIn.features, reports_delivered=True, reports_read=True) for name in ChannelName}
    told = report(broadcast, await store.tally(_BROADCAST), reporting=reporting, as_of=RealClock().now())
    assert told.clicked
    assert told.delivered
    assert told.read
    keys = [await store.was_seen(TELEGRAM, str(number + 1)) for number in range(updates)]
    everybody = (await store.recipients("", Page(1, 1))).total
    started = everybody - 2 * people
    return Counts(
        started=started,
        texts=sum(keys) - started - told.clicked.people,
        pressed=told.clicked.people,
        delivered=told.delivered.people,
        seen=told.read.people,
    )


def _serve(pipe: Connection, url: str, people: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))

    async def main() -> None:
        store = await open_store(url)
        try:
            await _sent(store, people)
            async with _serving(store) as ports:
                settle()
                pipe.send(ports)
                while (updates := await asyncio.to_thread(pipe.recv)) is not None:
                    answer = world.cpu() if updates < 0 else await _noted(store, updates, people)
                    pipe.send(answer)
        finally:
            await store.close()

    _raise_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _raise_files() -> None:
    """As many connections as a burst takes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * BURST_CONNECTIONS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if most < 0 else min(wanted, most), most))


class Server:
    """The other process: its ports, its CPU time, what its store holds."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.full, self.bare = pipe.recv()

    def cpu(self) -> float:
        self._pipe.send(-1)
        used: float = self._pipe.recv()
        return used

    def noted(self, updates: int) -> Counts:
        self._pipe.send(updates)
        counts: Counts = self._pipe.recv()
        return counts


@contextmanager
def _server(people: int) -> Iterator[Server]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, f"sqlite:///{Path(folder) / 'bench.db'}", people))
        process.start()
        there.close()
        try:
            yield Server(here)
            here.send(None)
        finally:
            process.join(10)
            if process.is_alive():
                process.terminate()


# --- the client ---------------------------------------------------------------------------------------


class _Line(asyncio.Protocol):
    """One connection: writes the next request when the last one is answered."""

    def __init__(self, left: Iterator[bytes], over: Callable[[str | None], None]) -> None:
        self._left = left
        self._over = over
        self._got = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's own, which inherits nothing
        self._next()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, ended, body = self._got.partition(b"\r\n\r\n")
        if not ended or len(body) < _length(head):
            return
        self._got = b""
        if not head.startswith(b"HTTP/1.1 200"):
            self._end(head.partition(b"\r\n")[0].decode())
        else:
            self._next()

    def connection_lost(self, _: Exception | None) -> None:
        self._end("the connection was lost")

    def _next(self) -> None:
        assert self._transport is not None
        if (request := next(self._left, None)) is None:
            self._end(None)
        else:
            self._transport.write(request)

    def _end(self, trouble: str | None) -> None:
        self._over(trouble)
        if self._transport is not None:
            self._transport.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def post(port: int, requests: Sequence[bytes], connections: int) -> float:
    """Seconds until all are answered with 200."""
    loop, left = asyncio.get_running_loop(), iter(requests)
    ends: list[asyncio.Future[str | None]] = [loop.create_future() for _ in range(min(connections, len(requests)))]

    def over(end: asyncio.Future[str | None]) -> Callable[[str | None], None]:
        return lambda trouble: None if end.done() else end.set_result(trouble)

    began = time.perf_counter()
    await asyncio.gather(
        *(loop.create_connection(lambda end=end: _Line(left, over(end)), "127.0.0.1", port) for end in ends)  # type: ignore[misc]  # mypy infers no default arguments of a lambda
    )
    troubles = {trouble for trouble in await asyncio.gather(*ends) if trouble is not None}
    seconds = time.perf_counter() - began
    if troubles:
        raise RuntimeError(f"not every event was answered with 200: {sorted(troubles)}")
    return seconds


# --- what is measured ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Found:
    """CPU time is the server's."""

    bare: list[Run] = field(default_factory=list)
    full: list[Run] = field(default_factory=list)
    burst: Run | None = None
    given: Counts = Counts()
    noted: Counts = Counts()

    @property
    def ratio(self) -> float:
        return statistics.median(f.rate / b.rate for f, b in zip(self.full, self.bare, strict=True))


def measure(events: int, rounds: int, burst: int) -> Found:
    made, found = Events(), Found()
    warm = min(events, 500)
    with _server(people_for(warm + events * rounds + burst)) as server:

        def run(port: int, requests: Sequence[bytes], connections: int) -> Run:
            used = server.cpu()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                seconds = runner.run(post(port, requests, connections))
            return Run(len(requests), seconds, server.cpu() - used)

        for number in (warm, *[events] * rounds):
            requests, counts = made.make(number)
            found.given += counts
            found.bare.append(run(server.bare, [to_bare(one) for one in requests], CONNECTIONS))
            found.full.append(run(server.full, requests, CONNECTIONS))
        found.bare, found.full = found.bare[1:], found.full[1:]  # the first was to warm up
        requests, counts = made.make(burst)
        found.given += counts
        _raise_files()
        found.burst = run(server.full, requests, BURST_CONNECTIONS)
        telegram = found.given.started + found.given.texts + found.given.pressed
        found.noted = server.noted(telegram)
    return found


def show(found: Found) -> None:
    print(f"{'handler':>8} {'requests/s':>11} {'CPU of the server, µs':>22}")
    for name, runs in (("bare", found.bare), ("intake", found.full)):
        rate = statistics.median(run.rate for run in runs)
        print(f"{name:>8} {rate:>11,.0f} {statistics.median(run.micros for run in runs):>22.0f}")
    print(f"intake against bare: {found.ratio:.2f}")
    if found.burst is not None:
        print(f"burst of {found.burst.messages:,}: {found.burst.seconds:.1f} s")
    print(f"given: {found.given}\nnoted: {found.noted}")


def tell(found: Found, given: Figures) -> None:
    given.add(WHAT_RATE, f"{found.ratio:.2f}", f"at least {LEAST}", held=found.ratio >= LEAST)
    assert found.burst is not None
    lost = found.given.total - found.noted.total
    given.add(
        f"webhook intake: a burst of {found.burst.messages:,} over {BURST_CONNECTIONS:,} connections",
        f"{found.burst.seconds:.1f} s, {lost:,} of {found.given.total:,} events of the run lost",
        "none lost",
        held=found.given == found.noted,
    )


def main() -> int:
    arguments = figures.parser(__doc__)
    arguments.add_argument("--events", type=int, default=4_000, help="in each round (default: %(default)s)")
    arguments.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    arguments.add_argument("--burst", type=int, default=10_000, help="events at once (default: %(default)s)")
    chosen = arguments.parse_args()
    given = Figures()
    found = measure(chosen.events, chosen.rounds, chosen.burst)
    show(found)
    tell(found, given)
    return given.close(chosen.rows)


if __name__ == "__main__":
    sys.exit(main())
