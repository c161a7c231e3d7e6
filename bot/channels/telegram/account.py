"""What is configured for one Telegram bot."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum

_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")


class Mode(StrEnum):
    """How updates come in; Telegram allows one at a time."""

    WEBHOOK = "webhook"  # Telegram calls us: needs a public HTTPS address
    POLLING = "polling"  # we ask Telegram: needs no address


@dataclass(frozen=True, slots=True)
class TelegramAccount:
    """One bot token. `key` is the account's name, such as ``telegram/news``; `rate` is messages per second for the
    whole bot (about 30 are free, PLATFORMS C1). Without a `webhook_secret` one is derived from the token, so that
    callbacks are never left unproven."""

    key: str
    token: str = field(repr=False)
    api_url: str = "https://api.telegram.org"
    mode: Mode = Mode.WEBHOOK
    webhook_secret: str = field(default="", repr=False)
    rate: float = 30.0

    def __post_init__(self) -> None:
        if not self.token:
            raise ValueError(f"{self.key} has no token: @BotFather gives one")
        if self.rate <= 0:
            raise ValueError(f"the rate of {self.key} must be above 0 messages a second")
        if self.webhook_secret and not _SECRET.fullmatch(self.webhook_secret):
            raise ValueError(f"the webhook secret of {self.key} may hold A-Z a-z 0-9 _ - only, at most 256 of them")

    @property
    def name(self) -> str:
        """The account's part of its webhook address: ``news`` of ``telegram/news``."""
        return self.key.rpartition("/")[2]

    @property
    def secret(self) -> str:
        """What Telegram proves itself with on every callback."""
        return (
            self.webhook_secret or hashlib.sha256(b"clarion telegram webhook\0" + self.token.encode()).hexdigest()
        )

    @property
    def base_url(self) -> str:
        """Where python-telegram-bot starts: it appends token and method itself."""
        return f"{self.api_url.rstrip('/')}/bot"

    def url(self, method: str) -> str:
        """The address of a method. It holds the token: never log it."""
        return f"{self.base_url}{self.token}/{method}"
