"""What benchmarks of sending stand in: the simulated platform in a process of its own, a store on either database,
a broadcast in it, and an engine that is driven until the last outcome is recorded."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from pymongo import MongoClient

from bench.figures import NotMeasured
from bot.channels.telegram import TelegramAccount, TelegramChannel
from bot.clock import RealClock
from broadcast import report
from broadcast.campaigns import ALWAYS
from broadcast.engine import Engine
from broadcast.launching import Launching
from broadcast.model import (
    Attempt,
    Audience,
    Broadcast,
    BroadcastStatus,
    Button,
    ButtonType,
    ChannelName,
    Conversation,
    Delivery,
    DeliveryState,
    Message,
    Outcome,
    Policies,
    Recipient,
    Rung,
    Schedule,
    conversation_id,
)
from broadcast.ports import Account, Channel, Result, Store
from broadcast.tracking import Links
from sandbox.server import Sandbox
from sandbox.settings import Behaviour, SandboxSettings, TelegramBot
from sandbox.settings import Channel as Platform
from tests.mongod import MISSING, Databases, ReplicaSet, find_mongod

#: Far above what any machine does: the engine paces, but never waits for its pace.
UNBOUND = 1_000_000.0
#: What the simulated platform knows the bot by.
TOKEN = TelegramBot().token
MESSAGE = Message(
    text="Hello [FIRSTNAME], benefits enrolment is open until Friday. It takes about five minutes.",
    buttons=(Button("enrol", ButtonType.LINK, "Enrol now", url="https://intranet.example/enrol"),),
)
LINKS = Links(secret="bench-secret-0123456789", public_url="https://clarion.example")
_PAGE = 5_000
#: The cache that a server takes by itself on a machine with 5 GB.
_MONGO = ("--wiredTigerCacheSizeGB", "2", "--oplogSize", "256")


@dataclass(frozen=True, slots=True)
class Run:
    """One sender in one round: how many, in how many seconds, with how much of its own CPU."""

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


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def timed(messages: int, runs: list[Run]) -> Iterator[None]:
    used, began = cpu(), time.perf_counter()
    yield
    runs.append(Run(messages, time.perf_counter() - began, cpu() - used))


def accepted(delivery: Delivery, at: datetime, message_id: str) -> Result:
    """The outcome of its first send, which the platform took."""
    sent = replace(
        delivery,
        state=DeliveryState.SENT,
        attempts=1,
        sends=1,
        rung_at=at,
        attempted_at=at,
        ended_at=at,
        sent_at=at,
        platform_message_id=message_id,
    )
    line = Attempt(sent.id, at, sent.round, Rung.FIRST, Outcome.SENT)
    return Result(DeliveryState.SENDING, sent, line, new_rung=True)


def peak_memory() -> float:
    """Of this process, in MiB: since it is what it is, where the system tells, so that what it was started from
    does not count."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# --- the platform -------------------------------------------------------------------------------------


def _serve(pipe: Connection, people: int) -> None:
    """The sandbox, in its own process."""

    async def main() -> None:
        settings = SandboxSettings(
            people={Platform.TELEGRAM: people},
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
def sandbox(people: int) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the chats of so many people."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, people))
    process.start()
    try:
        yield here.recv()
    finally:
        here.send(None)
        process.join(10)


def telegram(url: str, key: str, rate: float = UNBOUND) -> TelegramChannel:
    return TelegramChannel(TelegramAccount(key, TOKEN, api_url=f"{url}/telegram", rate=rate))


# --- the databases ------------------------------------------------------------------------------------


@contextmanager
def mongodb() -> Iterator[Databases]:
    """A replica set of one in memory, or the server at MONGODB_URI. Raises `NotMeasured` where there is none."""
    if uri := os.environ.get("MONGODB_URI"):
        yield Databases(uri)
        return
    program = find_mongod()
    if program is None:
        raise NotMeasured(MISSING)
    replicas = ReplicaSet(program, options=_MONGO)
    databases = Databases(replicas.url(""))
    try:
        yield databases
    finally:
        databases.close()
        replicas.stop()


def server_seconds(url: str) -> float:
    """What the database has computed since it started."""
    with MongoClient[dict[str, Any]](url) as client:
        used = client.admin.command("serverStatus")["extra_info"]
    return float(used["user_time_us"] + used["system_time_us"]) / 1e6


@contextmanager
def sqlite() -> Iterator[str]:
    """The address of a new file."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{Path(folder) / 'bench.db'}"


# --- a broadcast --------------------------------------------------------------------------------------


def account(channel: Channel, rate: float = UNBOUND) -> Account:
    return Account(channel.account, channel.name, channel.features, rate)


async def fill(store: Store, key: str, chats: Sequence[str]) -> None:
    """People who can be reached on the account, a page at a time."""
    for begin in range(0, len(chats), _PAGE):
        page = chats[begin : begin + _PAGE]
        await store.save_recipients([Recipient(f"rcp_{chat}", first_name="Ann") for chat in page])
        await store.save_conversations(
            [
                Conversation(conversation_id(key, chat), key, ChannelName.TELEGRAM, f"rcp_{chat}", user_id=chat)
                for chat in page
            ]
        )


def at_once(id: str, key: str) -> Broadcast:
    """To everybody on the account, all due as soon as it runs."""
    now = RealClock().now()
    return Broadcast(
        id=id,
        campaign="cmp_bench",
        name="bench",
        message=MESSAGE,
        audience=Audience(accounts=(key,)),
        schedule=Schedule(immediate=True, hours=ALWAYS),
        policies=Policies(),
        seed=7,
        launched_at=now,
        launched_by="bench",
        starts_at=now,
    )


async def launch(store: Store, broadcast: Broadcast, accounts: Sequence[Account]) -> None:
    """Plans it, as the host does."""
    await store.save_broadcast(broadcast, expected=None)
    await Launching(store, RealClock(), {one.key: one for one in accounts}).start_due()


async def drive(store: Store, channel: Channel, rate: float, broadcast: str) -> None:
    """From the first claim to the last recorded outcome, with the engine as the host runs it."""
    lease = await store.acquire_lease(channel.account, "bench", 3600)
    assert lease is not None
    engine = Engine(store, channel, account=account(channel, rate), lease=lease, clock=RealClock(), links=LINKS)
    driving = asyncio.create_task(engine.run())
    over = asyncio.create_task(completed(store, broadcast))
    await asyncio.wait({driving, over}, return_when=asyncio.FIRST_COMPLETED)
    engine.stop()
    await driving  # raises what broke it
    await over
    await store.release_lease(lease)


async def completed(store: Store, broadcast: str) -> None:
    version = await store.control_version()
    while (found := await store.broadcast(broadcast)) and found.status is not BroadcastStatus.COMPLETED:
        assert found.status is BroadcastStatus.RUNNING, found  # else nobody would ever complete it
        version = await store.wait_control(version)


async def sent(store: Store, broadcast: str) -> int:
    return (await store.tally(broadcast))["state/telegram/sent"]


async def reported(store: Store, id: str) -> float:
    """Seconds until a broadcast's report is there."""
    began = time.perf_counter()
    found = await store.broadcast(id)
    assert found is not None
    made = report.report(found, await store.tally(id), reporting={}, as_of=RealClock().now())
    assert sum(made.deliveries.values())
    return time.perf_counter() - began
