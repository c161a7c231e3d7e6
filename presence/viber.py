"""Who is online on Viber, a hundred people a call (PLATFORMS D1, RULES.md presence)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from broadcast.errors import PresenceUnavailable
from broadcast.model import PresenceState

#: Ids of one `get_online` at most.
BATCH = 100

#: Viber's `online_status`: online, offline, undisclosed, and not to be had (no subscriber, unregistered).
STATES: Mapping[int, PresenceState] = MappingProxyType(
    {
        0: PresenceState.AVAILABLE,
        1: PresenceState.OFFLINE,
        2: PresenceState.UNKNOWN,
        4: PresenceState.UNKNOWN,
    }
)
#: Viber could not tell this time.
_ASK_AGAIN = 3
#: What stands for somebody Viber did not speak of.
_NOT_TOLD = 4


class Post(Protocol):
    """One call of Viber's REST API."""

    async def __call__(self, method: str, fields: Mapping[str, object], /) -> Mapping[str, object]:
        """The answer's JSON object. Raises `PresenceUnavailable` where there was none."""


class ViberPresence:
    """The presence of one bot's subscribers."""

    batch = BATCH
    prefetch = True

    def __init__(self, post: Post) -> None:
        self._post = post

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, PresenceState]:
        """See `PresenceProvider.states`."""
        if not user_ids:
            return {}
        if len(user_ids) > BATCH:
            raise ValueError(f"{len(user_ids)} ids are more than the {BATCH} of one call")
        told = _told(await self._post("get_online", {"ids": list(user_ids)}))
        found = {id: told.get(id, _NOT_TOLD) for id in user_ids}
        return {
            id: STATES.get(status, PresenceState.UNKNOWN) for id, status in found.items() if status != _ASK_AGAIN
        }


def _told(answer: Mapping[str, object]) -> dict[str, int]:
    """The `online_status` of each person Viber spoke of."""
    users = answer.get("users")
    if answer.get("status") != 0 or not isinstance(users, list):
        raise PresenceUnavailable(f"get_online: {answer.get('status')} {answer.get('status_message', '')}".strip())
    return {
        str(user["id"]): user["online_status"]
        for user in users
        if isinstance(user, dict) and "id" in user and isinstance(user.get("online_status"), int)
    }
