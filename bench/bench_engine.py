"""How fast the engine sends, on both stores, beside a bare aiohttp client and two libraries for bots.

    python -m bench engine [--messages 5000] [--rounds 5]

The server is the sandbox's Telegram interface in a process of its own on loopback, with its limits off. In each
round everybody sends the same messages (a text with one link button, all to different chats) to it, 64 at once, one
sender after the other, and is compared with the bare client of the same round; the figures are medians over the
rounds. Everybody runs on uvloop, with connections of its own, kept between messages. The ratio is the point:
absolute rates differ from machine to machine.

What each is given:

* bare aiohttp, the ceiling: finished bodies, one session; it keeps nothing and looks at no answer.
* the engine: its default options, and a pace that it never waits for. It claims, renders, signs the link, writes
  each intent before the send and each outcome after it, durably. Planning is not counted; the time runs from the
  first claim to the last recorded outcome. MongoDB is a replica set of one, its files in memory where there is a
  place for that, and every write is confirmed by a majority and journalled.
* bare aiohttp with the least ledger on MongoDB (`bench.least_ledger`): the same client, and of the engine's ledger
  only what no crash may lose. It tells what there is to be had where each delivery is a document.
* python-telegram-bot: `send_message` of an `Application`'s bot, with its own `AIORateLimiter` allowed so much that
  it never waits, in 64 loops over the chats. It keeps nothing.
* aiogram: `send_message` of a `Bot`, in 64 loops over the chats. It has no limiter, and keeps nothing.

The two libraries are given the finished text, keyboard and link, made once, and some messages to warm up; each is a
process of its own in an environment of its own (`bench.peering`), made on first use.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

import aiohttp
import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from bench import figures, least_ledger, peering, world
from bench.figures import Figures, NotMeasured
from bench.world import LINKS, MESSAGE, TOKEN, Run
from bot.channels.telegram import calls
from bot.memory import settle
from broadcast.message import Rendering
from broadcast.model import ChannelName, Recipient
from broadcast.ports import Content
from storage.open import open_store

T = TypeVar("T")

CONCURRENCY = 64
BARE, SQLITE, MONGODB = "bare aiohttp", "engine, ledger on SQLite", "engine, ledger on MongoDB"
LEAST = "bare aiohttp, least ledger on MongoDB"
#: What is shown, and its program in `bench.peers`.
PEERS = {"python-telegram-bot": "telegram_bot", "aiogram": "aiogram_bot"}
_KEY = "telegram/bench"
_WARM = 500

Runs = Mapping[str, Sequence[Run]]


def content() -> Content:
    """What one person gets, ready to be sent."""
    rendering = Rendering(MESSAGE, ChannelName.TELEGRAM, LINKS)
    return rendering.content(Recipient(id="rcp", first_name="Ann"), "dlv_aaaaaaaaaaaaaaaa")


def bodies(chats: Sequence[str]) -> list[bytes]:
    """What the engine's channel posts, byte for byte but the token of the link."""
    fields = calls.of(content()).first.fields
    return [orjson.dumps({"chat_id": int(chat), **fields}) for chat in chats]


async def bare(url: str, chats: Sequence[str]) -> Run:
    """The ceiling: the same bodies, as fast as an aiohttp session posts them."""
    address = _address(url)
    headers = {"Content-Type": "application/json"}
    left = iter(bodies(chats))
    runs: list[Run] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:

        async def worker() -> None:
            for body in left:
                async with session.post(address, data=body, headers=headers) as answer:
                    await answer.read()

        with world.timed(len(chats), runs):
            await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return runs[0]


def _address(url: str) -> str:
    return f"{url}/telegram/bot{TOKEN}/sendMessage"


async def least(url: str, chats: Sequence[str], store_url: str) -> Run:
    return await least_ledger.send(_address(url), bodies(chats), store_url, concurrency=CONCURRENCY)


async def engine(url: str, chats: Sequence[str], store_url: str) -> Run:
    store = await open_store(store_url)
    channel = world.telegram(url, _KEY)
    runs: list[Run] = []
    try:
        await world.fill(store, _KEY, chats)
        await world.launch(store, world.at_once("brd_bench", _KEY), [world.account(channel)])
        with world.timed(len(chats), runs):
            await world.drive(store, channel, world.UNBOUND, "brd_bench")
        assert await world.sent(store, "brd_bench") == len(chats)
    finally:
        await channel.close()
        await store.close()
    return runs[0]


def peer(name: str, url: str, chats: Sequence[str]) -> Run:
    message = content()
    button = message.buttons[0]
    order = {
        "url": url,
        "token": TOKEN,
        "chats": list(chats),
        "concurrency": CONCURRENCY,
        "text": message.text,
        "label": button.label,
        "link": button.url,
    }
    told = peering.sent_by(PEERS[name], order, peering.prepared())
    return Run(int(told["messages"]), told["seconds"], told["cpu"])


