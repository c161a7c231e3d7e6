"""Pause, resume, stop and the end of a broadcast, also where two of them meet."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broadcast.campaigns import Broadcasts, every
from broadcast.errors import Conflict, NotFound
from broadcast.model import (
    BROADCAST_MOVES,
    ENDED_STATUSES,
    Broadcast,
    BroadcastReason,
    BroadcastStatus,
    DeliveryState,
    Reason,
)
from broadcast.ports import Page
from tests.storage import builders
from tests.unit.office import TELEGRAM, VIBER, Crash, Office, shaky

B = BroadcastStatus
MINUTE = timedelta(minutes=1)


async def stored(office: Office, status: B, *, planned: int | None = 1) -> Broadcast:
    """One that stands there, with a planned delivery to Ann."""
    await office.hire("ann")
    broadcast = builders.broadcast(status=status, planned=planned)
    await office.store.save_broadcast(broadcast, expected=None)
    await office.store.plan([builders.delivery("ann")])
    return broadcast


async def end_all(office: Office, broadcast: Broadcast) -> None:
    """Every planned delivery ends, as if the engine had seen to it."""
    for recipient in await office.deliveries(broadcast):
        await office.store.set_unsubscribed(recipient, office.clock.now())


# --- pause and resume ---------------------------------------------------------------------------------


async def test_a_pause_has_a_reason_and_a_resume_has_none() -> None:
    """It goes on where it stood."""
    office = Office()
    broadcast = await stored(office, B.RUNNING)
    paused = await office.broadcasts.pause(broadcast.id, BroadcastReason.FAILURE_RATE, detail="3 of 5 failed")
    assert paused == await office.broadcasts.get(broadcast.id)
    assert (paused.status, paused.reason, paused.reason_detail) == (
        B.PAUSED,
        BroadcastReason.FAILURE_RATE,
        "3 of 5 failed",
    )
    resumed = await office.broadcasts.resume(broadcast.id)
    assert resumed == broadcast


async def test_a_pause_without_a_word_is_by_a_person() -> None:
    """Whoever pauses for another reason says so."""
    office = Office()
    broadcast = await stored(office, B.RUNNING)
    assert (await office.broadcasts.pause(broadcast.id)).reason is BroadcastReason.BY_USER


async def test_one_that_has_not_begun_waits_for_its_start_again() -> None:
    """Its audience is not resolved; a start that passed meanwhile is at once."""
    office = Office()
    await office.hire("ann")
    broadcast = await office.launched()
    await office.broadcasts.pause(broadcast.id)
    office.clock.move(timedelta(hours=1))
    assert await office.launching.start_due() == []
    assert (await office.broadcasts.resume(broadcast.id)).status is B.SCHEDULED
    assert await office.launching.start_due() == [broadcast.id]


async def test_what_ended_while_it_was_paused_completes_with_the_resume() -> None:
    """What was in flight arrived, and nobody is left."""
    office = Office()
    broadcast = await stored(office, B.PAUSED)
    await end_all(office, broadcast)
    completed = await office.broadcasts.resume(broadcast.id)
    assert (completed.status, completed.finished_at) == (B.COMPLETED, office.clock.now())


@pytest.mark.parametrize("status", sorted(set(B) - {B.RUNNING, B.SCHEDULED}))
async def test_only_what_waits_or_runs_can_be_paused(status: B) -> None:
    """Anything else says where it stands."""
    office = Office()
    broadcast = await stored(office, status)
    with pytest.raises(Conflict, match=f"Benefits week is {status} and cannot be paused"):
        await office.broadcasts.pause(broadcast.id)


@pytest.mark.parametrize("status", sorted(set(B) - {B.PAUSED}))
async def test_only_what_is_paused_can_be_resumed(status: B) -> None:
    """Also twice is a mistake: somebody else was first."""
    office = Office()
    broadcast = await stored(office, status)
    with pytest.raises(Conflict, match="only a paused broadcast can be resumed"):
        await office.broadcasts.resume(broadcast.id)
    assert await office.status(broadcast) is status


async def test_two_who_resume_at_once_resume_once() -> None:
    """One of them is told."""
    office = Office()
    broadcast = await stored(office, B.PAUSED)
    broadcasts = Broadcasts(shaky(office.store), office.clock)
    outcomes = await asyncio.gather(*(broadcasts.resume(broadcast.id) for _ in range(2)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Broadcast", "Conflict"]
    assert await office.status(broadcast) is B.RUNNING


async def test_a_resume_that_meets_a_stop_does_not_undo_it() -> None:
    """Whichever is first: it ends stopped, with nothing planned."""
    office = Office()
    broadcast = await stored(office, B.PAUSED)
    broadcasts = Broadcasts(shaky(office.store), office.clock)
    await asyncio.gather(broadcasts.resume(broadcast.id), broadcasts.stop(broadcast.id), return_exceptions=True)
    assert await office.status(broadcast) is B.STOPPED
    assert (await office.deliveries(broadcast))["rcp_ann"].state is DeliveryState.CANCELLED


# --- stop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [B.SCHEDULED, B.INITIALIZING, B.RUNNING, B.PAUSED])
async def test_a_stop_cancels_what_is_planned(status: B) -> None:
    """From wherever it stands; a reason it was paused for is no more."""
    office = Office()
    broadcast = await stored(office, status)
    stopped = await office.broadcasts.stop(broadcast.id)
    assert (stopped.status, stopped.reason, stopped.finished_at) == (B.STOPPED, None, office.clock.now())
    ann = (await office.deliveries(broadcast))["rcp_ann"]
    assert (ann.state, ann.reason, ann.ended_at) == (
        DeliveryState.CANCELLED,
        Reason.STOPPED,
        office.clock.now(),
    )


async def test_a_stop_leaves_what_is_in_flight() -> None:
    """It arrives, and what became of it is recorded."""
    office = Office()
    broadcast = await stored(office, B.RUNNING)
    flying = replace(builders.delivery("ben"), state=DeliveryState.SENDING)
    await office.store.plan([flying])
    await office.broadcasts.stop(broadcast.id)
    assert await office.store.delivery(flying.id) == flying


@pytest.mark.parametrize("status", [B.COMPLETED, B.FAILED])
async def test_what_is_over_cannot_be_stopped(status: B) -> None:
    """What went out stays out."""
    office = Office()
    broadcast = await stored(office, status)
    with pytest.raises(Conflict, match=f"is {status} and cannot be stopped"):
        await office.broadcasts.stop(broadcast.id)


async def test_stopping_twice_is_once() -> None:
    """The moment of the first stays, one after the other or at once."""
    office = Office()
    broadcast = await stored(office, B.RUNNING)
    broadcasts = Broadcasts(shaky(office.store), office.clock)
    first, second = await asyncio.gather(*(broadcasts.stop(broadcast.id) for _ in range(2)))
    office.clock.move(MINUTE)
    assert first == second == await office.broadcasts.stop(broadcast.id)


async def test_a_stop_that_meets_a_pause_stops() -> None:
    """It was running when it was looked up, and is paused when it is written: judged anew."""
    office = Office()
    broadcast = await stored(office, B.RUNNING)
    broadcasts = Broadcasts(shaky(office.store), office.clock)
    await asyncio.gather(broadcasts.pause(broadcast.id), broadcasts.stop(broadcast.id))
    stopped = await office.broadcasts.get(broadcast.id)
    assert (stopped.status, stopped.reason) == (B.STOPPED, None)


@pytest.mark.parametrize("calls", range(4))
async def test_a_stop_that_a_crash_cut_short_is_finished(calls: int) -> None:
    """By whoever asks again, and by the next start of the host."""
    for again in (True, False):
        office = Office()
        broadcast = await stored(office, B.RUNNING)
        with pytest.raises(Crash):
            await Broadcasts(shaky(office.store, min(calls, 2)), office.clock).stop(broadcast.id)
        office.clock.move(MINUTE)
        if again or await office.status(broadcast) is B.RUNNING:
            await office.broadcasts.stop(broadcast.id)
        else:
            await office.launching.finish_interrupted()
        stopped = await office.broadcasts.get(broadcast.id)
        ann = (await office.deliveries(broadcast))["rcp_ann"]
        assert (ann.state, ann.ended_at) == (DeliveryState.CANCELLED, stopped.finished_at)


# --- the end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(DeliveryState))
async def test_it_is_over_when_every_delivery_has_an_end(state: DeliveryState) -> None:
    """What waits or is in flight keeps it running."""
    office = Office()
    broadcast = builders.broadcast(planned=1)
    await office.store.save_broadcast(broadcast, expected=None)
    await office.store.plan([replace(builders.delivery("ann"), state=state)])
    settled = await office.broadcasts.settle(broadcast.id)
    if state in {DeliveryState.PLANNED, DeliveryState.SENDING}:
        assert settled is None
        assert await office.status(broadcast) is B.RUNNING
    else:
        assert settled is not None
        assert (settled.status, settled.finished_at) == (B.COMPLETED, office.clock.now())


@pytest.mark.parametrize("status", sorted(set(B) - {B.RUNNING}))
async def test_only_what_runs_is_completed(status: B) -> None:
    """A pause is somebody's decision, also where nothing is left."""
    office = Office()
    broadcast = builders.broadcast(status=status)
    await office.store.save_broadcast(broadcast, expected=None)
    assert await office.broadcasts.settle(broadcast.id) is None
    assert await office.status(broadcast) is status


