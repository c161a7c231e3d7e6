"""When broadcasts start: a scheduler that knocks, rebuilt from storage whenever something changed there.

Storage is the truth: a job only says "look what is due", and the start is claimed there. Many hosts may knock; one
of them does at a time, so that a plan which a crash cut short is taken up by whoever is next, and by nobody before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from bot.clock import HostClock
from broadcast.campaigns import Campaigns
from broadcast.errors import StoreUnavailable
from broadcast.launching import Launching
from broadcast.ports import Lease, Store

log = structlog.get_logger(__name__)

#: The lease that lets a process knock.
LEASE = "clarion/starts"
#: Real seconds between knocks that happen whatever the jobs say.
SAFETY = 30.0
#: Real seconds between looks at storage: a large plan changes it all the time.
BREATH = 0.1
#: A job runs a moment after its instant, never before it.
_LATER = timedelta(milliseconds=1)


class Triggers:
    """The launch of what repeats, and the start of what is scheduled."""

    def __init__(
        self,
        store: Store,
        campaigns: Campaigns,
        launching: Launching,
        clock: HostClock,
        *,
        safety: float = SAFETY,
    ) -> None:
        self._store = store
        self._campaigns = campaigns
        self._launching = launching
        self._clock = clock
        self._safety = safety

    async def run(self, _lease: Lease) -> None:
        """Until cancelled."""
        scheduler = AsyncIOScheduler(
            timezone=UTC,
            jobstores={"default": MemoryJobStore()},
            # However late: a start that was missed while the machine slept is a start all the same.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        await self._finish_interrupted()
        scheduler.start()
        try:
            scheduler.add_job(self.knock, IntervalTrigger(seconds=self._safety, timezone=UTC), id="safety")
            await self._follow(scheduler)
        finally:
            scheduler.shutdown(wait=False)

    async def knock(self) -> None:
        """Launches what repeats, then starts what is due; neither keeps the other from it."""
        await self._tried(self._launch_again())
        await self._tried(self._start_due())

    async def _tried(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except StoreUnavailable as error:
            log.warning("not started: the store does not answer", action="start_failed", detail=str(error))
        except Exception:
            log.exception("not started", action="start_failed")

    async def _launch_again(self) -> None:
        for launched in await self._campaigns.launch_due():
            log.info("launched", action="launched_again", campaign=launched.campaign, broadcast=launched.id)

    async def _start_due(self) -> None:
        for started in await self._launching.start_due():
            log.info("started", action="broadcast_started", broadcast=started)

    async def _finish_interrupted(self) -> None:
        try:
            await self._launching.finish_interrupted()
        except StoreUnavailable:
            raise
        except Exception:  # one plan that cannot be finished keeps no other broadcast from starting
            log.exception("not finished", action="finish_interrupted_failed")

    async def _follow(self, scheduler: AsyncIOScheduler) -> None:
        """Keeps the jobs what storage says they are."""
        while True:
            seen = await self._store.control_version()
            self._rebuild(scheduler, {**await self._launching.awaited(), **await self._campaigns.awaited()})
            await asyncio.sleep(BREATH)
            await self._store.wait_control(seen)

    def _rebuild(self, scheduler: AsyncIOScheduler, awaited: Mapping[str, datetime]) -> None:
        wanted = {id: self._when(moment) for id, moment in awaited.items()}
        for job in scheduler.get_jobs():
            if job.id not in wanted and job.id != "safety":
                job.remove()
        for id, when in wanted.items():
            scheduler.add_job(self.knock, DateTrigger(when, timezone=UTC), id=id, replace_existing=True)

    def _when(self, moment: datetime) -> datetime:
        """The moment in real time, which is what the scheduler reads."""
        ahead = max(0.0, self._clock.real_seconds(moment))
        return datetime.now(UTC) + timedelta(seconds=ahead) + _LATER
