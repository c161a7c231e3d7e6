"""What every store guarantees (broadcast.ports), the unhappy rows first in each part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from broadcast import tracking
from broadcast.errors import Conflict, LeaseLost
from broadcast.model import (
    Audience,
    BroadcastKind,
    BroadcastReason,
    BroadcastStatus,
    CampaignStatus,
    ChannelName,
    ConversationState,
    Delivery,
    DeliveryState,
    EventType,
    Outcome,
    PresenceState,
    Reason,
    Rung,
)
from broadcast.ports import ApiToken, DeliveryFilter, Lease, Page, PresenceCount, Result, Store
from tests.storage.builders import (
    ACCOUNT,
    NOW,
    Wall,
    absent,
    at,
    attempt,
    broadcast,
    campaign,
    conversation,
    delivery,
    dispatch,
    event,
    launch,
    message,
    populate,
    receipt,
    recipient,
    sent,
)

ALL = Page(1, 100)
S = DeliveryState


async def stored(store: Store, planned: Delivery) -> Delivery:
    found = await store.delivery(planned.id)
    assert found is not None
    return found


async def states(store: Store, planned: list[Delivery]) -> list[DeliveryState]:
    return [(await stored(store, one)).state for one in planned]


# --- recipients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "taken", [{"external_id": "E1"}, {"email": "ANN@example.com"}, {"identities": {ChannelName.TEAMS: "t1"}}]
)
async def test_a_name_of_somebody_else_is_refused(store: Store, taken: dict[str, object]) -> None:
    """Nobody is saved when one of them claims what names another recipient."""
    ann = recipient("ann", external_id="E1", email="Ann@example.com", identities={ChannelName.TEAMS: "t1"})
    await store.save_recipients([ann])
    with pytest.raises(Conflict):
        await store.save_recipients([recipient("cat"), recipient("ben", **taken)])
    assert (await store.recipients("", ALL)).items == (ann,)


async def test_two_of_a_batch_cannot_share_a_name(store: Store) -> None:
    """Two new recipients with the same external id are a conflict too."""
    with pytest.raises(Conflict):
        await store.save_recipients([recipient("ann", external_id="E1"), recipient("ben", external_id="E1")])
    assert (await store.recipients("", ALL)).total == 0


async def test_a_name_may_pass_on_within_a_batch(store: Store) -> None:
    """What one gives up another may take in the same call."""
    await store.save_recipients([recipient("ann", email="hr@example.com"), recipient("ben")])
    await store.save_recipients([recipient("ben", email="hr@example.com"), recipient("ann")])
    [found] = await store.match_recipients([recipient("x", email="HR@example.com")])
    assert found is not None
    assert found.id == "rcp_ben"


async def test_unknown_people_are_none(store: Store) -> None:
    """Asking for who or what is not there answers nothing and harms nothing."""
    assert await store.recipient("rcp_x") is None
    assert await store.conversations_of("rcp_x") == []
    assert await store.conversation(ACCOUNT, "x") is None
    before = await store.control_version()
    await store.set_unsubscribed("rcp_x", NOW)
    await store.mark_conversation("cnv_x", ConversationState.GONE, NOW)
    assert await store.control_version() == before


async def test_a_recipient_comes_out_as_it_went_in(store: Store) -> None:
    """Every field survives; instants to the microsecond."""
    ann = recipient(
        "ann",
        external_id="E1007",
        email="Ann@Example.com",
        last_name="Ash",
        locale="en-GB",
        timezone="Europe/Paris",
        country="FR",
        tags=frozenset({"a", "b"}),
        lists=frozenset({"lst_staff"}),
        main_channel=ChannelName.TEAMS,
        identities={ChannelName.TEAMS: "t1", ChannelName.VIBER: "v1"},
        attributes={"SITE": "Lyon", "Größe": ""},
        created_at=NOW,
    )
    await store.save_recipients([ann])
    assert await store.recipient("rcp_ann") == ann


async def test_what_was_given_may_change_afterwards(store: Store) -> None:
    """A store shares nothing with its callers."""
    attributes, reference = {"SITE": "Lyon"}, {"a": {"b": 1}}
    await store.save_recipients([recipient("ann", attributes=attributes)])
    await store.save_conversations([conversation("ann", reference=reference)])
    attributes["SITE"] = "Rome"
    reference["a"]["b"] = 2
    ann, place = await store.recipient("rcp_ann"), await store.conversation(ACCOUNT, "user-ann")
    assert ann is not None
    assert place is not None
    assert ann.attributes == {"SITE": "Lyon"}
    assert place.reference == {"a": {"b": 1}}


async def test_matching_goes_by_external_id_then_email_then_identity(store: Store) -> None:
    """Each wanted value is looked for by what it has, in that order, and answered in the order asked."""
    ann = recipient("ann", external_id="E1", email="ann@example.com")
    ben = recipient("ben", email="Ben@example.com", identities={ChannelName.VIBER: "v2"})
    await store.save_recipients([ann, ben])
    wanted = [
        recipient("1", identities={ChannelName.TEAMS: "none", ChannelName.VIBER: "v2"}),
        recipient("2", external_id="E1", email="ben@example.com"),
        recipient("3", external_id="E9", email="bEN@example.com"),
        recipient("4", external_id="E9", email="nobody@example.com"),
        recipient("5"),
    ]
    assert await store.match_recipients(wanted) == [ben, ann, ben, None, None]


async def test_people_are_found_regardless_of_case(store: Store) -> None:
    """`q` is looked for in name, e-mail and external id, beyond ASCII too; pages are in order of id."""
    await store.save_recipients(
        [
            recipient("zoe", first_name="ZOË"),
            recipient("eva", email="Zoë.k@x.org"),
            recipient("dan", external_id="9z"),
        ]
    )
    found = await store.recipients("zoë", Page(1, 1))
    assert ([one.id for one in found.items], found.total) == (["rcp_eva"], 2)
    assert [one.id for one in (await store.recipients("zoë", Page(2, 1))).items] == ["rcp_zoe"]
    assert [one.id for one in (await store.recipients("9Z", ALL)).items] == ["rcp_dan"]


async def test_an_audience_adds_up_and_takes_away(store: Store) -> None:
    """Lists and named people add up, excluded lists take away, nothing named is everybody; pages by id."""
    staff, hidden = frozenset({"lst_staff"}), frozenset({"lst_staff", "lst_out"})
    await store.save_recipients(
        [recipient("ann", lists=staff), recipient("ben", lists=hidden), recipient("cat"), recipient("dan")]
    )
    await store.save_conversations([conversation("ann"), conversation("ann", "viber/x")])

    async def meant(audience: Audience) -> list[str]:
        people = await store.audience(audience, after="", limit=10)
        assert await store.audience_size(audience) == len(people)
        return [person.id for person, _ in people]

    assert await meant(Audience()) == ["rcp_ann", "rcp_ben", "rcp_cat", "rcp_dan"]
    assert await meant(Audience(lists=("lst_staff",), recipients=("rcp_dan",))) == ["rcp_ann", "rcp_ben", "rcp_dan"]
    assert await meant(Audience(lists=("lst_staff",), exclude_lists=("lst_out",))) == ["rcp_ann"]
    assert await meant(Audience(segments=("seg_1",))) == []
    assert [one.id for one, _ in await store.audience(Audience(), after="rcp_ann", limit=2)] == [
        "rcp_ben",
        "rcp_cat",
    ]
    [(_, places)] = await store.audience(Audience(), after="", limit=1)
    assert [place.account for place in places] == [ACCOUNT, "viber/x"]


async def test_attribute_names_are_those_in_use(store: Store) -> None:
    """A name counts while somebody has it."""
    await store.save_recipients(
        [recipient("ann", attributes={"SITE": "x"}), recipient("ben", attributes={"DESK": "1"})]
    )
    await store.save_recipients([recipient("ben", attributes={"SITE": "y"})])
    assert await store.attribute_names() == {"SITE"}


async def test_lists_are_created_once(store: Store) -> None:
    """A list that exists keeps its name."""
    await store.ensure_lists({"lst_1": "Staff"})
    await store.ensure_lists({"lst_1": "Other", "lst_2": "Board"})
    assert await store.list_ids() == {"lst_1": "Staff", "lst_2": "Board"}


async def test_only_set_unsubscribed_writes_it(store: Store) -> None:
    """Saving a recipient neither sets nor clears that they unsubscribed; the earlier instant stays."""
    await store.save_recipients([recipient("ann", unsubscribed_at=NOW)])
    assert await store.recipient("rcp_ann") == recipient("ann")
    await store.set_unsubscribed("rcp_ann", at(1))
    await store.set_unsubscribed("rcp_ann", at(2))
    await store.save_recipients([recipient("ann", last_name="Ash")])
    assert await store.recipient("rcp_ann") == recipient("ann", last_name="Ash", unsubscribed_at=at(1))
    await store.set_unsubscribed("rcp_ann", None)
    assert await store.recipient("rcp_ann") == recipient("ann", last_name="Ash")


async def test_whoever_unsubscribes_is_skipped_everywhere(store: Store) -> None:
    """Planned deliveries of every broadcast and account end at that instant; what is in flight does not."""
    lease, [flying] = await launch(store, "ann")
    await store.save_broadcast(broadcast("brd_2", BroadcastStatus.PAUSED), expected=None)
    planned = delivery("ann", "brd_2", account="viber/x", conversation="cnv_v")
    await store.plan([planned])
    await store.intend(lease, [flying], NOW)
    await store.set_unsubscribed("rcp_ann", at(1))
    assert (await stored(store, flying)).state is S.SENDING
    ended = replace(planned, state=S.SKIPPED, reason=Reason.UNSUBSCRIBED, ended_at=at(1))
    assert await stored(store, planned) == ended
    assert await store.tally("brd_2") == {"state/teams/skipped": 1, "reason/skipped/unsubscribed": 1}


# --- conversations ------------------------------------------------------------------------------------


async def test_an_id_of_another_conversation_is_refused(store: Store) -> None:
    """A conversation id cannot pass to another user; nothing of the batch is written."""
    await store.save_conversations([conversation("ann")])
    with pytest.raises(Conflict):
        await store.save_conversations([conversation("ben"), conversation("cat", id="cnv_teams_ann")])
    assert await store.conversation(ACCOUNT, "user-ben") is None


async def test_a_reference_holds_json_values_only(store: Store) -> None:
    """Anything else is refused before anything is written."""
    with pytest.raises(TypeError):
        await store.save_conversations([conversation("ann"), conversation("ben", reference={"at": NOW})])
    assert await store.conversation(ACCOUNT, "user-ann") is None


async def test_saving_a_conversation_again_keeps_its_id_and_merges_its_reference(store: Store) -> None:
    """State, last seen and recipient are replaced; the reference grows; the first id stays."""
    await store.save_conversations([conversation("ann", reference={"a": 1, "b": [1]}, last_seen=NOW)])
    again = conversation(
        "ann", id="cnv_new", recipient="rcp_ben", reference={"b": None}, state=ConversationState.BLOCKED
    )
    await store.save_conversations([again])
    kept = replace(again, id="cnv_teams_ann", reference={"a": 1, "b": None})
    assert await store.conversation(ACCOUNT, "user-ann") == kept
    assert await store.conversations_of("rcp_ben") == [kept]
    assert await store.conversations_of("rcp_ann") == []


@pytest.mark.parametrize("state", [s for s in ConversationState if s is not ConversationState.REACHABLE])
async def test_closing_a_conversation_ends_what_is_planned_on_it(store: Store, state: ConversationState) -> None:
    """Only on that conversation, with the reason of that name, at that instant."""
    _, [ann, ben] = await launch(store, "ann", "ben")
    await store.mark_conversation("cnv_teams_ann", state, at(2))
    assert await stored(store, ann) == replace(ann, state=S.SKIPPED, reason=Reason(state), ended_at=at(2))
    assert await stored(store, ben) == ben
    [place] = await store.conversations_of("rcp_ann")
    assert place.state is state


async def test_a_conversation_that_reopens_ends_nothing(store: Store) -> None:
    """Marking it reachable leaves what is planned on it."""
    _, [ann] = await launch(store, "ann")
    await store.mark_conversation("cnv_teams_ann", ConversationState.REACHABLE, NOW)
    assert await stored(store, ann) == ann


# --- campaigns and broadcasts -------------------------------------------------------------------------


async def test_a_campaign_is_saved_only_over_the_status_expected(store: Store) -> None:
    """New twice, or over another status, or over nothing, is a conflict."""
    with pytest.raises(Conflict):
        await store.save_campaign(campaign(), expected=CampaignStatus.DRAFT)
    await store.save_campaign(campaign(), expected=None)
    for expected in (None, CampaignStatus.LAUNCHED):
        with pytest.raises(Conflict):
            await store.save_campaign(campaign(name="Other"), expected=expected)
    assert await store.campaign("cmp_1") == campaign()
    await store.save_campaign(campaign(name="Other"), expected=CampaignStatus.DRAFT)
    assert await store.campaign("cmp_1") == campaign(name="Other")


async def test_of_two_who_move_a_broadcast_one_wins(store: Store) -> None:
    """Two writes guarded by the same status: one holds, the other is told."""
    await store.save_broadcast(broadcast(), expected=None)
    pause = broadcast(status=BroadcastStatus.PAUSED, reason=BroadcastReason.BY_USER)
    stop = broadcast(status=BroadcastStatus.STOPPED, finished_at=NOW)
    told = await asyncio.gather(
        *(store.save_broadcast(one, expected=BroadcastStatus.RUNNING) for one in (pause, stop)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in told) == ["Conflict", "NoneType"]
    assert await store.broadcast("brd_1") in (pause, stop)


async def test_a_broadcast_is_new_once(store: Store) -> None:
    """A second insert is a conflict and counts no second launch; so is a change of what is not there."""
    await store.save_campaign(campaign(), expected=None)
    await store.save_broadcast(broadcast(), expected=None)
    with pytest.raises(Conflict):
        await store.save_broadcast(broadcast(), expected=None)
    with pytest.raises(Conflict):
        await store.save_broadcast(broadcast("brd_9"), expected=BroadcastStatus.RUNNING)
    found = await store.campaign("cmp_1")
    assert found is not None
    assert found.broadcasts == 1


async def test_a_launch_is_counted_on_its_campaign(store: Store) -> None:
    """Every new broadcast of kind campaign; a trial and a later change count nowhere."""
    await store.save_campaign(campaign(), expected=None)
    await store.save_broadcast(broadcast("brd_t", kind=BroadcastKind.TRIAL), expected=None)
    assert await store.campaign("cmp_1") == campaign()
    await store.save_broadcast(broadcast(), expected=None)
    await store.save_broadcast(broadcast(planned=3), expected=BroadcastStatus.RUNNING)
    await store.save_broadcast(broadcast("brd_2", launched_at=at(9)), expected=None)
    launched = campaign(status=CampaignStatus.LAUNCHED, broadcasts=2, last_launched_at=at(9))
    assert await store.campaign("cmp_1") == launched


async def test_a_broadcast_comes_out_as_it_went_in(store: Store) -> None:
    """Every field survives, dates and local times as what they were."""
    made = broadcast(
        reason=BroadcastReason.CANARY,
        schedule=campaign().schedule,
        policies=replace(campaign().policies, presence={ChannelName.VIBER: None}),
        planned=0,
        expected_finish_at=at(1),
        finished_at=at(2),
    )
    await store.save_broadcast(made, expected=None)
    found = await store.broadcast("brd_1")
    assert found == made
    assert found.message == message()
    assert await store.broadcast("brd_x") is None


async def test_campaigns_are_named_exactly_or_regardless_of_case(store: Store) -> None:
    """The exact name wins; only without one does case not matter."""
    await store.save_campaign(campaign("cmp_1", name="Week"), expected=None)
    await store.save_campaign(campaign("cmp_2", name="WEEK"), expected=None)
    assert [one.id for one in await store.campaigns_named("WEEK")] == ["cmp_2"]
    assert [one.id for one in await store.campaigns_named("week")] == ["cmp_1", "cmp_2"]
    assert await store.campaigns_named("wee") == []


async def test_campaigns_are_listed_newest_first(store: Store) -> None:
    """Filtered by status, part of the name and channel."""
    viber = Audience(channels=(ChannelName.VIBER,))
    await store.save_campaign(campaign("cmp_a", name="Alpha"), expected=None)
    await store.save_campaign(campaign("cmp_b", name="Beta", created_at=at(1), audience=viber), expected=None)
    await store.save_campaign(campaign("cmp_c", status=CampaignStatus.LAUNCHED, created_at=at(2)), expected=None)

    async def listed(
        status: CampaignStatus | None = None, q: str = "", channel: ChannelName | None = None
    ) -> list[str]:
        found = await store.campaigns(status=status, q=q, channel=channel, page=ALL)
        assert found.total == len(found.items)
        return [one.id for one in found.items]

    assert await listed() == ["cmp_c", "cmp_b", "cmp_a"]
    assert await listed(CampaignStatus.DRAFT) == ["cmp_b", "cmp_a"]
    assert await listed(q="BET") == ["cmp_b"]
    assert await listed(channel=ChannelName.TEAMS) == ["cmp_c", "cmp_a"]


async def test_broadcasts_are_listed_newest_launch_first(store: Store) -> None:
    """Filtered by status, kind and campaign; no status is all of them."""
    await store.save_broadcast(broadcast("brd_1"), expected=None)
    await store.save_broadcast(broadcast("brd_2", BroadcastStatus.PAUSED, launched_at=at(1)), expected=None)
    await store.save_broadcast(broadcast("brd_3", kind=BroadcastKind.TRIAL, campaign="cmp_2"), expected=None)
    found = await store.broadcasts(page=Page(1, 2))
    assert ([one.id for one in found.items], found.total) == (["brd_2", "brd_3"], 3)
    running = await store.broadcasts(statuses=[BroadcastStatus.RUNNING], kind=BroadcastKind.CAMPAIGN, page=ALL)
    assert [one.id for one in running.items] == ["brd_1"]
    assert [one.id for one in (await store.broadcasts(campaign="cmp_2", page=ALL)).items] == ["brd_3"]


async def test_broadcasts_are_found_by_how_their_ids_begin(store: Store) -> None:
    """In order of id, whatever follows; a sign that is part of no id finds nothing."""
    ids = ["brd_ab", "brd_abz", "brd_ab\u00e9", "brd_ac", "brd_a", "brd_AB"]
    for id in ids:
        await store.save_broadcast(broadcast(id), expected=None)
    assert [one.id for one in await store.broadcasts_beginning("brd_ab")] == ["brd_ab", "brd_abz", "brd_ab\u00e9"]
    assert await store.broadcasts_beginning("brd_%") == []


async def test_a_broadcast_keeps_an_account_busy_while_anything_is_open(store: Store) -> None:
    """Planned or sending, while the broadcast runs."""
    lease, [ann] = await launch(store, "ann")
    assert await store.running_on(ACCOUNT) == ["brd_1"]
    await store.intend(lease, [ann], NOW)
    assert await store.running_on(ACCOUNT) == ["brd_1"]
    assert await store.running_on("viber/x") == []
    await store.record(lease, [sent(ann)])
    assert await store.running_on(ACCOUNT) == []


# --- planning and claiming ----------------------------------------------------------------------------


async def test_planning_again_changes_nothing(store: Store) -> None:
    """Those already there are neither written nor counted, and the lines that come with them are not either."""
    await populate(store, "ann", "ben")
    ann, ben = delivery("ann"), delivery("ben", state=S.SKIPPED, reason=Reason.BLOCKED, ended_at=NOW)
    assert await store.plan([ann, ann], [attempt(ann, Outcome.ERROR)]) == 1
    changed = replace(ann, due_at=at(9))
    assert await store.plan([changed, ben], [attempt(ann, Outcome.ABSENT), attempt(ben)]) == 1
    assert await store.plan([changed, ben]) == 0
    assert await stored(store, ann) == ann
    assert [len(await store.timeline(one.id)) for one in (ann, ben)] == [1, 1]
    assert await store.tally("brd_1") == {
        "state/teams/planned": 1,
        "state/teams/skipped": 1,
        "reason/skipped/blocked": 1,
        "round/1/first/attempts": 2,
        "round/1/first/sent": 1,
    }


async def test_a_delivery_comes_out_as_it_went_in(store: Store) -> None:
    """Every field survives; instants to the microsecond."""
    await populate(store, "ann")
    full = Delivery(
        id="dlv_full",
        broadcast="brd_1",
        recipient="rcp_ann",
        position=3,
        channel=None,
        account=None,
        conversation=None,
        state=S.UNCERTAIN,
        round=2,
        rung=Rung.SLOT,
        due_at=at(1),
        attempts=3,
        sends=4,
        tries=5,
        throttles=6,
        rung_at=at(2),
        attempted_at=at(3),
        ended_at=at(4),
        sent_at=at(5),
        delivered_at=at(6),
        read_at=at(7),
        clicked_at=at(8),
        platform_message_id="1692206589131",
        possibly_doubled=True,
    )
    await store.plan([full])
    assert await store.delivery("dlv_full") == full
    assert await store.tally("brd_1") == {"state/-/uncertain": 1, "doubled": 1}
    assert await store.delivery("dlv_x") is None


async def test_a_launch_tells_when_the_next_one_is(store: Store) -> None:
    """The campaign knows, with the earliest first; one that repeats no more is not among them."""
    for id in ("cmp_1", "cmp_2", "cmp_3"):
        await store.save_campaign(campaign(id), expected=None)
    assert await store.repeating() == []
    for id, moment in (("cmp_1", at(2)), ("cmp_2", at(1)), ("cmp_3", None)):
        launched = replace(broadcast(f"brd_{id}"), campaign=id, repeats_at=moment)
        await store.save_broadcast(launched, expected=None)
    found = await store.repeating()
    assert [(one.id, one.next_launch_at) for one in found] == [("cmp_2", at(1)), ("cmp_1", at(2))]
    await store.save_campaign(replace(found[0], next_launch_at=None), expected=CampaignStatus.LAUNCHED)
    assert [one.id for one in await store.repeating()] == ["cmp_1"]


async def test_due_is_in_order_of_moment_then_plan(store: Store) -> None:
    """Of one broadcast, at or before `until`, by due_at, position and id, page after page."""
    names = ["ann", "ben", "cat", "dan", "eva"]
    await populate(store, *names)
    await store.save_broadcast(broadcast("brd_0"), expected=None)
    planned = [
        delivery("ann", position=2, due_at=at(1)),
        delivery("ben", position=1, due_at=at(1)),
        delivery("cat", position=2, due_at=at(1)),
        delivery("cat", "brd_0", position=0, due_at=at(0)),
        delivery("dan", position=9, due_at=at(0)),
        delivery("eva", position=0, due_at=at(2)),
        delivery("ann", "brd_0", position=0, due_at=None),
    ]
    await store.plan(planned)
    expected = ["dlv_brd_1_dan", "dlv_brd_1_ben", "dlv_brd_1_ann", "dlv_brd_1_cat"]
    found = await store.due(ACCOUNT, broadcast="brd_1", until=at(1), after=None, limit=10)
    assert [due.delivery.id for due in found] == expected
    assert (found[0].recipient, found[0].conversation) == (recipient("dan"), conversation("dan"))
    assert await store.due(ACCOUNT, broadcast="brd_1", until=at(1), after=None, limit=2) == found[:2]
    for place, due in enumerate(found):
        assert due.delivery.due_at is not None
        edge = (due.delivery.due_at, due.delivery.position, due.delivery.id)
        rest = await store.due(ACCOUNT, broadcast="brd_1", until=at(1), after=edge, limit=10)
        assert rest == found[place + 1 :]
    [other] = await store.due(ACCOUNT, broadcast="brd_0", until=at(9), after=None, limit=10)
    assert other.delivery.id == "dlv_brd_0_cat"
    assert await store.next_due(ACCOUNT) == at(0)
    assert await store.due("viber/x", broadcast="brd_1", until=at(9), after=None, limit=10) == []


@pytest.mark.parametrize("status", [s for s in BroadcastStatus if s is not BroadcastStatus.RUNNING])
async def test_nothing_is_due_or_granted_but_in_running_broadcasts(store: Store, status: BroadcastStatus) -> None:
    """Any other status holds its deliveries back at once."""
    lease, [ann] = await launch(store, "ann")
    assert await store.next_due(ACCOUNT) == NOW
    await store.save_broadcast(broadcast(status=status), expected=BroadcastStatus.RUNNING)
    assert await store.next_due(ACCOUNT) is None
    assert await store.due(ACCOUNT, broadcast="brd_1", until=at(9), after=None, limit=10) == []
    assert await store.intend(lease, [ann], NOW) == []


async def test_an_intent_is_written_for_those_only_who_may_be_written_to(store: Store) -> None:
    """Not the unknown, the unsubscribed, the unreachable, those of another account, nor anybody twice."""
    lease = await populate(store, "ann", "ben", "cat", "dan")
    await store.set_unsubscribed("rcp_ben", NOW)
    await store.mark_conversation("cnv_teams_cat", ConversationState.BLOCKED, NOW)
    ann, ben, cat = (delivery(name) for name in ("ann", "ben", "cat"))
    dan = delivery("dan", account="teams/it")
    await store.plan([ann, ben, cat, dan])
    wanted = [delivery("eva"), dan, cat, ben, replace(ann, sends=4, rung_at=at(1), tries=9)]
    assert await store.intend(lease, [*wanted, ann], NOW) == [ann.id]
    assert await stored(store, ann) == replace(ann, state=S.SENDING, sends=4, rung_at=at(1))
    assert await states(store, [ben, cat, dan]) == [S.PLANNED] * 3
    assert await store.intend(lease, [ann], NOW) == []
    assert await store.tally("brd_1") == {"state/teams/planned": 3, "state/teams/sending": 1}


async def test_what_is_in_flight_is_told_after_a_crash(store: Store) -> None:
    """The account's deliveries in `sending`, with what an attempt needs, in the order of the plan."""
    lease, [ann, ben, _] = await launch(store, "ann", "ben", "cat")
    await store.intend(lease, [ben, ann], NOW)
    found = await store.in_flight(lease)
    assert [due.delivery.id for due in found] == [ann.id, ben.id]
    assert found[0].conversation == conversation("ann")
    assert await store.in_flight(Lease("teams/it", "worker-1", 1)) == []


