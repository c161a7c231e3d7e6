"""Who we are on Teams, and which addresses may see our bearer token."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache

from yarl import URL

from broadcast.model import Conversation

#: Where Bot Connector lives: the public cloud and the three US government ones (PLATFORMS A2).
SERVICE_HOSTS = (
    "smba.trafficmanager.net",
    "smba.infra.gcc.teams.microsoft.com",
    "smba.infra.gov.teams.microsoft.us",
    "smba.infra.dod.teams.microsoft.us",
)
PUBLIC_SERVICE_URL = "https://smba.trafficmanager.net/teams/"
#: 50 requests a second for one app in one tenant is the most Teams bears (PLATFORMS A4).
MOST_PER_SECOND = 50.0


@dataclass(frozen=True, slots=True)
class TeamsAccount:
    """One app registration.

    `key` is the account's name such as ``teams/hr``. Without an `app_id` nothing is signed in for: only local
    emulators talk to such an account. `service_hosts` are the hosts a service URL may name: ``host`` (https),
    ``host:port``, or a whole address where http is meant; on loopback http is always allowed. `service_url` is
    for people of whom none is known: left out, it is the first whole address among `service_hosts`, else the
    public cloud's. `gcc_service_url` is tried after ``InvalidBotApiHost``. `rate` is messages per second.
    """

    key: str
    app_id: str = ""
    app_password: str = field(default="", repr=False)
    tenant_id: str = ""
    login_url: str = "https://login.microsoftonline.com"
    openid_url: str = "https://login.botframework.com/v1/.well-known/openidconfiguration"
    issuer: str = "https://api.botframework.com"
    scope: str = "https://api.botframework.com/.default"
    service_hosts: tuple[str, ...] = SERVICE_HOSTS
    service_url: str = ""
    gcc_service_url: str = "https://smba.infra.gcc.teams.microsoft.com/teams"
    rate: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.rate <= MOST_PER_SECOND:
            raise ValueError(f"{self.key}: rate is {self.rate}; Teams bears at most {MOST_PER_SECOND:g} a second")
        if not self.allows(self.home):
            raise ValueError(f"{self.key}: the host of service_url {self.home} is not among service_hosts")

    @property
    def bot_id(self) -> str:
        """How Teams names the bot in conversations."""
        return f"28:{self.app_id}"

    @property
    def home(self) -> str:
        """The service address for people of whom none is known."""
        named = (host for host in self.service_hosts if "://" in host)
        return self.service_url or next(named, PUBLIC_SERVICE_URL)

    def allows(self, service_url: str) -> bool:
        """Whether requests to this address may carry our bearer token."""
        return _is_allowed(service_url, self.service_hosts)


@lru_cache(maxsize=1024)  # asked for every message, about a handful of addresses
def _is_allowed(service_url: str, hosts: tuple[str, ...]) -> bool:
    try:
        url = URL(service_url)
        return any(_fits(url, allowed) for allowed in hosts)
    except ValueError:
        return False


def _fits(url: URL, allowed: str) -> bool:
    if url.user is not None or url.password is not None or not url.host:
        return False
    wanted = URL(allowed if "://" in allowed else f"//{allowed}")
    if (url.host or "").rstrip(".") != (wanted.host or "").rstrip("."):
        return False
    if wanted.scheme:
        return (url.scheme, url.port) == (wanted.scheme, wanted.port)
    local = _is_loopback(url.host)
    if url.scheme != "https" and not (local and url.scheme == "http"):
        return False
    return url.port == wanted.explicit_port if wanted.explicit_port else local or url.port == 443


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Reference:
    """What is kept of a conversation with one person (PLATFORMS A1). ``None``: not known yet.

    `conversation_id` is that of the 1:1 chat only; `user_id` is the ``29:`` id, good for this bot alone.
    """

    service_url: str | None = None
    conversation_id: str | None = None
    tenant_id: str | None = None
    bot_id: str | None = None
    user_id: str | None = None

    def as_json(self) -> dict[str, object]:
        """What is known, to be merged into what is kept."""
        known = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in known.items() if value}


def reference_of(conversation: Conversation) -> Reference:
    """The reference kept with a conversation; whatever in it is no text is ignored."""
    kept = {name: conversation.reference.get(name) for name in Reference.__slots__}
    return Reference(**{name: value for name, value in kept.items() if isinstance(value, str) and value})
