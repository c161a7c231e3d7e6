"""Campaigns: what is refused and in which words, how they are launched, and the trial to one person."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from broadcast.campaigns import AT_ONCE, MAX_NAME, MAX_WORKING_DAYS, Campaigns, Draft, LaunchOverrides
from broadcast.errors import Ambiguous, Conflict, Fault, Invalid, NotFound
from broadcast.model import (
    Audience,
    Broadcast,
    BroadcastKind,
    BroadcastStatus,
    CampaignStatus,
    ChannelName,
    ConversationState,
    DeliveryState,
    Message,
    Policies,
    Recipient,
    Schedule,
    Variant,
    Window,
)
from tests.unit.office import ACCOUNTS, NOW, TEAMS, TELEGRAM, Office, shaky

HELLO = Message("Hello")
TODAY = NOW.date()


async def refused(draft: Draft, office: Office | None = None) -> list[Fault]:
    with pytest.raises(Invalid) as raised:
        await (office or Office()).campaigns.create(draft)
    return list(raised.value.faults)


async def refused_at_launch(office: Office, overrides: LaunchOverrides | None = None, **changes: Any) -> list[str]:
    campaign = await office.draft(**changes)
    with pytest.raises(Invalid) as raised:
        await office.campaigns.launch(campaign.id, by="tok_1", overrides=overrides or LaunchOverrides())
    assert await office.store.broadcast("brd_2") is None
    return [str(fault) for fault in raised.value.faults]


# --- drafts -------------------------------------------------------------------------------------------


async def test_a_draft_is_kept_as_it_was_written() -> None:
    """A new campaign is a draft that was never launched."""
    office = Office()
    campaign = await office.campaigns.create(Draft("  Benefits week ", HELLO))
    assert await office.campaigns.get(campaign.id) == campaign
    assert (campaign.name, campaign.status, campaign.broadcasts) == ("Benefits week", CampaignStatus.DRAFT, 0)
    assert (campaign.created_at, campaign.last_launched_at) == (NOW, None)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"name": " "}, "name", "is 1 to 200 characters"),
        ({"name": "x" * (MAX_NAME + 1)}, "name", "is 1 to 200 characters"),
        ({"message": Message("[HR]")}, "message.text", "is no placeholder"),
        ({"schedule": Schedule(working_days=0)}, "schedule.working_days", "from 1 to 366"),
        ({"schedule": Schedule(working_days=MAX_WORKING_DAYS + 1)}, "schedule.working_days", "from 1 to 366"),
        ({"schedule": Schedule(hours={})}, "schedule.hours", "no working time in UTC"),
        ({"schedule": Schedule(timezone="Europe/Pariss")}, "schedule.timezone", "did you mean Europe/Paris?"),
        ({"schedule": Schedule(timezone="")}, "schedule.timezone", "is no time zone"),
        ({"schedule": Schedule(holiday_country="XX")}, "schedule.holiday_country", "is no country"),
        ({"policies": Policies(rounds=0)}, "policies.rounds", "from 1 to 100"),
        ({"policies": Policies(rounds=101)}, "policies.rounds", "from 1 to 100"),
        ({"policies": Policies(retry_minutes=0)}, "policies.retry_minutes", "from 1 to 1440"),
        ({"policies": Policies(slot_minutes=1441)}, "policies.slot_minutes", "from 1 to 1440"),
        ({"policies": Policies(rate=0)}, "policies.rate", "more than 0"),
        ({"policies": Policies(rate=-1)}, "policies.rate", "more than 0"),
        ({"policies": Policies(rate=float("nan"))}, "policies.rate", "more than 0"),
        ({"policies": Policies(rate=float("inf"))}, "policies.rate", "more than 0"),
        ({"policies": Policies(presence={ChannelName.TEAMS: frozenset()})}, "policies.presence.teams", '["any"]'),
        ({"audience": Audience(lists=("lst_x",))}, "audience.lists[0]", "lst_x is no list"),
        ({"audience": Audience(exclude_lists=("lst_x",))}, "audience.exclude_lists[0]", "lst_x is no list"),
        ({"audience": Audience(segments=("seg_x",))}, "audience.segments[0]", "seg_x is no segment"),
        ({"audience": Audience(recipients=("rcp_x",))}, "audience.recipients[0]", "rcp_x is no recipient"),
        ({"audience": Audience(accounts=("teams/x",))}, "audience.accounts[0]", "there are teams/hr, "),
        ({"audience": Audience(channels=())}, "audience.channels", "name at least one channel"),
    ],
)  # fmt: skip
async def test_a_mistake_is_refused_by_its_field(changes: dict[str, Any], field: str, words: str) -> None:
    """What can be seen while a campaign is edited, in words that say the mend; nothing is kept."""
    office = Office()
    [fault] = await refused(Draft(**{"name": "Benefits week", "message": HELLO, **changes}), office)
    assert fault.field == field
    assert words in str(fault)
    assert await office.store.campaign("cmp_1") is None


async def test_all_mistakes_are_told_at_once() -> None:
    """Nobody corrects one to learn of the next."""
    faults = await refused(Draft(" ", Message(""), policies=Policies(rounds=0, rate=0)))
    assert [fault.field for fault in faults] == ["name", "message.text", "policies.rounds", "policies.rate"]


async def test_holidays_may_leave_no_day() -> None:
    """A schedule that can never send is refused, not run for ever."""
    every_friday = frozenset(TODAY + timedelta(days=7 * week) for week in range(400))
    schedule = Schedule(holidays=every_friday, hours={4: (Window(540, 1080),)})
    [fault] = await refused(Draft("Benefits week", HELLO, schedule=schedule))
    assert "no working time in UTC" in str(fault)


async def test_only_the_channels_it_goes_to_limit_a_text() -> None:
    """The narrowest account of each."""
    office = Office()
    short = replace(ACCOUNTS[TEAMS], key="teams/it", features=replace(ACCOUNTS[TEAMS].features, text_limit=10))
    campaigns = Campaigns(office.store, office.clock, office.chance, {"teams/it": short, **ACCOUNTS})
    text = Message("x" * 11)
    with pytest.raises(Invalid, match="teams takes 10"):
        await campaigns.create(Draft("Benefits week", text))
    await campaigns.create(Draft("Benefits week", text, audience=Audience(accounts=(TELEGRAM,))))
    own = replace(text, variants={ChannelName.TEAMS: Variant(text="x")})
    await campaigns.create(Draft("Benefits week", own))


async def test_a_draft_can_be_changed() -> None:
    """All of it but its id and its birth."""
    office = Office()
    campaign = await office.draft()
    edited = await office.campaigns.edit(campaign.id, Draft("Pay day", HELLO))
    assert await office.campaigns.get(campaign.id) == edited
    assert (edited.id, edited.name, edited.created_at) == (campaign.id, "Pay day", NOW)
    with pytest.raises(Invalid):
        await office.campaigns.edit(campaign.id, Draft("", HELLO))
    assert await office.campaigns.get(campaign.id) == edited


async def test_a_launched_campaign_cannot_be_changed() -> None:
    """What people got is what it says; a copy can be changed."""
    office = Office()
    await office.hire("ann")
    broadcast = await office.launched()
    with pytest.raises(Conflict, match="copy it to change it"):
        await office.campaigns.edit(broadcast.campaign, Draft("Pay day", HELLO))


async def test_a_change_that_a_launch_overtakes_is_refused() -> None:
    """The draft was read before the launch, and is written after it."""
    office = Office()
    await office.hire("ann")
    campaign = await office.draft()
    slow = Campaigns(shaky(office.store), office.clock, office.chance, ACCOUNTS)
    edit = asyncio.create_task(slow.edit(campaign.id, Draft("Pay day", HELLO)))
    await asyncio.sleep(0)
    await office.campaigns.launch(campaign.id, by="tok_1")
    with pytest.raises(Conflict):
        await edit
    assert (await office.campaigns.get(campaign.id)).name == "Benefits week"


# --- finding ------------------------------------------------------------------------------------------


async def test_a_campaign_is_found_by_id_and_by_name() -> None:
    """Exactly, else regardless of case; white space around it is nothing."""
    office = Office()
    campaign = await office.draft()
    for who in (campaign.id, "Benefits week", "BENEFITS week", " Benefits week "):
        assert await office.campaigns.named(who) == campaign


async def test_an_ambiguous_name_is_asked_about() -> None:
    """Never guessed: the ids to choose from are named."""
    office = Office()
    one, two = await office.draft(), await office.draft()
    with pytest.raises(Ambiguous, match="say which by id") as raised:
        await office.campaigns.named("benefits week")
    assert one.id in str(raised.value)
    assert two.id in str(raised.value)


async def test_what_is_not_there_is_not_found() -> None:
    """Campaigns, by id or by name, and recipients."""
    office = Office()
    with pytest.raises(NotFound):
        await office.campaigns.get("cmp_1")
    with pytest.raises(NotFound, match="there is no campaign called x"):
        await office.campaigns.named("x")
    with pytest.raises(NotFound):
        await office.campaigns.launch("cmp_1", by="tok_1")
    with pytest.raises(NotFound, match="name one by e-mail or id"):
        await office.campaigns.find_recipient("ann@example.com")


@pytest.mark.parametrize("who", ["rcp_ann", "E1007", "ann@example.com", " ANN@example.com "])
async def test_a_recipient_is_found_by_what_people_know(who: str) -> None:
    """Id, external id, e-mail regardless of case."""
    office = Office()
    ann = Recipient("rcp_ann", external_id="E1007", email="ann@example.com")
    await office.store.save_recipients([ann])
    assert await office.campaigns.find_recipient(who) == ann


# --- launch -------------------------------------------------------------------------------------------


async def test_a_launch_freezes_the_campaign() -> None:
    """Everything of it is in the broadcast, and the campaign is locked and counted."""
    office = Office()
    await office.hire("ann")
    schedule = Schedule(start=date(2026, 4, 7), working_days=2, holiday_country="FR", timezone="Europe/Paris")
    campaign = await office.draft(schedule=schedule, policies=Policies(rounds=2))
    broadcast = await office.campaigns.launch(campaign.id, by="tok_1", overrides=LaunchOverrides(seed=7))
    assert broadcast == await office.broadcasts.get(broadcast.id)
    assert (broadcast.campaign, broadcast.name, broadcast.message) == (campaign.id, campaign.name, campaign.message)
    assert (broadcast.audience, broadcast.policies) == (campaign.audience, campaign.policies)
    assert date(2026, 5, 1) in broadcast.schedule.holidays
    assert (broadcast.kind, broadcast.status) == (BroadcastKind.CAMPAIGN, BroadcastStatus.SCHEDULED)
    assert (broadcast.seed, broadcast.launched_by, broadcast.launched_at) == (7, "tok_1", NOW)
    assert broadcast.starts_at == datetime(2026, 4, 7, 7, tzinfo=UTC)
    assert broadcast.expected_finish_at == datetime(2026, 4, 8, 16, tzinfo=UTC)
    assert (broadcast.planned, broadcast.finished_at) == (None, None)
    locked = await office.campaigns.get(campaign.id)
    assert (locked.status, locked.broadcasts, locked.last_launched_at) == (CampaignStatus.LAUNCHED, 1, NOW)


async def test_a_campaign_can_be_launched_again() -> None:
    """With another start, for this broadcast alone, and another seed."""
    office = Office()
    await office.hire("ann")
    first = await office.launched(schedule=Schedule(start=TODAY))
    office.clock.move(timedelta(days=7))
    with pytest.raises(Invalid, match="is past; write a later one"):
        await office.campaigns.launch(first.campaign, by="tok_1")
    again = await office.campaigns.launch(
        first.campaign, by="tok_1", overrides=LaunchOverrides(start=date(2026, 4, 7))
    )
    campaign = await office.campaigns.get(first.campaign)
    assert (campaign.broadcasts, campaign.last_launched_at) == (2, office.clock.now())
    assert campaign.schedule.start == TODAY
    assert (again.schedule.start, again.id != first.id) == (date(2026, 4, 7), True)
    assert again.seed != first.seed


async def test_two_launches_at_once_are_two_broadcasts() -> None:
    """Neither is lost nor half: whoever must not launch twice asks with a key (SHAPES, Idempotency-Key)."""
    office = Office()
    await office.hire("ann")
    campaign = await office.draft()
    campaigns = Campaigns(shaky(office.store), office.clock, office.chance, ACCOUNTS)
    one, two = await asyncio.gather(*(campaigns.launch(campaign.id, by="tok_1") for _ in range(2)))
    assert one.id != two.id
    assert (await office.campaigns.get(campaign.id)).broadcasts == 2


@pytest.mark.parametrize(
    ("start", "late"),
    [
        (date(2026, 3, 26), True),
        (date(2026, 3, 27), False),
        (datetime(2026, 3, 27, 12, 59), True),  # noqa: DTZ001 - a start is local
        (datetime(2026, 3, 27, 13, 0), False),  # noqa: DTZ001
        (None, False),
    ],
)
async def test_a_start_in_the_past_is_refused_at_the_launch(start: date | datetime | None, late: bool) -> None:
    """In the broadcast's own zone, in Paris one hour ahead; today is not past. A draft may keep it."""
    office = Office()
    await office.hire("ann")
    schedule = Schedule(start=start, timezone="Europe/Paris")
    if late:
        [fault] = await refused_at_launch(office, schedule=schedule)
        assert fault.startswith("schedule.start: ")
    else:
        assert (await office.launched(schedule=schedule)).starts_at >= NOW


