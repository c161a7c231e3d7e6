"""Links, payloads and what comes back, in whatever order and however often."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from broadcast import tally
from broadcast.model import (
    DELIVERY_MOVES,
    ChannelName,
    Delivery,
    DeliveryState,
    Event,
    EventType,
    Receipt,
)
from broadcast.tracking import Links, Press, applied, covers, event_of, payload, read_payload

NOW = datetime(2026, 3, 27, 14, 27, tzinfo=UTC)
LINKS = Links(secret="s", public_url="https://clarion.example")
WORDS = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)
PRESSES = st.builds(Press, WORDS, WORDS)
ANYTHING = st.text(st.characters(), max_size=80)

SENT = Delivery(
    "dlv_1",
    "brd_1",
    "rcp_1",
    0,
    ChannelName.TEAMS,
    "teams/hr",
    "cnv_1",
    DeliveryState.SENT,
    attempted_at=NOW,
    ended_at=NOW,
    sent_at=NOW,
    platform_message_id="100",
)
UNCERTAIN = replace(SENT, state=DeliveryState.UNCERTAIN, sent_at=None)
DELIVERIES = st.sampled_from(
    [SENT, UNCERTAIN]
    + [replace(SENT, state=state, sent_at=None) for state in DeliveryState if state not in {"sent", "uncertain"}]
)


@st.composite
def some_events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(EventType))
    return Event(f"{kind}", "dlv_1", kind, NOW + timedelta(minutes=draw(st.integers(1, 200))), "b")


EVENTS = some_events()


def token(press: Press) -> str:
    return LINKS.url(press).rpartition("/")[2]


# --- links and payloads -------------------------------------------------------------------------------


@given(PRESSES)
@settings(max_examples=100, deadline=None)
def test_every_press_comes_back_as_it_went(press: Press) -> None:
    """Through a link and through a payload; the address needs no quoting."""
    assert LINKS.read(token(press)) == press
    assert read_payload(payload(press)) == press
    assert token(press).isascii()


@given(PRESSES, st.data())
@settings(max_examples=100, deadline=None)
def test_a_token_that_was_touched_is_worthless(press: Press, data: st.DataObject) -> None:
    """Any one character of it, wherever."""
    whole = token(press)
    place = data.draw(st.integers(0, len(whole) - 1))
    char = data.draw(st.characters())
    assume(char != whole[place])
    touched = whole[:place] + char + whole[place + 1 :]
    assert LINKS.read(touched) is None


@given(PRESSES, st.text(min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_another_installation_signs_otherwise(press: Press, secret: str) -> None:
    """A token is worth something where it was made, and nowhere else."""
    assume(secret != "s")
    foreign = Links(secret=secret, public_url="https://clarion.example")
    assert foreign.read(token(press)) is None


@given(ANYTHING)
@settings(max_examples=100, deadline=None)
def test_reading_what_anybody_wrote_never_fails(text: str) -> None:
    """Halves of characters, other people's digits, dots and colons in plenty."""
    assert LINKS.read(text) is None
    read = read_payload(text)
    assert read is None or payload(read) == text


@given(
    st.builds(Press, ANYTHING, ANYTHING).filter(lambda press: press.delivery.isascii() and press.button.isascii())
)
def test_nothing_is_read_two_ways(press: Press) -> None:
    """What comes back is what was signed, or nothing: names with dots and colons lead nowhere."""
    assert LINKS.read(token(press)) in {press, None}
    assert read_payload(payload(press)) in {press, None}


# --- receipts -----------------------------------------------------------------------------------------

IDS = st.integers(0, 2**64 - 1).map(str) | st.text(st.characters(), max_size=30)


