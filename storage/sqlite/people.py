"""Recipients, lists and conversations."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from broadcast.errors import Conflict
from broadcast.model import Audience, Conversation, ConversationState, Reason, Recipient
from broadcast.ports import Listing, Page
from storage import changes, codec
from storage.sqlite import rows
from storage.sqlite.base import Base, ids, one
from storage.sqlite.batches import Padded, Rows
from storage.sqlite.lanes import Unit
from storage.sqlite.skipping import mark, skip_planned


class People(Base):
    async def recipient(self, id: str) -> Recipient | None:
        return await self._read(lambda db: _recipient(db, id))

    async def match_recipients(self, wanted: Sequence[Recipient]) -> list[Recipient | None]:
        return await self._read(lambda db: [_match(db, one) for one in wanted])

    async def save_recipients(self, recipients: Sequence[Recipient]) -> None:
        batch = rows_of(recipients)
        await self._write(lambda unit: save_recipients(unit.db, batch))

    async def recipients(self, q: str, page: Page) -> Listing[Recipient]:
        wanted = changes.fold(q)

        def run(db: sqlite3.Connection) -> Listing[Recipient]:
            sql = "SELECT count(*) FROM recipients WHERE instr(search, ?)"
            (total,) = db.execute(sql, (wanted,)).fetchone()
            found = db.execute(
                f"SELECT {rows.RECIPIENT} FROM recipients r WHERE instr(search, ?) ORDER BY id LIMIT ? OFFSET ?",  # noqa: S608 - our columns
                (wanted, page.per_page, page.offset),
            )
            return Listing(tuple(map(rows.recipient, found)), total)

        return await self._list(run)

    async def audience(
        self, audience: Audience, *, after: str, limit: int
    ) -> list[tuple[Recipient, tuple[Conversation, ...]]]:
        return await self._list(lambda db: _audience(db, audience, after, limit))

    async def audience_size(self, audience: Audience) -> int:
        sql = f"SELECT count(*) FROM recipients r {_MEANT}"  # noqa: S608 - constant
        return await self._list(lambda db: int(db.execute(sql, _named(audience)).fetchone()[0]))

    async def attribute_names(self) -> frozenset[str]:
        def run(db: sqlite3.Connection) -> frozenset[str]:
            sql = "SELECT DISTINCT a.key FROM recipients r, json_each(r.doc, '$.attributes') a"
            return frozenset(name for (name,) in db.execute(sql))

        return await self._list(run)

    async def set_unsubscribed(self, recipient: str, at: datetime | None) -> None:
        await self._write(lambda unit: set_unsubscribed(unit, recipient, at))

    async def list_ids(self) -> Mapping[str, str]:
        return await self._read(lambda db: dict(db.execute("SELECT id, name FROM lists ORDER BY id").fetchall()))

    async def ensure_lists(self, lists: Mapping[str, str]) -> None:
        named = list(lists.items())
        await self._write(lambda unit: unit.db.executemany("INSERT OR IGNORE INTO lists VALUES (?, ?)", named))

    async def conversation(self, account: str, user_id: str) -> Conversation | None:
        return await self._read(lambda db: conversation_with(db, account, user_id))

    async def conversations_of(self, recipient: str) -> list[Conversation]:
        return await self._read(lambda db: _conversations_of(db, [recipient])[recipient])

    async def save_conversations(self, conversations: Sequence[Conversation]) -> None:
        batch = [replace(given, reference=codec.json_copy(given.reference)) for given in conversations]

        def run(unit: Unit) -> None:
            for given in batch:
                _save_conversation(unit.db, given)

        await self._write(run)

    async def mark_conversation(self, id: str, state: ConversationState, at: datetime) -> None:
        await self._write(lambda unit: mark(unit, id, state, at))


def _recipient(db: sqlite3.Connection, id: str) -> Recipient | None:
    sql = f"SELECT {rows.RECIPIENT} FROM recipients r WHERE id = ?"  # noqa: S608 - our columns
    return one(db.execute(sql, (id,)).fetchone(), rows.recipient)


def _match(db: sqlite3.Connection, wanted: Recipient) -> Recipient | None:
    """By external id, else e-mail, else an identity: the first that names somebody."""
    by_column = [("SELECT id FROM recipients WHERE external_id = ?", (wanted.external_id,))]
    if wanted.email is not None:
        by_column.append(("SELECT id FROM recipients WHERE email_folded = ?", (changes.fold(wanted.email),)))
    for sql, key in by_column:
        if (found := db.execute(sql, key).fetchone()) is not None:
            return _recipient(db, found[0])
    for channel, user_id in wanted.identities.items():
        sql = "SELECT recipient FROM identities WHERE channel = ? AND user_id = ?"
        if (found := db.execute(sql, (str(channel), user_id)).fetchone()) is not None:
            return _recipient(db, found[0])
    return None


def rows_of(recipients: Iterable[Recipient]) -> dict[str, tuple[Recipient, rows.Row]]:
    return {recipient.id: (recipient, rows.of_recipient(recipient)) for recipient in recipients}


def save_recipients(db: sqlite3.Connection, batch: Mapping[str, tuple[Recipient, rows.Row]]) -> None:
    """What names a person may move within the batch: all of it is let go of first, then claimed."""
    there = "SELECT id FROM recipients WHERE id IN (SELECT value FROM json_each(?))"
    if known := [id for (id,) in db.execute(there, (ids(batch),))]:
        _let_go(db, known)
    try:
        _insert(db, [*batch.values()])
    except sqlite3.IntegrityError:
        _let_go(db, batch)
        for one_of_them in batch.values():  # each alone, to tell whose it is
            _save_recipient(db, *one_of_them)


def _let_go(db: sqlite3.Connection, batch: Iterable[str]) -> None:
    mine = (ids(batch),)
    db.execute("DELETE FROM identities WHERE recipient IN (SELECT value FROM json_each(?))", mine)
    db.execute("DELETE FROM memberships WHERE recipient IN (SELECT value FROM json_each(?))", mine)
    db.execute(
        """
        UPDATE recipients SET external_id = NULL, email_folded = NULL
        WHERE id IN (SELECT value FROM json_each(?))
        """,
        mine,
    )


def _save_recipient(db: sqlite3.Connection, recipient: Recipient, row: rows.Row) -> None:
    try:
        _insert(db, [(recipient, row)])
    except sqlite3.IntegrityError as error:
        raise Conflict(
            f"the external id, e-mail or a channel id of {recipient.id} belongs to another recipient"
        ) from error


_RECIPIENTS = Padded(
    """
    INSERT INTO recipients (
        id, external_id, email, email_folded, first_name, last_name, locale, timezone, country, main_channel,
        doc, created_at, search
    ) SELECT * FROM (VALUES
    """,
    13,
    """
    ) WHERE column1 IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET
        external_id = excluded.external_id, email = excluded.email, email_folded = excluded.email_folded,
        first_name = excluded.first_name, last_name = excluded.last_name, locale = excluded.locale,
        timezone = excluded.timezone, country = excluded.country, main_channel = excluded.main_channel,
        doc = excluded.doc, created_at = excluded.created_at, search = excluded.search
    """,
)
_IDENTITIES = Padded("INSERT INTO identities SELECT * FROM (VALUES", 3, ") WHERE column1 IS NOT NULL")
_MEMBERSHIPS = Rows("INSERT INTO memberships VALUES", 2)
_CONVERSATIONS = Padded(
    "INSERT INTO conversations SELECT * FROM (VALUES",
    8,
    """
    ) WHERE column1 IS NOT NULL
    ON CONFLICT (account, user_id) DO UPDATE SET
        recipient = excluded.recipient, reference = excluded.reference, state = excluded.state,
        last_seen = excluded.last_seen
    """,
)


def _insert(db: sqlite3.Connection, people: Sequence[tuple[Recipient, rows.Row]]) -> None:
    _RECIPIENTS.run(db, [row for _, row in people])
    ids_of = [(str(channel), id, person.id) for person, _ in people for channel, id in person.identities.items()]
    _IDENTITIES.run(db, ids_of)
    _MEMBERSHIPS.run(db, [(person.id, name) for person, _ in people for name in person.lists])


#: Lists, segments and recipients add up; excluded lists take away. No segment can be stored yet.
_MEANT = """
    WHERE (
        :everybody
        OR r.id IN (SELECT value FROM json_each(:recipients))
        OR EXISTS (SELECT 1 FROM json_each(:lists) l, memberships m WHERE m.recipient = r.id AND m.list = l.value)
    )
    AND NOT EXISTS (
        SELECT 1 FROM json_each(:excluded) l, memberships m WHERE m.recipient = r.id AND m.list = l.value
    )