async def test_a_settlement_that_meets_a_stop_is_none() -> None:
    """Both saw that nothing is left; one of them wrote."""
    office = Office()
    broadcast = builders.broadcast()
    await office.store.save_broadcast(broadcast, expected=None)
    broadcasts = Broadcasts(shaky(office.store), office.clock)
    settled, stopped = await asyncio.gather(
        broadcasts.settle(broadcast.id), broadcasts.stop(broadcast.id), return_exceptions=True
    )
    assert (settled is None) != isinstance(stopped, Conflict)
    assert await office.status(broadcast) in {B.COMPLETED, B.STOPPED}


# --- accounts -----------------------------------------------------------------------------------------


async def test_an_account_that_cannot_send_pauses_what_needs_it() -> None:
    """With its name and what is wrong; others go on."""
    office = Office()
    broadcast = await stored(office, B.RUNNING)
    assert await office.broadcasts.pause_account(VIBER, "the token was revoked") == []
    assert await office.broadcasts.pause_account(builders.ACCOUNT, "the token was revoked") == [broadcast.id]
    paused = await office.broadcasts.get(broadcast.id)
    assert (paused.status, paused.reason, paused.reason_detail) == (
        B.PAUSED,
        BroadcastReason.ACCOUNT_DISCONNECTED,
        "teams/hr: the token was revoked",
    )
    assert await office.broadcasts.pause_account(builders.ACCOUNT, "still") == []


