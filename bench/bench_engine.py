"""How fast the engine sends, against a bare aiohttp client that posts the same bodies to the same server.

    python -m bench.bench_engine [--messages 5000] [--rounds 3]

The server is the sandbox's Telegram interface in a process of its own on loopback. In each round both send the
same messages with the same concurrency, one after the other: the bare client keeps nothing, the engine keeps its
durable ledger on SQLite. Planning is not counted; the time runs from the first claim to the last recorded outcome.
The ratio is the point: absolute rates differ from machine to machine.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from bot.channels.telegram import TelegramAccount, TelegramChannel
from bot.clock import RealClock
from bot.memory import settle
from broadcast.campaigns import ALWAYS
from broadcast.engine import Engine, Options
from broadcast.launching import Launching
from broadcast.model import (
    Audience,
    Broadcast,
    BroadcastStatus,
    Button,
    ButtonType,
    ChannelName,
    Message,
    Policies,
    Recipient,
    Schedule,
)
from broadcast.ports import Account, DeliveryFilter, Page, Store
from broadcast.tracking import Links
from sandbox.server import Sandbox
from sandbox.settings import Behaviour, Channel, SandboxSettings, TelegramBot
from storage.open import open_store

CONCURRENCY = 64
#: Far above what any machine does: the engine paces, but never waits for its pace.
RATE = 1_000_000.0
MESSAGE = Message(
    text="Hello [FIRSTNAME], benefits enrolment is open until Friday. It takes about five minutes.",
    buttons=(Button("enrol", ButtonType.LINK, "Enrol now", url="https://intranet.example/enrol"),),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One sender in one round: how many, in how many seconds, with how much of our own CPU."""

    messages: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    @property
    def micros(self) -> float:
        """CPU of the sending process per message, in microseconds."""
        return self.cpu / self.messages * 1e6


def _serve(pipe: Connection, people: int) -> None:
    """The sandbox, in its own process."""

    async def main() -> None:
        settings = SandboxSettings(
            people={Channel.TELEGRAM: people},
            started=True,
            behaviour=Behaviour(auto=False),
            enforce_limits=False,
            keep_messages=False,
        )
        async with Sandbox(settings).serve() as sandbox:
            chats = [contact.chat for contact in sandbox.world.directory.contacts()][:people]
            pipe.send((sandbox.url, chats))
            await asyncio.to_thread(pipe.recv)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@contextmanager
def _sandbox(people: int) -> Iterator[tuple[str, list[str]]]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, people))
    process.start()
    try:
        yield here.recv()
    finally:
        here.send(None)
        process.join(10)


@contextmanager
def _timed(messages: int, runs: list[Run]) -> Iterator[None]:
    cpu, began = _cpu(), time.perf_counter()
    yield
    runs.append(Run(messages, time.perf_counter() - began, _cpu() - cpu))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _bare(url: str, bodies: Sequence[bytes], runs: list[Run]) -> None:
    """The ceiling: the same bodies, as fast as an aiohttp session posts them."""
    address = f"{url}/telegram/bot{TelegramBot().token}/sendMessage"
    headers = {"Content-Type": "application/json"}
    left = iter(bodies)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:

        async def worker() -> None:
            for body in left:
                async with session.post(address, data=body, headers=headers) as answer:
                    await answer.read()

        with _timed(len(bodies), runs):
            await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


