"""What every store guarantees of erasing a person (broadcast.ports), the unhappy rows first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broadcast.errors import Conflict
from broadcast.model import (
    Attempt,
    BroadcastStatus,
    ChannelName,
    DeliveryState,
    EventType,
    Outcome,
    Reason,
    Recipient,
)
from broadcast.ports import DeliveryFilter, Store
from tests.storage.builders import (
    ACCOUNT,
    NOW,
    absent,
    at,
    attempt,
    broadcast,
    conversation,
    delivery,
    dispatch,
    event,
    launch,
    populate,
    receipt,
    recipient,
    sent,
)

S = DeliveryState
LATER = at(9)


async def test_nobody_is_erased_twice_or_by_mistake(store: Store) -> None:
    """An id that nobody has changes nothing."""
    await launch(store, "ann")
    before = await store.control_version()
    assert not await store.erase_recipient("rcp_x", LATER)
    assert await store.control_version() == before
    assert await store.erase_recipient("rcp_ann", LATER)
    assert await store.control_version() > before
    assert not await store.erase_recipient("rcp_ann", LATER)


async def test_nobody_is_erased_while_they_may_be_planned(store: Store) -> None:
    """A plan that read them before would write a delivery to nobody, which never ends."""
    _, [ann] = await launch(store, "ann")
    begun = broadcast("brd_2", BroadcastStatus.INITIALIZING)
    await store.save_broadcast(begun, expected=None)
    with pytest.raises(Conflict, match="brd_2 is being planned; try again"):
        await store.erase_recipient("rcp_ann", LATER)
    assert await store.delivery(ann.id) == ann
    await store.save_broadcast(replace(begun, status=BroadcastStatus.RUNNING), expected=begun.status)
    assert await store.erase_recipient("rcp_ann", LATER)


async def test_what_was_planned_to_them_ends(store: Store) -> None:
    """Nothing is sent to somebody who was erased; the counters say so."""
    lease, [ann, ben] = await launch(store, "ann", "ben")
    await store.erase_recipient("rcp_ann", LATER)
    ended = replace(ann, state=S.SKIPPED, reason=Reason.GONE, ended_at=LATER, conversation=None)
    assert await store.delivery(ann.id) == ended
    assert await store.intend(lease, [ann, ben], NOW) == [ben.id]
    assert await store.tally("brd_1") == {
        "state/teams/sending": 1,
        "state/teams/skipped": 1,
        "reason/skipped/gone": 1,
    }


async def test_what_was_in_flight_to_them_is_uncertain(store: Store) -> None:
    """It may have arrived; its outcome, when it comes, is nobody's any more."""
    lease, [ann] = await launch(store, "ann")
    await store.intend(lease, [replace(ann, sends=1, rung_at=NOW)], NOW)
    await store.erase_recipient("rcp_ann", LATER)
    assert await store.record(lease, [sent(ann)]) == []
    found = await store.delivery(ann.id)
    assert found is not None
    assert (found.state, found.ended_at, found.sends, found.platform_message_id) == (S.UNCERTAIN, LATER, 1, None)
    assert await store.in_flight(lease) == []
    assert await store.tally("brd_1") == {"state/teams/uncertain": 1}


async def test_what_was_counted_of_them_stays(store: Store) -> None:
    """Sent, read and clicked as before; the row is there, of somebody who is not known."""
    lease, [ann, ben] = await launch(store, "ann", "ben")
    for place, one in enumerate((ann, ben)):
        await dispatch(store, lease, one, str(100 + place))
        await store.add_events([event(one.id, key=f"k{place}"), event(one.id, EventType.READ, f"r{place}")])
    before = await store.tally("brd_1")
    await store.erase_recipient("rcp_ann", LATER)
    assert await store.tally("brd_1") == before
    rows = [row async for row in store.all_deliveries(DeliveryFilter("brd_1"))]
    assert [person for _, person in rows] == [Recipient("rcp_ann"), recipient("ben")]
    assert (rows[0][0].state, rows[0][0].clicked_at) == (S.SENT, at(3))


