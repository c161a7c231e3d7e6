"""The deliveries one engine holds in memory, in the order they want to go."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    def key(self) -> Key:
        due = self.delivery.due_at or self.not_before
        return (max(due, self.not_before), due, self.delivery.position, self.delivery.id)


#: When it may go, when it was due, its place in the plan, its id: what is due first goes first (RULES.md, pacing).
Key = tuple[datetime, datetime, int, str]
_Queue = list[tuple[Key, int, Item]]

#: Who goes next of those that may, each a broadcast with the key of its first; ``None`` is nobody.
Choice = Callable[[Sequence[tuple[str, Key]]], str | None]


@dataclass(slots=True)
class Stretch:
    """How much of one broadcast is in memory: every planned delivery up to `edge`, none behind it. Until
    `loaded_until` nothing behind the edge can be due; ``None``: there may be more."""

    edge: tuple[datetime, int, str] | None = None
    loaded_until: datetime | None = None

    def covers(self, instant: datetime) -> bool:
        return self.loaded_until is not None and instant < self.loaded_until

    def reaches(self, delivery: Delivery) -> bool:
        """Whether a planned delivery belongs in memory."""
        due = delivery.due_at
        return self.edge is not None and due is not None and (due, delivery.position, delivery.id) <= self.edge


class Memory:
    """The deliveries this process knows of, each once: queued, waiting for an answer on presence, or in flight.

    Each broadcast has a queue of its own, so that those of one that waits for its turn are not looked at."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._order = count()
        self._present: dict[str, Item] = {}
        self._broadcasts: Counter[str] = Counter()
        self.waiting: dict[str, list[Item]] = {}
        self.flying: set[str] = set()

    def __len__(self) -> int:
        return len(self._present)

    def __contains__(self, delivery: str) -> bool:
        return delivery in self._present

    def number_of(self, broadcast: str) -> int:
        return self._broadcasts[broadcast]

    def queue(self, item: Item) -> None:
        """Takes it in, or back, to go when its moment comes."""
        if item.delivery.id not in self._present:
            self._present[item.delivery.id] = item
            self._broadcasts[item.delivery.broadcast] += 1
        queue = self._queues.setdefault(item.delivery.broadcast, [])
        heapq.heappush(queue, (item.key, next(self._order), item))

    def pop_due(self, now: datetime, choose: Choice) -> Item | None:
        """The first of those queued that may go now, of the broadcast that is chosen; it stays known."""
        due = [(broadcast, key) for broadcast, key in self.firsts() if key[0] <= now]
        chosen = choose(due) if due else None
        return None if chosen is None else heapq.heappop(self._queues[chosen])[2]

    @property
    def only(self) -> str | None:
        """The broadcast that has a queue, if no other has."""
        return next(iter(self._queues)) if len(self._queues) == 1 else None

    def pop(self, broadcast: str, now: datetime) -> Item | None:
        """The first of the broadcast, if it may go now; it stays known."""
        queue = self._queues[broadcast]
        while queue and not self._holds(queue[0][2]):
            heapq.heappop(queue)  # forgotten while it was queued
        return heapq.heappop(queue)[2] if queue and queue[0][0][0] <= now else None

    def forget(self, item: Item) -> None:
        self.drop(item.delivery.id)

    def drop(self, delivery: str) -> None:
        """Forgets it by its id, wherever it waits."""
        item = self._present.pop(delivery, None)
        if item is not None:
            self._broadcasts[item.delivery.broadcast] -= 1

    def forget_idle(self) -> None:
        """Forgets all but what is in flight."""
        self._queues.clear()
        self.waiting.clear()
        for item in [item for id, item in self._present.items() if id not in self.flying]:
            self.forget(item)

    def firsts(self) -> Iterator[tuple[str, Key]]:
        """Each broadcast with something queued, and the key of the first."""
        for broadcast, queue in self._queues.items():
            while queue and not self._holds(queue[0][2]):
                heapq.heappop(queue)  # forgotten while it was queued
            if queue:
                yield broadcast, queue[0][0]

    def due_by(self, instant: datetime) -> Iterable[Item]:
        """Those queued that may go at or before `instant`, in no order."""
        every = (entry for queue in self._queues.values() for entry in queue)
        return (item for key, _, item in every if key[0] <= instant and self._holds(item))

    def _holds(self, item: Item) -> bool:
        return self._present.get(item.delivery.id) is item
