"""What is configured for one Viber bot."""

from __future__ import annotations

from dataclasses import dataclass, field

#: The longest sender name Viber shows (PLATFORMS D1).
_NAME_LIMIT = 28

_WELCOME = "Welcome! Write START to receive our messages here, and STOP to receive no more."


@dataclass(frozen=True, slots=True)
class ViberAccount:
    """One bot token. `key` is the account's name, such as ``viber/news``; `sender` is the name people see, at most
    28 characters; `avatar` its picture's address; `welcome` greets whoever opens the chat (empty: nothing does);
    `rate` is messages per second for the whole bot (500 in 10 s, PLATFORMS D1)."""

    key: str
    token: str = field(repr=False)
    sender: str
    avatar: str = ""
    api_url: str = "https://chatapi.viber.com/pa"
    welcome: str = _WELCOME
    rate: float = 50.0

    def __post_init__(self) -> None:
        if not self.token:
            raise ValueError(f"{self.key} has no token: the Viber admin panel shows it")
        if self.rate <= 0:
            raise ValueError(f"the rate of {self.key} must be above 0 messages a second")
        if not 1 <= len(self.sender) <= _NAME_LIMIT:
            raise ValueError(f"the sender name of {self.key} must have 1 to {_NAME_LIMIT} characters")

    @property
    def name(self) -> str:
        """The account's part of its webhook address: ``news`` of ``viber/news``."""
        return self.key.rpartition("/")[2]

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Content-Type": "application/json", "X-Viber-Auth-Token": self.token}

    def url(self, method: str) -> str:
        """The address of a method."""
        return f"{self.api_url.rstrip('/')}/{method}"
