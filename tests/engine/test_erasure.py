"""Somebody is erased while a broadcast to them runs: it goes on without them, and ends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broadcast.model import BroadcastStatus, DeliveryState, Reason
from tests.engine.test_engine import friday, paris
from tests.engine.world import World

S = DeliveryState
ASKED = paris(14, 59)


def ended(world: World) -> bool:
    found = world.read(lambda: world.store.broadcast("brd_1"))
    return getattr(found, "status", None) is BroadcastStatus.COMPLETED


@pytest.mark.parametrize("people", [["ann"], ["ann", "ben"]])
def test_erased_before_their_moment(people: list[str]) -> None:
    """Nothing goes out to them; the broadcast ends, also where nobody else was left."""
    world = World(paris(8), people, schedule=friday(), pins={who: [paris(15)] for who in people})
    world.presence = None
    world.at(ASKED, lambda: world.store.erase_recipient("ann", world.clock.now()))
    world.run()
    assert [who for who, _ in world.channel.sends] == people[1:]
    assert (world.delivery("ann").reason, world.delivery("ann").ended_at) == (Reason.GONE, ASKED)
    assert ended(world)


def test_erased_while_a_send_to_them_is_on_its_way() -> None:
    """It arrives, and nobody will know; the broadcast ends and is not held up by it."""
    world = World(paris(8), schedule=friday(), pins={"ann": [paris(15)]})
    world.presence = None
    world.channel.takes = timedelta(seconds=10)
    world.at(paris(15, 0, 5), lambda: world.store.erase_recipient("ann", world.clock.now()))
    world.run()
    assert [who for who, _ in world.channel.sends] == ["ann"]
    assert (world.delivery("ann").state, world.delivery("ann").ended_at) == (S.UNCERTAIN, paris(15, 0, 5))
    assert ended(world)