# --- recording ----------------------------------------------------------------------------------------


async def test_a_result_that_lost_its_race_writes_nothing(store: Store) -> None:
    """Not in the state expected, unknown, or of another account: no outcome, line, mark, reference or count."""
    lease, [ann] = await launch(store, "ann")
    await store.plan([delivery("dan", account="teams/it")])
    before = await store.tally("brd_1")
    lost = sent(ann, marks=ConversationState.GONE, reference={"new": 1})
    foreign = absent(delivery("dan", account="teams/it"))
    assert await store.record(lease, [lost, sent(delivery("eva")), foreign]) == []
    assert await stored(store, ann) == ann
    assert await store.timeline(ann.id) == []
    assert await store.conversations_of("rcp_ann") == [conversation("ann")]
    assert await store.tally("brd_1") == before


async def test_the_same_result_is_written_once(store: Store) -> None:
    """Twice in one call, or in a second one: the first moved it out of the state expected."""
    lease, [ann] = await launch(store, "ann")
    await store.intend(lease, [ann], NOW)
    assert await store.record(lease, [sent(ann), sent(ann, "200")]) == [ann.id]
    assert await store.record(lease, [sent(ann, "300")]) == []
    assert (await stored(store, ann)).platform_message_id == "100"
    assert len(await store.timeline(ann.id)) == 1


