"""The deliveries one engine holds in memory, in the order they want to go."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from broadcast.attempts import Rules
from broadcast.message import Rendering
from broadcast.model import Conversation, Delivery, Recipient


@dataclass(slots=True)
class Item:
    """A delivery in memory, with what its attempt needs. `not_before` is a wait that is nobody's business but
    this process's: a conversation's limit, a provider that could not tell."""

    delivery: Delivery
    recipient: Recipient
    conversation: Conversation
    rules: Rules
    rendering: Rendering
    not_before: datetime

    @property
    def key(self) -> _Key:
        due = self.delivery.due_at or self.not_before
        return (max(due, self.not_before), due, self.delivery.position, self.delivery.id)


#: When it may go, when it was due, its place in the plan, its id: what is due first goes first (RULES.md, pacing).
_Key = tuple[datetime, datetime, int, str]


class Memory:
    """The deliveries this process knows of, each once: queued, waiting for an answer on presence, or in flight."""

    def __init__(self) -> None:
        self._heap: list[tuple[_Key, int, Item]] = []
        self._order = count()
        self._present: dict[str, Item] = {}
        self._broadcasts: Counter[str] = Counter()
        self.waiting: dict[str, list[Item]] = {}
        self.flying: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._present)

    def __contains__(self, delivery: str) -> bool:
        return delivery in self._present

    def has_any_of(self, broadcast: str) -> bool:
        return self._broadcasts[broadcast] > 0

    def queue(self, item: Item) -> None:
        """Takes it in, or back, to go when its moment comes."""
        if item.delivery.id not in self._present:
            self._present[item.delivery.id] = item
            self._broadcasts[item.delivery.broadcast] += 1
        heapq.heappush(self._heap, (item.key, next(self._order), item))

    def pop_due(self, now: datetime) -> Item | None:
        """The first of those queued that may go now; it stays known."""
        first = self.first_at()
        return None if first is None or first > now else heapq.heappop(self._heap)[2]

    def forget(self, item: Item) -> None:
        self.drop(item.delivery.id)

    def drop(self, delivery: str) -> None:
        """Forgets it by its id, wherever it waits."""
        item = self._present.pop(delivery, None)
        if item is not None:
            self._broadcasts[item.delivery.broadcast] -= 1

    def forget_idle(self) -> None:
        """Forgets all but what is in flight."""
        self._heap.clear()
        self.waiting.clear()
        for item in [item for id, item in self._present.items() if id not in self.flying]:
            self.forget(item)

    def first_at(self) -> datetime | None:
        while self._heap and not self._holds(self._heap[0][2]):
            heapq.heappop(self._heap)  # forgotten while it was queued
        return self._heap[0][0][0] if self._heap else None

    def due_by(self, instant: datetime) -> Iterable[Item]:
        """Those queued that may go at or before `instant`, in no order."""
        return (item for key, _, item in self._heap if key[0] <= instant and self._holds(item))

    def _holds(self, item: Item) -> bool:
        return self._present.get(item.delivery.id) is item