async def test_nothing_kept_leads_to_them(store: Store) -> None:
    """Neither the record nor a name, a channel id, a conversation, a message's id or what a platform said."""
    await store.ensure_lists({"lst_staff": "Staff"})
    lease, [ann] = await launch(store, "ann")
    person = recipient(
        "ann",
        external_id="E1",
        email="ann@example.com",
        identities={ChannelName.TEAMS: "user-ann"},
        lists=frozenset({"lst_staff"}),
    )
    await store.save_recipients([person])
    away = absent(ann)
    said = replace(away, attempt=replace(attempt(ann, Outcome.ABSENT), detail="said of user-ann"))
    await store.record(lease, [said])
    await dispatch(store, lease, away.delivery)
    await store.add_events([event(ann.id, EventType.REPLIED, detail="Call me, Ann")])
    await store.erase_recipient("rcp_ann", LATER)
    assert await store.recipient("rcp_ann") is None
    assert await store.match_recipients([person]) == [None]
    assert await store.conversations_of("rcp_ann") == []
    assert await store.conversation(ACCOUNT, "user-ann") is None
    found = await store.delivery(ann.id)
    assert found is not None
    assert (found.conversation, found.platform_message_id) == (None, None)
    lines = await store.timeline(ann.id)
    assert [line.detail for line in lines] == [None, None, None]
    assert [line.outcome for line in lines if isinstance(line, Attempt)] == [Outcome.ABSENT, Outcome.SENT]


async def test_what_comes_in_of_them_later_counts_nowhere(store: Store) -> None:
    """Nor does a receipt that waited for an outcome, should the same person come back."""
    lease, [ann] = await launch(store, "ann")
    await store.add_receipts([receipt("ann", "100")])
    await store.erase_recipient("rcp_ann", LATER)
    before = await store.tally("brd_1")
    await store.add_receipts([receipt("ann", "100", EventType.DELIVERED, up_to=True)])
    assert await store.tally("brd_1") == before
    await store.save_recipients([recipient("ann2")])
    await store.save_conversations([conversation("ann", recipient="rcp_ann2")])
    again = delivery("ann2", conversation=conversation("ann").id)
    await store.plan([again])
    await dispatch(store, lease, again, "100")
    found = await store.delivery(again.id)
    assert found is not None
    assert found.read_at is None
    assert (await store.delivery(ann.id)) is not None


async def test_who_comes_back_is_somebody_new(store: Store) -> None:
    """The same names and channel ids are free, and nothing of before is theirs."""
    person = recipient("ann", external_id="E1", email="ann@example.com", identities={ChannelName.TEAMS: "t1"})
    await populate(store, "ann")
    await store.save_recipients([person])
    await store.set_unsubscribed("rcp_ann", NOW)
    await store.erase_recipient("rcp_ann", LATER)
    new = replace(person, id="rcp_new")
    await store.save_recipients([new])
    assert await store.match_recipients([person]) == [new]
    await store.save_conversations([conversation("ann", recipient="rcp_new", reference={})])
    [found] = await store.conversations_of("rcp_new")
    assert found.reference == {}


async def test_nobody_else_is_touched(store: Store) -> None:
    """Neither their record nor what is planned, in flight or told of them."""
    lease, [_, ben, cat] = await launch(store, "ann", "ben", "cat")
    await store.intend(lease, [replace(cat, sends=1, rung_at=NOW)], NOW)
    await store.add_receipts([receipt("ben", "7")])
    await store.erase_recipient("rcp_ann", LATER)
    assert await store.delivery(ben.id) == ben
    assert await store.conversations_of("rcp_ben") == [conversation("ben")]
    assert await store.record(lease, [sent(cat)]) == [cat.id]
    await dispatch(store, lease, ben, "7")
    found = await store.delivery(ben.id)
    assert found is not None
    assert found.read_at == at(4)
