"""What the command line does in the store and goes: import, tokens, trials. A running host need not be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bot import accounts, importing
from bot.admin.auth import Role, new_token
from bot.chance import SystemChance
from bot.clock import RealClock
from bot.settings import Settings
from broadcast.campaigns import Broadcasts, Campaigns
from broadcast.errors import ClarionError
from broadcast.model import Broadcast, BroadcastStatus, Delivery, DeliveryState, Recipient
from broadcast.ports import DeliveryFilter, Page, Store
from broadcast.recipients import Imported, Recipients
from storage.open import open_store

Say = Callable[[str], None]

#: Real seconds that a trial may wait for somebody to take it up, and then to be sent.
TAKEN_UP_WITHIN = 5.0
SENT_WITHIN = 30.0
_LOOK = 0.2
_ERRORS_SHOWN = 50


class NotTakenUp(ClarionError):  # noqa: N818 - says what happened
    """Nobody drives the account."""


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[Store]:
    store = await open_store(settings.store)
    try:
        yield store
    finally:
        await store.close()


async def create_token(settings: Settings, role: str, name: str, *, say: Say) -> None:
    """Says the token, and nothing else, so that a script can take it."""
    async with _store(settings) as store:
        secret, token = new_token(SystemChance(), RealClock(), role=Role(role), name=name)
        await store.save_token(token)
    say(secret)


# --- import -------------------------------------------------------------------------------------------


async def import_file(settings: Settings, path: Path, *, say: Say) -> int:
    """0 where every row was taken, 1 where some were left out."""
    format = importing.format_of("", path.name)
    if format is None:
        raise ClarionError(f"{path}: the name says no format; let it end with .csv, .xlsx or .jsonl")
    async with _store(settings) as store:
        with path.open("rb") as file:
            rows = importing.streamed(importing.rows(file, format))
            imported = await Recipients(store, RealClock(), SystemChance()).take(rows)
    for line in _told(imported):
        say(line)
    return 1 if imported.errors else 0


def _told(imported: Imported) -> list[str]:
    lines = [f"created {imported.created}, updated {imported.updated}, unchanged {imported.unchanged}"]
    lines += [
        f"line {error.line}: {error.field + ': ' if error.field else ''}{error.message}"
        for error in imported.errors[:_ERRORS_SHOWN]
    ]
    if len(imported.errors) > _ERRORS_SHOWN:
        lines.append(f"… and {len(imported.errors) - _ERRORS_SHOWN} more")
    if imported.errors:
        lines.append(f"left out {len(imported.errors)}")
    return lines


# --- try ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Trial:
    """A trial on its way."""

    broadcast: Broadcast
    delivery: Delivery | None


async def try_campaign(settings: Settings, campaign: str, who: str, *, say: Say) -> int:
    """Hands a trial over to whoever drives the account, and says what became of it: 0 where it was sent."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(_store(settings))
        clock = RealClock()
        usable = accounts.opened(settings, clock, stack).usable
        campaigns = Campaigns(store, clock, SystemChance(), usable)
        meant = await campaigns.named(campaign)
        recipient = await campaigns.find_recipient(who)
        broadcast = await campaigns.try_out(meant.id, to=recipient, by="command line")
        trial = await _watched(store, broadcast)
        return await _verdict(trial, recipient, Broadcasts(store, clock), say)


async def _watched(store: Store, broadcast: Broadcast) -> _Trial:
    """Looks until it has an end, or nobody takes it up, or it takes too long."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        trial = await _look(store, broadcast)
        waited = loop.time() - began
        untouched = trial.broadcast.status is BroadcastStatus.SCHEDULED or (
            trial.delivery is not None
            and trial.delivery.state is DeliveryState.PLANNED
            and not trial.delivery.sends
        )
        if _ended(trial) or waited > (TAKEN_UP_WITHIN if untouched else SENT_WITHIN):
            return trial
        await asyncio.sleep(_LOOK)


def _ended(trial: _Trial) -> bool:
    if trial.delivery is not None:
        return trial.delivery.state not in {DeliveryState.PLANNED, DeliveryState.SENDING}
    return trial.broadcast.status in {BroadcastStatus.FAILED, BroadcastStatus.STOPPED}


async def _look(store: Store, broadcast: Broadcast) -> _Trial:
    found = await store.broadcast(broadcast.id) or broadcast
    listing = await store.deliveries(DeliveryFilter(broadcast.id), Page(1, 1))
    return _Trial(found, listing.items[0][0] if listing.items else None)


async def _verdict(trial: _Trial, recipient: Recipient, broadcasts: Broadcasts, say: Say) -> int:
    name, delivery = recipient.name or recipient.email or recipient.id, trial.delivery
    if delivery is not None and delivery.state is DeliveryState.SENT:
        say(f"sent to {name} through {delivery.account}")
        return 0
    if delivery is not None and _ended(trial):
        raise ClarionError(f"not sent to {name}: {delivery.state}, {delivery.reason}")
    if _ended(trial):
        raise ClarionError(f"not sent to {name}: {trial.broadcast.status}, {trial.broadcast.reason}")
    await broadcasts.stop(trial.broadcast.id)
    if delivery is not None and delivery.sends:
        raise ClarionError(
            f"not sent to {name} yet: {delivery.account} does not get through; clarion serve logs why"
        )
    raise NotTakenUp(f"no engine is running for {name}; start clarion serve on this store, and try again")
