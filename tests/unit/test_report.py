"""Report and progress: a hand-made tally in, the numbers of SHAPES.md out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from broadcast import report
from broadcast.model import (
    Audience,
    Broadcast,
    Button,
    ButtonType,
    ChannelName,
    DeliveryState,
    Message,
    Policies,
    Reason,
    Rung,
    Schedule,
    Variant,
)
from broadcast.ports import Features
from broadcast.report import ButtonLine, HourLine, ReasonLine, RungLine, Signal

NOW = datetime(2026, 4, 14, 8, tzinfo=UTC)

BROADCAST = Broadcast(
    id="brd_1",
    campaign="cmp_1",
    name="Benefits week",
    message=Message(
        text="Hello",
        buttons=(Button("enrol", ButtonType.LINK, "Enrol", url="https://intranet.example/enrol"),),
        variants={
            ChannelName.VIBER: Variant(
                buttons=(
                    Button("enrol", ButtonType.LINK, "Enrol now", url="https://intranet.example/enrol"),
                    Button("later", ButtonType.REPLY, "Later", value="later"),
                )
            )
        },
    ),
    audience=Audience(),
    schedule=Schedule(),
    policies=Policies(),
    seed=7,
    launched_at=NOW,
    launched_by="tok_ops",
    starts_at=NOW,
    planned=20,
)


def features(*, delivered: bool, read: bool) -> Features:
    return Features(delivered, read, rate=30, conversation_limits=(), text_limit=4096)


REPORTING = {
    ChannelName.TEAMS: features(delivered=False, read=True),
    ChannelName.TELEGRAM: features(delivered=False, read=False),
    ChannelName.VIBER: features(delivered=True, read=True),
}

TALLY = {
    "state/teams/sent": 6,
    "state/teams/unscheduled": 2,
    "state/telegram/sent": 4,
    "state/telegram/failed": 1,
    "state/viber/sent": 3,
    "state/viber/skipped": 2,
    "state/-/skipped": 2,
    "reason/unscheduled/absent": 2,
    "reason/failed/content": 1,
    "reason/skipped/unsubscribed": 1,
    "reason/skipped/blocked": 1,
    "reason/skipped/no_conversation": 2,
    "round/2/first/attempts": 3,
    "round/2/first/absent": 2,
    "round/2/first/sent": 1,
    "round/1/slot/attempts": 4,
    "round/1/first/attempts": 16,
    "round/1/first/sent": 12,
    "round/1/again/attempts": 4,
    "round/1/again/absent": 4,
    "hour/2026-03-27T14:00:00Z/sent": 5,
    "hour/2026-03-27T13:00:00Z/sent": 8,
    "hour/2026-03-27T14:00:00Z/clicked": 2,
    "hour/2026-03-27T15:00:00Z/sent": 0,
    "event/delivered/viber/people": 2,
    "event/delivered/viber/total": 2,
    "event/read/teams/people": 4,
    "event/read/teams/total": 4,
    "event/read/viber/people": 1,
    "event/read/viber/total": 1,
    "event/clicked/telegram/people": 1,
    "event/clicked/telegram/total": 3,
    "event/clicked/teams/people": 1,
    "event/clicked/teams/total": 1,
    "button/enrol/people": 2,
    "button/enrol/total": 4,
    "doubled": 1,
}

MADE = report.report(BROADCAST, TALLY, reporting=REPORTING, as_of=NOW)


def test_deliveries_of_all_channels_add_up_to_planned() -> None:
    """From the start on, `planned` is the sum of the deliveries by state."""
    assert sum(MADE.deliveries.values()) == MADE.planned == 20


def test_every_state_has_its_number() -> None:
    """A state nobody is in is a zero, not a gap."""
    assert list(MADE.deliveries) == list(DeliveryState)
    assert MADE.deliveries[DeliveryState.UNCERTAIN] == 0


def test_sent_is_what_stands_in_sent() -> None:
    """`sent` repeats the number of deliveries in that state."""
    assert MADE.sent == 13


def test_delivered_counts_only_channels_that_tell() -> None:
    """`reported_by` of delivered leaves out what went to Teams and Telegram."""
    assert MADE.delivered == Signal(people=2, total=2, reported_by=3)


def test_read_is_told_by_teams_and_viber() -> None:
    """`reported_by` of read leaves out Telegram alone."""
    assert MADE.read == Signal(people=5, total=5, reported_by=9)


def test_clicks_are_told_everywhere() -> None:
    """People and every click are separate counters, over all that was sent."""
    assert MADE.clicked == Signal(people=2, total=4, reported_by=13)


def test_a_channel_that_cannot_tell_has_nothing() -> None:
    """Telegram reports neither delivered nor read: not reported is not zero."""
    telegram = next(line for line in MADE.channels if line.channel is ChannelName.TELEGRAM)
    assert (telegram.delivered, telegram.read) == (None, None)
    assert telegram.clicked == Signal(people=1, total=3, reported_by=4)


def test_a_channel_that_tells_nothing_yet_has_zeros() -> None:
    """Viber can tell clicks: none so far is a zero."""
    viber = next(line for line in MADE.channels if line.channel is ChannelName.VIBER)
    assert viber.clicked == Signal(people=0, total=0, reported_by=3)


def test_a_channel_line_adds_up() -> None:
    """What was planned on a channel is all its deliveries."""
    teams = MADE.channels[0]
    assert (teams.channel, teams.planned, teams.sent, teams.unscheduled) == (ChannelName.TEAMS, 8, 6, 2)


def test_people_without_a_conversation_are_on_no_channel() -> None:
    """They are among the reasons, not among the channels."""
    assert [line.channel for line in MADE.channels] == list(ChannelName)
    assert ReasonLine(DeliveryState.SKIPPED, Reason.NO_CONVERSATION, 2) in MADE.reasons


def test_nothing_at_all_is_reported_where_no_channel_can() -> None:
    """A broadcast on Telegram alone has no delivered and no read, at the top too."""
    tally = {"state/telegram/sent": 4}
    made = report.report(BROADCAST, tally, reporting=REPORTING, as_of=NOW)
    assert (made.delivered, made.read, made.clicked) == (None, None, Signal(0, 0, 4))


def test_a_channel_without_an_account_tells_nothing() -> None:
    """What a channel could tell is unknown once its account is gone from the settings."""
    made = report.report(BROADCAST, {"state/viber/sent": 4}, reporting={}, as_of=NOW)
    assert (made.delivered, made.read) == (None, None)


def test_hours_are_in_order() -> None:
    """An hour with clicks alone, or sends alone, has the other number at zero; one with neither is left out."""
    assert MADE.hours == (
        HourLine(datetime(2026, 3, 27, 13, tzinfo=UTC), sent=8, clicked=0),
        HourLine(datetime(2026, 3, 27, 14, tzinfo=UTC), sent=5, clicked=2),
    )


def test_rungs_are_in_the_order_in_which_they_are_climbed() -> None:
    """First, again, slot; then the next round."""
    assert [(line.round, line.rung) for line in MADE.rounds] == [
        (1, Rung.FIRST),
        (1, Rung.AGAIN),
        (1, Rung.SLOT),
        (2, Rung.FIRST),
    ]
    assert MADE.rounds[3] == RungLine(2, Rung.FIRST, attempts=3, sent=1, absent=2)


def test_buttons_come_from_the_message_and_its_variants() -> None:
    """Each button once, as the message itself has it; one that nobody pressed has zeros."""
    assert MADE.buttons == (
        ButtonLine("enrol", ButtonType.LINK, "Enrol", people=2, total=4),
        ButtonLine("later", ButtonType.REPLY, "Later", people=0, total=0),
    )


def test_reasons_name_the_commonest_first() -> None:
    """By state, then by how many."""
    assert MADE.reasons == (
        ReasonLine(DeliveryState.FAILED, Reason.CONTENT, 1),
        ReasonLine(DeliveryState.UNSCHEDULED, Reason.ABSENT, 2),
        ReasonLine(DeliveryState.SKIPPED, Reason.NO_CONVERSATION, 2),
        ReasonLine(DeliveryState.SKIPPED, Reason.BLOCKED, 1),
        ReasonLine(DeliveryState.SKIPPED, Reason.UNSUBSCRIBED, 1),
    )


def test_doubt_is_counted() -> None:
    """What a crash may have sent twice is said."""
    assert MADE.possibly_doubled == 1


def test_before_the_start_nothing_is_planned() -> None:
    """`planned` is unknown until the audience is resolved; counters are zeros."""
    made = report.report(replace(BROADCAST, planned=None), {}, reporting=REPORTING, as_of=NOW)
    assert made.planned is None
    assert (made.sent, made.channels, made.read) == (0, (), Signal(0, 0, 0))


@pytest.mark.parametrize(
    ("tally", "share"),
    [
        ({}, 0.0),
        ({"state/teams/planned": 3}, 0.0),
        ({"state/teams/planned": 704, "state/teams/sending": 3, "state/teams/sent": 533}, 0.43),
        ({"state/teams/planned": 1, "state/teams/sent": 99_999}, 0.99),
        ({"state/teams/sent": 2, "state/-/skipped": 1, "state/viber/uncertain": 1}, 1.0),
    ],
)
def test_progress_is_the_share_that_has_an_end(tally: dict[str, int], share: float) -> None:
    """It is 1.0 only when every delivery has one."""
    assert report.progress(tally) == share
