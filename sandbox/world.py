"""What every simulated platform stands on, and what a platform must be able to do."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sandbox.agenda import Agenda
from sandbox.availability import Presence, presence_at
from sandbox.callbacks import Answer, Callbacks
from sandbox.clock import SandboxClock
from sandbox.directory import Contact, Directory
from sandbox.faults import Fault, Faults, carry_out
from sandbox.front import JSON, Head, Ready
from sandbox.messages import Button, Content, Message, Record
from sandbox.people import Person
from sandbox.settings import Behaviour, SandboxSettings
from sandbox.stats import Stats

Json = dict[str, Any]
Replies = list[asyncio.Future[Answer]]
Answered = Callable[[], Awaitable[web.Response]]

JSON_HEADERS = {"Content-Type": JSON}


class NotPossible(Exception):  # noqa: N818 - a state of the world, not a defect
    """A person was told to do what they cannot do now."""


@dataclass(eq=False)
class World:
    """The sandbox's shared state, made once by `server.Sandbox`."""

    settings: SandboxSettings
    clock: SandboxClock
    agenda: Agenda
    directory: Directory
    record: Record
    faults: Faults
    stats: Stats
    callbacks: Callbacks
    behaviour: Behaviour
    closing: asyncio.Event
    url: str = ""
    """Where the sandbox is reached, without a slash at the end."""
    pins: dict[str, Presence] = field(default_factory=dict)
    """Presence held by hand, by person id."""
    on_message: Callable[[Message], None] = lambda _message: None

    def receive(
        self, contact: Contact, message_id: str, raw: Json, reader: Callable[[Json], Content], now: float
    ) -> None:
        """A message reached a person."""
        account = contact.account
        self.stats.sent(account.channel, account.name, now)
        if not self.record.keep and not self.behaviour.auto:
            self.record.count(contact)
            return
        message = Message(at=now, contact=contact, message_id=message_id, raw=raw, reader=reader)
        self.record.add(message)
        if self.behaviour.auto:
            self.on_message(message)

    def presence_of(self, person: Person) -> Presence:
        """A person's presence now: pinned, or drawn from the seed."""
        pinned = self.pins.get(person.id)
        if pinned is not None:
            return pinned
        return presence_at(self.settings.seed, person, self.clock.seconds(), self.behaviour)

    def breach(self, channel: str, account: str, limit: str) -> bool:
        """A limit was exceeded: count it, and say whether that is to be refused."""
        self.stats.violations[channel, account, limit] += 1
        return self.settings.enforce_limits


class Platform(ABC):
    """One simulated platform: its HTTP interface, and what people do on it.

    Each act changes the person's standing, and posts what the platform would tell the bot.
    """

    channel: str

    def __init__(self, world: World) -> None:
        self.world = world

    @abstractmethod
    def routes(self) -> list[web.RouteDef]:
        """Where the platform listens."""

    def at_once(self, head: Head, body: bytes) -> Ready | None:  # noqa: ARG002 - for platforms that can
        """Answer a plain request, as its route would; None leaves it to the route."""
        return None

    @abstractmethod
    def wrong(self, fault: Fault) -> web.Response:
        """The platform's own form of the error a fault asks for."""

    @abstractmethod
    def start(self, contact: Contact, payload: str) -> Replies:
        """Install, press Start or open and subscribe; `payload` is what a deep link carried."""

    @abstractmethod
    def say(self, contact: Contact, text: str) -> Replies:
        """Write to the bot."""

    @abstractmethod
    def press(self, message: Message, button: Button) -> Replies:
        """Press a reply button."""

    @abstractmethod
    def leave(self, contact: Contact) -> Replies:
        """Uninstall, block or unsubscribe: what the platform reports when a person goes."""

    @abstractmethod
    def block(self, contact: Contact) -> Replies:
        """Block the bot."""

    @abstractmethod
    def unblock(self, contact: Contact) -> Replies:
        """Take a block back."""

    @abstractmethod
    def read(self, contact: Contact, message: Message | None) -> Replies:
        """Read up to a message (None: the newest)."""

    @abstractmethod
    def react(self, message: Message, reaction: str) -> Replies:
        """React to a message."""

    @abstractmethod
    def raw(self, contact: Contact, body: Json) -> Replies:
        """Send the bot a body as it is, signed like any other."""

    def deliver(self, message: Message) -> Replies:
        """A message reached the device; most platforms do not tell."""
        message.delivered_at = self.world.clock.seconds()
        return []

    def fail(self, message: Message, reason: str) -> Replies:  # noqa: ARG002 - for platforms that tell
        """The device refused a message after the platform took it; most platforms do not tell."""
        raise NotPossible(f"{self.channel} does not report failed messages")

    @abstractmethod
    def reset(self) -> None:
        """Forget limits and what bots have set up; bots and people stay."""

    async def faulty(self, fault: Fault, request: web.Request, right: Answered) -> web.Response:
        """Answer a request that a fault has hit."""
        return await carry_out(fault, request, right, self.wrong, self.world.closing)


def mark_read(contact: Contact, up_to: Message | None, now: float) -> Message | None:
    """Mark what is unread as read up to a message; gives the newest that was unread."""
    newest: Message | None = None
    for message in contact.messages:
        if message.read_at is None and message.state != "deleted":
            message.read_at = now
            message.delivered_at = message.delivered_at or now
            newest = message
        if message is up_to:
            break
    return newest


def plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer as a gateway in front of a platform gives it."""
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)
