"""What is foretold of a campaign, and from what."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from broadcast import forecast, history, rehearsal
from broadcast.errors import Invalid
from broadcast.forecast import Limit, LimitKind
from broadcast.model import (
    Audience,
    Canary,
    ChannelName,
    ConversationState,
    Policies,
    PresenceState,
    Reason,
    Recipient,
    Schedule,
    Window,
    conversation_id,
)
from broadcast.ports import DeliveryFilter, Page
from storage.memory import MemoryStore
from tests.forecast.foretold import NEXT_WEEK, done, foretold, names, office, prepared, remember
from tests.unit.office import NOW, TEAMS, TELEGRAM, Office

AVAILABLE, AWAY = PresenceState.AVAILABLE, PresenceState.AWAY
AT_ONCE = Schedule(immediate=True, working_days=2, hours={day: (Window(0, 24 * 60),) for day in range(7)})
ANYBODY = Policies(presence=dict.fromkeys(ChannelName))
#: An hour at a time on two days, so that a rate shows.
SHORT = Schedule(start=date(2026, 3, 30), working_days=2, hours={day: (Window(540, 600),) for day in range(5)})


def texts(office: Office, **changes: object) -> str:
    """The warnings, one a line."""
    return "\n".join(foretold(office, **changes).warnings)  # type: ignore[arg-type]  # a campaign's own


# --- numbers ------------------------------------------------------------------------------------------


def test_the_same_seeds_give_the_same_forecast() -> None:
    """Whenever it is asked for; other seeds give another one."""
    one = office(40)
    campaign = done(one.draft(schedule=NEXT_WEEK))
    assert foretold(one, campaign) == foretold(one, campaign)
    assert foretold(one, campaign).hours != foretold(one, campaign, seeds=(3, 4)).hours


def test_everybody_is_accounted_for() -> None:
    """Reached, unreached and skipped are all people; sends by the hour add up to those reached."""
    one = office(60)
    done(one.hire("gone", account=TEAMS))
    done(one.store.set_unsubscribed("rcp_gone", NOW))
    told = foretold(one)
    assert told.skipped == {Reason.UNSUBSCRIBED: 1}
    assert told.people == 61
    assert told.reached.expected + told.unreached.expected == 60
    assert told.reached.low <= told.reached.expected <= told.reached.high
    assert abs(sum(line.sent for line in told.hours) - told.reached.expected) <= len(told.hours)


def test_where_all_are_available_all_are_reached() -> None:
    """And nothing but working time is kept to."""
    one = office(30)
    remember(one, {AVAILABLE: 1})
    told = foretold(one)
    assert (told.reached.low, told.limit.kind) == (30, LimitKind.WORKING_TIME)
    assert told.limit.text == "working time: moments are spread over 3 working days"


def test_where_all_are_away_nobody_is_reached() -> None:
    """And presence is what binds."""
    one = office(30)
    remember(one, {AWAY: 1})
    told = foretold(one)
    assert (told.reached.high, told.unreached.low, told.limit.kind) == (0, 30, LimitKind.PRESENCE)
    assert told.hours == ()


def test_presence_plays_no_part_where_anybody_may_be_written_to() -> None:
    """However away they are."""
    one = office(20)
    remember(one, {AWAY: 1})
    assert foretold(one, policies=ANYBODY).reached.low == 20


def test_a_channel_that_tells_no_presence_reaches_whoever_is_meant() -> None:
    """The policy asks, and nobody answers: RULES.md, presence."""
    one = Office()
    done(one.hire("ann", "ben", account=TELEGRAM))
    only = dict.fromkeys(ChannelName, frozenset({AVAILABLE}))
    assert foretold(one, policies=Policies(presence=only)).reached.low == 2


def test_the_end_is_the_last_persons() -> None:
    """At a rate of 30 a second, 300 people take ten seconds from now."""
    one = office(301)
    told = foretold(one, schedule=AT_ONCE, policies=ANYBODY)
    assert told.finish.expected == told.finish.high == NOW + timedelta(seconds=10)


def test_nobody_to_write_to_is_over_at_once() -> None:
    """An audience that can be reached nowhere has no run."""
    one = Office()
    done(one.store.save_recipients([Recipient("rcp_ann")]))
    told = foretold(one)
    assert (told.people, told.reached.expected, told.finish.expected) == (1, 0, NOW)
    assert told.warnings == ("1 person has no conversation",)


def test_a_campaign_that_cannot_be_launched_is_not_foretold() -> None:
    """The faults are those of a launch."""
    one = office(2)
    past = done(one.draft(schedule=replace(NEXT_WEEK, start=date(2026, 3, 2))))
    with pytest.raises(Invalid, match=r"schedule\.start"):
        prepared(one, past)


@pytest.mark.parametrize("number", [0, 21])
def test_there_are_1_to_20_seeds(number: int) -> None:
    """None is no forecast, and more take too long."""
    with pytest.raises(Invalid, match="seeds: is a number of runs from 1 to 20"):
        forecast.seeds(number)
    assert forecast.seeds(3) == (1, 2, 3)


def test_the_store_is_only_read() -> None:
    """Nothing of what is played is in it: no broadcast, no delivery, no presence, no control write."""
    one = office(20)
    other = done(one.running(schedule=NEXT_WEEK))
    campaign = done(one.draft(schedule=NEXT_WEEK))

    def everything() -> object:
        return (
            done(one.store.control_version()),
            done(one.store.broadcasts(page=Page(1, 100))),
            done(one.store.deliveries(DeliveryFilter(other.id), Page(1, 100))),
            done(one.store.recipients("", Page(1, 100))),
            done(one.store.presence_seen()),
            done(one.store.campaign(campaign.id)),
        )

    before = everything()
    foretold(one, campaign)
    assert everything() == before


@pytest.mark.parametrize(("minutes", "later"), [(30, timedelta(minutes=30)), (None, timedelta())])
def test_a_canary_is_waited_for(minutes: int | None, later: timedelta) -> None:
    """For as long as it takes; where somebody is asked, they are taken to approve at once."""
    one = office(61)
    policies = replace(ANYBODY, canary=Canary(10, minutes))
    told = foretold(one, schedule=AT_ONCE, policies=policies)
    assert told.reached.low == 61
    assert told.finish.expected - NOW - later < timedelta(seconds=4)
    assert told.finish.expected - NOW >= later


# --- other broadcasts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("started", [True, False])
def test_other_broadcasts_make_it_later(started: bool) -> None:
    """One that runs, and one that is about to start, use the same rate."""
    one = office(600)
    alone = foretold(one, schedule=AT_ONCE, policies=ANYBODY)
    campaign = {"schedule": AT_ONCE, "policies": ANYBODY}
    done(one.running(**campaign) if started else one.launched(**campaign))
    beside = foretold(one, schedule=AT_ONCE, policies=ANYBODY)
    assert beside.finish.expected > alone.finish.expected + timedelta(seconds=9)
    assert beside.reached == alone.reached


def test_broadcasts_on_other_accounts_are_no_load() -> None:
    """Nor are trials and those that start when this one is over."""
    one = office(10)
    done(one.hire("zoe", account=TELEGRAM))
    done(one.running(audience=Audience(accounts=(TELEGRAM,)), schedule=AT_ONCE))
    done(one.launched(schedule=Schedule(start=date(2026, 5, 4))))
    campaign = done(one.draft(audience=Audience(accounts=(TEAMS,)), schedule=NEXT_WEEK))
    done(one.campaigns.try_out(campaign.id, to=done(one.person(names(1)[0])), by="tok_1"))
    assert prepared(one, campaign).stage.load == []


def test_what_is_due_when_it_is_over_is_no_load() -> None:
    """Of a broadcast that goes on for longer, only what comes in its way plays."""
    one = office(50)
    done(one.running(schedule=replace(NEXT_WEEK, start=None, working_days=20)))
    load = prepared(one, schedule=replace(NEXT_WEEK, working_days=1)).stage.load
    assert 0 < len(load) < 40
    assert all(delivery.due_at and delivery.due_at.date() <= date(2026, 3, 30) for delivery in load)


# --- a sample -----------------------------------------------------------------------------------------


def test_of_many_a_sample_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands for all of them, its rate is as much lower, and it is said to be one."""
    one = office(1_200)
    remember(one, {AVAILABLE: 1, AWAY: 1})
    whole = foretold(one, schedule=AT_ONCE)
    assert whole.sample is None
    monkeypatch.setattr(forecast, "WHOLE", 1_000)
    monkeypatch.setattr(forecast, "SAMPLE", 600)
    told = foretold(one, schedule=AT_ONCE)
    assert told.sample is not None
    assert told.sample.of == 1_200
    assert 500 < told.sample.played < 700
    assert told.people == 1_200
    assert told.reached.expected + told.unreached.expected == 1_200
    assert told.reached.expected == pytest.approx(whole.reached.expected, rel=0.05)