class Rounds:
    """Everybody in turn, round after round. Who cannot take part once is asked no more: `missing` says why."""

    def __init__(self, senders: Mapping[str, Callable[[], Run]]) -> None:
        self.runs: dict[str, list[Run]] = defaultdict(list)
        self.missing: dict[str, str] = {}
        self._senders = senders

    def play(self, rounds: int) -> None:
        for _ in range(rounds):
            for name, send in self._senders.items():
                if name in self.missing:
                    continue
                try:
                    self.runs[name].append(send())
                except NotMeasured as why:
                    self.missing[name] = str(why)
                    self.runs.pop(name, None)


def play(messages: int, rounds: int, *, peers: bool = True) -> Rounds:
    with world.sandbox(messages) as (url, chats), _Mongo() as mongo:
        on_loop(bare(url, chats[:_WARM]))  # both sides warm
        settle()  # as a host does once it has started; it helps both
        senders: dict[str, Callable[[], Run]] = {
            BARE: lambda: on_loop(bare(url, chats)),
            SQLITE: lambda: _in(world.sqlite(), lambda address: on_loop(engine(url, chats, address))),
            MONGODB: lambda: _in(mongo.one(), lambda address: on_loop(engine(url, chats, address))),
            LEAST: lambda: _in(mongo.one(), lambda address: on_loop(least(url, chats, address))),
        }
        if peers:
            senders |= {name: partial(peer, name, url, chats) for name in PEERS}
        found = Rounds(senders)
        found.play(rounds)
    return found


class _Mongo:
    """One server for all rounds; where there is none, that is said when a database is asked for."""

    def __enter__(self) -> _Mongo:
        self._server = world.mongodb()
        self._why: NotMeasured | None = None
        try:
            self._databases = self._server.__enter__()
        except NotMeasured as why:
            self._why = why
        return self

    def __exit__(self, *error: object) -> None:
        if self._why is None:
            self._server.__exit__(None, None, None)

    def one(self) -> AbstractContextManager[str]:
        if self._why is not None:
            raise self._why
        return self._databases.one()


def _in(place: AbstractContextManager[str], act: Callable[[str], T]) -> T:
    with place as address:
        return act(address)


def on_loop(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def ratio(runs: Runs, name: str, against: str) -> float:
    """The median over the rounds of one rate against another's."""
    return statistics.median(a.rate / b.rate for a, b in zip(runs[name], runs[against], strict=True))


def table(runs: Runs) -> Table:
    first = runs[BARE][0]
    title = f"{first.messages} messages a round, {len(runs[BARE])} rounds, concurrency {CONCURRENCY}"
    shown = Table(title=title)
    for column in ("sender", "messages/s", "CPU a message, µs", "against bare aiohttp"):
        shown.add_column(column, justify="left" if column == "sender" else "right", no_wrap=column == "sender")
    for name, each in runs.items():
        rate = statistics.median(run.rate for run in each)
        micros = statistics.median(run.micros for run in each)
        shown.add_row(name, f"{rate:,.0f}", f"{micros:.0f}", f"{ratio(runs, name, BARE):.2f}")
    return shown


def tell(found: Rounds, given: Figures) -> None:
    """The rows of the table."""
    runs = found.runs
    for name, least in ((SQLITE, 0.7), (MONGODB, 0.6)):
        what, target = f"{name}: messages a second against bare aiohttp", f"at least {least}"
        if name in found.missing:
            given.missed(what, target, found.missing[name])
        else:
            share = ratio(runs, name, BARE)
            given.add(what, f"{share:.2f}", target, held=share >= least)
    for name in PEERS:
        what, target = f"{SQLITE}: against {name} in a loop, which keeps nothing", "ahead"
        if name in found.missing:
            given.missed(what, target, found.missing[name])
        elif name in runs:
            times = ratio(runs, SQLITE, name)
            given.add(what, f"{times:.1f} times its rate", target, held=times > 1)


def main() -> int:
    arguments = figures.parser(__doc__)
    arguments.add_argument("--messages", type=int, default=5_000, help="in each round (default: %(default)s)")
    arguments.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    arguments.add_argument("--no-peers", action="store_true", help="leave the two libraries out")
    chosen = arguments.parse_args()
    began = time.perf_counter()
    found = play(chosen.messages, chosen.rounds, peers=not chosen.no_peers)
    console = Console()
    console.print(table(found.runs))
    console.print(f"took {time.perf_counter() - began:.0f} s")
    given = Figures()
    tell(found, given)
    return given.close(chosen.rows)


if __name__ == "__main__":
    sys.exit(main())
