"""Buttons below a question: whoever was asked may press one of them, once, while what was asked about stands.

A ticket carries all it needs and is signed, so that any host may honour it. It fits the 64 bytes of a button.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from bot.commands.words import TICKET
from bot.settings import Admin
from broadcast.model import Campaign
from broadcast.ports import Clock

#: For how long a question may be answered.
VALID = timedelta(minutes=15)
_MAC_BYTES = 12


class Choice(StrEnum):
    """What a button says."""

    YES = "y"
    NO = "n"


@dataclass(frozen=True, slots=True)
class Ticket:
    """An answer to a question about a campaign; `question` is the same for all answers to it."""

    choice: Choice
    campaign: str
    until: datetime
    question: str


class Tickets:
    """Writes and reads tickets."""

    def __init__(self, *, secret: str, clock: Clock) -> None:
        self._key = hashlib.blake2b(secret.encode(), digest_size=32, person=b"clarion-tickets").digest()
        self._clock = clock

    def write(self, choice: Choice, campaign: Campaign, admin: Admin) -> str:
        """The payload of a button, for this admin about this campaign as it is now."""
        until = int((self._clock.now() + VALID).timestamp())
        return f"{TICKET}{choice}:{campaign.id}:{until:x}:{self._question(campaign, admin, until)}"

    def read(self, payload: str) -> Ticket | None:
        """What a payload claims; ``None`` for anything else. Believe it once `holds` says so."""
        match payload.removeprefix(TICKET).split(":"):
            case [choice, campaign, until, question] if choice in set(Choice):
                try:
                    return Ticket(Choice(choice), campaign, datetime.fromtimestamp(int(until, 16), UTC), question)
                except (ValueError, OverflowError, OSError):
                    return None
        return None

    def holds(self, ticket: Ticket, campaign: Campaign, admin: Admin) -> bool:
        """Whether this very admin was asked, lately, and about the campaign as it still is."""
        wanted = self._question(campaign, admin, int(ticket.until.timestamp()))
        signed = hmac.compare_digest(ticket.question.encode(), wanted.encode())
        return signed and self._clock.now() <= ticket.until

    def _question(self, campaign: Campaign, admin: Admin, until: int) -> str:
        text = f"{admin.channel}:{admin.user_id}\x1f{until}\x1f{_written(campaign)}".encode()
        return base64.urlsafe_b64encode(
            hashlib.blake2b(text, key=self._key, digest_size=_MAC_BYTES).digest()
        ).decode()


def _written(value: object) -> str:
    """A value as text that is the same in every process: sets and mappings in order."""
    if is_dataclass(value) and not isinstance(value, type):
        return f"({' '.join(_written(getattr(value, field.name)) for field in fields(value))})"
    if isinstance(value, Mapping):
        return f"{{{' '.join(sorted(f'{_written(key)}={_written(one)}' for key, one in value.items()))}}}"
    if isinstance(value, Set):
        return f"<{' '.join(sorted(_written(one) for one in value))}>"
    if isinstance(value, list | tuple):
        return f"[{' '.join(_written(one) for one in value)}]"
    return repr(str(value))
