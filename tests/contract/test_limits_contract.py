"""What every store guarantees of intents where only so many of a broadcast may be begun in all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from broadcast.model import Delivery, DeliveryState, Reason
from broadcast.ports import Lease, Result, Store
from tests.storage.builders import ACCOUNT, NOW, broadcast, conversation, delivery, launch, recipient, sent

OTHER = "teams/it"
NAMES = ("ann", "ben", "cat", "dan")
S = DeliveryState


def back(delivery: Delivery) -> Result:
    """One whose send is to be tried again."""
    return Result(S.SENDING, delivery)


def ended(delivery: Delivery, state: DeliveryState, reason: Reason | None = None) -> Result:
    return Result(S.SENDING, replace(delivery, state=state, reason=reason, ended_at=NOW))


async def states(store: Store, planned: Sequence[Delivery]) -> list[DeliveryState]:
    found = [await store.delivery(one.id) for one in planned]
    return [one.state for one in found if one is not None]


async def test_no_more_are_granted_than_may_be_begun(store: Store) -> None:
    """The first in the order given; the others are left as they are."""
    lease, [ann, ben, cat, dan] = await launch(store, *NAMES)
    assert await store.intend(lease, [dan, ann, ben, cat], NOW, limits={"brd_1": 2}) == [dan.id, ann.id]
    assert [await store.delivery(one.id) for one in (ben, cat)] == [ben, cat]
    assert await store.tally("brd_1") == {"state/teams/planned": 2, "state/teams/sending": 2}
    assert len(await store.in_flight(lease)) == 2


async def test_a_number_that_is_reached_or_exceeded_grants_nothing(store: Store) -> None:
    """Also where more were begun before anybody asked for it."""
    lease, [ann, ben, cat, dan] = await launch(store, *NAMES)
    await store.intend(lease, [ann, ben], NOW)
    assert await store.intend(lease, [cat, dan], NOW, limits={"brd_1": 2}) == []
    assert await store.intend(lease, [cat, dan], NOW, limits={"brd_1": 1}) == []
    assert await store.intend(lease, [cat, dan], NOW, limits={"brd_1": 0}) == []
    assert await store.intend(lease, [cat, dan], NOW) == [cat.id, dan.id]


@pytest.mark.parametrize(
    ("state", "reason"), [(S.SENT, None), (S.FAILED, Reason.REFUSED), (S.UNCERTAIN, None), (S.SENDING, None)]
)
@pytest.mark.parametrize("beside", [True, False])
async def test_what_is_out_counts(
    store: Store, state: DeliveryState, reason: Reason | None, *, beside: bool
) -> None:
    """Whatever came of it, whether it is told before or in the same call."""
    lease, [ann, ben, cat, dan] = await launch(store, *NAMES)
    await store.intend(lease, [ann, ben], NOW)
    outcomes = [ended(ann, state, reason)] if state is not S.SENDING else []
    if not beside:
        await store.record(lease, outcomes)
    granted = await store.intend(lease, [cat, dan], NOW, after=outcomes if beside else (), limits={"brd_1": 3})
    assert granted == [cat.id]


@pytest.mark.parametrize("beside", [True, False])
async def test_what_comes_back_makes_room(store: Store, *, beside: bool) -> None:
    """In the same call already."""
    lease, [ann, ben, cat, dan] = await launch(store, *NAMES)
    await store.intend(lease, [ann, ben], NOW, limits={"brd_1": 2})
    outcomes = [back(ann), sent(ben)]
    if not beside:
        await store.record(lease, outcomes)
    granted = await store.intend(lease, [cat, dan], NOW, after=outcomes if beside else (), limits={"brd_1": 2})
    assert granted == [cat.id]
    assert await states(store, [ann, ben, cat, dan]) == [S.PLANNED, S.SENT, S.SENDING, S.PLANNED]


async def test_what_ends_unsent_does_not_count(store: Store) -> None:
    """Who was skipped takes nobody's place."""
    lease, [_, ben, cat, _] = await launch(store, *NAMES)
    await store.set_unsubscribed("rcp_ann", NOW)
    assert await store.intend(lease, [ben, cat], NOW, limits={"brd_1": 2}) == [ben.id, cat.id]


async def test_what_may_not_go_takes_no_place(store: Store) -> None:
    """Not the unknown, the unsubscribed, those on their way or of another account, nor anybody twice."""
    lease, [ann, ben, cat, dan] = await launch(store, *NAMES)
    eva = delivery("eva", account=OTHER)
    await store.plan([eva])
    await store.set_unsubscribed("rcp_ann", NOW)
    await store.intend(lease, [ben], NOW)
    wanted = [delivery("x"), eva, ann, ben, cat, cat, dan]
    assert await store.intend(lease, wanted, NOW, limits={"brd_1": 3}) == [cat.id, dan.id]


async def test_each_broadcast_is_counted_for_itself(store: Store) -> None:
    """One that is not named has no number, and one that is named and not asked for changes nothing."""
    lease, [ann, ben, _, _] = await launch(store, *NAMES)
    wanted = [ann, ben]
    for id in ("brd_2", "brd_3"):
        await store.save_broadcast(broadcast(id), expected=None)
        others = [delivery(name, id) for name in ("ann", "ben")]
        await store.plan(others)
        wanted += others
    granted = await store.intend(lease, wanted, NOW, limits={"brd_1": 1, "brd_3": 0, "brd_4": 1})
    assert granted == ["dlv_brd_1_ann", "dlv_brd_2_ann", "dlv_brd_2_ben"]
    assert await store.tally("brd_4") == {}


async def test_two_accounts_at_once_begin_no_more_than_may_be_begun(store: Store) -> None:
    """Whoever comes later counts what the earlier was granted: together they reach the number, and stop there."""
    leases = [await manned(store, account) for account in (ACCOUNT, OTHER)]
    for round in range(20):
        id = f"brd_{round}"
        await store.save_broadcast(broadcast(id), expected=None)
        planned = [[planned_on(account, name, id) for name in NAMES] for account in (ACCOUNT, OTHER)]
        await store.plan([one for own in planned for one in own])
        granted = await asyncio.gather(
            *(store.intend(lease, own, NOW, limits={id: 5}) for lease, own in zip(leases, planned, strict=True))
        )
        assert sum(map(len, granted)) == 5
        assert await store.tally(id) == {"state/teams/planned": 3, "state/teams/sending": 5}
        flying = [one for own in planned for one in own if one.id in {*granted[0], *granted[1]}]
        assert await states(store, flying) == [S.SENDING] * 5


async def manned(store: Store, account: str) -> Lease:
    """People who can be reached on the account, and its lease."""
    names = [f"{name}_{account[-2:]}" for name in NAMES]
    await store.save_recipients([recipient(name) for name in names])
    await store.save_conversations([conversation(name, account) for name in names])
    lease = await store.acquire_lease(account, "worker-1", 30)
    assert lease is not None
    return lease


def planned_on(account: str, name: str, broadcast: str) -> Delivery:
    return delivery(f"{name}_{account[-2:]}", broadcast, account=account)