async def test_an_override_of_the_start_is_held_to_the_same() -> None:
    """And makes an immediate campaign a scheduled one."""
    office = Office()
    await office.hire("ann")
    now = Schedule(immediate=True)
    faults = await refused_at_launch(office, LaunchOverrides(start=date(2026, 3, 26)), schedule=now)
    assert [fault.partition(":")[0] for fault in faults] == ["schedule.start"]
    campaign = await office.draft(schedule=now)
    launched = await office.campaigns.launch(
        campaign.id, by="tok_1", overrides=LaunchOverrides(start=date(2026, 3, 30))
    )
    assert (launched.schedule.immediate, launched.starts_at) == (False, datetime(2026, 3, 30, 9, tzinfo=UTC))


async def test_an_immediate_broadcast_starts_now() -> None:
    """Whatever the hour: its sends wait for the opening. A start that is left in the schedule means nothing."""
    office = Office()
    await office.hire("ann")
    office.clock.move(timedelta(hours=10))
    broadcast = await office.launched(schedule=Schedule(immediate=True, start=date(2026, 3, 1)))
    assert broadcast.starts_at == office.clock.now()


async def test_with_own_zones_it_starts_where_the_day_begins_first() -> None:
    """Nobody's morning is missed, wherever they live."""
    office = Office()
    await office.hire("ann")
    schedule = Schedule(start=date(2026, 3, 30), recipient_timezone=True, timezone="Europe/Paris")
    assert (await office.launched(schedule=schedule)).starts_at == datetime(2026, 3, 29, 19, tzinfo=UTC)


