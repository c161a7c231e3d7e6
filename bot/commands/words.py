"""What an admin may write to the bot, read into values; nothing here acts."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Teams puts the bot's name before what is written in a group.
_MENTION = re.compile(r"^\s*(?:<at[^>]*>.*?</at>(?:\s|&nbsp;)*)+", re.IGNORECASE | re.DOTALL)
_COMMAND = re.compile(r"/(?P<word>[a-z]+)(?:@\w+)?(?:\s+(?P<rest>.*))?", re.IGNORECASE | re.DOTALL)
_CONFIRM = re.compile(r"(?P<name>.+)\s+confirm", re.IGNORECASE | re.DOTALL)
_QUOTES = (("“", "”"), ('"', '"'), ("'", "'"), ("«", "»"))

HELP = (
    "For admins:\n"
    "/campaigns: the latest campaigns\n"
    "/try NAME: sends you the message\n"
    "/launch NAME: shows what would happen, and asks\n"
    "/launch NAME confirm: launches at once\n"
    "/status NAME: how its latest broadcast is doing"
)


@dataclass(frozen=True, slots=True)
class ListCampaigns:
    """`/campaigns`."""


@dataclass(frozen=True, slots=True)
class Try:
    """`/try NAME`."""

    name: str


@dataclass(frozen=True, slots=True)
class Launch:
    """`/launch NAME`, or `/launch NAME confirm`."""

    name: str
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """`/status NAME`."""

    name: str


@dataclass(frozen=True, slots=True)
class Press:
    """A button below a question of ours."""

    ticket: str


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A command without what it needs; `mend` says how it is written."""

    mend: str


Command = ListCampaigns | Try | Launch | Status | Press | Incomplete

TICKET = "ask:"


def parse(text: str) -> Command | None:
    """The command in a text; ``None`` for anything else that a person may write."""
    text = _MENTION.sub("", text).strip()
    if text.startswith(TICKET):
        return Press(text)
    match = _COMMAND.fullmatch(text)
    if match is None:
        return None
    return _read(match["word"].lower(), _unquoted(match["rest"] or ""))


def _read(word: str, name: str) -> Command | None:
    match word:
        case "campaigns":
            return ListCampaigns()
        case "try" | "launch" | "status" if not name:
            return Incomplete(f"Which campaign? Write /{word} NAME; /campaigns lists them.")
        case "try":
            return Try(name)
        case "status":
            return Status(name)
        case "launch":
            confirmed = _CONFIRM.fullmatch(name)
            return Launch(_unquoted(confirmed["name"]), confirmed=True) if confirmed else Launch(name)
    return None


def _unquoted(name: str) -> str:
    name = name.strip()
    for begin, end in _QUOTES:
        if len(name) > 1 and name.startswith(begin) and name.endswith(end):
            return name[1:-1].strip()
    return name
