"""The drill: broadcasts that run, and kills at seeded random moments until there were enough of them."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

import aiohttp

from broadcast import report
from broadcast.model import ENDED_STATUSES, AfterCrash, BroadcastStatus, DeliveryState
from broadcast.ports import DeliveryFilter
from tests.kills.judging import Shipment, Verdict, judge
from tests.kills.programs import Program, now
from tests.kills.stage import LONGEST_ANSWER, Stage, until

Say = Callable[[str], None]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: After a death: what was under way by then has arrived, and what arrives later was sent by somebody alive.
UNDER_WAY = timedelta(seconds=LONGEST_ANSWER + 0.2)

_AT_ONCE = 2  # broadcasts that run beside one another, one for each policy
_LONGEST_WAIT = 2.0  # seconds from the moment that all is well to the next kill
_LONGEST_DOWN = 2.0  # seconds from a kill to the start
_LONG_OUTAGE = 4  # every so many deaths of mongod is followed by a long one
_LONG_OUTAGE_LASTS = 9.0  # seconds at least
_KILLS_FOR_A_STOP = 6  # after so many of them somebody unsubscribes
_PATIENCE = 90.0
_LOOK = 0.2


class Victim(StrEnum):
    WORKER = "worker"  # the one that drives
    HOST = "host"
    MONGOD = "mongod"
    SERVE = "serve"  # host and engine in one, on SQLite


@dataclass(slots=True)
class Kill:
    """One of them. `in_flight`: sends of which nobody knew the outcome when it died. `again`: seconds until
    messages arrived that were sent after it, or for a host until it answered again. `takeovers`: seconds, by
    account."""

    number: int
    victim: Victim
    name: str
    at: datetime
    in_flight: int = 0
    down: float = 0.0
    again: float | None = None
    takeovers: dict[str, float] = field(default_factory=dict)
    outage: bool = False
    """While there was no database: nobody could take anything over."""


@dataclass(slots=True)
class Launched:
    name: str
    broadcast: str
    after_crash: AfterCrash


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a drill came to."""

    verdict: Verdict
    kills: Sequence[Kill]
    broadcasts: int
    stopped: int
    ended_by_themselves: int
    seconds: float

    @property
    def takeovers(self) -> list[float]:
        return [seconds for kill in self.kills if not kill.outage for seconds in kill.takeovers.values()]


