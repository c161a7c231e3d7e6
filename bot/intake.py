"""What comes in from the platforms, whichever way: stored first, answered afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

import structlog

from bot.accounts import Accounts, ConfiguredAccount
from bot.channels.webhook import Received
from bot.tasks import Tasks
from broadcast.errors import StoreUnavailable
from broadcast.inbox import Handled, Reception
from broadcast.model import BadContent, Faulty, Never, Sent, StopAccount, Throttled, Unknown
from broadcast.ports import Content, Inbound, Lease

log = structlog.get_logger(__name__)

#: Answers under way at once; beyond it people get none, and are free to ask again.
MOST_ANSWERS = 1000
#: Real seconds before something fetched is tried to be stored again.
STORE_PAUSE = 1.0
#: Real seconds before an answer that a platform did not take is tried again.
SAID_AGAIN = (1.0, 3.0, 9.0)
#: Nobody waits longer than this for an answer.
LATEST = timedelta(seconds=30)

NotSent = Throttled | Faulty | Never | BadContent | StopAccount | Unknown


@dataclass(frozen=True, slots=True)
class Deed:
    """Something a person did, new to us, and what followed from it."""

    inbound: Inbound
    handled: Handled

    @property
    def is_answered(self) -> bool:
        """Whether there may be something to say to them."""
        return self.handled.answer is not None or self.handled.command is not None


class Desk(Protocol):
    """Whoever answers what is none of the recipients' words."""

    async def answer(self, deed: Deed) -> Content | None:
        """What to say back; ``None``: nothing."""


class Intake:
    """Stores what was received, and answers people by tasks of its own, through the account they wrote to."""

    def __init__(self, reception: Reception, accounts: Accounts, desk: Desk) -> None:
        self._reception = reception
        self._accounts = accounts
        self._desk = desk
        self._answers = Tasks("answers", limit=MOST_ANSWERS)

    async def take(self, received: Received) -> list[Deed]:
        """Stores it, durably on return; says what was new. Raises `StoreUnavailable`."""
        await self._reception.receipts(received.receipts)
        handled = [(inbound, await self._reception.inbound(inbound)) for inbound in received.inbound]
        return [Deed(inbound, what) for inbound, what in handled if what is not None]

    def answer(self, deeds: Iterable[Deed]) -> None:
        """Answers in the background."""
        for deed in deeds:
            if deed.is_answered:
                self._answers.start(self._answer(deed), f"answer {deed.inbound.account}")

    async def fetch(self, one: ConfiguredAccount, _lease: Lease) -> None:
        """Takes what a platform does not send by itself, until cancelled: one process at a time may ask for it."""
        if one.face is None or one.face.poll is None:
            return
        while not one.connected:  # until then a webhook may stand in the way
            await one.known.wait()
            await asyncio.sleep(STORE_PAUSE)
        async with aclosing(one.face.poll()) as fetched:
            async for received in fetched:
                await self._take_fetched(received)

    async def close(self) -> None:
        """Gives answers under way a moment to go out."""
        await self._answers.close(patience=2.0, grace=1.0)

    async def _take_fetched(self, received: Received) -> None:
        """Each on its own, and again until it is stored: asking for the next confirms these."""
        for one in (replace(received, inbound=()), *(Received(inbound=(each,)) for each in received.inbound)):
            await self._take_for_sure(one)

    async def _take_for_sure(self, received: Received) -> None:
        while True:
            try:
                return self.answer(await self.take(received))
            except StoreUnavailable as error:
                log.warning("not stored yet", action="store_unavailable", detail=str(error))
            except Exception:  # one that cannot be taken in must not hold up all that follow
                log.exception("not taken in", action="inbound_failed")
                return None
            await asyncio.sleep(STORE_PAUSE)

    async def _answer(self, deed: Deed) -> None:
        said = deed.handled.answer
        content = await self._desk.answer(deed)
        for one in _joined(said, content):
            await self._say(deed, one)

    async def _say(self, deed: Deed, content: Content) -> None:
        face = self._accounts.face(deed.inbound.account)
        if face is None:
            return
        waits = iter(SAID_AGAIN)
        while not isinstance(answer := await face.channel.send(deed.handled.conversation, content), Sent):
            pause = _said_again_after(answer, next(waits, None))
            if pause is None:
                self._give_up(deed, answer)
                return
            await asyncio.sleep(pause)

    def _give_up(self, deed: Deed, answer: NotSent) -> None:
        log.warning(
            "an answer did not go out",
            action="answer_failed",
            account=deed.inbound.account,
            outcome=type(answer).__name__,
            detail=answer.detail,
        )


def _said_again_after(answer: NotSent, wait: float | None) -> float | None:
    """Real seconds until an answer to a person is tried again: as long as the platform says, if that is soon, else
    `wait`. ``None``: not at all, since tries are spent, it cannot go, or it may have gone out already."""
    match answer:
        case _ if wait is None:
            return None
        case Throttled(wait=timedelta() as asked):
            return asked.total_seconds() if asked <= LATEST else None
        case Throttled() | Faulty():
            return wait
    return None


def _joined(said: str | None, content: Content | None) -> Sequence[Content]:
    """One message where both are plain words."""
    if said is None or content is None:
        return [one for one in (Content(said) if said is not None else None, content) if one is not None]
    return [Content(f"{said}\n\n{content.text}", content.media, content.buttons)]
