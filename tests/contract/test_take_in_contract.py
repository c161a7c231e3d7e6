"""What every store guarantees of an inbound that it takes in: whole or not at all, and once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from broadcast.errors import Conflict
from broadcast.model import ChannelName, ConversationState, DeliveryState, Reason, Recipient
from broadcast.ports import Inbound, Known, Page, Person, Said, Store, Turn
from tests.storage.builders import (
    ACCOUNT,
    NOW,
    at,
    broadcast,
    conversation,
    delivery,
    event,
    launch,
    populate,
    recipient,
    sent,
)

Decide = Callable[[Known], Turn[str]]


def said(name: str, key: str = "k1", *, email: str | None = None) -> Inbound:
    return Inbound(key, ACCOUNT, ChannelName.TEAMS, Person(f"user-{name}", email=email), Said.TEXT, NOW)


def heard(name: str, answer: str = "done", **changes: Any) -> Turn[str]:
    return Turn(answer, conversation(name, last_seen=NOW), **changes)


async def take(store: Store, inbound: Inbound, decide: Decide | Turn[str], **asked: Any) -> str | None:
    def decided(known: Known) -> Turn[str]:
        return decide if isinstance(decide, Turn) else decide(known)

    return await store.take_in(inbound, decided, at=at(1), **asked)


# --- what does not happen -----------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["take_in", "first_time"])
async def test_an_inbound_whose_key_is_noted_is_not_decided_again(store: Store, by: str) -> None:
    """Whoever noted the key; nothing is written."""
    await populate(store, "ann")
    if by == "take_in":
        await take(store, said("ann"), heard("ann"))
    else:
        await store.first_time(ACCOUNT, "k1", NOW)
    before = await store.conversation(ACCOUNT, "user-ann")
    assert await take(store, said("ann"), heard("ann", mark=ConversationState.BLOCKED)) is None
    assert await store.conversation(ACCOUNT, "user-ann") == before


async def test_of_many_who_bring_the_same_one_is_told(store: Store) -> None:
    """At the same time, and with others in between."""
    await populate(store, "ann", "ben")
    inbounds = [
        said(name) if name == "ann" else said(name, f"b{place}") for place, name in enumerate(["ann", "ben"] * 10)
    ]
    told = await asyncio.gather(*(take(store, one, heard(one.person.user_id[5:])) for one in inbounds))
    assert (told[::2].count("done"), told[::2].count(None), set(told[1::2])) == (1, 9, {"done"})


async def test_a_decision_that_fails_leaves_nothing_behind(store: Store) -> None:
    """The next time the same inbound is a new one; whoever came with it is taken in."""

    def fail(_: Known) -> Turn[str]:
        raise KeyError("a fault of ours")

    await populate(store, "ann", "ben")
    calls = (take(store, said("ann"), fail), take(store, said("ben", "k2"), heard("ben")))
    failed, done = await asyncio.gather(*calls, return_exceptions=True)
    assert (type(failed), done) == (KeyError, "done")
    assert not await store.was_seen(ACCOUNT, "k1")
    assert await take(store, said("ann"), heard("ann")) == "done"


@pytest.mark.parametrize(
    "turn",
    [
        heard("ann", recipient=recipient("ann", email="BEN@example.com")),
        Turn("done", conversation("cat", id="cnv_teams_ben"), recipient=recipient("cat")),
        Turn("done", conversation("ann", reference={"at": NOW}), unsubscribed=True),
    ],
)
async def test_a_turn_that_cannot_be_written_is_not_written_in_part(store: Store, turn: Turn[str]) -> None:
    """Neither the key nor the person; whoever came with it is taken in."""
    await populate(store, "ann", "ben")
    await store.save_recipients([recipient("ben", email="ben@example.com")])
    calls = (take(store, said(turn.conversation.user_id[5:]), turn), take(store, said("ben", "k2"), heard("ben")))
    refused, done = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(refused, Conflict | TypeError)
    assert done == "done"
    assert not await store.was_seen(ACCOUNT, "k1")
    assert await store.recipient("rcp_ann") == recipient("ann")
    assert await store.recipient("rcp_cat") is None


# --- what is known ------------------------------------------------------------------------------------


async def known(store: Store, inbound: Inbound, delivery: str | None = None) -> Known:
    seen: list[Known] = []

    def look(found: Known) -> Turn[str]:
        seen.append(found)
        return heard("ann")

    await take(store, inbound, look, delivery=delivery)
    return seen[-1]


async def test_of_a_stranger_nothing_is_known(store: Store) -> None:
    """Nor of a delivery that is not there."""
    assert await known(store, said("ann", email="ann@example.com"), "dlv_x") == Known()


async def test_a_conversation_is_known_with_its_person(store: Store) -> None:
    """Whatever else names somebody; one whose person was erased is known alone."""
    await populate(store, "ann")
    await store.save_conversations([conversation("ben")])
    assert await known(store, said("ann")) == Known(conversation("ann"), recipient("ann"))
    assert await known(store, said("ben", "k2")) == Known(conversation("ben"))


async def test_whom_a_channel_id_names_is_known_and_who_has_the_mail(store: Store) -> None:
    """Regardless of case; the id on another channel names nobody."""
    ann = recipient("ann", identities={ChannelName.TEAMS: "user-ann"})
    ben = recipient("ben", email="Post@Example.com", identities={ChannelName.VIBER: "user-eve"})
    await store.save_recipients([ann, ben])
    assert await known(store, said("ann", email="post@example.COM")) == Known(named=ann, mailed=ben)
    assert await known(store, said("eve", "k2")) == Known()


async def test_somebody_whom_everything_names_is_known_by_everything(store: Store) -> None:
    """Conversation, channel id and e-mail."""
    await populate(store, "ann")
    ann = recipient("ann", email="ann@example.com", identities={ChannelName.TEAMS: "user-ann"})
    await store.save_recipients([ann])
    found = await known(store, said("ann", email="ann@example.com"))
    assert (found.recipient, found.named, found.mailed) == (ann, ann, ann)


async def test_a_delivery_that_is_asked_for_is_known_with_its_broadcast(store: Store) -> None:
    """Also one in flight."""
    lease, [ann] = await launch(store, "ann")
    await store.intend(lease, [replace(ann, sends=1, rung_at=NOW)], NOW)
    found = await known(store, said("ann"), ann.id)
    assert found.delivery == replace(ann, state=DeliveryState.SENDING, sends=1, rung_at=NOW)
    assert found.broadcast == broadcast()


async def test_those_who_come_at_once_know_of_each_other(store: Store) -> None:
    """Two words of somebody new make one person, whichever comes first."""

    def meet(found: Known) -> Turn[str]:
        if found.conversation is not None:
            return Turn("again", found.conversation)
        new = recipient("new", identities={ChannelName.TEAMS: "user-new"})
        return Turn("first", conversation("new"), recipient=new)

    told = await asyncio.gather(*(take(store, said("new", f"k{number}"), meet) for number in range(5)))
    assert sorted(map(str, told)) == ["again"] * 4 + ["first"]
    assert (await store.recipients("", Page())).total == 1


# --- what is written ----------------------------------------------------------------------------------


async def test_a_turn_is_written_whole(store: Store) -> None:
    """The person, what they said of being written to, the conversation and the click."""
    lease, [ann] = await launch(store, "ann")
    await store.plan([delivery("ann", "brd_2")])
    told = recipient("ann", last_name="Ash")
    turn = heard("ann", recipient=told, unsubscribed=True, mark=ConversationState.UNSUBSCRIBED, click=event(ann.id))
    version = await store.control_version()
    assert await take(store, said("ann"), turn) == "done"
    assert await store.recipient("rcp_ann") == replace(told, unsubscribed_at=at(1))
    kept = conversation("ann", state=ConversationState.UNSUBSCRIBED, last_seen=NOW)
    assert await store.conversation(ACCOUNT, "user-ann") == kept
    skipped = await store.delivery("dlv_brd_2_ann")
    assert skipped is not None
    assert (skipped.state, skipped.reason, skipped.ended_at) == (DeliveryState.SKIPPED, Reason.UNSUBSCRIBED, at(1))
    assert await store.timeline(ann.id) == [event(ann.id)]
    assert await store.control_version() > version
    assert await store.in_flight(lease) == []


@pytest.mark.parametrize("asked", [True, False])
async def test_a_click_is_noted_whether_or_not_its_delivery_was_looked_up(store: Store, *, asked: bool) -> None:
    """On the delivery and in the counters."""
    lease, [ann] = await launch(store, "ann")
    await store.intend(lease, [replace(ann, sends=1, rung_at=NOW)], NOW)
    await store.record(lease, [sent(ann)])
    await take(store, said("ann"), heard("ann", click=event(ann.id)), delivery=ann.id if asked else None)
    clicked = await store.delivery(ann.id)
    assert clicked is not None
    assert clicked.clicked_at == event(ann.id).at
    assert (await store.tally("brd_1"))["event/clicked/teams/people"] == 1


async def test_whoever_is_back_is_back(store: Store) -> None:
    """And their conversation is open again."""
    await populate(store, "ann")
    await store.set_unsubscribed("rcp_ann", NOW)
    await store.mark_conversation("cnv_teams_ann", ConversationState.BLOCKED, NOW)
    turn = Turn("done", conversation("ann", state=ConversationState.BLOCKED), unsubscribed=False)
    await take(store, said("ann"), replace(turn, mark=ConversationState.REACHABLE))
    assert await store.recipient("rcp_ann") == recipient("ann")
    assert await store.conversation(ACCOUNT, "user-ann") == conversation("ann")


async def test_a_word_that_changes_little_raises_no_version(store: Store) -> None:
    """Nobody who sends has to look again; the reference grows."""
    await populate(store, "ann")
    version = await store.control_version()
    await take(store, said("ann"), Turn("done", conversation("ann", reference={"service": "eu"}, last_seen=at(2))))
    found = await store.conversation(ACCOUNT, "user-ann")
    assert found == conversation("ann", reference={"tenant": "2c3d", "service": "eu"}, last_seen=at(2))
    assert await store.control_version() == version


async def test_a_burst_is_taken_in_whole(store: Store) -> None:
    """More at once than are written together, of people old and new."""
    names = [f"n{number:03}" for number in range(150)]
    await populate(store, *names[::2])

    def meet(name: str) -> Decide:
        def decide(found: Known) -> Turn[str]:
            new = Recipient(f"rcp_{name}", identities={ChannelName.TEAMS: f"user-{name}"})
            return heard(name, name, recipient=None if found.recipient else new)

        return decide

    told = await asyncio.gather(*(take(store, said(name, name), meet(name)) for name in names))
    assert told == names
    assert (await store.recipients("", Page())).total == 150
    kept = [await store.conversation(ACCOUNT, f"user-{name}") for name in names]
    assert kept == [conversation(name, last_seen=NOW) for name in names]
