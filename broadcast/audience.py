"""How each person of an audience is reached, or why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from broadcast.model import (
    Audience,
    ChannelName,
    Conversation,
    ConversationState,
    Reason,
    Recipient,
    conversation_id,
)

#: The accounts of this installation and the channel of each: ``{"teams/hr": ChannelName.TEAMS}``.
Accounts = Mapping[str, ChannelName]

#: What a person did themselves: no other account of the channel is a way around it.
_SHUT = frozenset({ConversationState.BLOCKED, ConversationState.UNSUBSCRIBED})

_WHY_NOT: Mapping[ConversationState, Reason] = {
    ConversationState.BLOCKED: Reason.BLOCKED,
    ConversationState.UNSUBSCRIBED: Reason.UNSUBSCRIBED,
    ConversationState.GONE: Reason.GONE,
}


@dataclass(frozen=True, slots=True)
class Route:
    """Through this conversation; `new` where the directory names the person but nobody has spoken yet."""

    conversation: Conversation
    new: bool = False


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Not to be written to. Counted, with the conversation it would have been."""

    reason: Reason
    conversation: Conversation | None = None


def narrowed(audience: Audience, accounts: Accounts) -> Accounts:
    """The accounts that an audience may use."""
    return {
        key: channel
        for key, channel in accounts.items()
        if channel in audience.channels and (not audience.accounts or key in audience.accounts)
    }


def route(
    recipient: Recipient, conversations: Sequence[Conversation], *, audience: Audience, accounts: Accounts
) -> Route | Unreachable | None:
    """The way to one person: their main channel first, else where they were seen last, else an identity that
    the directory gave. ``None``: the audience was narrowed to where this person never was, so they are not meant.
    """
    usable = narrowed(audience, accounts)
    candidates = sorted((c for c in conversations if c.account in usable), key=lambda c: _rank(recipient, c))
    planned = list(_from_directory(recipient, conversations, usable))
    meant = candidates or planned
    if not meant and _is_narrow(audience):
        return None
    if recipient.unsubscribed_at is not None:
        return Unreachable(Reason.UNSUBSCRIBED, meant[0] if meant else None)
    for conversation in candidates:
        if conversation.state is ConversationState.REACHABLE:
            return Route(conversation)
    if planned:
        return Route(planned[0], new=True)
    if candidates:
        return Unreachable(_WHY_NOT[candidates[0].state], candidates[0])
    return Unreachable(Reason.NO_CONVERSATION)


def _is_narrow(audience: Audience) -> bool:
    return bool(audience.accounts) or set(audience.channels) != set(ChannelName)


def _rank(recipient: Recipient, conversation: Conversation) -> tuple[bool, float, str]:
    seen = conversation.last_seen.timestamp() if conversation.last_seen else 0.0
    return (conversation.channel is not recipient.main_channel, -seen, conversation.id)


def _from_directory(
    recipient: Recipient, known: Sequence[Conversation], usable: Accounts
) -> Iterator[Conversation]:
    """Conversations that could be opened with ids from an import; the main channel first."""
    taken = {conversation.account for conversation in known}
    shut = {conversation.channel for conversation in known if conversation.state in _SHUT}
    for account, channel in sorted(usable.items(), key=lambda item: item[1] is not recipient.main_channel):
        user_id = recipient.identities.get(channel)
        if user_id and account not in taken and channel not in shut:
            yield Conversation(
                id=conversation_id(account, user_id),
                account=account,
                channel=channel,
                recipient=recipient.id,
                user_id=user_id,
            )