@dataclass(eq=False)
class Drill:
    """One run on a stage. The seed draws who is killed when, for how long, and who unsubscribes."""

    stage: Stage
    seed: int
    victims: Sequence[Victim]
    say: Say
    launched: list[Launched] = field(default_factory=list)
    unfinished: list[Launched] = field(default_factory=list)
    people: dict[str, str] = field(default_factory=dict)
    """By id, with the channel they are on."""
    stopped: dict[str, datetime] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    _mending: list[asyncio.Task[None]] = field(default_factory=list)
    _enough: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - moments, no secrets
        self._began = now()

    async def run(self) -> Outcome:
        await self._subscribe()
        await self.stage.answer_slowly()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_launching(), name="broadcasts are launched")
            tasks.create_task(self._kill_all(), name="processes are killed")
        await self._until_ended()
        verdict = await self._verdict()
        return Outcome(
            verdict=verdict,
            kills=self.kills,
            broadcasts=len(self.launched),
            stopped=len(self.stopped),
            ended_by_themselves=sum(program.ended_by_itself for program in self.stage.programs),
            seconds=(now() - self._began).total_seconds(),
        )

    # --- people ---------------------------------------------------------------------------------------

    async def _subscribe(self) -> None:
        """Everybody is imported under their name in the sandbox, and then really starts the bot."""
        found = await self._everybody()
        rows = io.StringIO()
        table = csv.DictWriter(rows, ["external_id", "first_name", "teams_id", "telegram_id", "viber_id"])
        table.writeheader()
        for person in found:
            [channel] = person["channels"]
            self.people[person["id"]] = channel
            id = person["entra_id"] if channel == "teams" else person[f"{channel}_id"]
            table.writerow({"external_id": person["id"], "first_name": person["first_name"], f"{channel}_id": id})
        imported = await self.stage.upload(rows.getvalue())
        assert imported["created"] == len(found), imported
        counts = await self.stage.platforms("POST", "/acts:start_everyone", {})
        assert (counts["active"], counts["refused"]) == (len(found), 0), counts

    async def _everybody(self) -> list[dict[str, Any]]:
        people: list[dict[str, Any]] = []
        for page in itertools.count(1):
            found = await self.stage.platforms("GET", f"/people?page={page}&per_page=1000")
            people += found["items"]
            if len(people) >= found["total"]:
                break
        return people

    async def _say_stop(self) -> None:
        """Somebody unsubscribes, while all is well."""
        who = self._random.choice(sorted(self.people.keys() - self.stopped.keys()))

        async def said() -> bool:
            body = {"act": "stop", "channel": self.people[who]}
            answer = await self.stage.platforms("POST", f"/people/{who}/acts", body)
            return bool(answer["status"] == 200)

        await until(said, f"the host takes no STOP of {who}")
        self.stopped[who] = now()
        self.say(f"{self._clock()}  {who} says STOP")

    # --- broadcasts -----------------------------------------------------------------------------------

    async def _keep_launching(self) -> None:
        """So many run at any time; the policies take turns."""
        for number in itertools.count(1):
            await until(self._wants_more, "no broadcast ends", within=10 * _PATIENCE, every=_LOOK)
            if self._enough.is_set():
                return
            policy = AfterCrash.RESEND if number % 2 else AfterCrash.HOLD
            one = await self._launch(f"{self.seed}-{number}", policy)
            self.launched.append(one)
            self.unfinished.append(one)

    async def _wants_more(self) -> bool:
        return self._enough.is_set() or len(await self._still_running()) < _AT_ONCE

    async def _still_running(self) -> list[Launched]:
        left = []
        for one in self.unfinished:
            found = await self.stage.durably(partial(self.stage.store.broadcast, one.broadcast))
            if found is None or found.status not in ENDED_STATUSES:
                left.append(one)
        self.unfinished = left
        return left

    async def _launch(self, name: str, policy: AfterCrash) -> Launched:
        """As a script does that must launch once: whatever happens to the call, it looks before it calls again."""
        campaign: str | None = None

        async def tried() -> str | None:
            nonlocal campaign
            try:
                if campaign is None:
                    campaign = str((await self.stage.call("POST", "/campaigns", _campaign(name, policy)))["id"])
                there = await self.stage.call("GET", f"/broadcasts?campaign={campaign}")
                if there["items"]:
                    return str(there["items"][0]["id"])
                return str((await self.stage.call("POST", f"/campaigns/{campaign}:launch"))["id"])
            except (aiohttp.ClientError, OSError, TimeoutError):
                return None

        return Launched(name, await until(tried, f"broadcast {name} cannot be launched"), policy)

    # --- kills ----------------------------------------------------------------------------------------

    async def _kill_all(self) -> None:
        try:
            for number, victim in enumerate(self.victims, 1):
                if victim is not Victim.HOST or number % 2:  # every second host dies amid a takeover
                    await self._all_well()
                if number % _KILLS_FOR_A_STOP == 0:
                    await self._say_stop()
                await asyncio.sleep(self._random.uniform(0, _LONGEST_WAIT))
                await self._kill(number, victim)
            await self._all_well()
        finally:
            self._enough.set()
            for task in self._mending:
                task.cancel()

    async def _all_well(self) -> None:
        """What died is made good: every account is driven, the host answers, messages arrive."""
        await asyncio.gather(*self._mending)
        self._mending.clear()
        await self._arriving_after(self.kills[-1].at + UNDER_WAY if self.kills else self._began)
        await until(self.stage.host_ready, "the host is not ready")

    async def _arriving_after(self, moment: datetime) -> datetime:
        return await until(partial(self.stage.first_after, moment), "no message arrives")

    async def _kill(self, number: int, victim: Victim) -> None:
        """Now; what it takes until it is made good is watched beside."""
        match victim:
            case Victim.MONGOD:
                mended = await self._kill_mongod(number)
            case Victim.HOST:
                mended = self._host_again(await self._kill_program(number, victim, self.stage.host))
            case Victim.WORKER | Victim.SERVE:
                await until(self._in_flight, "nothing is being sent", every=0.02)
                driver = self._driver()
                driven = self.stage.drivers.driven_by(driver)
                mended = self._driven_again(await self._kill_program(number, victim, driver, driven), driven)
        self._mending.append(asyncio.create_task(self._watched(mended), name=f"kill {number}"))

    async def _watched(self, mended: Coroutine[None, None, Kill]) -> None:
        kill = await mended
        self.say(self._told(kill))

    async def _kill_program(
        self, number: int, victim: Victim, program: Program, driven: Sequence[str] = ()
    ) -> Kill:
        """Killed, and started again a little later."""
        kill = Kill(number, victim, program.name, await program.kill())
        self.kills.append(kill)
        if driven:
            kill.in_flight = await self._in_flight(driven)
        kill.down = self._random.uniform(0, _LONGEST_DOWN)
        await asyncio.sleep(kill.down)
        await program.start()
        return kill

    async def _host_again(self, kill: Kill) -> Kill:
        await until(self.stage.host_ready, "the host is not ready")
        kill.again = _since(kill.at)
        return kill

    async def _driven_again(self, kill: Kill, driven: Sequence[str]) -> Kill:
        for account in driven:
            taken = await until(partial(self._taken_over, account, kill.at), f"nobody takes {account} over")
            kill.takeovers[account] = (taken - kill.at).total_seconds()
        sent_after = timedelta(seconds=max(kill.takeovers.values(), default=0.0))
        again = await self._arriving_after(kill.at + max(sent_after, UNDER_WAY))
        kill.again = (again - kill.at).total_seconds()
        return kill

    async def _kill_mongod(self, number: int) -> Coroutine[None, None, Kill]:
        """Now and then it stays away for longer than a lease lasts, and something else dies beside it and is
        started while there is no database."""
        mongo = self.stage.mongo
        assert mongo is not None
        long = sum(kill.victim is Victim.MONGOD for kill in self.kills) % _LONG_OUTAGE == _LONG_OUTAGE - 1
        await until(self._in_flight, "nothing is being sent", every=0.02)
        kill = Kill(number, Victim.MONGOD, "mongod", now(), await self._in_flight())
        self.kills.append(kill)
        await asyncio.to_thread(mongo.kill)
        if long:
            await self._kill_beside(number)
            await asyncio.sleep(_LONG_OUTAGE_LASTS)
        await asyncio.sleep(self._random.uniform(0, _LONGEST_DOWN))
        kill.down = _since(kill.at)
        mongo.start()
        return self._driven_again(kill, ())

    async def _kill_beside(self, number: int) -> None:
        """One more, while the database is away: what it had in flight counts with the database's death."""
        program = self._random.choice(self.stage.programs)
        driven = self.stage.drivers.driven_by(program)
        victim = Victim.HOST if program is self.stage.host else Victim.WORKER
        kill = await self._kill_program(number, victim, program)
        kill.outage = True
        mended = self._host_again(kill) if victim is Victim.HOST else self._driven_again(kill, driven)
        self._mending.append(asyncio.create_task(self._watched(mended), name=f"kill {number}, beside"))

    async def _taken_over(self, account: str, since: datetime) -> datetime | None:
        return self.stage.drivers.taken_over(account, since)

    def _driver(self) -> Program:
        """A worker that drives something: to kill another one would try nothing."""
        driving = [one for one in self.stage.engines if self.stage.drivers.driven_by(one)]
        return self._random.choice(driving)

    async def _in_flight(self, accounts: Sequence[str] = ()) -> int:
        """How many deliveries are intended and have no outcome, on these accounts or on all."""

        async def counted() -> int:
            number = 0
            for one in self.unfinished:
                wanted = DeliveryFilter(one.broadcast, states={DeliveryState.SENDING})
                async for row, _ in self.stage.store.all_deliveries(wanted):
                    number += not accounts or row.account in accounts
            return number

        return await self.stage.durably(counted)

    # --- the end --------------------------------------------------------------------------------------

    async def _until_ended(self) -> None:
        """Until every broadcast has ended; those that do not go on any more are for the verdict."""
        with suppress(TimeoutError):
            await until(self._all_ended, "broadcasts do not end", within=2 * _PATIENCE)
        self.say(
            f"{self._clock()}  {len(self.launched) - len(self.unfinished)} broadcasts of {len(self.launched)} ended"
        )

    async def _all_ended(self) -> bool:
        return not await self._still_running()

    async def _verdict(self) -> Verdict:
        arrivals = await self.stage.look()
        shipments = [await self._shipment(one) for one in self.launched]
        in_flight = sum(kill.in_flight for kill in self.kills)
        people = frozenset(self.people)
        return judge(shipments, arrivals, people=people, stopped=self.stopped, in_flight=in_flight)

    async def _shipment(self, one: Launched) -> Shipment:
        store = self.stage.store
        found = await store.broadcast(one.broadcast)
        assert found is not None
        rows = [
            (recipient.external_id or recipient.id, delivery)
            async for delivery, recipient in store.all_deliveries(DeliveryFilter(one.broadcast))
        ]
        counted = report.deliveries(await store.tally(one.broadcast))
        ended = found.status is BroadcastStatus.COMPLETED
        return Shipment(one.name, one.after_crash, found.launched_at, rows, counted, ended=ended)

    # --- words ----------------------------------------------------------------------------------------

    def _clock(self) -> str:
        return f"{_since(self._began):7.1f} s"

    def _told(self, kill: Kill) -> str:
        parts = [f"{kill.number:3}", f"{kill.name:<8} down {kill.down:.1f} s"]
        if kill.victim is not Victim.HOST:
            parts.append(f"{kill.in_flight:3} in flight")
        if kill.takeovers:
            parts.append(f"taken over after {max(kill.takeovers.values()):.1f} s")
        if kill.again is not None:
            what = "ready again" if kill.victim is Victim.HOST else "sends went on"
            parts.append(f"{what} after {kill.again:.1f} s")
        return f"{self._clock()}  kill -9  {'  '.join(parts)}"


def _since(moment: datetime) -> float:
    return (now() - moment).total_seconds()


def _campaign(name: str, policy: AfterCrash) -> dict[str, Any]:
    return {
        "name": f"Drill {name}",
        "message": {"text": f"Hello [FIRSTNAME]. This is message {name}."},
        "schedule": {"immediate": True, "hours": {day: ["00:00-24:00"] for day in DAYS}},
        "policies": {"presence": ["any"], "after_crash": policy.value},
    }