@pytest.mark.parametrize("start", [None, TODAY])
async def test_with_own_zones_a_day_that_is_over_here_is_not_over_everywhere(start: date | None) -> None:
    """On a Friday evening in Paris it is noon in New York: whoever lives there is not kept waiting until Monday."""
    office = Office()
    await office.hire("ann")
    office.clock.move(timedelta(hours=7))
    schedule = Schedule(start=start, recipient_timezone=True, timezone="Europe/Paris")
    assert (await office.launched(schedule=schedule)).starts_at == office.clock.now()


async def test_a_day_that_is_over_does_not_count() -> None:
    """Launched on a Friday evening, it starts on Monday."""
    office = Office()
    await office.hire("ann")
    office.clock.move(timedelta(hours=7))
    assert (await office.launched(schedule=Schedule(start=TODAY))).starts_at == datetime(2026, 3, 30, 9, tzinfo=UTC)


async def test_nobody_to_write_to_is_refused() -> None:
    """An empty audience, by what it is made of."""
    office = Office()
    assert await refused_at_launch(office) == [
        "audience: is empty; import recipients, or choose lists that have people"
    ]
    await office.store.ensure_lists({"lst_none": "Nobody"})
    await office.hire("ann")
    assert len(await refused_at_launch(office, audience=Audience(lists=("lst_none",)))) == 1


