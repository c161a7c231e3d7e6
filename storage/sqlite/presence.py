"""What presence was like, as counts over everybody."""

from __future__ import annotations

from collections.abc import Sequence

from broadcast.model import ChannelName, PresenceState
from broadcast.ports import PresenceCount
from storage.sqlite.base import Base


class Presence(Base):
    async def add_presence(self, counts: Sequence[PresenceCount]) -> None:
        rows = [(one.channel.value, one.hour, one.state.value, one.count) for one in counts]
        sql = """
            INSERT INTO presence (channel, hour, state, count) VALUES (?, ?, ?, ?)
            ON CONFLICT (channel, hour, state) DO UPDATE SET count = count + excluded.count
        """
        if rows:
            await self._write(lambda unit: unit.db.executemany(sql, rows))

    async def presence_seen(self) -> list[PresenceCount]:
        sql = "SELECT channel, hour, state, count FROM presence ORDER BY channel, hour, state"
        return await self._read(
            lambda db: [
                PresenceCount(ChannelName(channel), hour, PresenceState(state), count)
                for channel, hour, state, count in db.execute(sql)
            ]
        )