async def test_a_result_that_keeps_its_state_is_written_once(store: Store) -> None:
    """Given again by a caller who was not told that it was written: one line, and counted once."""
    lease, [ann] = await launch(store, "ann")
    assert await store.record(lease, [absent(ann)]) == [ann.id]
    counted = await store.tally("brd_1")
    assert await store.record(lease, [absent(ann)]) == []
    assert await stored(store, ann) == absent(ann).delivery
    assert len(await store.timeline(ann.id)) == 1
    assert await store.tally("brd_1") == counted


async def test_what_is_given_again_counts_once(store: Store) -> None:
    """Whoever was told that the store is away, and was not told that it had written, repeats the same values."""
    lease, planned = await launch(store, "ann", "ben", "cat")
    await dispatch(store, lease, planned[0])
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.plan(planned),
        lambda: store.record(lease, [absent(planned[1])]),
        lambda: store.add_events([event(planned[0].id)]),
        lambda: store.add_receipts([receipt("ann", "100"), receipt("ben", "200")]),
        lambda: store.mark_conversation("cnv_teams_ben", ConversationState.GONE, at(5)),
        lambda: store.set_unsubscribed("rcp_cat", at(6)),
        lambda: store.save_conversations([conversation("dan")]),
        lambda: store.save_recipients([recipient("dan")]),
        lambda: store.remember_answer("key", "print", b"answer", NOW),
    ]
    for call in calls:
        await call()
    once = [await stored(store, one) for one in planned], await store.tally("brd_1")
    lines = [await store.timeline(one.id) for one in planned]
    for call in calls:
        await call()
    assert ([await stored(store, one) for one in planned], await store.tally("brd_1")) == once
    assert [await store.timeline(one.id) for one in planned] == lines
    assert await store.acquire_lease(ACCOUNT, "worker-1", 30) == lease