async def _engine(url: str, chats: Sequence[str], links: Links, runs: list[Run]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = await open_store(f"sqlite:///{Path(folder) / 'bench.db'}")
        channel = TelegramChannel(
            TelegramAccount("telegram/bench", TelegramBot().token, api_url=f"{url}/telegram", rate=RATE)
        )
        try:
            broadcast = await _launched(store, channel, chats)
            await _drive(store, channel, links, broadcast, runs)
        finally:
            await channel.close()
            await store.close()


async def _launched(store: Store, channel: TelegramChannel, chats: Sequence[str]) -> Broadcast:
    clock = RealClock()
    people = [
        Recipient(id=f"rcp_{chat}", first_name="Ann", identities={ChannelName.TELEGRAM: chat}) for chat in chats
    ]
    await store.save_recipients(people)
    broadcast = Broadcast(
        id="brd_bench",
        campaign="cmp_bench",
        name="bench",
        message=MESSAGE,
        audience=Audience(),
        schedule=Schedule(immediate=True, hours=ALWAYS),
        policies=Policies(),
        seed=7,
        launched_at=clock.now(),
        launched_by="bench",
        starts_at=clock.now(),
    )
    await store.save_broadcast(broadcast, expected=None)
    await Launching(store, clock, {channel.account: _account(channel)}).start_due()
    return broadcast


def _account(channel: TelegramChannel) -> Account:
    return Account(channel.account, channel.name, channel.features, RATE)


async def _drive(
    store: Store, channel: TelegramChannel, links: Links, broadcast: Broadcast, runs: list[Run]
) -> None:
    lease = await store.acquire_lease(channel.account, "bench", 3600)
    assert lease is not None
    engine = Engine(
        store,
        channel,
        account=_account(channel),
        lease=lease,
        clock=RealClock(),
        links=links,
        options=Options(concurrency=CONCURRENCY),
    )
    count = (await store.deliveries(DeliveryFilter(broadcast.id), Page(1, 1))).total
    with _timed(count, runs):
        driving = asyncio.create_task(engine.run())
        version = await store.control_version()
        while (found := await store.broadcast(broadcast.id)) and found.status is not BroadcastStatus.COMPLETED:
            version = await store.wait_control(version)
        engine.stop()
        await driving
    tally = await store.tally(broadcast.id)
    assert tally["state/telegram/sent"] == count, tally


async def _rounds(messages: int, rounds: int) -> tuple[list[Run], list[Run]]:
    bare: list[Run] = []
    engine: list[Run] = []
    links = Links(secret="bench-secret-0123456789", public_url="https://clarion.example")
    with _sandbox(messages) as (url, chats):
        bodies = [_body(chat, links) for chat in chats]
        await _bare(url, bodies[:500], [])  # both sides warm
        settle()  # as a host does once it has started; it helps both
        for _ in range(rounds):
            await _bare(url, bodies, bare)
            await _engine(url, chats, links, engine)
    return bare, engine


def _body(chat: str, links: Links) -> bytes:
    """What the engine's channel posts, byte for byte but the token of the link."""
    from bot.channels.telegram import calls  # noqa: PLC0415 - the bench looks behind the channel's face, once
    from broadcast.message import Rendering  # noqa: PLC0415 - likewise

    rendering = Rendering(MESSAGE, ChannelName.TELEGRAM, links)
    call = calls.of(rendering.content(Recipient(id="rcp", first_name="Ann"), "dlv_aaaaaaaaaaaaaaaa")).first
    return orjson.dumps({"chat_id": int(chat), **call.fields})


def table(bare: Sequence[Run], engine: Sequence[Run]) -> Table:
    ratio = statistics.median(e.rate / b.rate for e, b in zip(engine, bare, strict=True))
    shown = Table(title=f"{bare[0].messages} messages a round, {len(bare)} rounds, concurrency {CONCURRENCY}")
    for name in ("sender", "messages/s", "CPU a message, µs", "against bare aiohttp"):
        shown.add_column(name, justify="left" if name == "sender" else "right")
    for name, runs, against in (("bare aiohttp", bare, "1"), ("engine, ledger on SQLite", engine, f"{ratio:.2f}")):
        rate = statistics.median(run.rate for run in runs)
        micros = statistics.median(run.micros for run in runs)
        shown.add_row(name, f"{rate:,.0f}", f"{micros:.0f}", against)
    return shown


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--messages", type=int, default=5_000)
    arguments.add_argument("--rounds", type=int, default=3)
    chosen = arguments.parse_args()
    began = datetime.now(UTC)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bare, engine = runner.run(_rounds(chosen.messages, chosen.rounds))
    console = Console()
    console.print(table(bare, engine))
    console.print(f"took {(datetime.now(UTC) - began).total_seconds():.0f} s")


if __name__ == "__main__":
    main()
