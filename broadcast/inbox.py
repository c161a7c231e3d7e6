"""What people do on a platform, and what follows from it: who they are, whether they may be written to, what they
pressed. Every inbound counts once, however often the platform repeats it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from broadcast.errors import Conflict
from broadcast.model import (
    ChannelName,
    Conversation,
    ConversationState,
    Event,
    EventType,
    Receipt,
    Recipient,
    conversation_id,
)
from broadcast.ports import Clock, Inbound, Person, Random, Said, Store
from broadcast.tracking import Press, read_payload

#: PLATFORMS E: any case, trimmed, the whole message only.
STOP_WORDS = frozenset(
    {"stop", "stopall", "unsubscribe", "cancel", "end", "quit", "optout", "opt-out", "opt out", "revoke", "/stop"}
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


@dataclass(frozen=True, slots=True)
class _Word:
    """One inbound with whose it is. `conversation` is as it stood before; `at` is when it was said, and it
    `is_late` where something said after it came in first: platforms repeat and reorder their callbacks."""

    inbound: Inbound
    conversation: Conversation
    recipient: Recipient
    at: datetime
    is_late: bool

    @property
    def is_overtaken(self) -> bool:
        """They unsubscribed after they said this."""
        since = self.recipient.unsubscribed_at
        return self.is_late and since is not None and self.at < since

    @property
    def reopens(self) -> bool:
        """Any word of a person reopens their conversation; one unsubscribed with the platform's own means only by
        subscribing or writing again, which platforms take as the same (PLATFORMS D2)."""
        state, said = self.conversation.state, self.inbound.said
        if state is ConversationState.REACHABLE or self.is_late or said in {Said.BLOCKED, Said.UNSUBSCRIBED}:
            return False
        return state is not ConversationState.UNSUBSCRIBED or said in {Said.SUBSCRIBED, Said.TEXT}


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

        A crash between the steps loses neither an opt-out nor a return: the key is noted last, every step may be
        repeated, and a conversation is reopened only after what it was closed for is undone.
        """
        if await self._store.was_seen(inbound.account, inbound.key):
            return None
        word = await self._heard(inbound)
        handled = await self._act(word)
        if word.reopens:
            await self._mark(word, ConversationState.REACHABLE)
        first = await self._store.first_time(inbound.account, inbound.key, self._clock.now())
        return handled if first else None

    async def clicked(self, press: Press, *, key: str) -> None:
        """Notes a followed link. `key` tells one click from the next."""
        await self._store.add_events([self._click(press, key)])

    # --- who it is ------------------------------------------------------------------------------------

    async def _heard(self, inbound: Inbound) -> _Word:
        """The conversation as it stood before this inbound, but for what the inbound tells of it, and its person;
        both are created for somebody new."""
        known = await self._store.conversation(inbound.account, inbound.person.user_id)
        recipient = await self._person(inbound, known)
        at = min(inbound.at, self._clock.now())  # a clock that runs ahead must not make all that follows late
        seen = known.last_seen if known else None
        conversation = Conversation(
            id=known.id if known else conversation_id(inbound.account, inbound.person.user_id),
            account=inbound.account,
            channel=inbound.channel,
            recipient=recipient.id,
            user_id=inbound.person.user_id,
            reference=inbound.reference,
            state=known.state if known else ConversationState.REACHABLE,
            last_seen=max(at, seen or at),
        )
        await self._store.save_conversations([conversation])
        return _Word(inbound, conversation, recipient, at, is_late=seen is not None and at < seen)

    async def _person(self, inbound: Inbound, known: Conversation | None) -> Recipient:
        """Their record, with what the platform tells filled in. Somebody else may have the same e-mail, or be
        creating the same person right now: then what the store says by then holds, without the e-mail. What
        they do counts even where what is told of them cannot be kept."""
        without = replace(inbound.person, email=None)
        stored = None
        for person in (inbound.person, without, without):
            stored = await self._stored(inbound.channel, person, known)
            told = _told(stored or self._nobody(), inbound.channel, person)
            if told == stored:
                return told
            with suppress(Conflict):
                await self._store.save_recipients([told])
                return told
        if stored is None:
            raise Conflict(f"{inbound.key} of {inbound.account} is of somebody who is being created right now")
        return stored

    async def _stored(self, channel: ChannelName, person: Person, known: Conversation | None) -> Recipient | None:
        """Whose conversation it is, else whom the directory names by this channel id, else by this e-mail."""
        recipient = await self._store.recipient(known.recipient) if known else None
        if recipient is not None:
            return recipient
        by_id = Recipient(id="", identities={channel: person.user_id})
        found = await self._store.match_recipients([by_id, Recipient(id="", email=person.email)])
        return next((one for one in found if one is not None), None)

    def _nobody(self) -> Recipient:
        return Recipient(id=self._random.id("rcp"), created_at=self._clock.now())

    # --- what follows ---------------------------------------------------------------------------------

    async def _act(self, word: _Word) -> Handled:
        handled = Handled(word.conversation, word.recipient)
        match word.inbound.said:
            case Said.BLOCKED if not word.is_late:
                await self._mark(word, ConversationState.BLOCKED)
            case Said.UNSUBSCRIBED:
                await self._store.set_unsubscribed(word.recipient.id, self._clock.now())
                await self._mark(word, ConversationState.UNSUBSCRIBED)
            case Said.SUBSCRIBED if word.conversation.state is ConversationState.UNSUBSCRIBED and not word.is_late:
                # They undo, with the platform's own means, what they did with them.
                return await self._start(handled)
            case Said.TEXT:
                return await self._text(handled, word)
            case Said.PRESSED:
                return await self._pressed(handled, word.inbound)
        return handled

    async def _mark(self, word: _Word, state: ConversationState) -> None:
        await self._store.mark_conversation(word.conversation.id, state, self._clock.now())

    async def _text(self, handled: Handled, word: _Word) -> Handled:
        said = _folded(word.inbound.text)
        if said in STOP_WORDS:
            return await self._stop(handled)
        if said in START_WORDS:
            return replace(handled, answer=ALREADY_STOPPED) if word.is_overtaken else await self._start(handled)
        if said in HELP_WORDS:
            return replace(handled, answer=HELP)
        return replace(handled, command=word.inbound.text.strip())

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
        if await self._was_shown(press, handled.recipient):
            await self._store.add_events([self._click(press, f"{inbound.account}:{inbound.key}")])
        return handled

    async def _was_shown(self, press: Press, recipient: Recipient) -> bool:
        """A payload can be forged by an old client (PLATFORMS C3): it counts only for who got the message, and for
        a button that it had."""
        delivery = await self._store.delivery(press.delivery)
        if delivery is None or delivery.channel is None or delivery.recipient != recipient.id or not delivery.sends:
            return False
        broadcast = await self._store.broadcast(delivery.broadcast)
        buttons = broadcast.message.on(delivery.channel).buttons if broadcast else ()
        return any(button.id == press.button for button in buttons)

    def _click(self, press: Press, key: str) -> Event:
        return Event(
            key=f"click:{press.delivery}:{press.button}:{key}",
            delivery=press.delivery,
            type=EventType.CLICKED,
            at=self._clock.now(),
            button=press.button,
        )


def _folded(text: str) -> str:
    """A text as our words are compared: wide letters as narrow ones, without case, without what does not show (a
    phone that writes from right to left puts marks around words)."""
    shown = (char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
    return "".join(shown).strip().casefold()


def _told(recipient: Recipient, channel: ChannelName, person: Person) -> Recipient:
    """Fills in what the platform tells of somebody; what the directory says already stays."""
    return replace(
        recipient,
        first_name=recipient.first_name or person.first_name,
        last_name=recipient.last_name or person.last_name,
        email=recipient.email or person.email,
        locale=recipient.locale or person.locale,
        timezone=recipient.timezone or person.timezone,
        country=recipient.country or person.country,
        identities={channel: person.user_id, **recipient.identities},
    )