async def test_outcomes_are_written_before_the_intents_beside_them(store: Store) -> None:
    """In one call: an outcome that plans its delivery again lets the same call claim it."""
    lease, [ann, ben] = await launch(store, "ann", "ben")
    await store.intend(lease, [replace(ann, sends=1, rung_at=NOW), replace(ben, sends=1, rung_at=NOW)], NOW)
    again = Result(
        S.SENDING, replace(ann, sends=1, rung_at=NOW, tries=1, due_at=at(1)), attempt(ann, Outcome.ERROR)
    )
    granted = await store.intend(lease, [replace(ann, sends=2, rung_at=NOW)], NOW, after=[again, sent(ben)])
    assert granted == [ann.id]
    assert (await stored(store, ben)).state is S.SENT
    assert (await stored(store, ann)) == replace(again.delivery, state=S.SENDING, sends=2)
    assert (await store.tally("brd_1"))["state/teams/sending"] == 1


async def test_outcomes_beside_intents_of_a_lost_lease_are_not_written(store: Store) -> None:
    """Both or neither."""
    lease, [ann, ben] = await launch(store, "ann", "ben")
    await store.intend(lease, [replace(ann, sends=1, rung_at=NOW)], NOW)
    await store.release_lease(lease)
    assert await store.acquire_lease(ACCOUNT, "another", 60) is not None
    with pytest.raises(LeaseLost):
        await store.intend(lease, [replace(ben, sends=1)], NOW, after=[sent(ann)])
    assert (await stored(store, ann)).state is S.SENDING
    assert await stored(store, ben) == ben


