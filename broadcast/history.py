"""What presence was like: how often each state was answered in each hour of the week, over everybody.

Kept are counts by channel, hour and state; whose answers they were is not. A delivery counts once, with the answer
at its very first moment: whoever is asked again is asked because they were absent, and would count for absence over
and over. The hour is that of the week in UTC, so that one store serves broadcasts in any zone; where clocks change,
an hour of the wall moves by one bucket, and the history follows within weeks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from broadcast.model import Attempt, ChannelName, PresenceState, Rung
from broadcast.ports import PresenceCount

HOURS = 7 * 24
#: So many answers make the history of an hour; fewer, and the hour has none: the share of one state is then known
#: to about a sixth either way (two standard errors of a half).
ENOUGH = 30
#: How long counts wait in memory before they are added to the store.
EVERY = timedelta(minutes=1)

Shares = Mapping[PresenceState, float]

_S = PresenceState
#: What is assumed where the history of an hour is too short. Of Teams and Telegram: half of the people are
#: available at a moment of their working time. Of Viber: most people are offline there (RULES.md, presence).
_OFFICE: Shares = MappingProxyType(
    {_S.AVAILABLE: 0.5, _S.AWAY: 0.15, _S.BUSY: 0.2, _S.DO_NOT_DISTURB: 0.05, _S.OFFLINE: 0.1}
)
DEFAULTS: Mapping[ChannelName, Shares] = MappingProxyType(
    {
        ChannelName.TEAMS: _OFFICE,
        ChannelName.TELEGRAM: _OFFICE,
        ChannelName.VIBER: MappingProxyType({_S.AVAILABLE: 0.1, _S.OFFLINE: 0.9}),
    }
)


def hour_of_week(instant: datetime) -> int:
    """0 is Monday 00:00-01:00 UTC, 167 the last of Sunday. `instant` is in UTC."""
    return instant.weekday() * 24 + instant.hour


def is_first(attempt: Attempt, *, new_rung: bool) -> bool:
    """Whether an attempt is the one that its delivery counts with."""
    return new_rung and attempt.round == 1 and attempt.rung is Rung.FIRST


@dataclass(frozen=True, slots=True)
class History:
    """Counts to draw from. Values only: it may travel to another process."""

    counts: Mapping[tuple[ChannelName, int], Mapping[PresenceState, int]] = field(default_factory=dict)

    def knows(self, channel: ChannelName, hour: int) -> bool:
        """Whether enough was answered in this hour of the week."""
        return sum(self.counts.get((channel, hour), {}).values()) >= ENOUGH

    def shares(self, channel: ChannelName, hour: int) -> Shares:
        """The share of each state; `DEFAULTS` where fewer than `ENOUGH` were answered."""
        if not self.knows(channel, hour):
            return DEFAULTS[channel]
        counts = self.counts[channel, hour]
        total = sum(counts.values())
        return {state: count / total for state, count in counts.items()}


def of(counts: Iterable[PresenceCount]) -> History:
    """The history that a store has seen."""
    by_hour: dict[tuple[ChannelName, int], dict[PresenceState, int]] = defaultdict(dict)
    for one in counts:
        by_hour[one.channel, one.hour][one.state] = one.count
    return History(dict(by_hour))


class Minutes:
    """What was answered lately and is not in the store yet."""

    def __init__(self, channel: ChannelName) -> None:
        self._channel = channel
        self._counts: Counter[tuple[int, PresenceState]] = Counter()
        self._since: datetime | None = None

    def count(self, state: PresenceState, at: datetime) -> None:
        self._since = self._since or at
        self._counts[hour_of_week(at), state] += 1

    def are_over(self, now: datetime) -> bool:
        """Whether it is time to add them to the store."""
        return self._since is not None and now - self._since >= EVERY

    def take(self) -> list[PresenceCount]:
        """All of them, which are then no longer here."""
        counts, self._counts, self._since = self._counts, Counter(), None
        return [PresenceCount(self._channel, hour, state, count) for (hour, state), count in counts.items()]