def test_a_sample_of_a_rate_takes_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the people at half of the rate end when all of them would."""
    one = office(1_200)
    whole = foretold(one, schedule=AT_ONCE, policies=ANYBODY)
    monkeypatch.setattr(forecast, "WHOLE", 1_000)
    monkeypatch.setattr(forecast, "SAMPLE", 600)
    told = foretold(one, schedule=AT_ONCE, policies=ANYBODY)
    assert (told.finish.expected - whole.finish.expected).total_seconds() == pytest.approx(0, abs=2)


# --- presence -----------------------------------------------------------------------------------------


def test_a_state_lasts() -> None:
    """Whoever is there is so ten minutes later far more often than not, and the shares are those seen."""
    one = office(400)
    remember(one, {AVAILABLE: 3, AWAY: 2})
    stage = prepared(one).stage
    monday = datetime(2026, 3, 30, 9, 20, tzinfo=UTC)
    ask = rehearsal.presence(stage.history, ChannelName.TEAMS, seed=1)
    now = {seat.conversation: ask(seat.conversation, monday) for seat in stage.seats}
    later = {id: ask(id, monday + timedelta(minutes=10)) for id in now}
    there = [id for id, state in now.items() if state is AVAILABLE]
    stayed = sum(later[id] is AVAILABLE for id in there) / len(there)
    assert len(there) / len(now) == pytest.approx(0.6, abs=0.07)
    assert stayed == pytest.approx(0.67 + 0.33 * 0.6, abs=0.07)
    assert set(now.values()) == {AVAILABLE, AWAY}


def test_presence_follows_the_hour() -> None:
    """An hour in which nobody is there is so for everybody, whatever they did before."""
    seen = history.History(
        {(ChannelName.TEAMS, 9): {AVAILABLE: 100}, (ChannelName.TEAMS, 10): {PresenceState.OFFLINE: 100}}
    )
    ask = rehearsal.presence(seen, ChannelName.TEAMS, seed=1)
    monday = datetime(2026, 3, 30, 9, 59, tzinfo=UTC)
    for id in names(20):
        assert ask(id, monday) is AVAILABLE
        assert ask(id, monday + timedelta(minutes=1)) is PresenceState.OFFLINE


# --- warnings -----------------------------------------------------------------------------------------


def test_a_rate_that_is_too_low_is_warned_of() -> None:
    """Which account's, when, how late; and it is the limit."""
    one = office(400)
    remember(one, {AVAILABLE: 1})
    told = foretold(one, schedule=SHORT, policies=Policies(rounds=2), rate=0.1)
    late, held = told.warnings[:2]
    assert late.startswith("the rate of teams/hr makes Mon 30 Mar 09:00-10:00 run 7 minutes late")
    assert held.endswith("tries wait for the next opening: teams/hr is too slow")
    assert told.limit == Limit(LimitKind.RATE, TEAMS, "the rate of teams/hr, 0.1 a second")


