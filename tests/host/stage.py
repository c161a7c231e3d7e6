"""A small installation on the in-memory store, for tests of the host: one account per channel that records what is
sent, and campaigns to work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bot.accounts import Accounts, ConfiguredAccount, Face
from bot.channels.webhook import Received
from bot.settings import TelegramSettings
from broadcast.campaigns import ALWAYS, Draft
from broadcast.model import (
    Answer,
    Button,
    ButtonType,
    ChannelName,
    Conversation,
    Message,
    Policies,
    Recipient,
    Schedule,
    Sent,
)
from broadcast.ports import Content, Features, Inbound, Person, Said
from storage.memory import MemoryStore

KEY = "telegram/default"
ANN = "184467"
NOW = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
FEATURES = Features(
    reports_delivered=False, reports_read=False, rate=1000.0, conversation_limits=(), text_limit=4096
)
MESSAGE = Message(
    "Hello [FIRSTNAME]",
    buttons=(
        Button(
            "enrol", ButtonType.LINK, "Enrol", url="https://intranet.example/enrol?who={{ recipient.first_name }}"
        ),
        Button("later", ButtonType.REPLY, "Later", value="later"),
    ),
)
AT_ONCE = Draft(
    "Benefits week",
    MESSAGE,
    schedule=Schedule(immediate=True, hours=ALWAYS),
    policies=Policies(presence=dict.fromkeys(ChannelName)),
)


@dataclass
class Recorder:
    """A channel whose platform accepts everything once it has said its `outcomes`."""

    account: str = KEY
    name: ChannelName = ChannelName.TELEGRAM
    features: Features = FEATURES
    sent: list[tuple[str, Content]] = field(default_factory=list)
    outcomes: list[Answer] = field(default_factory=list)

    async def send(self, to: Conversation, content: Content) -> Answer:
        self.sent.append((to.user_id, content))
        return self.outcomes.pop(0) if self.outcomes else Sent(str(len(self.sent)))

    async def check(self) -> str | None:
        return None

    async def close(self) -> None: ...

    @property
    def texts(self) -> list[str]:
        return [content.text for _, content in self.sent]


@dataclass
class Inlet:
    """Gives what it was told to give, whatever comes."""

    received: Received = field(default_factory=Received)
    bodies: list[bytes] = field(default_factory=list)

    async def receive(self, headers: Mapping[str, str], body: bytes) -> Received:
        self.bodies.append(body)
        return self.received


def account(channel: Recorder, inlet: Inlet | None = None) -> ConfiguredAccount:
    face = Face(channel, inlet or Inlet(), channel.check)
    return ConfiguredAccount(TelegramSettings(name="default"), face, None, connected=True)


def accounts(channel: Recorder, inlet: Inlet | None = None) -> Accounts:
    return Accounts({KEY: account(channel, inlet)})


def said(text: str, *, key: str = "1", user: str = ANN, what: Said = Said.TEXT) -> Inbound:
    return Inbound(
        key=key,
        account=KEY,
        channel=ChannelName.TELEGRAM,
        person=Person(user, first_name="Ann"),
        said=what,
        at=NOW,
        text=text,
    )


async def add_ann(store: MemoryStore) -> Recipient:
    """Ann, who can be reached on Telegram."""
    ann = Recipient("rcp_ann", first_name="Ann & Co", identities={ChannelName.TELEGRAM: ANN})
    await store.save_recipients([ann])
    await store.save_conversations([Conversation("cnv_ann", KEY, ChannelName.TELEGRAM, ann.id, ANN)])
    return ann