async def test_an_outcome_is_recorded_whole(store: Store) -> None:
    """Every field of the value, its line, and the counters."""
    lease, [ann, ben] = await launch(store, "ann", "ben")
    await store.intend(lease, [ann], NOW)
    outcome = sent(ann)
    assert await store.record(lease, [absent(ben), outcome]) == [ben.id, ann.id]
    assert await stored(store, ann) == outcome.delivery
    assert await stored(store, ben) == absent(ben).delivery
    assert await store.timeline(ann.id) == [attempt(ann)]
    assert await store.tally("brd_1") == {
        "state/teams/planned": 1,
        "state/teams/sent": 1,
        "round/1/first/attempts": 2,
        "round/1/first/sent": 1,
        "round/1/first/absent": 1,
        "hour/2026-03-27T13:00:00Z/sent": 1,
    }


async def test_a_delivery_doubled_by_a_crash_is_counted_once(store: Store) -> None:
    """When it becomes possibly doubled, not each time it is recorded so."""
    lease, [ann] = await launch(store, "ann")
    await store.intend(lease, [ann], NOW)
    doubt = replace(ann, possibly_doubled=True, sends=1)
    assert await store.record(lease, [Result(S.SENDING, doubt)]) == [ann.id]
    assert await store.record(lease, [Result(S.PLANNED, doubt)]) == [ann.id]
    assert await store.tally("brd_1") == {"state/teams/planned": 1, "doubled": 1}


