"""What presence was like, as counts over everybody."""

from __future__ import annotations

from collections.abc import Sequence

from broadcast.model import ChannelName, PresenceState
from broadcast.ports import PresenceCount
from storage.mongo.base import Base
from storage.mongo.connection import change


class Presence(Base):
    async def add_presence(self, counts: Sequence[PresenceCount]) -> None:
        """One document for each channel, hour and state. Without a transaction: a part of a minute's counts is as
        good a sample as the whole."""
        if counts:
            await self._read(lambda db: db.change("presence", [_added(one) for one in counts]))

    async def presence_seen(self) -> list[PresenceCount]:
        order = [("channel", 1), ("hour", 1), ("state", 1)]
        found = await self._read(lambda db: db.all("presence", {}, sort=order))
        return [
            PresenceCount(
                ChannelName(one["channel"]), int(one["hour"]), PresenceState(one["state"]), int(one["count"])
            )
            for one in found
        ]


def _added(one: PresenceCount) -> dict[str, object]:
    of = {"channel": one.channel.value, "hour": one.hour, "state": one.state.value}
    update = {"$inc": {"count": one.count}, "$setOnInsert": of}
    return dict(change(f"{one.channel}/{one.hour}/{one.state}", update, upsert=True))
