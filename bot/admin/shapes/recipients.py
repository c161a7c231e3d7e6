"""Recipients and what an import answers, as bodies."""

from __future__ import annotations

from collections.abc import Iterable

from bot.admin.shapes.common import (
    Count,
    Instant,
    Listed,
    Paged,
    Search,
)
from bot.admin.validation import Shape
from broadcast.model import (
    ChannelName,
    Conversation,
    ConversationState,
    Recipient,
)
from broadcast.recipients import Imported


class RowErrorOut(Shape):
    """A row that was left out; `field` is empty where the whole row is at fault."""

    line: int
    field: str
    message: str


class ImportOut(Shape):
    created: Count
    updated: Count
    unchanged: Count
    errors: list[RowErrorOut]


def import_out(imported: Imported) -> ImportOut:
    return ImportOut(
        created=imported.created,
        updated=imported.updated,
        unchanged=imported.unchanged,
        errors=[
            RowErrorOut(line=error.line, field=error.field, message=error.message) for error in imported.errors
        ],
    )


class RecipientOut(Shape):
    """A person, by the columns of the import."""

    id: str
    external_id: str | None
    email: str | None
    first_name: str | None
    last_name: str | None
    locale: str | None
    timezone: str | None
    country: str | None
    tags: list[str]
    lists: list[str]
    main_channel: ChannelName | None
    teams_id: str | None
    telegram_id: str | None
    viber_id: str | None
    attributes: dict[str, str]
    unsubscribed_at: Instant | None
    created_at: Instant | None


class RecipientList(Listed):
    items: list[RecipientOut]


class ErasedOut(Shape):
    """The id that nobody has any more, and since when."""

    id: str
    erased_at: Instant


class ConversationOut(Shape):
    account: str
    channel: ChannelName
    state: ConversationState
    last_seen: Instant | None


class RecipientDetail(RecipientOut):
    """With where the person can be reached."""

    conversations: list[ConversationOut]


def recipient_out(recipient: Recipient) -> RecipientOut:
    return RecipientOut(
        id=recipient.id,
        external_id=recipient.external_id,
        email=recipient.email,
        first_name=recipient.first_name,
        last_name=recipient.last_name,
        locale=recipient.locale,
        timezone=recipient.timezone,
        country=recipient.country,
        tags=sorted(recipient.tags),
        lists=sorted(recipient.lists),
        main_channel=recipient.main_channel,
        teams_id=recipient.identities.get(ChannelName.TEAMS),
        telegram_id=recipient.identities.get(ChannelName.TELEGRAM),
        viber_id=recipient.identities.get(ChannelName.VIBER),
        attributes=dict(recipient.attributes),
        unsubscribed_at=recipient.unsubscribed_at,
        created_at=recipient.created_at,
    )


def recipient_detail(recipient: Recipient, conversations: Iterable[Conversation]) -> RecipientDetail:
    return RecipientDetail(
        **dict(recipient_out(recipient)),
        conversations=[
            ConversationOut(
                account=conversation.account,
                channel=conversation.channel,
                state=conversation.state,
                last_seen=conversation.last_seen,
            )
            for conversation in conversations
        ],
    )


class RecipientQuery(Paged):
    q: Search = ""