"""


def _named(audience: Audience) -> dict[str, object]:
    return {
        "everybody": audience.everybody,
        "recipients": ids(audience.recipients),
        "lists": ids(audience.lists),
        "excluded": ids(audience.exclude_lists),
    }


def _audience(
    db: sqlite3.Connection, audience: Audience, after: str, limit: int
) -> list[tuple[Recipient, tuple[Conversation, ...]]]:
    sql = f"SELECT {rows.RECIPIENT} FROM recipients r {_MEANT} AND r.id > :after ORDER BY r.id LIMIT :limit"  # noqa: S608 - constant
    found = db.execute(sql, {**_named(audience), "after": after, "limit": limit}).fetchall()
    people = [rows.recipient(row) for row in found]
    conversations = _conversations_of(db, [person.id for person in people])
    return [(person, tuple(conversations[person.id])) for person in people]


def _conversations_of(db: sqlite3.Connection, recipients: Sequence[str]) -> dict[str, list[Conversation]]:
    found: dict[str, list[Conversation]] = defaultdict(list)
    for row in db.execute(
        f"""
        SELECT {rows.CONVERSATION} FROM conversations c
        WHERE recipient IN (SELECT value FROM json_each(?)) ORDER BY id
        """,  # noqa: S608 - our columns
        (ids(recipients),),
    ):
        conversation = rows.conversation(row)
        found[conversation.recipient].append(conversation)
    return found


def conversation_with(db: sqlite3.Connection, account: str, user_id: str) -> Conversation | None:
    sql = f"SELECT {rows.CONVERSATION} FROM conversations c WHERE account = ? AND user_id = ?"  # noqa: S608 - our columns
    return one(db.execute(sql, (account, user_id)).fetchone(), rows.conversation)


def _save_conversation(db: sqlite3.Connection, given: Conversation) -> None:
    keep_conversations(db, [changes.merged(conversation_with(db, given.account, given.user_id), given)])


def keep_conversations(db: sqlite3.Connection, merged: Sequence[Conversation]) -> None:
    """Each as it is to be kept, of as many people."""
    try:
        _CONVERSATIONS.run(db, [rows.of_conversation(conversation) for conversation in merged])
    except sqlite3.IntegrityError as error:
        told = merged[0].id if len(merged) == 1 else "one of those given"
        raise Conflict(f"conversation {told} is of another user") from error


def set_unsubscribed(unit: Unit, recipient: str, at: datetime | None) -> None:
    since = codec.micros_or_none(at)
    changed = unit.db.execute(
        """
        UPDATE recipients
        SET unsubscribed_at = CASE WHEN :at IS NULL THEN NULL ELSE coalesce(unsubscribed_at, :at) END
        WHERE id = :id
        """,
        {"at": since, "id": recipient},
    ).rowcount
    if not changed:
        return
    unit.raise_control()
    if at is not None:
        skip_planned(unit, recipient=recipient, reason=Reason.UNSUBSCRIBED, at=at)
