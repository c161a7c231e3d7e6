"""Whether everything is accounted for: what storage says against what people received."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broadcast.model import OPEN_STATES, Delivery, DeliveryState


@dataclass(frozen=True, slots=True)
class Verdict:
    """`open_ones` have no end; `unsent` were received but are not stored as sent; `lost` are stored as sent but
    nobody received them; `twice` are people who received the message more than once."""

    ended: int
    received: int
    open_ones: int
    unsent: int
    lost: int
    twice: int

    @property
    def sound(self) -> bool:
        return not (self.open_ones or self.unsent or self.lost or self.twice)

    @property
    def words(self) -> str:
        if self.sound:
            return (
                f"[green]Accounted for:[/green] all {self.ended} deliveries have an end, and the {self.received} "
                "messages that people received are exactly those stored as sent."
            )
        return (
            f"[red]Not accounted for:[/red] {self.open_ones} without an end, {self.unsent} received but not stored "
            f"as sent, {self.lost} stored as sent but never received, {self.twice} people received it twice."
        )


def judged(deliveries: Sequence[Delivery], received: Iterable[Mapping[str, Any]]) -> Verdict:
    """Compares the ledger with the messages the platforms' other side tells of."""
    stored = Counter((d.channel, d.platform_message_id) for d in deliveries if d.state is DeliveryState.SENT)
    # A message that went out and failed or became uncertain afterwards has arrived all the same.
    settled = {(d.channel, d.platform_message_id) for d in deliveries if d.platform_message_id is not None}
    doubted = sum(1 for d in deliveries if d.possibly_doubled or d.state is DeliveryState.UNCERTAIN)
    items = list(received)
    arrived = Counter((item["channel"], item["message_id"]) for item in items)
    people = Counter(item["person"] for item in items)
    return Verdict(
        ended=sum(1 for d in deliveries if d.state not in OPEN_STATES),
        received=len(items),
        open_ones=sum(1 for d in deliveries if d.state in OPEN_STATES),
        unsent=max(0, len(arrived.keys() - settled) - doubted),
        lost=len(stored.keys() - arrived.keys()),
        twice=max(0, sum(number > 1 for number in people.values()) - doubted),
    )