def test_what_is_left_when_time_is_over_is_warned_of() -> None:
    """One day, and a rate at which it is too short."""
    one = office(100)
    remember(one, {AVAILABLE: 1})
    told = foretold(one, schedule=replace(SHORT, working_days=1), policies=Policies(rounds=1), rate=0.02)
    assert told.reached.expected == pytest.approx(70, abs=6)
    assert f"{told.unreached.expected} people are not reached for want of time" in told.warnings
    assert "09:00-10:00 run" in told.warnings[0]


def test_a_campaigns_own_rate_is_kept() -> None:
    """It is shared out as a start would do it, and named where it binds."""
    one = office(1_000)
    told = foretold(one, schedule=AT_ONCE, policies=replace(ANYBODY, rate=1.0))
    assert (told.finish.expected - NOW).total_seconds() == pytest.approx(1_000, rel=0.02)
    assert told.limit == Limit(LimitKind.RATE, TEAMS, "the campaign's own rate on teams/hr, 1 a second")


def test_few_days_leave_few_rounds() -> None:
    """One working day is one round for all; of two days, nobody gets three."""
    one = office(12)
    assert "12 people get only one round" in texts(one, schedule=replace(NEXT_WEEK, working_days=1))
    assert "12 people get only 2 of 3 rounds" in texts(one, schedule=replace(NEXT_WEEK, working_days=2))
    assert "round" not in texts(one)


