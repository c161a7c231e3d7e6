"""What everybody received: the record that judges a sender."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from sandbox.clock import iso

if TYPE_CHECKING:
    from sandbox.directory import Contact

Json = dict[str, Any]

MAX_PAGE = 10_000
"""Messages in one page at most."""


def packed(raw: Any) -> bytes:
    """JSON to be kept: orjson's own bytes hold on to the kilobytes it wrote them in."""
    return memoryview(orjson.dumps(raw)).tobytes()


@dataclass(frozen=True, slots=True)
class Button:
    """One button: `kind` is `link` (value: the URL) or `reply` (value: what the bot is sent)."""

    kind: str
    label: str
    value: Any
    source: Json
    """The button as the bot wrote it."""

    def as_json(self) -> Json:
        """As `/sandbox/messages` shows it."""
        key = "url" if self.kind == "link" else "value" if isinstance(self.value, str) else "data"
        return {"type": self.kind, "label": self.label, key: self.value}


@dataclass(frozen=True, slots=True)
class Content:
    """What a person sees of a message."""

    text: str = ""
    media: tuple[Json, ...] = ()
    buttons: tuple[Button, ...] = ()


class Message:
    """One message as it arrived; its content is read from the wire form when somebody looks.

    What it was sent as is kept as bytes: hundreds of thousands of them are no work for the garbage collector.
    """

    __slots__ = (
        "_content", "_reader", "_wire", "at", "contact", "delivered_at", "message_id", "read_at", "seq", "state",
    )  # fmt: skip

    def __init__(
        self, *, at: float, contact: "Contact", message_id: str, raw: Json, reader: Callable[[Json], Content]
    ) -> None:
        self.seq = 0
        self.at = at
        self.contact = contact
        self.message_id = message_id
        self._wire = packed(raw)
        self.state = "sent"
        self.delivered_at: float | None = None
        self.read_at: float | None = None
        self._reader = reader
        self._content: Content | None = None

    @property
    def raw(self) -> Json:
        """The message as the bot sent it."""
        raw: Json = orjson.loads(self._wire)
        return raw

    @property
    def content(self) -> Content:
        """Text, media and buttons."""
        if self._content is None:
            self._content = self._read()
        return self._content

    def _read(self) -> Content:
        try:
            return self._reader(self.raw)
        except (AttributeError, TypeError, ValueError):
            # The platform took it, so it is on record; people see nothing of what makes no sense.
            return Content()

    def edit(self, raw: Json) -> None:
        """Replace what it says."""
        self._wire = packed(raw)
        self.state = "edited"
        self._content = None

    def as_json(self) -> Json:
        """As `/sandbox/messages` shows it."""
        content, contact = self.content, self.contact
        return {
            "seq": self.seq,
            "at": iso(self.at),
            "channel": contact.account.channel.value,
            "account": contact.account.name,
            "person": contact.person.id,
            "chat": contact.chat,
            "message_id": self.message_id,
            "text": content.text,
            "media": content.media,
            "buttons": [button.as_json() for button in content.buttons],
            "state": self.state,
            "delivered_at": None if self.delivered_at is None else iso(self.delivered_at),
            "read_at": None if self.read_at is None else iso(self.read_at),
            "raw": orjson.Fragment(self._wire),
        }


@dataclass(frozen=True, slots=True)
class Query:
    """Which messages are asked for; None is any."""

    channel: str | None = None
    account: str | None = None
    since_seq: int = 0
    limit: int = 1000

    def fits(self, message: Message) -> bool:
        """Whether a message is among them."""
        account = message.contact.account
        return (self.channel is None or account.channel == self.channel) and (
            self.account is None or account.name == self.account
        )


@dataclass
class Record:
    """All messages in the order they arrived; `seq` counts from 1."""

    keep: bool
    total: int = 0
    items: list[Message] = field(default_factory=list)

    def add(self, message: Message) -> None:
        """Put a message on record."""
        self.count(message.contact)
        message.seq = self.total
        if self.keep:
            self.items.append(message)
            message.contact.messages.append(message)

    def count(self, contact: "Contact") -> None:
        """Count a message of which nothing else is to be known."""
        self.total += 1
        contact.account.sent += 1

    def page(self, query: Query, among: Iterable[Message] | None = None) -> tuple[list[Message], int]:
        """Messages after `since_seq`, and the seq to go on from."""
        rows = self.items[query.since_seq :] if among is None else among
        found: list[Message] = []
        for message in rows:
            if message.seq <= query.since_seq or not query.fits(message):
                continue
            found.append(message)
            if len(found) >= min(query.limit, MAX_PAGE):
                return found, message.seq
        return found, self.total

    def clear(self) -> None:
        """Forget everything."""
        for message in self.items:
            message.contact.messages.clear()
        self.items.clear()
        self.total = 0


class Reading:
    """Collects the parts of a message while its wire form is walked."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.media: list[Json] = []
        self.buttons: list[Button] = []

    @cached_property
    def content(self) -> Content:
        """What was collected."""
        text = "\n".join(line for line in self.lines if line)
        return Content(text, tuple(self.media), tuple(self.buttons))
