"""How each person of an audience is reached, or why not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broadcast.audience import Route, Unreachable, narrowed, route
from broadcast.model import Audience, ChannelName, Conversation, ConversationState, Reason, Recipient

NOW = datetime(2026, 3, 27, 12, tzinfo=UTC)
HR, IT, NEWS, SHOP = "teams/hr", "teams/it", "telegram/news", "viber/shop"
ACCOUNTS = {
    HR: ChannelName.TEAMS,
    IT: ChannelName.TEAMS,
    NEWS: ChannelName.TELEGRAM,
    SHOP: ChannelName.VIBER,
}
ANN = Recipient("rcp_ann")
EVERYBODY = Audience()
ON_VIBER = Audience(channels=(ChannelName.VIBER,))


def conversation(
    account: str, state: ConversationState = ConversationState.REACHABLE, seen: int | None = None
) -> Conversation:
    """With Ann; `seen` is how many hours ago."""
    at = None if seen is None else NOW - timedelta(hours=seen)
    return Conversation(f"cnv_{account}", account, ACCOUNTS[account], "rcp_ann", "ann", {}, state, at)


def way(
    *conversations: Conversation, person: Recipient = ANN, audience: Audience = EVERYBODY
) -> Route | Unreachable | None:
    return route(person, conversations, audience=audience, accounts=ACCOUNTS)


# --- which conversation -------------------------------------------------------------------------------


def test_the_main_channel_comes_first() -> None:
    """Even where somebody was seen more lately elsewhere."""
    news, shop = conversation(NEWS, seen=9), conversation(SHOP, seen=1)
    assert way(news, shop, person=replace(ANN, main_channel=ChannelName.TELEGRAM)) == Route(news)


def test_else_where_they_were_seen_last() -> None:
    """A conversation that nobody ever spoke in comes last."""
    never, long_ago, lately = conversation(HR), conversation(NEWS, seen=9), conversation(SHOP, seen=1)
    assert way(never, long_ago, lately) == Route(lately)
    assert way(never, long_ago) == Route(long_ago)


def test_the_choice_does_not_hang_on_the_order_of_the_list() -> None:
    """Alike in all else, the id decides."""
    assert way(conversation(IT), conversation(HR)) == way(conversation(HR), conversation(IT))


@pytest.mark.parametrize(
    "closed", [ConversationState.BLOCKED, ConversationState.UNSUBSCRIBED, ConversationState.GONE]
)
def test_a_closed_conversation_is_passed_over(closed: ConversationState) -> None:
    """Also where it is on the main channel."""
    person = replace(ANN, main_channel=ChannelName.TELEGRAM)
    shop = conversation(SHOP, seen=9)
    assert way(conversation(NEWS, closed, seen=1), shop, person=person) == Route(shop)


@pytest.mark.parametrize(
    ("closed", "reason"),
    [
        (ConversationState.BLOCKED, Reason.BLOCKED),
        (ConversationState.UNSUBSCRIBED, Reason.UNSUBSCRIBED),
        (ConversationState.GONE, Reason.GONE),
    ],
)
def test_whoever_has_closed_conversations_only_is_skipped(closed: ConversationState, reason: Reason) -> None:
    """With the reason of the one that would have been first."""
    first = conversation(NEWS, closed, seen=1)
    other = conversation(SHOP, ConversationState.GONE, seen=2)
    assert way(other, first) == Unreachable(reason, first)


# --- people of the directory --------------------------------------------------------------------------

LISTED = replace(ANN, identities={ChannelName.TEAMS: "object-id", ChannelName.VIBER: "v="})


def test_an_id_from_the_directory_opens_a_conversation() -> None:
    """Nobody has spoken yet: the platform decides whether it may be opened."""
    found = way(person=LISTED)
    assert isinstance(found, Route)
    assert found.new
    assert (found.conversation.account, found.conversation.user_id) == (HR, "object-id")
    assert (found.conversation.recipient, found.conversation.channel) == ("rcp_ann", ChannelName.TEAMS)


def test_on_the_main_channel_if_that_has_an_id() -> None:
    """Else on the first account there is."""
    found = way(person=replace(LISTED, main_channel=ChannelName.VIBER))
    assert isinstance(found, Route)
    assert found.conversation.account == SHOP


def test_somebody_who_spoke_is_not_looked_for_in_the_directory() -> None:
    """A conversation that exists beats one that might."""
    news = conversation(NEWS)
    assert way(news, person=replace(LISTED, main_channel=ChannelName.TEAMS)) == Route(news)


@pytest.mark.parametrize("closed", [ConversationState.BLOCKED, ConversationState.UNSUBSCRIBED])
def test_no_other_account_is_a_way_around_a_block(closed: ConversationState) -> None:
    """Whoever shut out one bot of a channel is not written to by the next one."""
    person = replace(ANN, identities={ChannelName.TEAMS: "object-id"})
    shut = conversation(HR, closed)
    assert way(shut, person=person) == Unreachable(Reason(closed), shut)


def test_a_chat_that_is_gone_may_be_opened_by_another_account() -> None:
    """The person did nothing: the bot is not installed, or the chat is no more."""
    found = way(conversation(HR, ConversationState.GONE), person=LISTED)
    assert isinstance(found, Route)
    assert found.conversation.account == IT


def test_whoever_nothing_is_known_of_has_no_conversation() -> None:
    """Counted as skipped, on no channel."""
    assert way() == Unreachable(Reason.NO_CONVERSATION)


def test_an_account_that_is_no_longer_configured_reaches_nobody() -> None:
    """Its conversations stay in the store, and are no way."""
    lost = replace(conversation(NEWS), account="telegram/lost")
    assert way(lost) == Unreachable(Reason.NO_CONVERSATION)


# --- unsubscribed -------------------------------------------------------------------------------------


def test_whoever_unsubscribed_is_skipped_on_every_channel() -> None:
    """With the conversation it would have been, so that it is counted on its channel."""
    person = replace(LISTED, unsubscribed_at=NOW)
    shop = conversation(SHOP)
    assert way(shop, person=person) == Unreachable(Reason.UNSUBSCRIBED, shop)
    listed = way(person=person)
    assert isinstance(listed, Unreachable)
    assert (listed.reason, listed.conversation is not None) == (Reason.UNSUBSCRIBED, True)
    assert way(person=replace(ANN, unsubscribed_at=NOW)) == Unreachable(Reason.UNSUBSCRIBED)


# --- narrowing ----------------------------------------------------------------------------------------


def test_an_audience_narrows_the_accounts() -> None:
    """By channel, by account, by both."""
    both = Audience(channels=(ChannelName.TEAMS,), accounts=(IT, NEWS))
    assert narrowed(EVERYBODY, ACCOUNTS) == ACCOUNTS
    assert set(narrowed(ON_VIBER, ACCOUNTS)) == {SHOP}
    assert set(narrowed(Audience(accounts=(NEWS,)), ACCOUNTS)) == {NEWS}
    assert set(narrowed(both, ACCOUNTS)) == {IT}
    assert narrowed(Audience(channels=()), ACCOUNTS) == {}


@pytest.mark.parametrize("audience", [ON_VIBER, Audience(accounts=(SHOP,))])
def test_a_narrow_audience_means_those_it_can_reach(audience: Audience) -> None:
    """Whoever is elsewhere only is not skipped: they were not meant, unsubscribed or not."""
    assert way(conversation(NEWS), audience=audience) is None
    assert way(conversation(NEWS), person=replace(ANN, unsubscribed_at=NOW), audience=audience) is None
    assert way(conversation(NEWS), conversation(SHOP), audience=audience) == Route(conversation(SHOP))


def test_a_narrow_audience_counts_who_is_closed_there() -> None:
    """They were meant; an open conversation elsewhere is no way."""
    blocked = conversation(SHOP, ConversationState.BLOCKED)
    assert way(conversation(NEWS), blocked, audience=ON_VIBER) == Unreachable(Reason.BLOCKED, blocked)


def test_a_narrow_audience_means_who_is_listed_there() -> None:
    """An id from the directory is enough."""
    found = way(conversation(NEWS), person=LISTED, audience=ON_VIBER)
    assert isinstance(found, Route)
    assert found.conversation.account == SHOP