def test_days_without_hours_are_named() -> None:
    """Those of an office week that lie between the first working day and the last."""
    hours = {day: (Window(540, 1080),) for day in (0, 1, 2, 3)}
    one = office(12)
    remember(one, {AVAILABLE: 1, AWAY: 1})
    assert "no hours on Friday" in texts(
        one, schedule=Schedule(start=date(2026, 4, 1), working_days=4, hours=hours)
    )
    assert "no hours" not in texts(one, schedule=Schedule(start=date(2026, 3, 30), working_days=2, hours=hours))


def test_holidays_are_named() -> None:
    """Those that lie between the first working day and the last, and would be worked else."""
    one = office(12)
    remember(one, {AVAILABLE: 1, AWAY: 1})
    holidays = frozenset({date(2026, 3, 31), date(2026, 4, 4), date(2026, 5, 1)})
    told = texts(one, schedule=replace(NEXT_WEEK, holidays=holidays))
    assert [line for line in told.splitlines() if "holiday" in line] == ["Tue 31 Mar is a holiday"]


def test_who_cannot_be_written_to_is_counted_by_why() -> None:
    """Without a conversation, unsubscribed, blocked, gone."""
    one = office(2)
    done(one.hire("una", "bob", "gil", account=TEAMS))
    done(one.store.set_unsubscribed("rcp_una", NOW))
    done(one.store.mark_conversation(conversation_id(TEAMS, "bob"), ConversationState.BLOCKED, NOW))
    done(one.store.mark_conversation(conversation_id(TEAMS, "gil"), ConversationState.GONE, NOW))
    done(one.store.save_recipients([Recipient("rcp_new"), Recipient("rcp_newer")]))
    assert texts(one).splitlines()[:4] == [
        "2 people have no conversation",
        "1 is unsubscribed",
        "1 has blocked us",
        "1 can no longer be reached",
    ]


def test_presence_that_is_assumed_is_said_to_be() -> None:
    """Until enough was seen."""
    one = office(30)
    assert "presence on teams is assumed" in texts(one)
    remember(one, {AVAILABLE: 1})
    assert texts(one) == ""


# --- between processes --------------------------------------------------------------------------------


def test_a_stage_and_its_run_travel() -> None:
    """They are values: what is played elsewhere is what would be played here."""
    ready = prepared(office(5), policies=ANYBODY)
    run = rehearsal.play(ready.stage, 1, MemoryStore())
    assert pickle.loads(pickle.dumps(run)) == run  # noqa: S301 - our own
