"""Small values for tests of a store, and a small world with a broadcast that runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from broadcast.model import (
    Attempt,
    Audience,
    Broadcast,
    BroadcastStatus,
    Button,
    ButtonType,
    Campaign,
    ChannelName,
    Conversation,
    Delivery,
    DeliveryState,
    Event,
    EventType,
    Media,
    MediaType,
    Message,
    Outcome,
    Policies,
    Receipt,
    Recipient,
    Rung,
    Schedule,
    Variant,
)
from broadcast.ports import Lease, Result, Store

NOW = datetime(2026, 3, 27, 13, 27, 0, 123456, tzinfo=UTC)
ACCOUNT = "teams/hr"


class Wall:
    """A clock for leases that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.seconds += seconds


def at(minutes: float) -> datetime:
    """That many minutes after the tests' own now."""
    return NOW + timedelta(minutes=minutes)


def message() -> Message:
    return Message(
        "Hello [FIRSTNAME]",
        media=(Media(MediaType.PICTURE, "https://intranet.example/banner.png", "Benefits"),),
        buttons=(Button("enrol", ButtonType.LINK, "Enrol", url="https://intranet.example/enrol"),),
        variants={ChannelName.VIBER: Variant(text="Hello!", buttons=())},
    )


def campaign(id: str = "cmp_1", **changes: Any) -> Campaign:
    schedule = Schedule(start=datetime(2026, 3, 27, 9, 30), holidays=frozenset({date(2026, 3, 30)}))  # noqa: DTZ001 - local
    made = Campaign(id, "Benefits week", message(), Audience(), schedule, Policies(rate=5.5), created_at=NOW)
    return replace(made, **changes)


def broadcast(id: str = "brd_1", status: BroadcastStatus = BroadcastStatus.RUNNING, **changes: Any) -> Broadcast:
    made = Broadcast(
        id=id,
        campaign="cmp_1",
        name="Benefits week",
        message=message(),
        audience=Audience(lists=("lst_staff",)),
        schedule=Schedule(start=date(2026, 3, 27)),
        policies=Policies(),
        seed=7,
        launched_at=NOW,
        launched_by="tok_ops",
        starts_at=at(5),
        status=status,
    )
    return replace(made, **changes)


def recipient(name: str, **changes: Any) -> Recipient:
    return replace(Recipient(f"rcp_{name}", first_name=name.title()), **changes)


def conversation(name: str, account: str = ACCOUNT, **changes: Any) -> Conversation:
    channel = ChannelName(account.partition("/")[0])
    made = Conversation(
        f"cnv_{channel}_{name}", account, channel, f"rcp_{name}", f"user-{name}", {"tenant": "2c3d"}
    )
    return replace(made, **changes)


def delivery(name: str, broadcast: str = "brd_1", position: int = 0, **changes: Any) -> Delivery:
    """Planned for now, to the person of that name on Teams."""
    made = Delivery(
        id=f"dlv_{broadcast}_{name}",
        broadcast=broadcast,
        recipient=f"rcp_{name}",
        position=position,
        channel=ChannelName.TEAMS,
        account=ACCOUNT,
        conversation=f"cnv_teams_{name}",
        due_at=NOW,
    )
    return replace(made, **changes)


def attempt(delivery: Delivery, outcome: Outcome = Outcome.SENT, minutes: float = 0) -> Attempt:
    return Attempt(delivery.id, at(minutes), delivery.round, delivery.rung, outcome)


def sent(delivery: Delivery, message_id: str = "100", **changes: Any) -> Result:
    """The outcome of a delivery that the platform accepted."""
    after = replace(
        delivery,
        state=DeliveryState.SENT,
        attempts=1,
        sends=1,
        rung_at=NOW,
        attempted_at=NOW,
        ended_at=NOW,
        sent_at=NOW,
        platform_message_id=message_id,
    )
    made = Result(DeliveryState.SENDING, after, attempt(delivery), new_rung=True)
    return replace(made, **changes)


def absent(delivery: Delivery) -> Result:
    """The outcome of a delivery whose person was away: on to the next rung."""
    after = replace(delivery, rung=Rung.AGAIN, due_at=at(10), attempts=1, rung_at=None, attempted_at=NOW)
    return Result(DeliveryState.PLANNED, after, attempt(delivery, Outcome.ABSENT), new_rung=True)


def event(delivery: str, type: EventType = EventType.CLICKED, key: str = "k1", **changes: Any) -> Event:
    button = "enrol" if type is EventType.CLICKED else None
    return replace(Event(key, delivery, type, at(3), button), **changes)


def receipt(name: str, message_id: str, type: EventType = EventType.READ, **changes: Any) -> Receipt:
    return replace(Receipt(ACCOUNT, f"user-{name}", type, message_id, at(4)), **changes)


async def populate(store: Store, *names: str) -> Lease:
    """People who can be reached on Teams, a broadcast that runs, and the account's lease."""
    await store.save_recipients([recipient(name) for name in names])
    await store.save_conversations([conversation(name) for name in names])
    await store.save_broadcast(broadcast(), expected=None)
    lease = await store.acquire_lease(ACCOUNT, "worker-1", 30)
    assert lease is not None
    return lease


async def launch(store: Store, *names: str) -> tuple[Lease, list[Delivery]]:
    """The same with a planned delivery for each, in the order of the names."""
    lease = await populate(store, *names)
    planned = [delivery(name, position=place) for place, name in enumerate(names)]
    await store.plan(planned)
    return lease, planned


async def dispatch(store: Store, lease: Lease, delivery: Delivery, message_id: str = "100") -> None:
    """Takes one planned delivery through the intent to its outcome."""
    assert await store.intend(lease, [replace(delivery, sends=1, rung_at=NOW)], NOW) == [delivery.id]
    assert await store.record(lease, [sent(delivery, message_id)]) == [delivery.id]
