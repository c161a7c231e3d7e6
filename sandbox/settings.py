"""What a sandbox can be told before it starts, with its defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Channel(StrEnum):
    """The platforms that have people behind them."""

    TEAMS = "teams"
    """Microsoft Teams through the Bot Connector."""
    TELEGRAM = "telegram"
    """Telegram through the Bot API."""
    VIBER = "viber"
    """Viber through its REST API."""


@dataclass(frozen=True)
class TeamsBot:
    """One app registration, as the bot presents it."""

    name: str = "default"
    app_id: str = "5a4db0c5-0000-4000-8000-000000000001"
    password: str = "sandbox-teams-password"  # noqa: S105 - a credential of a simulated platform
    tenant_id: str = "5a4db0c5-0000-4000-8000-0000000000aa"
    endpoint: str = "http://127.0.0.1:8080/api/messages"
    """Where activities are posted: Teams has no call to set it."""


@dataclass(frozen=True)
class TelegramBot:
    """One bot token; the number before the colon is the bot's user id."""

    name: str = "default"
    token: str = "100000001:SANDBOX-telegram-token-0000000001"  # noqa: S105 - simulated
    username: str = "clarion_sandbox_bot"


@dataclass(frozen=True)
class ViberBot:
    """One authentication token."""

    name: str = "default"
    token: str = "5a4db0c500000001-5a4db0c500000001-5a4db0c500000001"  # noqa: S105 - simulated
    title: str = "Sandbox"
    uri: str = "sandbox"


@dataclass(frozen=True)
class PresenceShares:
    """How large a part of the time somebody is in each state; what is left of 1 is `Offline`."""

    available: float
    away: float
    busy: float
    do_not_disturb: float


@dataclass(frozen=True)
class Behaviour:
    """What people do of their own accord. Probabilities are per message, delays are means in sandbox seconds."""

    auto: bool = True
    """False: nobody does anything unless told through the control interface."""
    deliver_after: float = 2.0
    """Until Viber says `delivered`."""
    read: float = 0.85
    read_after: float = 240.0
    follow: float = 0.35
    """Of those who read a message with a link button: how many follow it."""
    press: float = 0.30
    """Of those who read a message with a reply button: how many press one."""
    act_after: float = 45.0
    """From reading to following or pressing."""
    react: float = 0.02
    stop: float = 0.005
    block: float = 0.005
    presence_minutes: float = 25.0
    """How long somebody stays in one state on average before it is drawn anew."""
    at_work: PresenceShares = PresenceShares(available=0.72, away=0.12, busy=0.09, do_not_disturb=0.03)
    """Monday to Friday, 08:00 to 18:00 where the person lives."""
    off_work: PresenceShares = PresenceShares(available=0.06, away=0.10, busy=0.01, do_not_disturb=0.01)
    undisclosed: float = 0.08
    """Share of Viber users who hide whether they are online."""


@dataclass(frozen=True)
class Limits:
    """The platforms' rate limits in sandbox time (PLATFORMS A4, B, C1, D1)."""

    teams_per_second: int = 50
    """Requests per app and tenant."""
    graph_per_30_seconds: int = 1500
    telegram_per_second: int = 30
    """Messages per bot."""
    telegram_chat_burst: int = 3
    """Messages to one chat that pass at once before one a second holds."""
    tolerance: float = 0.1
    """The platforms say "about": so much above the figures per second passes."""
    viber_unanswered_per_hour: int = 100
    """Messages to one person without a reply."""
    viber_broadcasts_per_10_seconds: int = 500


@dataclass(frozen=True)
class SandboxSettings:
    """Everything about a sandbox; the defaults are what `clarion sandbox` starts."""

    seed: int = 1
    speed: float = 1.0
    """Sandbox seconds per wall second."""
    epoch: datetime | None = None
    """Sandbox instant at the start; None is now."""
    teams_bots: tuple[TeamsBot, ...] = (TeamsBot(),)
    telegram_bots: tuple[TelegramBot, ...] = (TelegramBot(),)
    viber_bots: tuple[ViberBot, ...] = (ViberBot(),)
    teams_endpoint: str | None = None
    """Replaces the endpoint of every Teams bot."""
    people: int | Mapping[Channel, int] = 20
    """How many people live on each channel."""
    people_everywhere: int = 0
    """How many more live on all three."""
    started: bool = False
    """True: everybody already knows every bot of their channel, nobody has to start first."""
    behaviour: Behaviour = field(default_factory=Behaviour)
    limits: Limits = field(default_factory=Limits)
    enforce_limits: bool = True
    """False: breaches are counted, not answered with a refusal."""
    keep_messages: bool = True
    """False: messages are counted and forgotten, for benchmarks."""
    token_lifetime: int = 3599
    """Wall seconds a bearer token lives."""
    callback_concurrency: int = 16
    callback_timeout: float = 15.0
    """Wall seconds a bot may take to answer a callback."""
    control_from_anywhere: bool = False
    """True: /sandbox answers other machines too."""
    public_url: str | None = None
    """How bots reach the sandbox, when that is not the address it listens on."""