async def test_no_account_to_send_through_is_refused() -> None:
    """The audience is narrowed to a channel that is not configured."""
    office = Office()
    await office.hire("ann")
    only = {TELEGRAM: ACCOUNTS[TELEGRAM]}
    campaigns = Campaigns(office.store, office.clock, office.chance, only)
    draft = Draft("Benefits week", HELLO, audience=Audience(channels=(ChannelName.VIBER,)))
    campaign = await campaigns.create(draft)
    with pytest.raises(Invalid, match="names no channel with an account"):
        await campaigns.launch(campaign.id, by="tok_1")


@pytest.mark.parametrize("seed", [-1, 2**31])
async def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    """Every store and every language can keep those within it."""
    office = Office()
    await office.hire("ann")
    [fault] = await refused_at_launch(office, LaunchOverrides(seed=seed))
    assert fault.startswith("seed: is a whole number from 0 to 2147483647")


async def test_somebody_erased_keeps_no_campaign_from_its_launch() -> None:
    """Its content is locked: a name that is gone is nobody, and that is all."""
    office = Office()
    await office.hire("ann")
    campaign = await office.draft(audience=Audience(recipients=("rcp_ann",)))
    await office.store.save_campaign(
        replace(campaign, audience=Audience(recipients=("rcp_ann", "rcp_gone"))), expected=CampaignStatus.DRAFT
    )
    launched = await office.campaigns.launch(campaign.id, by="tok_1")
    assert launched.status is BroadcastStatus.SCHEDULED