async def test_what_events_set_survives_a_record(store: Store) -> None:
    """A click that came before the outcome is not overwritten by it."""
    lease, [ann] = await launch(store, "ann")
    await store.intend(lease, [ann], NOW)
    assert await store.add_events([event(ann.id)]) == 1
    await store.record(lease, [sent(ann)])
    assert await stored(store, ann) == replace(sent(ann).delivery, clicked_at=at(3))


async def test_a_reference_learned_is_merged(store: Store) -> None:
    """What the answer told is kept with the conversation, beside what was known."""
    lease, [ann] = await launch(store, "ann")
    await store.intend(lease, [ann], NOW)
    await store.record(lease, [sent(ann, reference={"conversation": "19:x"})])
    assert await store.conversations_of("rcp_ann") == [
        conversation("ann", reference={"tenant": "2c3d", "conversation": "19:x"})
    ]


@pytest.mark.parametrize("marks", [ConversationState.BLOCKED, ConversationState.GONE])
async def test_a_mark_ends_what_else_is_planned_on_the_conversation(store: Store, marks: ConversationState) -> None:
    """In other broadcasts and later in the same batch, as `mark_conversation` does; no other conversation."""
    lease, [ann, ben] = await launch(store, "ann", "ben")
    await store.save_broadcast(broadcast("brd_2"), expected=None)
    other, last = delivery("ann", "brd_2"), delivery("ann", "brd_3")
    await store.plan([other, last])
    await store.intend(lease, [ann], NOW)
    failed = replace(ann, state=S.FAILED, reason=Reason.REFUSED, ended_at=at(1))
    refused = Result(S.SENDING, failed, attempt(ann, Outcome.REFUSED, 1), new_rung=True, marks=marks)
    seen = await store.control_version()
    assert await store.record(lease, [refused, absent(other), absent(ben)]) == [ann.id, ben.id]
    assert await store.control_version() > seen
    assert await stored(store, ann) == failed
    for one in (other, last):
        assert await stored(store, one) == replace(one, state=S.SKIPPED, reason=Reason(marks), ended_at=at(1))
    assert (await store.conversations_of("rcp_ann"))[0].state is marks
    assert (await store.conversations_of("rcp_ben"))[0].state is ConversationState.REACHABLE


async def test_stopping_cancels_what_is_planned(store: Store) -> None:
    """Up to so many at a time; what is in flight or ended stays as it is."""
    lease, [ann, ben, cat, dan] = await launch(store, "ann", "ben", "cat", "dan")
    await store.intend(lease, [ann], NOW)
    assert await store.cancel_planned("brd_1", at(1), 2) == 2
    assert await states(store, [ann, ben, cat, dan]) == [S.SENDING, S.CANCELLED, S.CANCELLED, S.PLANNED]
    assert await store.cancel_planned("brd_1", at(2), 2) == 1
    assert await store.cancel_planned("brd_1", at(3), 2) == 0
    assert await stored(store, ben) == replace(ben, state=S.CANCELLED, reason=Reason.STOPPED, ended_at=at(1))
    assert await store.tally("brd_1") == {
        "state/teams/sending": 1,
        "state/teams/cancelled": 3,
        "reason/cancelled/stopped": 3,
    }


# --- listing ------------------------------------------------------------------------------------------


async def test_deliveries_are_listed_in_the_order_of_the_plan(store: Store) -> None:
    """By page and as a stream; somebody who is no longer known is listed by id."""
    await launch(store, "ben", "ann")
    await store.plan([delivery("x", position=7), delivery("ann", "brd_2")])
    found = await store.deliveries(DeliveryFilter("brd_1"), Page(1, 2))
    assert ([person.id for _, person in found.items], found.total) == (["rcp_ben", "rcp_ann"], 3)
    streamed = [row async for row in store.all_deliveries(DeliveryFilter("brd_1"))]
    assert streamed[:2] == list(found.items)
    assert streamed[2] == (delivery("x", position=7), replace(recipient("x"), first_name=None))


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({}, "ann ben cat dan"),
        ({"states": [S.PLANNED]}, "ann dan"),
        ({"states": [S.SKIPPED], "channels": [ChannelName.VIBER]}, "cat"),
        ({"channels": [ChannelName.TEAMS]}, "ann ben"),
        ({"channels": [ChannelName.TELEGRAM]}, ""),
        ({"reasons": [Reason.BLOCKED, Reason.GONE]}, "ben"),
        ({"q": "B.ASH@"}, "ben"),
        ({"q": "dan"}, "dan"),
        ({"q": "e-7", "states": [S.SKIPPED]}, "cat"),
    ],
)
async def test_deliveries_are_filtered(store: Store, asked: dict[str, object], names: str) -> None:
    """By state, reason, channel, and by name, e-mail or external id; the total goes with it."""
    people = [recipient("ann"), recipient("ben", email="b.ash@x.org"), recipient("cat", external_id="E-7")]
    await store.save_recipients([*people, recipient("dan")])
    viber = ChannelName.VIBER
    await store.plan(
        [
            delivery("ann", position=0),
            delivery("ben", position=1, state=S.SKIPPED, reason=Reason.BLOCKED),
            delivery("cat", position=2, state=S.SKIPPED, reason=Reason.CAPPED, channel=viber),
            delivery("dan", position=3, channel=None, account=None, conversation=None),
        ]
    )
    wanted = DeliveryFilter("brd_1", **asked)  # type: ignore[arg-type]  # told by the table above, one field a row
    found = await store.deliveries(wanted, ALL)
    assert " ".join(one.recipient.removeprefix("rcp_") for one, _ in found.items) == names
    assert found.total == len(found.items)
    assert tuple([row async for row in store.all_deliveries(wanted)]) == found.items


async def test_a_timeline_is_in_time_order(store: Store) -> None:
    """Attempts and events together; at the same instant the attempt first."""
    lease, [ann] = await launch(store, "ann")
    await store.record(lease, [absent(ann)])
    clicked, delivered = event(ann.id), event(ann.id, EventType.DELIVERED, "k2", at=NOW)
    await store.add_events([clicked, delivered])
    assert await store.timeline(ann.id) == [attempt(ann, Outcome.ABSENT), delivered, clicked]
    assert await store.timeline("dlv_x") == []


# --- what came in -------------------------------------------------------------------------------------


async def test_an_inbound_key_is_new_once(store: Store) -> None:
    """Of many who note it at the same time one is first; each account has its own keys."""
    assert not await store.was_seen(ACCOUNT, "k")
    firsts = await asyncio.gather(*(store.first_time(ACCOUNT, "k", NOW) for _ in range(20)))
    assert sorted(firsts) == [False] * 19 + [True]
    assert await store.was_seen(ACCOUNT, "k")
    assert await store.first_time("viber/x", "k", NOW)


