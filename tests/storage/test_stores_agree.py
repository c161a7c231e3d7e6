"""SQLite driven against memory, the reference, with random commands: whatever is read is the same."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broadcast.errors import ClarionError
from broadcast.model import (
    Audience,
    BroadcastStatus,
    ChannelName,
    ConversationState,
    DeliveryState,
    EventType,
    Outcome,
    Reason,
)
from broadcast.ports import DeliveryFilter, Lease, Page, Result, Store
from storage.memory import MemoryStore
from storage.sqlite import SqliteStore
from tests.storage.builders import (
    ACCOUNT,
    NOW,
    Wall,
    absent,
    at,
    attempt,
    broadcast,
    conversation,
    delivery,
    event,
    receipt,
    recipient,
    sent,
)

T = TypeVar("T")
NAMES = ("ann", "ben", "cat")
BROADCASTS = ("brd_1", "brd_2")
S = DeliveryState

names = st.sampled_from(NAMES)
minutes = st.integers(-2, 5)
placed = st.tuples(names, st.sampled_from(BROADCASTS))
batches = st.lists(placed, min_size=1, max_size=4)
limits = st.dictionaries(st.sampled_from(BROADCASTS), st.integers(0, 3))
message_ids = st.sampled_from(["90", "100", "110", "x"])


class Agreement(RuleBasedStateMachine):
    """The same commands go to both; answers, refusals and every read must be equal."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.wall = Wall()
        self.model: Store = MemoryStore(wall=self.wall)
        self.store: Store = self.runner.run(SqliteStore.open(Path(self.folder.name) / "x.db", wall=self.wall))
        self.lease = Lease(ACCOUNT, "nobody", 0)
        self.folded: set[str] = set()

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()

    def both(self, call: Callable[[Store], Awaitable[T]]) -> T | str:
        """What both answer, or the error that both raise."""
        mine: T | str
        mine, theirs = (self.runner.run(_told(call, store)) for store in (self.store, self.model))
        assert mine == theirs
        return mine

    # --- commands ---

    @initialize()
    def begin(self) -> None:
        self.both(lambda store: store.save_recipients([recipient(name) for name in NAMES]))
        self.both(lambda store: store.save_conversations([conversation(name) for name in NAMES]))
        for id in BROADCASTS:
            self.steer(id, BroadcastStatus.RUNNING, None)
        self.take_lease("worker-1")

    @rule(wanted=batches, minute=minutes, position=st.integers(0, 2), state=st.sampled_from([S.PLANNED, S.SKIPPED]))
    def plan(self, wanted: list[tuple[str, str]], minute: int, position: int, state: DeliveryState) -> None:
        reason = Reason.CAPPED if state is S.SKIPPED else None
        values = [
            delivery(*one, position=position, due_at=at(minute), state=state, reason=reason) for one in wanted
        ]
        self.both(lambda store: store.plan(values, [attempt(values[0], Outcome.ERROR)]))

    @rule(
        wanted=batches,
        sends=st.integers(1, 3),
        ended=st.one_of(st.just([]), batches),
        message_id=message_ids,
        limits=limits,
    )
    def intend(
        self,
        wanted: list[tuple[str, str]],
        sends: int,
        ended: list[tuple[str, str]],
        message_id: str,
        limits: dict[str, int],
    ) -> None:
        values = [delivery(*one, sends=sends, rung_at=at(1)) for one in wanted]
        results = [self._result(one, message_id, S.SENT, S.SENDING, doubled=False) for one in ended]
        self.both(lambda store: store.intend(self.lease, values, NOW, after=results, limits=limits))

    @rule(
        wanted=batches,
        message_id=message_ids,
        marks=st.sampled_from([None, *ConversationState]),
        ends=st.sampled_from([S.SENT, S.FAILED, S.UNCERTAIN, S.PLANNED]),
        before=st.sampled_from([S.SENDING, S.SENDING, S.PLANNED]),
        doubled=st.booleans(),
    )
    def record(
        self,
        wanted: list[tuple[str, str]],
        message_id: str,
        marks: ConversationState | None,
        ends: DeliveryState,
        before: DeliveryState,
        doubled: bool,
    ) -> None:
        results = [self._result(one, message_id, ends, before, doubled=doubled) for one in wanted]
        results[0] = replace(results[0], marks=marks, reference={"seen": message_id})
        self.both(lambda store: store.record(self.lease, results))

    def _result(
        self, one: tuple[str, str], message_id: str, ends: DeliveryState, before: DeliveryState, *, doubled: bool
    ) -> Result:
        value = delivery(*one, possibly_doubled=doubled)
        if before is S.PLANNED:
            return absent(value)
        result = sent(value, message_id)
        if ends is S.SENT:
            return result
        reason = Reason.REFUSED if ends is S.FAILED else None
        changed = replace(result.delivery, state=ends, reason=reason, sent_at=None, platform_message_id=None)
        return replace(result, delivery=changed, attempt=attempt(value, Outcome.ERROR))

    @rule(broadcast_id=st.sampled_from(BROADCASTS), limit=st.integers(1, 3))
    def cancel(self, broadcast_id: str, limit: int) -> None:
        """To the end: which of them goes first is nobody's promise."""

        async def rest(store: Store) -> list[int]:
            ended = []
            while number := await store.cancel_planned(broadcast_id, at(1), limit):
                ended.append(number)
            return ended

        self.both(rest)

    @rule(name=names, minute=st.none() | minutes)
    def unsubscribe(self, name: str, minute: int | None) -> None:
        moment = None if minute is None else at(minute)
        self.both(lambda store: store.set_unsubscribed(f"rcp_{name}", moment))

    @rule(
        id=st.sampled_from(BROADCASTS),
        status=st.sampled_from([BroadcastStatus.RUNNING, BroadcastStatus.PAUSED]),
        limit=st.integers(1, 3),
    )
    def fold(self, id: str, status: BroadcastStatus, limit: int) -> None:
        marked = broadcast(id, status, deliveries_removed_at=NOW)
        self.both(lambda store: store.save_broadcast(marked, expected=status))
        if self.both(lambda store: store.remove_deliveries(id, limit)):
            self.folded.add(id)

    @rule(minute=minutes)
    def forget(self, minute: int) -> None:
        self.both(lambda store: store.forget(at(minute), 9))

    @rule(name=names, minute=minutes)
    def erase(self, name: str, minute: int) -> None:
        self.both(lambda store: store.erase_recipient(f"rcp_{name}", at(minute)))

    @rule(name=names, state=st.sampled_from(ConversationState))
    def mark(self, name: str, state: ConversationState) -> None:
        self.both(lambda store: store.mark_conversation(f"cnv_teams_{name}", state, at(2)))

    @rule(name=names, to=names, reference=st.dictionaries(st.sampled_from("ab"), st.integers(0, 9), max_size=2))
    def write_in(self, name: str, to: str, reference: dict[str, int]) -> None:
        value = conversation(name, recipient=f"rcp_{to}", reference=reference, last_seen=NOW)
        self.both(lambda store: store.save_conversations([value]))

    @rule(
        id=st.sampled_from(BROADCASTS),
        status=st.sampled_from([BroadcastStatus.RUNNING, BroadcastStatus.PAUSED]),
        expected=st.sampled_from([None, BroadcastStatus.RUNNING, BroadcastStatus.PAUSED]),
    )
    def steer(self, id: str, status: BroadcastStatus, expected: BroadcastStatus | None) -> None:
        self.both(lambda store: store.save_broadcast(broadcast(id, status), expected=expected))

    @rule(
        one=placed,
        type=st.sampled_from(EventType),
        key=st.sampled_from(["k1", "k2", "k3", "k4"]),
        button=st.sampled_from("ab"),
        minute=minutes,
    )
    def event(self, one: tuple[str, str], type: EventType, key: str, button: str, minute: int) -> None:
        value = event(delivery(*one).id, type, key, button=button, at=at(minute))
        self.both(lambda store: store.add_events([value, replace(value, key=key + "+")]))

    @rule(
        name=names,
        message_id=message_ids,
        type=st.sampled_from([EventType.READ, EventType.DELIVERED, EventType.FAILED]),
        up_to=st.booleans(),
    )
    def receipt(self, name: str, message_id: str, type: EventType, up_to: bool) -> None:
        value = receipt(name, message_id, type, up_to=up_to)
        self.both(lambda store: store.add_receipts([value]))

    @rule(owner=st.sampled_from(["worker-1", "worker-1", "worker-2"]))
    def take_lease(self, owner: str) -> None:
        lease = self.both(lambda store: store.acquire_lease(ACCOUNT, owner, 30))
        self.lease = lease if isinstance(lease, Lease) else self.lease

    @rule(seconds=st.sampled_from([1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.wall.move(seconds)
        self.both(lambda store: store.renew_lease(self.lease, 30))

    @rule()
    def give_up_lease(self) -> None:
        self.both(lambda store: store.release_lease(self.lease))

    @rule(name=names, other=names, email=st.sampled_from([None, "a@x.org", "A@X.org"]), viber=st.booleans())
    def save_people(self, name: str, other: str, email: str | None, viber: bool) -> None:
        identities = {ChannelName.VIBER: "v1"} if viber else {}
        people = [recipient(name, email=email, lists=frozenset({"l1"})), recipient(other, identities=identities)]
        self.both(lambda store: store.save_recipients(people))

    # --- reads ---

    @invariant()
    def reads_agree(self) -> None:
        self.both(partial(_everything, folded=self.folded))

    @invariant()
    def counters_equal_the_ledger(self) -> None:
        for id in {*BROADCASTS} - self.folded:  # of the others counters are what is left
            self.runner.run(self._counted(id))

    async def _counted(self, id: str) -> None:
        rows = [row async for row, _ in self.store.all_deliveries(DeliveryFilter(id))]
        lines = [line for row in rows for line in await self.store.timeline(row.id)]
        counted: Counter[str] = Counter(f"state/{row.channel}/{row.state}" for row in rows)
        counted.update(f"reason/{row.state}/{row.reason}" for row in rows if row.reason)
        counted.update("doubled" for row in rows if row.possibly_doubled)
        tally = await self.store.tally(id)
        kinds = {"state", "reason", "doubled"}
        assert counted == {path: n for path, n in tally.items() if path.split("/")[0] in kinds}
        events = sum(n for path, n in tally.items() if path.startswith("event/") and path.endswith("/total"))
        assert events == sum(hasattr(line, "key") for line in lines)


async def _told(call: Callable[[Store], Awaitable[Any]], store: Store) -> Any:
    try:
        return await call(store)
    except ClarionError as error:
        return type(error).__name__


async def _everything(store: Store, folded: Collection[str]) -> list[Any]:
    found: list[Any] = [
        *[await store.due(ACCOUNT, broadcast=id, until=at(3), after=None, limit=3) for id in BROADCASTS],
        await store.due(ACCOUNT, broadcast="brd_1", until=at(9), after=(at(0), 1, "dlv_brd_1_ben"), limit=9),
        await store.next_due(ACCOUNT),
        await store.running_on(ACCOUNT),
        await store.in_flight(Lease(ACCOUNT, "", 0)),
        await store.recipients("a", Page(1, 9)),
        await store.audience(Audience(lists=("l1",)), after="", limit=9),
        await store.broadcasts(page=Page(1, 9)),
        await store.control_version(),
    ]
    for id in BROADCASTS:
        found += [await store.tally(id), [row async for row in store.all_deliveries(DeliveryFilter(id))]]
        for states in ((S.PLANNED,), (S.SENDING, S.SENT), ()) if id not in folded else ():  # totals may be counters
            found.append(await store.deliveries(DeliveryFilter(id, states=states, q="n"), Page(1, 2)))
            found.append(await store.deliveries(DeliveryFilter(id, states=states), Page(2, 1)))
        for name in NAMES:
            one = delivery(name, id)
            found += [await store.delivery(one.id), await store.timeline(one.id)]
    return found


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking a sequence takes minutes: do it by hand
)
