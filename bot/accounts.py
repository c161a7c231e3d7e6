"""The configured accounts: each with its channel, and what stands between it and its platform.

Connecting goes on for as long as the host runs: a platform that cannot be reached now is asked again, and one that
was connected is looked at from time to time, so that a revoked credential is noticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from bot.channels.http import Http
from bot.channels.teams import ClientCredentials, TeamsAccount, TeamsChannel, TeamsInbound
from bot.channels.telegram import Mode, TelegramAccount, TelegramChannel, TelegramInbound
from bot.channels.viber import ViberAccount, ViberChannel, ViberInbound
from bot.channels.webhook import Received
from bot.settings import (
    AccountSettings,
    Settings,
    SettingsError,
    TeamsSettings,
    TelegramMode,
    TelegramSettings,
    ViberSettings,
    is_loopback_url,
)
from broadcast.model import ChannelName
from broadcast.ports import Account, Channel, Clock, Features, PresenceProvider
from presence.graph import GraphPresence
from presence.viber import ViberPresence

log = structlog.get_logger(__name__)

GRAPH_SCOPE = "https://graph.microsoft.com/.default"
#: Real seconds until the next try after the first, second, … failure in a row.
PAUSES = (5.0, 15.0, 60.0, 300.0)
#: Real seconds between looks at an account that is connected.
LOOK_AGAIN = 600.0
#: Where an open account of Teams may write to: emulators on this machine.
_EMULATORS = ("localhost", "127.0.0.1", "[::1]")


class Closing(Protocol):
    async def close(self) -> None: ...


class Inlet(Protocol):
    """The way in of an account."""

    async def receive(self, headers: Mapping[str, str], body: bytes) -> Received:
        """One callback, verified before anything."""


@dataclass(frozen=True, slots=True)
class Face:
    """What the host uses of an account. `connect` registers callbacks below `address`, which is ``None`` where the
    platform has no way to us; `poll` gives what was fetched, in batches that are stored before the next."""

    channel: Channel
    inlet: Inlet
    check: Callable[[], Awaitable[str | None]]
    connect: Callable[[str], Awaitable[str | None]] | None = None
    address: str | None = None
    poll: Callable[[], AsyncGenerator[Received, None]] | None = None
    presence: PresenceProvider | None = None


@dataclass(slots=True, eq=False)
class ConfiguredAccount:
    """One account of the settings. `face` is ``None`` where a credential is missing; `trouble` says what to do
    before it is connected; `open` marks the Teams account that anybody on this machine may speak to."""

    settings: AccountSettings
    face: Face | None
    trouble: str | None
    open: bool = False
    connected: bool = False
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once connecting has been tried."""

    @property
    def key(self) -> str:
        return self.settings.key

    @property
    def rate(self) -> float | None:
        if self.settings.rate is not None or self.face is None:
            return self.settings.rate
        return self.face.channel.features.rate

    @property
    def account(self) -> Account | None:
        """As the domain knows it; ``None`` for one that cannot send."""
        if self.face is None or self.rate is None:
            return None
        return Account(self.key, self.settings.channel, self.face.channel.features, self.rate, self.settings.order)

    # --- connecting -----------------------------------------------------------------------------------

    async def keep_connected(self) -> None:
        """Connects, and keeps an eye on it. Ends only where there is nothing to connect."""
        if self.face is None:
            self.known.set()
            return
        failures = 0
        while True:
            trouble = await self._tried(self.face)
            self._note(trouble)
            failures = failures + 1 if trouble else 0
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES)) - 1] if trouble else LOOK_AGAIN)

    async def _tried(self, face: Face) -> str | None:
        try:
            trouble = await face.check()
            if trouble is None and face.connect is not None and not self.connected:
                trouble = await face.connect(face.address) if face.address else self._no_address()
        except Exception as error:  # an account's own failure is not the host's
            log.exception("connecting failed", action="account_check_failed", account=self.key)
            return f"{self.key}: {type(error).__name__} while connecting; the log has more"
        return trouble if trouble is None or self.key in trouble else f"{self.key}: {trouble}"

    def _no_address(self) -> str:
        polling = ", or CLARION_TELEGRAM_MODE to polling" if self.settings.channel is ChannelName.TELEGRAM else ""
        return f"{self.key}: the platform calls a public address only; set CLARION_PUBLIC_URL to it{polling}"

    def _note(self, trouble: str | None) -> None:
        self.known.set()
        connected = trouble is None
        if (connected, trouble) == (self.connected, self.trouble):
            return
        self.connected, self.trouble = connected, trouble
        if connected:
            log.info("connected", action="account_connected", account=self.key)
        else:
            log.warning("not connected", action="account_not_connected", account=self.key, do=trouble)


class Accounts:
    """All of them, by key."""

    def __init__(self, accounts: Mapping[str, ConfiguredAccount]) -> None:
        self.all = accounts

    @property
    def usable(self) -> dict[str, Account]:
        """Those that can send, as the domain knows them."""
        return {key: account for key, one in self.all.items() if (account := one.account) is not None}

    @property
    def shown(self) -> dict[str, Account]:
        """All of them; one without its credential can do nothing yet."""
        missing = {key: _powerless(one) for key, one in self.all.items()}
        return missing | self.usable

    def face(self, key: str) -> Face | None:
        one = self.all.get(key)
        return one.face if one else None

    async def known(self, *, within: float) -> None:
        """Waits until each account's connection has been tried once, at most so many real seconds."""
        waits = [asyncio.create_task(one.known.wait(), name=f"{one.key} is known") for one in self.all.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=within)
            for wait in late:
                wait.cancel()