async def test_an_event_counts_once(store: Store) -> None:
    """By its key, in one call or many; of an unknown delivery it is dropped, and may come again later."""
    _, [ann] = await launch(store, "ann")
    early = event("dlv_brd_1_ben", key="k2")
    assert await store.add_events([event(ann.id), event(ann.id), early]) == 1
    assert await store.add_events([event(ann.id, at=at(9))]) == 0
    await store.plan([delivery("ben")])
    assert await store.add_events([early]) == 1
    assert (await stored(store, ann)).clicked_at == at(3)


async def test_people_and_totals_are_counted_apart(store: Store) -> None:
    """The first event of a type makes a person, the first click on a button one of that button."""
    lease, [ann] = await launch(store, "ann")
    await dispatch(store, lease, ann)
    clicks = [event(ann.id, key=f"k{n}", button=button, at=at(n)) for n, button in enumerate(("a", "b", "a"))]
    assert await store.add_events(clicks) == 3
    found = await store.tally("brd_1")
    assert {path: n for path, n in found.items() if path.split("/")[0] in {"event", "button"}} == {
        "event/clicked/teams/total": 3,
        "event/clicked/teams/people": 1,
        "button/a/total": 2,
        "button/a/people": 1,
        "button/b/total": 1,
        "button/b/people": 1,
    }
    assert found["hour/2026-03-27T13:00:00Z/clicked"] == 3


async def test_an_event_settles_what_was_uncertain(store: Store) -> None:
    """What it means for the delivery is written and counted with it."""
    await populate(store, "ann")
    ann = delivery("ann", state=S.UNCERTAIN, attempted_at=NOW)
    await store.plan([ann])
    read = event(ann.id, EventType.READ)
    await store.add_events([read])
    assert await stored(store, ann) == tracking.applied(ann, read)
    assert (await stored(store, ann)).state is S.SENT
    found = await store.tally("brd_1")
    assert (found["state/teams/sent"], found.get("state/teams/uncertain")) == (1, None)


async def test_a_receipt_speaks_of_one_message_of_one_conversation(store: Store) -> None:
    """Repeated it changes nothing; for an unknown user or message it is dropped."""
    lease, [ann, ben] = await launch(store, "ann", "ben")
    await dispatch(store, lease, ann, "100")
    await dispatch(store, lease, ben, "100")
    await store.add_receipts([receipt("ann", "100"), receipt("ann", "100", at=at(9)), receipt("x", "100")])
    await store.add_receipts([receipt("ann", "100", at=at(9)), receipt("ben", "200")])
    assert (await stored(store, ann)).read_at == at(4)
    assert (await stored(store, ben)).read_at is None
    assert [line.at for line in await store.timeline(ann.id)] == [NOW, at(4)]


async def test_a_late_failure_is_written_and_counted(store: Store) -> None:
    """A platform that takes back its word moves sent to failed."""
    lease, [ann] = await launch(store, "ann")
    await dispatch(store, lease, ann, "100")
    await store.add_receipts([receipt("ann", "100", EventType.FAILED)])
    failed = await stored(store, ann)
    assert (failed.state, failed.reason, failed.ended_at) == (S.FAILED, Reason.REFUSED, at(4))
    found = await store.tally("brd_1")
    assert (found["state/teams/failed"], found["reason/failed/refused"]) == (1, 1)
    assert "state/teams/sent" not in found


async def test_a_receipt_may_overtake_the_outcome(store: Store) -> None:
    """It waits for the outcome it speaks of, and is applied with it."""
    lease, [ann] = await launch(store, "ann")
    await store.intend(lease, [ann], NOW)
    await store.add_receipts([receipt("ann", "100", EventType.DELIVERED), receipt("ann", "999")])
    assert await store.record(lease, [sent(ann, "100")]) == [ann.id]
    assert (await stored(store, ann)).delivered_at == at(4)
    assert (await stored(store, ann)).read_at is None
    assert (await store.tally("brd_1"))["event/delivered/teams/people"] == 1


async def test_a_watermark_covers_what_came_before_it_and_what_is_recorded_later(store: Store) -> None:
    """`up_to` reads every message of the conversation up to the one named, recorded before or after, once."""
    lease = await populate(store, "ann")
    planned = [delivery("ann", name) for name in ("brd_1", "brd_2", "brd_3", "brd_4")]
    for name in ("brd_2", "brd_3", "brd_4"):
        await store.save_broadcast(broadcast(name), expected=None)
    await store.plan(planned)
    first, second, late, later = planned
    await dispatch(store, lease, first, "100")
    await dispatch(store, lease, second, "150")
    await store.intend(lease, [late, later], NOW)
    await store.add_receipts([receipt("ann", "200", up_to=True)])
    await store.record(lease, [sent(late, "180")])
    await store.record(lease, [sent(later, "201")])
    await store.add_receipts([receipt("ann", "200", up_to=True, at=at(9))])
    assert [(await stored(store, one)).read_at for one in planned] == [at(4), at(4), at(4), None]
    assert (await store.tally("brd_3"))["event/read/teams/total"] == 1


# --- leases -------------------------------------------------------------------------------------------


async def test_nobody_else_gets_a_lease_that_is_held(store: Store, wall: Wall) -> None:
    """Until just before it runs out; then the fence grows with the new owner."""
    first = await store.acquire_lease(ACCOUNT, "worker-1", 30)
    wall.move(29.9)
    assert await store.acquire_lease(ACCOUNT, "worker-2", 30) is None
    wall.move(0.2)
    second = await store.acquire_lease(ACCOUNT, "worker-2", 30)
    assert first is not None
    assert second is not None
    assert second.fence > first.fence
    assert not await store.renew_lease(first, 30)
    assert await store.acquire_lease("teams/it", "worker-1", 30) is not None


@pytest.mark.parametrize("lost", ["expired", "taken over", "released"])
async def test_a_lease_that_is_lost_writes_nothing(store: Store, wall: Wall, lost: str) -> None:
    """Neither intent nor outcome; the first write tells."""
    lease, [ann, ben] = await launch(store, "ann", "ben")
    await store.intend(lease, [ann], NOW)
    if lost == "released":
        await store.release_lease(lease)
    else:
        wall.move(31)
    if lost == "taken over":
        await store.acquire_lease(ACCOUNT, "worker-2", 30)
    with pytest.raises(LeaseLost):
        await store.intend(lease, [ben], NOW)
    with pytest.raises(LeaseLost):
        await store.record(lease, [sent(ann)])
    assert not await store.renew_lease(lease, 30)
    assert await states(store, [ann, ben]) == [S.SENDING, S.PLANNED]


