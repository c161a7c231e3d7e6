"""The demo as a play: platforms, host and people are started, everybody subscribes, one campaign goes out.

Clarion is used from outside, as anybody would: people subscribe through the webhooks, the campaign is written and
launched at the admin endpoint. Only the live board looks into the store.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
from rich.console import Console
from rich.live import Live

from bot.app import Host
from bot.clock import ScaledClock
from bot.demo import board
from bot.demo.board import Moment
from bot.demo.verdict import Verdict, judged
from bot.settings import Settings, load
from broadcast.engine import Options
from broadcast.model import ENDED_STATUSES, Broadcast, ChannelName, DeliveryState
from broadcast.ports import DeliveryFilter
from broadcast.report import progress, report
from sandbox.server import Sandbox
from sandbox.settings import Behaviour, Channel, SandboxSettings, TeamsBot

ZONE = ZoneInfo("Europe/Paris")
#: A Monday without a clock change or a holiday in its week; the doors open fifteen minutes later.
CURTAIN = datetime(2026, 6, 1, 8, 45, tzinfo=ZONE)
HOURS = ["09:00-12:30", "13:30-18:00"]
LOOKS_A_SECOND = 4
#: Without a terminal every so many looks are printed.
PLAIN_EVERY = 20
#: A board that is worth a picture: some are done, some are absent.
MIDDLE = 0.9
#: After the last delivery people still read and click.
AFTERWARDS = timedelta(hours=3)

CAMPAIGN: Mapping[str, Any] = {
    "name": "Benefits week",
    "message": {
        "text": "Hello [FIRSTNAME], benefits enrolment is open until Friday. It takes about five minutes.",
        "buttons": [
            {"id": "enrol", "type": "link", "label": "Enrol now", "url": "https://intranet.example/enrol"},
            {"id": "later", "type": "reply", "label": "Remind me later", "value": "later"},
        ],
        "variants": {"viber": {"text": "Hello [FIRSTNAME]! Benefits enrolment is open until Friday."}},
    },
    "schedule": {
        "start": "2026-06-01",
        "working_days": 3,
        "timezone": "Europe/Paris",
        "hours": dict.fromkeys(("mon", "tue", "wed", "thu", "fri"), HOURS),
    },
    "policies": {"presence": {"teams": ["available"], "viber": ["any"]}},
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `clarion demo` was asked for. `port` 0 takes a free one; `directory` None a temporary one."""

    recipients: int = 240
    port: int = 8080
    seed: int = 1
    speed: float = 4000.0
    directory: Path | None = None
    exit: bool = False
    picture: Path | None = None
    """Where to draw what was on the terminal, as SVG."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is on the stage."""

    wishes: Wishes
    console: Console
    sandbox: Sandbox
    host: Host
    clock: ScaledClock
    http: aiohttp.ClientSession
    url: str
    token: str

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """One call of the admin endpoint. Raises `RuntimeError` with its answer where it refuses."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.http.request(method, f"{self.url}/api/v1{path}", json=body, headers=headers) as answer:
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json()


def run(wishes: Wishes) -> int:
    """Plays the demo; the exit status is 0 where every delivery is accounted for."""
    with asyncio.Runner() as runner:
        try:
            return runner.run(_play(wishes, Console()))
        except KeyboardInterrupt:
            return 130


async def _play(wishes: Wishes, console: Console) -> int:
    with tempfile.TemporaryDirectory(prefix="clarion-demo-") as temporary:
        directory = wishes.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        async with _stage(wishes, console, directory) as scene:
            verdict = await _perform(scene)
            if not wishes.exit:
                await _keep_serving(scene)
    return 0 if verdict.sound else 1


@asynccontextmanager
async def _stage(wishes: Wishes, console: Console, directory: Path) -> AsyncIterator[Scene]:
    """Sandbox and host, connected to each other, on one clock."""
    port = wishes.port or _free_port()
    token = secrets.token_urlsafe(32)
    url = f"http://127.0.0.1:{port}"
    clock = ScaledClock(CURTAIN, wishes.speed)
    sandbox = Sandbox(
        SandboxSettings(
            seed=wishes.seed,
            speed=wishes.speed,
            epoch=clock.now(),
            people=_shares(wishes.recipients),
            behaviour=Behaviour(follow=0.3, press=0.2),
            teams_bots=(TeamsBot(endpoint=f"{url}/api/messages"),),
        )
    )
    async with sandbox.serve() as served, aiohttp.ClientSession() as http:
        settings = _settings(served.env(), url=url, port=port, token=token, directory=directory)
        # Writing takes as long as it takes, however fast the moments pass.
        options = Options(intent_life=Options().intent_life * wishes.speed)
        async with Host(settings, clock=clock, options=options).running() as host:
            yield Scene(wishes, console, served, host, clock, http, url, token)


def _shares(recipients: int) -> Mapping[Channel, int]:
    """Half of the people on Teams, a quarter on each of the others."""
    telegram = viber = recipients // 4
    return {Channel.TEAMS: recipients - telegram - viber, Channel.TELEGRAM: telegram, Channel.VIBER: viber}


def _settings(env: Mapping[str, str], *, url: str, port: int, token: str, directory: Path) -> Settings:
    own = {
        "CLARION_STORE": f"sqlite:///{directory / 'demo.db'}",
        "CLARION_HOST": "127.0.0.1",
        "CLARION_PORT": str(port),
        "CLARION_PUBLIC_URL": url,
        "CLARION_ADMIN_TOKEN": token,
    }
    return load(environ={**env, **own})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- the acts -----------------------------------------------------------------------------------------


async def _perform(scene: Scene) -> Verdict:
    await _subscribe(scene)
    broadcast = await _launch(scene)
    middle = await _watch(scene, broadcast)
    await scene.clock.sleep_until(scene.clock.now() + AFTERWARDS)
    return await _report(scene, broadcast, middle)


async def _subscribe(scene: Scene) -> None:
    """Everybody starts the bot on their own platform, through the platform's real callback."""
    say = partial(scene.console.print, soft_wrap=True)
    say(f"[bold]Clarion demo[/bold]  {scene.url}  (simulated platforms: {scene.sandbox.url})")
    async with scene.http.post(f"{scene.sandbox.url}/sandbox/acts:start_everyone", json={}) as answer:
        counts = await answer.json()
    say(f"{counts['active']} of {counts['people']} people subscribed through the webhooks of three platforms")
    if counts["refused"]:
        raise RuntimeError(f"{counts['refused']} subscriptions were refused: {counts['statuses']}")