@given(IDS, IDS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_receipt_is_judged_whatever_its_ids_are(mine: str, named: str, up_to: bool) -> None:
    """It always covers the message it names; never fails; and without `up_to` covers nothing else."""
    delivery = replace(SENT, platform_message_id=mine)
    receipt = Receipt("teams/hr", "ann", EventType.READ, named, NOW, up_to=up_to)
    assert covers(replace(receipt, message_id=mine), delivery)
    if not up_to:
        assert covers(receipt, delivery) is (mine == named)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
@settings(max_examples=100, deadline=None)
def test_what_is_covered_stays_covered_by_later_receipts(mine: int, named: int, later: int) -> None:
    """With `up_to`, ids grow with time."""
    delivery = replace(SENT, platform_message_id=str(mine))
    receipt = Receipt("teams/hr", "ann", EventType.READ, str(named), NOW, up_to=True)
    assert covers(receipt, delivery) is (mine <= named)
    if covers(receipt, delivery):
        assert covers(replace(receipt, message_id=str(max(named, later))), delivery)


@given(st.sampled_from(EventType), st.lists(IDS, min_size=2, max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_delivery_has_one_event_of_a_kind_by_receipts(type: EventType, ids: list[str]) -> None:
    """Whatever names it."""
    keys = {event_of(Receipt("teams/hr", "ann", type, id, NOW), SENT).key for id in ids}
    assert len(keys) == 1


# --- what events mean ---------------------------------------------------------------------------------


def after(delivery: Delivery, *events: Event) -> Delivery:
    for event in events:
        delivery = applied(delivery, event)
    return delivery


@given(DELIVERIES, st.lists(EVENTS, max_size=4))
@settings(max_examples=100, deadline=None)
def test_the_order_in_which_events_come_in_is_all_the_same(delivery: Delivery, events: list[Event]) -> None:
    """Callbacks overtake each other. When a late failure ended it is the first one's to say: one comes in once."""
    unique = list({event.type: event for event in events}.values())
    outcomes = {after(delivery, *order) for order in permutations(unique)}
    assert len({replace(one, ended_at=None) for one in outcomes}) == 1


@given(DELIVERIES, st.lists(EVENTS, max_size=6), st.data())
@settings(max_examples=100, deadline=None)
def test_a_repeated_event_changes_nothing(delivery: Delivery, events: list[Event], data: st.DataObject) -> None:
    """Platforms repeat them."""
    assume(events)
    done = after(delivery, *events)
    again = data.draw(st.sampled_from(events))
    assert replace(applied(done, again), ended_at=None) == replace(done, ended_at=None)


@given(DELIVERIES, st.lists(EVENTS, max_size=6))
@settings(max_examples=100, deadline=None)
def test_no_event_lowers_what_arrived(delivery: Delivery, events: list[Event]) -> None:
    """Once a proof is there, a delivery that was sent stays sent; open and ended ones are not moved at all."""
    for event in events:
        before, delivery = delivery, applied(delivery, event)
        assert delivery.state is before.state or delivery.state in DELIVERY_MOVES[before.state]
        proved = before.delivered_at or before.read_at or before.clicked_at
        if before.state is DeliveryState.SENT and proved:
            assert delivery.state is DeliveryState.SENT
        if before.state not in {DeliveryState.SENT, DeliveryState.UNCERTAIN, DeliveryState.FAILED}:
            assert delivery.state is before.state


@given(st.lists(st.tuples(DELIVERIES, st.lists(EVENTS, max_size=5)), max_size=5))
@settings(max_examples=100, deadline=None)
def test_the_counters_equal_a_recount(stories: list[tuple[Delivery, list[Event]]]) -> None:
    """What each change adds comes to what counting the ledger gives."""
    counters: Counter[str] = Counter()
    recount: Counter[str] = Counter()
    for delivery, events in stories:
        counters.update(dict(tally.of_plan(delivery)))
        for event in events:
            before, delivery = delivery, applied(delivery, event)  # noqa: PLW2901 - its story goes on
            for path, number in tally.of_move(before.state, delivery):
                counters[path] += number
        for path, number in tally.of_plan(delivery):
            recount[path] += number
    assert {path: n for path, n in counters.items() if n} == dict(recount)