async def test_one_that_ends_meanwhile_is_not_paused() -> None:
    """It was running when it was looked up."""
    office = Office()
    broadcast = await stored(office, B.RUNNING)
    broadcasts = Broadcasts(shaky(office.store), office.clock)
    paused, _ = await asyncio.gather(
        broadcasts.pause_account(builders.ACCOUNT, "down"), office.broadcasts.stop(broadcast.id)
    )
    assert paused == []
    assert await office.status(broadcast) is B.STOPPED


# --- looking ------------------------------------------------------------------------------------------


async def test_what_is_not_there_is_not_found() -> None:
    """Whatever is asked of it."""
    broadcasts = Office().broadcasts
    for ask in (broadcasts.get, broadcasts.pause, broadcasts.resume, broadcasts.stop, broadcasts.settle):
        with pytest.raises(NotFound, match="there is no broadcast brd_x"):
            await ask("brd_x")


async def test_none_is_overlooked_however_many_there_are() -> None:
    """More than a page of them."""
    office = Office()
    for number in range(1001):
        made = builders.broadcast(f"brd_{number}", status=B.SCHEDULED)
        await office.store.save_broadcast(made, expected=None)
    assert len(await every(office.store, B.SCHEDULED)) == 1001
    assert await every(office.store, B.RUNNING) == []
    assert (await office.store.broadcasts(page=Page(1, 1))).total == 1001


def test_what_is_over_moves_nowhere() -> None:
    """Nothing leads out of an ended status."""
    assert {status for status, moves in BROADCAST_MOVES.items() if not moves} == ENDED_STATUSES


async def test_a_trial_is_paused_and_stopped_like_any_other() -> None:
    """The account that drives it may fail too."""
    office = Office()
    await office.hire("ann")
    campaign = await office.draft()
    trial = await office.campaigns.try_out(campaign.id, to=await office.person("ann"), by="tok_1")
    await office.launching.start_due()
    assert await office.broadcasts.pause_account(TELEGRAM, "down") == [trial.id]
    assert (await office.broadcasts.stop(trial.id)).status is B.STOPPED
