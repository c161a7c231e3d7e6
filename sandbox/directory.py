"""Who knows which bot: accounts, and for each the people it can reach."""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from sandbox import draws
from sandbox.messages import Message
from sandbox.people import Person, Wish, person_from
from sandbox.settings import Channel, SandboxSettings, TeamsBot, TelegramBot, ViberBot

Bot = TeamsBot | TelegramBot | ViberBot


class Standing(StrEnum):
    """How a person stands to a bot."""

    STRANGER = "stranger"
    """Never started, installed or subscribed."""
    ACTIVE = "active"
    """Can be written to."""
    BLOCKED = "blocked"
    """Blocked the bot."""
    LEFT = "left"
    """Uninstalled it or unsubscribed."""


@dataclass(slots=True, eq=False)
class Contact:
    """One person as one bot sees them; `user_id` and `chat` are the platform's names."""

    account: "Account"
    person: Person
    user_id: str
    chat: str
    standing: Standing
    messages: list[Message] = field(default_factory=list)
    last_id: int = 0
    """Newest message id of the chat, where the platform counts per chat."""

    def newest(self) -> Message | None:
        """The newest message that is still there."""
        return next((one for one in reversed(self.messages) if one.state != "deleted"), None)

    def message(self, message_id: str) -> Message | None:
        """The message with that id, unless deleted."""
        for one in reversed(self.messages):
            if one.message_id == message_id and one.state != "deleted":
                return one
        return None


@dataclass(slots=True, eq=False)
class Account:
    """One bot on one channel, and everybody it could meet."""

    channel: Channel
    name: str
    bot: Bot
    first: bool
    """The first bot of a channel sees the ids of `Person`; others have ids of their own (PLATFORMS A1, D1)."""
    by_user: dict[str, Contact] = field(default_factory=dict)
    by_chat: dict[str, Contact] = field(default_factory=dict)
    by_person: dict[str, Contact] = field(default_factory=dict)
    sent: int = 0

    def meet(self, person: Person, standing: Standing) -> Contact:
        """Make the contact with a person, or give the one there is."""
        known = self.by_person.get(person.id)
        if known is not None:
            return known
        user_id = self._user_id(person)
        contact = Contact(self, person, user_id, self._chat(person, user_id), standing)
        self.by_person[person.id] = contact
        self.by_user[user_id] = contact
        self.by_chat[contact.chat] = contact
        if self.channel is Channel.TEAMS:
            self.by_user[person.entra_id] = contact
        return contact

    def _user_id(self, person: Person) -> str:
        match self.channel:
            case Channel.TELEGRAM:
                return str(person.telegram_id)
            case Channel.TEAMS if self.first:
                return person.teams_user_id
            case Channel.VIBER if self.first:
                return person.viber_id
            case Channel.TEAMS:
                mark = draws.token(self.name, person.teams_user_id, size=36)
                return "29:1" + base64.urlsafe_b64encode(mark).decode()
            case _:
                return base64.b64encode(draws.token(self.name, person.viber_id, size=16)).decode()

    def _chat(self, person: Person, user_id: str) -> str:
        if self.channel is not Channel.TEAMS:
            return user_id
        mark = draws.token("chat", self.name, person.teams_user_id, size=48)
        return "a:1" + base64.urlsafe_b64encode(mark).decode()


class Directory:
    """All people and all accounts."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.people: dict[str, Person] = {}
        self.accounts: dict[tuple[Channel, str], Account] = {}
        self._seed = settings.seed
        self._numbers: dict[tuple[Channel, ...], int] = {}
        bots: list[Bot] = [*settings.teams_bots, *settings.telegram_bots, *settings.viber_bots]
        for bot in bots:
            self.open_account(bot)
        self._populate(settings)

    def open_account(self, bot: Bot) -> Account:
        """Add a bot; everybody on its channel is a stranger to it."""
        channel = _channel_of(bot)
        if (channel, bot.name) in self.accounts:
            raise ValueError(f"there is a {channel} bot named {bot.name} already")
        account = Account(channel, bot.name, bot, first=not any(c is channel for c, _ in self.accounts))
        self.accounts[channel, bot.name] = account
        for person in self.people.values():
            if channel in person.channels:
                account.meet(person, Standing.STRANGER)
        return account

    def add(self, wish: Wish, standing: Standing = Standing.STRANGER) -> Person:
        """Let a person move in."""
        number = self._numbers.get(wish.channels, 0) + 1
        person = person_from(self._seed, number, wish)
        if person.id in self.people:
            raise ValueError(f"there is a person {person.id} already")
        self._numbers[wish.channels] = number
        self.people[person.id] = person
        for account in self.accounts.values():
            if account.channel in person.channels:
                account.meet(person, standing)
        return person

    def on(self, channel: Channel) -> Iterator[Account]:
        """The accounts of a channel, in the order they were opened."""
        return (account for account in self.accounts.values() if account.channel is channel)

    def contacts_of(self, person_id: str) -> list[Contact]:
        """The person as each bot sees them."""
        found = (account.by_person.get(person_id) for account in self.accounts.values())
        return [contact for contact in found if contact is not None]

    def contacts(self) -> Iterable[Contact]:
        """Everybody as everybody sees them."""
        return (contact for account in self.accounts.values() for contact in account.by_person.values())

    def _populate(self, settings: SandboxSettings) -> None:
        standing = Standing.ACTIVE if settings.started else Standing.STRANGER
        for channel in Channel:
            count = settings.people if isinstance(settings.people, int) else settings.people.get(channel, 0)
            for _ in range(count):
                self.add(Wish((channel,)), standing)
        for _ in range(settings.people_everywhere):
            self.add(Wish(tuple(Channel)), standing)


def _channel_of(bot: Bot) -> Channel:
    match bot:
        case TeamsBot():
            return Channel.TEAMS
        case TelegramBot():
            return Channel.TELEGRAM
        case ViberBot():
            return Channel.VIBER