async def test_the_estimate_is_whom_it_would_reach_now() -> None:
    """A hint: it is resolved at the start."""
    office = Office()
    await office.hire("ann", "ben")
    assert await office.campaigns.estimate(Audience()) == 2
    assert await office.campaigns.estimate(Audience(recipients=("rcp_ann",))) == 1


# --- try ----------------------------------------------------------------------------------------------


async def tried(office: Office, name: str = "ann", **changes: Any) -> Broadcast:
    campaign = await office.draft(**changes)
    return await office.campaigns.try_out(campaign.id, to=await office.person(name), by="tok_1")


async def test_a_trial_goes_to_one_person_at_once() -> None:
    """Whatever the audience, the hours, presence and rate of the campaign; the campaign stays a draft."""
    office = Office()
    await office.hire("ann", "ben")
    never = Schedule(start=date(2020, 1, 1))
    audience = Audience(recipients=("rcp_ben",), channels=(ChannelName.VIBER,))
    trial = await tried(office, schedule=never, policies=Policies(rate=0.001), audience=audience)
    await office.launching.start_due()
    [delivery] = (await office.deliveries(trial)).values()
    assert (delivery.recipient, delivery.state, delivery.due_at) == ("rcp_ann", DeliveryState.PLANNED, NOW)
    assert (trial.kind, trial.starts_at, trial.schedule) == (BroadcastKind.TRIAL, NOW, AT_ONCE)
    assert (trial.policies.rate, set(trial.policies.presence.values())) == (None, {None})
    campaign = await office.campaigns.get(trial.campaign)
    assert (campaign.status, campaign.broadcasts) == (CampaignStatus.DRAFT, 0)


async def test_a_trial_at_midnight_has_a_day_left() -> None:
    """The last second of a day is time enough."""
    office = Office()
    await office.hire("ann")
    office.clock.move(timedelta(hours=11, minutes=59, seconds=59))
    trial = await tried(office)
    assert trial.expected_finish_at is not None
    assert trial.expected_finish_at - office.clock.now() > timedelta(hours=24)


async def test_a_launched_campaign_can_be_tried() -> None:
    """It changes nothing of it."""
    office = Office()
    await office.hire("ann")
    launched = await office.launched()
    await office.campaigns.try_out(launched.campaign, to=await office.person("ann"), by="tok_1")
    assert (await office.campaigns.get(launched.campaign)).broadcasts == 1


async def test_a_message_at_fault_is_not_tried() -> None:
    """Somebody who has an attribute may be erased: what nobody has any more is unknown."""
    office = Office()
    await office.hire("ann", attributes={"city": "Lyon"})
    campaign = await office.draft("In {{ recipient.city }}")
    await office.store.save_recipients([replace(await office.person("ann"), attributes={})])
    with pytest.raises(Invalid, match=r"recipient\.city is unknown"):
        await office.campaigns.try_out(campaign.id, to=await office.person("ann"), by="tok_1")


async def test_a_trial_to_somebody_unsubscribed_is_refused() -> None:
    """Also to the one who asks for it: nobody is written to after STOP."""
    office = Office()
    await office.hire("ann")
    stale = await office.person("ann")
    await office.says("ann", "STOP")
    campaign = await office.draft()
    with pytest.raises(Conflict, match="Ann has unsubscribed; nothing is sent to them until they write START"):
        await office.campaigns.try_out(campaign.id, to=stale, by="tok_1")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (ConversationState.BLOCKED, "has blocked us"),
        (ConversationState.UNSUBSCRIBED, "has unsubscribed"),
        (ConversationState.GONE, "can no longer be reached"),
    ],
)
async def test_a_trial_that_cannot_arrive_is_refused_in_words(state: ConversationState, words: str) -> None:
    """Whoever asks learns why, instead of waiting for it."""
    office = Office()
    await office.hire("ann")
    [known] = await office.store.conversations_of("rcp_ann")
    await office.store.mark_conversation(known.id, state, NOW)
    with pytest.raises(Conflict, match=words):
        await tried(office)


async def test_a_trial_to_a_stranger_is_refused() -> None:
    """Without a conversation, and without a record."""
    office = Office()
    await office.store.save_recipients([Recipient("rcp_ann", email="ann@example.com")])
    with pytest.raises(Conflict, match=r"ann@example\.com has no conversation with us yet"):
        await tried(office)
    campaign = await office.draft()
    with pytest.raises(NotFound):
        await office.campaigns.try_out(campaign.id, to=Recipient("rcp_x"), by="tok_1")
