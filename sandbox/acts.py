"""What a person can do, on any channel, told by hand or of their own accord."""

import ipaddress
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from sandbox.callbacks import Errand
from sandbox.directory import Contact
from sandbox.messages import Button, Message
from sandbox.settings import Channel
from sandbox.world import NotPossible, Platform, Replies, World

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/144.0", "Accept": "text/html"}


class Act(StrEnum):
    """Everything a person can be told to do."""

    START = "start"
    """Install, press Start or open and subscribe; `payload`."""
    SAY = "say"
    """Write `text`."""
    STOP = "stop"
    """Write `text`, by default STOP."""
    PRESS = "press"
    """Press a reply button: of `message_id` (default: newest that has one), named by `button` (label, value or
    number from 0; default: the first)."""
    FOLLOW = "follow"
    """Open a link button, named likewise; only loopback addresses are fetched, redirects are not followed."""
    READ = "read"
    """Read up to `message_id` (default: the newest)."""
    DELIVER = "deliver"
    """The device received `message_id`."""
    FAIL = "fail"
    """The device refused `message_id`; `reason`."""
    REACT = "react"
    """React to `message_id` with `reaction`."""
    BLOCK = "block"
    """Block the bot."""
    UNBLOCK = "unblock"
    """Take the block back, or subscribe again."""
    UNINSTALL = "uninstall"
    """Go: uninstall (Teams), block (Telegram), unsubscribe (Viber)."""
    UNSUBSCRIBE = "unsubscribe"
    """The same as `uninstall`."""
    RAW = "raw"
    """Send `body` as the platform would, signed: for events nobody expects."""


class Acts:
    """Performs acts. What an act leads to are answers of the bot, one for each callback."""

    def __init__(self, world: World, platforms: Mapping[Channel, Platform]) -> None:
        self._world = world
        self._platforms = platforms
        self._table: dict[Act, Callable[[Platform, Contact, Mapping[str, Any]], Replies]] = {
            Act.START: lambda platform, contact, args: platform.start(contact, str(args.get("payload") or "")),
            Act.SAY: lambda platform, contact, args: platform.say(contact, str(args.get("text") or "Hello")),
            Act.STOP: lambda platform, contact, args: platform.say(contact, str(args.get("text") or "STOP")),
            Act.PRESS: self._press,
            Act.FOLLOW: self._follow,
            Act.READ: lambda platform, contact, args: platform.read(contact, _named(contact, args)),
            Act.DELIVER: lambda platform, contact, args: platform.deliver(_message(contact, args)),
            Act.FAIL: lambda platform, contact, args: platform.fail(
                _message(contact, args), str(args.get("reason") or "")
            ),
            Act.REACT: lambda platform, contact, args: platform.react(
                _message(contact, args), str(args.get("reaction") or "")
            ),
            Act.BLOCK: lambda platform, contact, _args: platform.block(contact),
            Act.UNBLOCK: lambda platform, contact, _args: platform.unblock(contact),
            Act.UNINSTALL: lambda platform, contact, _args: platform.leave(contact),
            Act.UNSUBSCRIBE: lambda platform, contact, _args: platform.leave(contact),
            Act.RAW: lambda platform, contact, args: platform.raw(contact, dict(args.get("body") or {})),
        }

    def perform(self, contact: Contact, act: Act, args: Mapping[str, Any]) -> Replies:
        """Do it now; the futures give the bot's answer to each callback it leads to."""
        return self._table[act](self._platforms[contact.account.channel], contact, args)

    def press(self, message: Message, button: Button) -> Replies:
        """Press a reply button of a message."""
        return self._platforms[message.contact.account.channel].press(message, button)

    def follow(self, message: Message, button: Button) -> Replies:
        """Open a link button of a message."""
        url = str(button.value)
        if not is_loopback(url):
            raise NotPossible(f"{url} is not on this machine; nothing else is fetched")
        contact = message.contact
        self._world.stats.follows += 1
        errand = Errand(
            channel=contact.account.channel,
            account=contact.account.name,
            person=contact.person.id,
            event="follow",
            url=lambda: url,
            body=b"",
            headers=BROWSER,
            method="GET",
        )
        return [self._world.callbacks.post(errand)]

    def _press(self, _platform: Platform, contact: Contact, args: Mapping[str, Any]) -> Replies:
        return self.press(*_choice(contact, "reply", args))

    def _follow(self, _platform: Platform, contact: Contact, args: Mapping[str, Any]) -> Replies:
        return self.follow(*_choice(contact, "link", args))


def is_loopback(url: str) -> bool:
    """Whether an http(s) URL stays on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"}:
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _named(contact: Contact, args: Mapping[str, Any]) -> Message | None:
    message_id = args.get("message_id")
    if message_id is None:
        return None
    message = contact.message(str(message_id))
    if message is None:
        raise NotPossible(f"{contact.person.id} has no message {message_id}")
    return message


def _message(contact: Contact, args: Mapping[str, Any]) -> Message:
    message = _named(contact, args) or contact.newest()
    if message is None:
        raise NotPossible(f"{contact.person.id} has no message")
    return message


def _choice(contact: Contact, kind: str, args: Mapping[str, Any]) -> tuple[Message, Button]:
    named = _named(contact, args)
    candidates = [named] if named else [one for one in reversed(contact.messages) if one.state != "deleted"]
    wanted = args.get("button")
    for message in candidates:
        buttons = [button for button in message.content.buttons if button.kind == kind]
        found = [button for number, button in enumerate(buttons) if _is(button, number, wanted)]
        if found:
            return message, found[0]
    raise NotPossible(f"{contact.person.id} sees no such {kind} button")


def _is(button: Button, number: int, wanted: Any) -> bool:
    return wanted is None or wanted in (number, button.label, button.value)