async def _launch(scene: Scene) -> str:
    campaign = await scene.call("POST", "/campaigns", CAMPAIGN)
    broadcast = await scene.call("POST", f"/campaigns/{campaign['id']}:launch", {"seed": scene.wishes.seed})
    scene.console.print(
        f"“{campaign['name']}” launched to about {campaign['estimate']} people over three working days, "
        f"{scene.wishes.speed:g} times faster than real"
    )
    return str(broadcast["id"])


async def _watch(scene: Scene, broadcast: str) -> Moment:
    """The board until the broadcast has ended: live, or plain lines where there is no terminal. Answers the moment
    in the middle of it."""
    middle = moment = await _look(scene, broadcast)
    with _shown(scene.console, moment) as show:
        while moment.broadcast.status not in ENDED_STATUSES:
            await asyncio.sleep(1 / LOOKS_A_SECOND)
            moment = await _look(scene, broadcast)
            show(moment)
            middle = moment if moment.progress <= MIDDLE else middle
    return middle


@contextmanager
def _shown(console: Console, moment: Moment) -> Iterator[Callable[[Moment], None]]:
    if console.is_terminal:
        with Live(board.live(moment), console=console, refresh_per_second=LOOKS_A_SECOND) as live:
            yield lambda moment: live.update(board.live(moment))
        return
    looks = count()

    def line(moment: Moment) -> None:
        if moment.broadcast.status in ENDED_STATUSES or next(looks) % PLAIN_EVERY == 0:
            console.print(board.plain(moment), soft_wrap=True)

    yield line


async def _look(scene: Scene, id: str) -> Moment:
    store, now = scene.host.store, scene.clock.now()
    broadcast = await _found(scene, id)
    tally = await store.tally(id)
    numbers = report(broadcast, tally, reporting=scene.host.reporting, as_of=now)
    absent: Counter[ChannelName] = Counter()
    async for delivery, _ in store.all_deliveries(DeliveryFilter(id, states=(DeliveryState.PLANNED,))):
        if delivery.attempts and delivery.channel:
            absent[delivery.channel] += 1
    return Moment(now, ZONE, broadcast, numbers, progress(tally), absent)


async def _found(scene: Scene, id: str) -> Broadcast:
    broadcast = await scene.host.store.broadcast(id)
    if broadcast is None:
        raise RuntimeError(f"broadcast {id} is gone")
    return broadcast


async def _report(scene: Scene, id: str, middle: Moment) -> Verdict:
    moment = await _look(scene, id)
    everything = [row async for row in scene.host.store.all_deliveries(DeliveryFilter(id))]
    missed = [row for row in everything if row[0].state is not DeliveryState.SENT]
    verdict = judged([delivery for delivery, _ in everything], await _received(scene))
    scene.console.print(board.final(moment, missed))
    scene.console.print(verdict.words)
    if scene.wishes.picture is not None:
        board.draw(scene.wishes.picture, [board.live(middle), board.final(moment, missed), verdict.words])
    return verdict


async def _received(scene: Scene) -> list[Mapping[str, Any]]:
    """Every message of the campaign that anybody received, as the sandbox tells."""
    found: list[Mapping[str, Any]] = []
    since = 0
    while True:
        address = f"{scene.sandbox.url}/sandbox/messages?since_seq={since}&limit=1000"
        async with scene.http.get(address) as answer:
            page = await answer.json()
        found += [item for item in page["items"] if "enrolment is open" in item["text"]]
        if not page["items"]:
            return found
        since = page["next_seq"]


async def _keep_serving(scene: Scene) -> None:
    """Until Ctrl-C."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows has none: there Ctrl-C cancels
            loop.add_signal_handler(number, stop.set)
    scene.console.print(
        f"\nStill serving; Ctrl-C ends it. Admin endpoint: {scene.url}/api/v1 with the header\n"
        f"  Authorization: Bearer {scene.token}\n"
        f"What everybody received: {scene.sandbox.url}/sandbox/messages\n"
        f"It is {scene.clock.now().astimezone(UTC):%Y-%m-%d %H:%M} UTC there, and time still runs "
        f"{scene.wishes.speed:g} times faster.",
        soft_wrap=True,
    )
    await stop.wait()