async def test_an_old_owner_cannot_release_the_new_ones_lease(store: Store, wall: Wall) -> None:
    """A stale fence releases nothing."""
    old = await store.acquire_lease(ACCOUNT, "worker-1", 30)
    wall.move(31)
    new = await store.acquire_lease(ACCOUNT, "worker-2", 30)
    assert old is not None
    assert new is not None
    await store.release_lease(old)
    assert await store.renew_lease(new, 30)


async def test_a_lease_is_renewed(store: Store, wall: Wall) -> None:
    """By renewing or by acquiring one's own again, with the same fence."""
    lease = await store.acquire_lease(ACCOUNT, "worker-1", 30)
    assert lease is not None
    wall.move(20)
    assert await store.renew_lease(lease, 30)
    wall.move(20)
    assert await store.acquire_lease(ACCOUNT, "worker-1", 30) == lease
    wall.move(29)
    assert await store.intend(lease, [], NOW) == []


async def test_a_lease_that_ran_out_untaken_can_be_had_back(store: Store, wall: Wall) -> None:
    """With the same fence, so that outcomes of what was in flight can still be recorded."""
    lease, [ann] = await launch(store, "ann")
    await store.intend(lease, [ann], NOW)
    wall.move(31)
    assert await store.acquire_lease(ACCOUNT, "worker-1", 30) == lease
    assert await store.record(lease, [sent(ann)]) == [ann.id]


async def test_a_released_lease_is_free(store: Store) -> None:
    """For anybody, with a new fence."""
    lease = await store.acquire_lease(ACCOUNT, "worker-1", 30)
    assert lease is not None
    await store.release_lease(lease)
    assert await store.acquire_lease(ACCOUNT, "worker-1", 30) == replace(lease, fence=lease.fence + 1)


# --- tokens and answers -------------------------------------------------------------------------------


async def test_a_secret_belongs_to_one_token(store: Store) -> None:
    """The hash of another token is refused; saving a token again replaces it."""
    ops = ApiToken("tok_ops", "h1", "admin", "ops", at(1))
    await store.save_token(ops)
    with pytest.raises(Conflict):
        await store.save_token(replace(ops, id="tok_x"))
    old = ApiToken("tok_old", "h2", "viewer", "old", NOW)
    await store.save_token(old)
    await store.save_token(replace(ops, role="editor"))
    assert await store.tokens() == [old, replace(ops, role="editor")]
    assert await store.token_by_hash("h1") == replace(ops, role="editor")
    assert await store.token_by_hash("h3") is None


async def test_the_first_answer_is_kept(store: Store) -> None:
    """Later ones are not; one noted before `since` is not told."""
    await store.remember_answer("k", "f1", b"first", NOW)
    await store.remember_answer("k", "f2", b"second", at(1))
    assert await store.remembered_answer("k", NOW) == ("f1", b"first")
    assert await store.remembered_answer("k", at(1)) is None
    assert await store.remembered_answer("x", NOW) is None


# --- presence -----------------------------------------------------------------------------------------


async def test_presence_that_nobody_told_is_not_counted(store: Store) -> None:
    """There is nothing at first, and adding nothing changes that."""
    await store.add_presence([])
    assert await store.presence_seen() == []


async def test_presence_counts_add_up(store: Store) -> None:
    """Whoever adds to the same channel, hour and state adds to one count; the others stay apart, in order."""
    teams, viber = ChannelName.TEAMS, ChannelName.VIBER
    available, away = PresenceState.AVAILABLE, PresenceState.AWAY
    minutes = [
        [PresenceCount(viber, 3, available, 1), PresenceCount(teams, 167, available, 2)],
        [PresenceCount(teams, 167, available, 5), PresenceCount(teams, 8, away, 1)],
        [PresenceCount(teams, 8, available, 4)],
    ]
    await asyncio.gather(*(store.add_presence(counts) for counts in minutes))
    assert await store.presence_seen() == [
        PresenceCount(teams, 8, available, 4),
        PresenceCount(teams, 8, away, 1),
        PresenceCount(teams, 167, available, 7),
        PresenceCount(viber, 3, available, 1),
    ]


# --- control ------------------------------------------------------------------------------------------


async def test_control_writes_raise_the_version(store: Store) -> None:
    """Each kind does; deliveries claimed and recorded, and people who write, do not."""
    lease = await populate(store, "ann", "ben")
    [ann, ben] = planned = [delivery("ann"), delivery("ben", position=1)]
    seen = await store.control_version()
    for write in (
        store.save_broadcast(broadcast("brd_2"), expected=None),
        store.plan(planned),
        store.set_unsubscribed("rcp_ben", NOW),
        store.mark_conversation("cnv_teams_ben", ConversationState.BLOCKED, NOW),
    ):
        await write
        version = await store.control_version()
        assert version > seen
        seen = version
    await dispatch(store, lease, ann)
    await store.save_conversations([conversation("ann", last_seen=NOW)])
    await store.add_events([event(ann.id)])
    assert await store.plan([ben]) == 0
    assert await store.control_version() == seen


async def test_whoever_waits_for_control_is_woken(store: Store) -> None:
    """At once if the version differs already, else with the next control write."""
    seen = await store.control_version()
    waits = [asyncio.create_task(store.wait_control(seen)) for _ in range(2)]
    await asyncio.sleep(0)
    await store.save_broadcast(broadcast(), expected=None)
    woken = await asyncio.wait_for(asyncio.gather(*waits), 5)
    assert set(woken) == {await store.control_version()}
    assert await store.wait_control(seen) == woken[0]


async def test_whoever_waits_may_stop(store: Store) -> None:
    """Cancelling ends the wait and nothing else."""
    waiting = asyncio.create_task(store.wait_control(await store.control_version()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await store.ping()


async def test_a_wait_that_is_stopped_while_it_is_woken(store: Store) -> None:
    """The cancellation is not lost; whoever watches in a loop would never end."""
    stopped = 0
    for turns in range(40):
        waiting = asyncio.create_task(store.wait_control(await store.control_version()))
        await asyncio.sleep(0.005)
        await store.save_broadcast(broadcast(f"brd_{turns}"), expected=None)
        for _ in range(turns % 8):
            await asyncio.sleep(0)
        if waiting.cancel():
            stopped += 1
            with pytest.raises(asyncio.CancelledError):
                await waiting
    assert stopped


async def test_counters_start_at_nothing(store: Store) -> None:
    """A broadcast without deliveries, or unknown, has none; what went back to zero is not told."""
    assert await store.tally("brd_x") == {}
    lease, [ann] = await launch(store, "ann")
    await store.intend(lease, [ann], NOW)
    assert await store.tally("brd_1") == {"state/teams/sending": 1}
