"""What people do on a platform, and what follows from it: who they are, whether they may be written to, what they
pressed. Every inbound counts once, however often the platform repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from broadcast.errors import Conflict
from broadcast.model import (
    Conversation,
    ConversationState,
    Event,
    EventType,
    Receipt,
    Recipient,
)
from broadcast.ports import Clock, Inbound, Person, Random, Said, Store
from broadcast.tracking import Press, read_payload

#: PLATFORMS E: any case, trimmed, the whole message only.
STOP_WORDS = frozenset(
    {"stop", "stopall", "unsubscribe", "cancel", "end", "quit", "optout", "opt-out", "revoke", "/stop"}
)
START_WORDS = frozenset({"start", "unstop", "/start"})
HELP_WORDS = frozenset({"help", "/help"})

STOPPED = "You will get no more messages from us, here or on any other channel. Write START to come back."
ALREADY_STOPPED = "You already get no messages from us. Write START to come back."
STARTED = "You will get our messages here. Write STOP at any time to end them, HELP to see what you can write."
BACK = "Welcome back: you will get our messages again. Write STOP at any time to end them."
HELP = "We send news of your organisation here.\nSTOP ends all messages, on every channel.\nSTART brings them back."


@dataclass(frozen=True, slots=True)
class Handled:
    """Where an inbound left its person. `answer` is what to say back, if anything; `command` is a text that
    was none of our words and may be a command."""

    conversation: Conversation
    recipient: Recipient
    answer: str | None = None
    command: str | None = None


class Reception:
    """Takes in what channels parsed."""

    def __init__(self, store: Store, clock: Clock, random: Random) -> None:
        self._store = store
        self._clock = clock
        self._random = random

    async def receipts(self, receipts: Sequence[Receipt]) -> None:
        """Notes what a platform says of messages."""
        if receipts:
            await self._store.add_receipts(receipts)

    async def inbound(self, inbound: Inbound) -> Handled | None:
        """Acts on one inbound; ``None`` for one that was there before.

        A crash between the steps loses no opt-out: the key is noted last, every step may be repeated.
        """
        if await self._store.was_seen(inbound.account, inbound.key):
            return None
        handled = await self._act(inbound, *await self._known(inbound))
        first = await self._store.first_time(inbound.account, inbound.key, self._clock.now())
        return handled if first else None

    async def clicked(self, press: Press, *, key: str) -> None:
        """Notes a followed link. `key` tells one click from the next."""
        await self._store.add_events([self._click(press, key)])

    # --- who it is ------------------------------------------------------------------------------------

    async def _known(self, inbound: Inbound) -> tuple[Conversation, Recipient]:
        """The conversation as it stands before this inbound, refreshed with what the inbound tells, and its
        person; both are created for somebody new."""
        known = await self._store.conversation(inbound.account, inbound.person.user_id)
        recipient = await self._person(inbound, known)
        conversation = Conversation(
            id=known.id if known else f"cnv_{inbound.account}_{inbound.person.user_id}",
            account=inbound.account,
            channel=inbound.channel,
            recipient=recipient.id,
            user_id=inbound.person.user_id,
            reference=inbound.reference,
            state=_state_after(known.state if known else ConversationState.REACHABLE, inbound.said),
            last_seen=inbound.at,
        )
        await self._store.save_conversations([conversation])
        before = replace(conversation, state=known.state) if known else conversation
        return before, recipient

    async def _person(self, inbound: Inbound, known: Conversation | None) -> Recipient:
        """Their record, with what the platform tells filled in. Somebody else may take the same e-mail or be
        creating the same person right now: then what the store says by then holds, without the e-mail."""
        try:
            return await self._told_person(inbound, known, inbound.person)
        except Conflict:
            return await self._told_person(inbound, known, replace(inbound.person, email=None))

    async def _told_person(self, inbound: Inbound, known: Conversation | None, person: Person) -> Recipient:
        recipient = await self._store.recipient(known.recipient) if known else None
        if recipient is None:
            recipient = await self._matched(inbound, person)
        told = _told(recipient, person)
        if told != recipient or known is None:
            await self._store.save_recipients([told])
        return told

    async def _matched(self, inbound: Inbound, person: Person) -> Recipient:
        """Somebody the directory names by this channel id or e-mail, else somebody new."""
        wanted = Recipient(id="", email=person.email, identities={inbound.channel: person.user_id})
        [found] = await self._store.match_recipients([wanted])
        if found is not None:
            return replace(found, identities={**wanted.identities, **found.identities})
        return replace(wanted, id=self._random.id("rcp"), created_at=self._clock.now())

    # --- what follows ---------------------------------------------------------------------------------

    async def _act(self, inbound: Inbound, conversation: Conversation, recipient: Recipient) -> Handled:
        handled = Handled(conversation, recipient)
        match inbound.said:
            case Said.BLOCKED:
                await self._store.mark_conversation(conversation.id, ConversationState.BLOCKED, inbound.at)
            case Said.UNSUBSCRIBED:
                await self._store.set_unsubscribed(recipient.id, inbound.at)
                await self._store.mark_conversation(conversation.id, ConversationState.UNSUBSCRIBED, inbound.at)
            case Said.SUBSCRIBED if conversation.state is ConversationState.UNSUBSCRIBED:
                # They undo, with the platform's own means, what they did with them.
                return await self._start(handled)
            case Said.TEXT:
                return await self._text(handled, inbound)
            case Said.PRESSED:
                return await self._pressed(handled, inbound)
        return handled

    async def _text(self, handled: Handled, inbound: Inbound) -> Handled:
        word = inbound.text.strip().casefold()
        if word in STOP_WORDS:
            return await self._stop(handled)
        if word in START_WORDS:
            return await self._start(handled)
        if word in HELP_WORDS:
            return replace(handled, answer=HELP)
        return replace(handled, command=inbound.text.strip())

    async def _stop(self, handled: Handled) -> Handled:
        if handled.recipient.unsubscribed_at is not None:
            return replace(handled, answer=ALREADY_STOPPED)
        # Our own clock, not the platform's: what counts is what we send after we know.
        await self._store.set_unsubscribed(handled.recipient.id, self._clock.now())
        return replace(handled, answer=STOPPED)

    async def _start(self, handled: Handled) -> Handled:
        was_away = handled.recipient.unsubscribed_at is not None
        if was_away:
            await self._store.set_unsubscribed(handled.recipient.id, None)
        return replace(handled, answer=BACK if was_away else STARTED)

    async def _pressed(self, handled: Handled, inbound: Inbound) -> Handled:
        press = read_payload(inbound.text)
        if press is None:
            return replace(handled, command=inbound.text)
        delivery = await self._store.delivery(press.delivery)
        # A payload can be forged by an old client (PLATFORMS C3): it counts only for who got the message.
        if delivery is not None and delivery.recipient == handled.recipient.id:
            await self._store.add_events([self._click(press, f"{inbound.account}:{inbound.key}")])
        return handled

    def _click(self, press: Press, key: str) -> Event:
        return Event(
            key=f"click:{press.delivery}:{press.button}:{key}",
            delivery=press.delivery,
            type=EventType.CLICKED,
            at=self._clock.now(),
            button=press.button,
        )


def _state_after(state: ConversationState, said: Said) -> ConversationState:
    """Any word of a person reopens their conversation; one unsubscribed with the platform's own means only by
    subscribing or writing again, which platforms take as the same (PLATFORMS D2). What closes a
    conversation is marked apart, with its consequences."""
    if said in {Said.BLOCKED, Said.UNSUBSCRIBED}:
        return state
    if state is ConversationState.UNSUBSCRIBED and said not in {Said.SUBSCRIBED, Said.TEXT}:
        return state
    return ConversationState.REACHABLE


def _told(recipient: Recipient, person: Person) -> Recipient:
    """Fills in what the platform tells of somebody; what the directory says already stays."""
    return replace(
        recipient,
        first_name=recipient.first_name or person.first_name,
        last_name=recipient.last_name or person.last_name,
        email=recipient.email or person.email,
        locale=recipient.locale or person.locale,
        timezone=recipient.timezone or person.timezone,
        country=recipient.country or person.country,
    )
