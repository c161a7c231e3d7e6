"""What comes back: which delivery it is about, what it means there, and that nobody can make it up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broadcast.model import (
    ChannelName,
    Delivery,
    DeliveryState,
    Event,
    EventType,
    Reason,
    Receipt,
)
from broadcast.tracking import PROOFS, Links, Press, applied, covers, event_of, payload, read_payload

NOW = datetime(2026, 3, 27, 14, 27, tzinfo=UTC)
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
UNCERTAIN = replace(SENT, state=DeliveryState.UNCERTAIN, sent_at=None, platform_message_id=None)
LINKS = Links(secret="s", public_url="https://clarion.example")


def receipt(message_id: str, type: EventType = EventType.READ, *, up_to: bool = False) -> Receipt:
    return Receipt("teams/hr", "ann", type, message_id, NOW, up_to=up_to)


def event(type: EventType, minutes: float = 1) -> Event:
    return Event(f"{type}:dlv_1", "dlv_1", type, NOW + timedelta(minutes=minutes))


# --- receipts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "named", "up_to", "covered"),
    [
        ("100", "100", False, True),
        ("99", "100", False, False),
        ("99", "100", True, True),
        ("101", "100", True, False),
        ("9", "10", True, True),  # as numbers, not as texts
        ("5098034272817990000", "5098034272817990001", True, True),  # beyond what a float holds
        ("5098034272817990002", "5098034272817990001", True, False),
        ("a", "a", True, True),
        ("a", "b", True, False),
        ("1:a", "2", True, False),
        ("²", "3", True, False),  # a digit to Unicode, and no number
        ("٣", "4", True, False),
        ("1", "9" * 5000, True, False),
        (None, "100", True, False),
        (None, "None", False, False),
    ],
)
def test_a_receipt_covers_its_message_and_with_up_to_the_earlier_ones(
    mine: str | None, named: str, up_to: bool, covered: bool
) -> None:
    """Ids are compared as the numbers they are, and anything else only with itself."""
    assert covers(receipt(named, up_to=up_to), replace(SENT, platform_message_id=mine)) is covered


def test_a_receipt_is_one_event_a_kind() -> None:
    """However often and through whichever receipt it comes, its key is the same."""
    first, again = event_of(receipt("100"), SENT), event_of(receipt("200", up_to=True), SENT)
    assert first.key == again.key
    assert first.key != event_of(receipt("100", EventType.DELIVERED), SENT).key
    assert (first.delivery, first.type, first.at) == ("dlv_1", EventType.READ, NOW)


# --- what it means ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "mark"),
    [
        (EventType.DELIVERED, "delivered_at"),
        (EventType.READ, "read_at"),
        (EventType.CLICKED, "clicked_at"),
    ],
)
def test_the_earliest_of_a_kind_counts(type: EventType, mark: str) -> None:
    """A repeat changes nothing, and one that comes in late may still have been first."""
    first = applied(SENT, event(type, 2))
    assert getattr(first, mark) == NOW + timedelta(minutes=2)
    assert applied(first, event(type, 3)) is first
    assert getattr(applied(first, event(type, 1)), mark) == NOW + timedelta(minutes=1)


@pytest.mark.parametrize("type", sorted(set(EventType) - PROOFS - {EventType.FAILED}))
def test_what_says_nothing_of_a_delivery_changes_nothing(type: EventType) -> None:
    """The timeline keeps it; the delivery stays what it was."""
    assert applied(SENT, event(type)) is SENT


@pytest.mark.parametrize("type", sorted(PROOFS))
def test_a_proof_settles_what_was_uncertain(type: EventType) -> None:
    """Only somebody who got the message can read it or press a button."""
    settled = applied(UNCERTAIN, event(type))
    assert (settled.state, settled.sent_at, settled.reason) == (DeliveryState.SENT, NOW, None)


def test_a_proof_settles_it_although_one_came_before() -> None:
    """A press that overtook the outcome is noted already when the outcome turns out uncertain."""
    pressed = replace(UNCERTAIN, clicked_at=NOW)
    assert applied(pressed, event(EventType.CLICKED)).state is DeliveryState.SENT


@pytest.mark.parametrize("type", sorted(set(EventType) - PROOFS - {EventType.FAILED}))
def test_anything_else_leaves_it_uncertain(type: EventType) -> None:
    """Somebody who blocks us need not have seen it."""
    assert applied(UNCERTAIN, event(type)) is UNCERTAIN


@pytest.mark.parametrize("before", [SENT, UNCERTAIN])
def test_a_platform_may_take_back_its_word(before: Delivery) -> None:
    """What it accepted and could not bring has failed after all (PLATFORMS D2, `failed`)."""
    failed = applied(before, event(EventType.FAILED))
    assert (failed.state, failed.reason) == (DeliveryState.FAILED, Reason.REFUSED)
    assert failed.ended_at == NOW + timedelta(minutes=1)
    assert applied(failed, event(EventType.FAILED, 9)) is failed


@pytest.mark.parametrize("type", [EventType.DELIVERED, EventType.READ, EventType.CLICKED])
def test_a_late_failure_never_lowers_what_arrived(type: EventType) -> None:
    """Whether the proof comes before it or after it."""
    before = applied(applied(SENT, event(type)), event(EventType.FAILED))
    after = applied(applied(SENT, event(EventType.FAILED)), event(type))
    assert before == after
    assert (after.state, after.reason, after.ended_at) == (DeliveryState.SENT, None, NOW)


@pytest.mark.parametrize(
    "state",
    [
        DeliveryState.PLANNED,
        DeliveryState.SENDING,
        DeliveryState.SKIPPED,
        DeliveryState.CANCELLED,
        DeliveryState.UNSCHEDULED,
        DeliveryState.FAILED,
    ],
)
def test_no_event_moves_what_was_never_accepted(state: DeliveryState) -> None:
    """A forged or stray event is noted, and decides nothing."""
    delivery = replace(SENT, state=state, sent_at=None)
    assert applied(delivery, event(EventType.FAILED)) is delivery
    assert applied(delivery, event(EventType.READ)).state is state


# --- payloads -----------------------------------------------------------------------------------------


def test_a_payload_reads_back_and_fits_every_platform() -> None:
    """Delivery and button come back; Telegram takes 64 bytes (PLATFORMS C3)."""
    longest = Press("dlv_" + "x" * 16, "b" * 32)
    assert read_payload(payload(longest)) == longest
    assert len(payload(longest).encode()) <= 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cl",
        "cl:",
        "cl::",
        "cl:dlv_1",
        "cl:dlv_1:",
        "cl::enrol",
        "CL:dlv_1:enrol",
        "cl:dlv_1:enrol:x",
        "cl:dlv_1:a/b",
        "cl:dlv_1:a.b",
        "cl:dlv_1:später",
        "cl:dlv_1:enrol\n",
        " cl:dlv_1:enrol",
        "call me: now: please",
        "yes",
    ],
)
def test_what_is_no_payload_is_not_read_as_one(text: str) -> None:
    """People write all kinds of things, some with colons."""
    assert read_payload(text) is None


# --- tracked links ------------------------------------------------------------------------------------


def test_a_link_reads_back() -> None:
    """The token is what follows /r/, and safe in an address as it stands."""
    url = LINKS.url(Press("dlv_1", "enrol"))
    assert url.startswith("https://clarion.example/r/dlv_1.enrol.")
    assert LINKS.read(url.rpartition("/")[2]) == Press("dlv_1", "enrol")


def test_the_address_may_end_in_a_slash() -> None:
    """It is written either way in settings."""
    press = Press("dlv_1", "enrol")
    assert Links(secret="s", public_url="https://clarion.example/").url(press) == LINKS.url(press)


def token(delivery: str, button: str) -> str:
    return LINKS.url(Press(delivery, button)).rpartition("/")[2]


@pytest.mark.parametrize(
    "forged",
    [
        "",
        ".",
        "..",
        "dlv_1",
        "dlv_1.enrol",
        "dlv_1.enrol.",
        "dlv_1.enrol." + "A" * 16,
        token("dlv_1", "enrol")[:-1],
        token("dlv_1", "enrol") + "A",
        token("dlv_1", "enrol") + "=",
        token("dlv_1", "enrol") + "\n",
        token("dlv_1", "enrol").replace("dlv_1", "dlv_2"),
        token("dlv_1", "enrol").replace("enrol", "later"),
        token("dlv_1", "enrol").upper(),
        Links(secret="another", public_url="").url(Press("dlv_1", "enrol")).rpartition("/")[2],
        "https://evil.example/",
        "dlv_1.enrol.\ud800",
        "dlv_1.später.xxxx",
        # Signed, but of names that no delivery and no button has: nothing is read two ways.
        token("dlv_1.enrol", "x"),
        token("dlv_1", "enrol.x"),
        token("dlv_1", "a:b") + ".",
    ],
)
def test_a_forged_token_leads_nowhere(forged: str) -> None:
    """Without this installation's signature over exactly this delivery and button there is no press."""
    assert LINKS.read(forged) is None
