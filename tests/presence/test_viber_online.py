"""What Viber's online status means (RULES.md, presence)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bot.channels.viber import ViberChannel
from broadcast.errors import PresenceUnavailable
from broadcast.model import ChannelName, PresenceState
from broadcast.ports import PresenceProvider
from presence.viber import BATCH, ViberPresence
from tests.contract.lines import line


class Viber:
    """Answers with what it is given, and keeps what it was asked."""

    def __init__(self, **answer: Any) -> None:
        self.answer = {"status": 0, "status_message": "ok", "users": [], **answer}
        self.asked: list[tuple[str, Mapping[str, object]]] = []

    async def post(self, method: str, fields: Mapping[str, object], /) -> Mapping[str, object]:
        self.asked.append((method, fields))
        return self.answer


def online(status: object, id: str = "ann") -> dict[str, object]:
    return {"id": id, "online_status": status, "online_status_message": "words"}


async def states(viber: Viber, ids: Sequence[str] = ("ann",)) -> Mapping[str, PresenceState]:
    provider: PresenceProvider = ViberPresence(viber.post)
    return await provider.states(ids)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (0, PresenceState.AVAILABLE),
        (1, PresenceState.OFFLINE),
        (2, PresenceState.UNKNOWN),
        (4, PresenceState.UNKNOWN),
        (5, PresenceState.UNKNOWN),
        ("0", PresenceState.UNKNOWN),
    ],
)
async def test_each_status_has_its_word(status: object, state: PresenceState) -> None:
    """Undisclosed, unavailable and whatever is new are unknown."""
    assert await states(Viber(users=[online(status)])) == {"ann": state}


async def test_try_later_is_left_out() -> None:
    """Status 3 is no answer: the attempt waits."""
    assert await states(Viber(users=[online(3), online(1, "ben")]), ["ann", "ben"]) == {
        "ben": PresenceState.OFFLINE
    }


async def test_somebody_viber_does_not_speak_of_is_unknown() -> None:
    """And whom nobody asked for is not told."""
    assert await states(Viber(users=[online(0, "eve"), "odd"])) == {"ann": PresenceState.UNKNOWN}


async def test_one_call_for_all() -> None:
    """All ids of a batch go into one call; no ids, no call."""
    viber = Viber()
    await states(viber, ["ann", "ben"])
    assert await states(viber, []) == {}
    assert viber.asked == [("get_online", {"ids": ["ann", "ben"]})]


async def test_a_batch_is_a_hundred() -> None:
    """More is a fault of the caller's."""
    provider = ViberPresence(Viber().post)
    assert (provider.batch, provider.prefetch) == (BATCH, True)
    with pytest.raises(ValueError, match="100"):
        await provider.states([str(number) for number in range(101)])


@pytest.mark.parametrize("answer", [{"status": 2}, {"status": 12}, {"users": None}, {"status": None}])
async def test_a_refusal_is_no_answer(answer: dict[str, Any]) -> None:
    """What is not status 0 with people fails as a whole."""
    with pytest.raises(PresenceUnavailable):
        await states(Viber(**answer))


@pytest.mark.parametrize(
    ("availability", "state"),
    [
        ("Available", PresenceState.AVAILABLE),
        ("Offline", PresenceState.OFFLINE),
        ("undisclosed", PresenceState.UNKNOWN),
        ("unavailable", PresenceState.UNKNOWN),
        ("trylater", None),
    ],
)
async def test_the_platform_is_asked_for_real(availability: str, state: PresenceState | None) -> None:
    """Through the channel's own connections, against the simulated Viber."""
    async with line(ChannelName.VIBER) as on:
        to = await on.started()
        await on.control("PUT", f"/sandbox/people/{on.person}/presence", {"availability": availability})
        assert isinstance(on.channel, ViberChannel)
        told = await ViberPresence(on.channel.ask).states([to.user_id])
        assert told == ({} if state is None else {to.user_id: state})
