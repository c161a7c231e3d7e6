"""What people do on a platform, and what follows from it: who they are, whether they may be written to, what they
pressed. Every inbound counts once, however often the platform repeats it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from broadcast.evolve import maker
from broadcast.model import (
    Conversation,
    ConversationState,
    Event,
    EventType,
    Receipt,
    Recipient,
    conversation_id,
)
from broadcast.ports import Clock, Inbound, Known, Random, Said, Store, Turn
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
    """Where an inbound left its person; `conversation` refers to them by all that is known. `answer` is what to say
    back, if anything; `command` is a text that was none of our words and may be a command."""

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


# Some of each for every inbound: see `evolve` on why they are not made by their constructors.
_make_conversation = maker(Conversation)
_make_word = maker(_Word)
_make_handled = maker(Handled)
_make_event = maker(Event)


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
        """Acts on one inbound, whole or not at all; ``None`` for one that was there before."""
        now = self._clock.now()
        press = read_payload(inbound.text) if inbound.said is Said.PRESSED else None

        def decide(known: Known) -> Turn[Handled]:
            word, told = self._heard(inbound, known, now)
            return _turn(word, told, press, known, now)

        return await self._store.take_in(
            inbound, decide, at=now, delivery=None if press is None else press.delivery
        )

    async def clicked(self, press: Press, *, key: str) -> None:
        """Notes a followed link. `key` tells one click from the next."""
        await self._store.add_events([_click(press, key, self._clock.now())])

    def _heard(self, inbound: Inbound, known: Known, now: datetime) -> tuple[_Word, Recipient | None]:
        """The inbound with the conversation as it stood before, but for what the inbound tells of it; and its
        person where there is something new to keep of them. Both are made for somebody new."""
        before = known.conversation
        stored = known.recipient or known.named or known.mailed
        recipient = _told(stored or Recipient(id=self._random.id("rcp"), created_at=now), inbound, known)
        at = min(inbound.at, now)  # a clock that runs ahead must not make all that follows late
        seen = before.last_seen if before else None
        conversation = _make_conversation(
            before.id if before else conversation_id(inbound.account, inbound.person.user_id),
            inbound.account,
            inbound.channel,
            recipient.id,
            inbound.person.user_id,
            {**before.reference, **inbound.reference} if before else inbound.reference,
            before.state if before else ConversationState.REACHABLE,
            at if seen is None else max(at, seen),
        )
        word = _make_word(inbound, conversation, recipient, at, seen is not None and at < seen)
        return word, None if recipient is stored else recipient


# --- what follows -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Deed:
    """What a word comes to, beside the record of its person and what it reopens."""

    answer: str | None = None
    command: str | None = None
    unsubscribed: bool | None = None
    mark: ConversationState | None = None
    click: Event | None = None


_NOTHING = _Deed()


def _turn(word: _Word, told: Recipient | None, press: Press | None, known: Known, now: datetime) -> Turn[Handled]:
    deed = _deed(word, press, known, now)
    return Turn(
        _make_handled(word.conversation, word.recipient, deed.answer, deed.command),
        word.conversation,
        told,
        deed.unsubscribed,
        ConversationState.REACHABLE if word.reopens else deed.mark,
        deed.click,
    )


def _deed(word: _Word, press: Press | None, known: Known, now: datetime) -> _Deed:
    match word.inbound.said:
        case Said.BLOCKED if not word.is_late:
            return _Deed(mark=ConversationState.BLOCKED)
        case Said.UNSUBSCRIBED:
            return _Deed(unsubscribed=True, mark=ConversationState.UNSUBSCRIBED)
        case Said.SUBSCRIBED if word.conversation.state is ConversationState.UNSUBSCRIBED and not word.is_late:
            # They undo, with the platform's own means, what they did with them.
            return _start(word)
        case Said.TEXT:
            return _text(word)
        case Said.PRESSED:
            return _pressed(word, press, known, now)
    return _NOTHING


def _text(word: _Word) -> _Deed:
    said = _folded(word.inbound.text)
    if said in STOP_WORDS:
        return _stop(word)
    if said in START_WORDS:
        return _Deed(ALREADY_STOPPED) if word.is_overtaken else _start(word)
    if said in HELP_WORDS:
        return _Deed(HELP)
    return _Deed(command=word.inbound.text.strip())


def _stop(word: _Word) -> _Deed:
    if word.recipient.unsubscribed_at is not None:
        return _Deed(ALREADY_STOPPED)
    # As of our own clock, not the platform's: what counts is what we send after we know.
    return _Deed(STOPPED, unsubscribed=True)


def _start(word: _Word) -> _Deed:
    if word.recipient.unsubscribed_at is None:
        return _Deed(STARTED)
    return _Deed(BACK, unsubscribed=False)


def _pressed(word: _Word, press: Press | None, known: Known, now: datetime) -> _Deed:
    if press is None:
        return _Deed(command=word.inbound.text)
    if not _was_shown(press, word.recipient, known):
        return _NOTHING
    return _Deed(click=_click(press, f"{word.inbound.account}:{word.inbound.key}", now))


def _was_shown(press: Press, recipient: Recipient, known: Known) -> bool:
    """A payload can be forged by an old client (PLATFORMS C3): it counts only for who got the message, and for a
    button that it had."""
    delivery = known.delivery
    if delivery is None or delivery.channel is None or delivery.recipient != recipient.id or not delivery.sends:
        return False
    buttons = known.broadcast.message.on(delivery.channel).buttons if known.broadcast else ()
    return any(button.id == press.button for button in buttons)


def _click(press: Press, key: str, at: datetime) -> Event:
    key = f"click:{press.delivery}:{press.button}:{key}"
    return _make_event(key, press.delivery, EventType.CLICKED, at, press.button, None)


def _folded(text: str) -> str:
    """A text as our words are compared: wide letters as narrow ones, without case, without what does not show (a
    phone that writes from right to left puts marks around words)."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return text.strip().casefold()


def _told(recipient: Recipient, inbound: Inbound, known: Known) -> Recipient:
    """Fills in what the platform tells of somebody; what the directory says already stays, and what it says of
    somebody else too: their e-mail and their channel id. The same value where nothing is new."""
    person, channel = inbound.person, inbound.channel
    mail_is_free = known.mailed is None or known.mailed.id == recipient.id
    id_is_free = known.named is None or known.named.id == recipient.id
    told = (
        ("first_name", person.first_name),
        ("last_name", person.last_name),
        ("email", person.email if mail_is_free else None),
        ("locale", person.locale),
        ("timezone", person.timezone),
        ("country", person.country),
    )
    new: dict[str, Any] = {name: value for name, value in told if value and not getattr(recipient, name)}
    if id_is_free and channel not in recipient.identities:
        new["identities"] = {**recipient.identities, channel: person.user_id}
    return replace(recipient, **new) if new else recipient