def _powerless(one: ConfiguredAccount) -> Account:
    nothing = Features(reports_delivered=False, reports_read=False, rate=0.0, conversation_limits=(), text_limit=0)
    return Account(one.key, one.settings.channel, nothing, one.rate or 0.0)


def opened(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Accounts:
    """The accounts of the settings, their connections closed with the stack. Raises `SettingsError`."""
    configured = (
        _configured(one, settings, clock, stack) for one in (*settings.accounts, *_for_emulators(settings))
    )
    return Accounts({one.key: one for one in configured})


def _for_emulators(settings: Settings) -> tuple[AccountSettings, ...]:
    """Without a Teams app the endpoint is open, but only where nobody else can reach it (DESIGN.md section 5)."""
    if not settings.private or any(isinstance(one, TeamsSettings) for one in settings.accounts):
        return ()
    return (TeamsSettings(name="default", from_environment=True),)


def _configured(one: AccountSettings, settings: Settings, clock: Clock, stack: AsyncExitStack) -> ConfiguredAccount:
    is_open = isinstance(one, TeamsSettings) and not one.app_id and settings.private
    if one.trouble is not None and not is_open:
        return ConfiguredAccount(one, None, one.trouble)
    try:
        match one:
            case TeamsSettings():
                face = _teams(one, settings, clock, stack, is_open=is_open)
            case TelegramSettings():
                face = _telegram(one, settings, clock, stack)
            case ViberSettings():
                face = _viber(one, settings, clock, stack)
            case _:
                raise SettingsError(f"there is no channel {one.channel}")
    except ValueError as error:
        raise SettingsError(f"{one.key}: {str(error).removeprefix(f'{one.key}: ')}") from error
    return ConfiguredAccount(one, face, f"{one.key}: is being connected", open=is_open)


def _address(settings: Settings, api_url: str | None) -> str | None:
    """Where the platform is to call us: the public address, or this machine's own for a platform that is here."""
    local = api_url is not None and is_loopback_url(api_url)
    return settings.public_url or (settings.address if local else None)


def _given(**values: object) -> dict[str, Any]:
    """What the settings say; the channel has defaults for the rest."""
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _teams(one: TeamsSettings, settings: Settings, clock: Clock, stack: AsyncExitStack, *, is_open: bool) -> Face:
    hosts = one.service_urls or (_EMULATORS if is_open else ())
    fallback = next((host for host in hosts if "://" in host), f"http://{hosts[0]}/" if is_open else None)
    account = TeamsAccount(
        **_given(
            key=one.key,
            app_id=one.app_id,
            app_password=one.app_password.get_secret_value(),
            tenant_id=one.tenant_id,
            login_url=one.login_url,
            openid_url=one.openid_url,
            service_hosts=hosts or None,
            service_url=fallback,
            rate=one.rate,
        )
    )
    channel, inbound = TeamsChannel(account), TeamsInbound(account, clock, unverified_loopback=is_open)
    _close_with(stack, channel, inbound)
    graph = None if is_open else _graph(account, one.graph_url or settings.graph_url, stack)
    return Face(channel, inbound, channel.check, presence=graph)


def _graph(account: TeamsAccount, url: str | None, stack: AsyncExitStack) -> GraphPresence:
    """Graph takes a token of its own: the same app, another scope."""
    http = Http()
    tokens = ClientCredentials(http, account, scope=GRAPH_SCOPE)
    graph = GraphPresence(tokens, **_given(url=url))
    _close_with(stack, http, tokens, graph)
    return graph


def _telegram(one: TelegramSettings, settings: Settings, clock: Clock, stack: AsyncExitStack) -> Face:
    mode = one.mode or (TelegramMode.WEBHOOK if settings.public_url else TelegramMode.POLLING)
    account = TelegramAccount(
        **_given(
            key=one.key,
            token=one.token.get_secret_value(),
            api_url=one.api_url,
            mode=Mode(mode.value),
            webhook_secret=one.webhook_secret.get_secret_value(),
            rate=one.rate,
        )
    )
    channel, inbound = TelegramChannel(account), TelegramInbound(account, clock)
    _close_with(stack, channel, inbound)
    if mode is TelegramMode.POLLING:
        return Face(
            channel, inbound, channel.check, connect=inbound.connect, address=settings.address, poll=inbound.poll
        )
    return Face(channel, inbound, channel.check, connect=inbound.connect, address=_address(settings, one.api_url))


def _viber(one: ViberSettings, settings: Settings, clock: Clock, stack: AsyncExitStack) -> Face:
    account = ViberAccount(
        **_given(
            key=one.key,
            token=one.token.get_secret_value(),
            sender=one.sender,
            api_url=one.api_url,
            rate=one.rate,
        )
    )
    channel, inbound = ViberChannel(account), ViberInbound(account, clock)
    _close_with(stack, channel, inbound)
    return Face(
        channel,
        inbound,
        channel.check,
        connect=inbound.connect,
        address=_address(settings, one.api_url),
        presence=ViberPresence(channel.ask),
    )


def _close_with(stack: AsyncExitStack, *those: Closing) -> None:
    for one in those:
        stack.push_async_callback(one.close)
