"""A database file read out, or filled, as a whole."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson

from broadcast.model import Attempt, Campaign, ChannelName, DeliveryState, Event, PresenceState, Recipient
from broadcast.model import Broadcast as Launch
from broadcast.ports import PresenceCount
from storage import changes
from storage.codec import BROADCAST, CAMPAIGN, instant, micros, micros_or_none
from storage.errors import CannotOpen
from storage.records import KINDS, PAGE, Counter, Holder, NamedList, Record, Remembered, Seen, Story
from storage.sqlite import backup, rows
from storage.sqlite.connection import connect, meaning, prepare

T = TypeVar("T")

#: How each kind is read: its rows, and what one of them is. A delivery is read with its story (`_stories`).
_READ: dict[str, tuple[str, Callable[[rows.Row], Record]]] = {
    "lists": ("SELECT id, name FROM lists", lambda row: NamedList(*row)),
    "recipients": (f"SELECT {rows.RECIPIENT} FROM recipients r ORDER BY id", rows.recipient),  # noqa: S608 - our columns
    "conversations": (f"SELECT {rows.CONVERSATION} FROM conversations c ORDER BY id", rows.conversation),  # noqa: S608
    "campaigns": ("SELECT id, doc FROM campaigns ORDER BY id", lambda row: CAMPAIGN.decode(row[0], row[1])),
    "broadcasts": ("SELECT id, doc FROM broadcasts ORDER BY id", lambda row: BROADCAST.decode(row[0], row[1])),
    "tally": ("SELECT broadcast, path, count FROM tally WHERE count <> 0", lambda row: Counter(*row)),
    "waiting": (
        "SELECT account, user_id, type, message_id, at, up_to, detail FROM waiting ORDER BY number",
        rows.receipt,
    ),
    "inbound": ("SELECT account, key, at FROM inbound", lambda row: Seen(row[0], row[1], instant(row[2]))),
    "presence": (
        "SELECT channel, hour, state, count FROM presence",
        lambda row: PresenceCount(ChannelName(row[0]), row[1], PresenceState(row[2]), row[3]),
    ),
    "tokens": ("SELECT id, hash, role, name, created_at FROM tokens", rows.token),
    "answers": (
        "SELECT key, fingerprint, answer, at FROM answers",
        lambda row: Remembered(row[0], row[1], b64encode(row[2]).decode(), instant(row[3])),
    ),
}
_DELIVERIES = f"SELECT {rows.DELIVERY}, d.key, d.last_attempt FROM {rows.LEDGER} ORDER BY d.key"  # noqa: S608

#: The columns of a delivery are those of `rows.of_delivery`.
_INSERT_DELIVERY = """
    INSERT INTO deliveries (
        key, last_attempt, id, broadcast, recipient, position, channel, account, conversation, state, reason, round,
        rung, due_at, attempts, sends, tries, throttles, rung_at, attempted_at, ended_at, sent_at,
        platform_message_id, possibly_doubled, delivered_at, read_at, clicked_at
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class SqliteWhole:
    """One connection in a thread of its own. See `Target` for what may be relied on."""

    def __init__(self, path: Path, *, filling: bool) -> None:
        self.name = str(path)
        self._path = path
        self._file = path.with_name(f"{path.name}.copying") if filling else path
        self._filling = filling
        self._finished = False
        self._lines = 0
        self._deliveries = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clarion-whole")
        self._db: sqlite3.Connection | None = None

    @classmethod
    async def source(cls, path: Path) -> Self:
        """Of a database that is there; migrates it like any opening. Raises `CannotOpen`."""
        await asyncio.to_thread(_prepared, path)
        whole = cls(path, filling=False)
        await whole._open()
        return whole

    @classmethod
    def target(cls, path: Path) -> Self:
        """Of a database to be made. It is filled in a file beside it, and takes its name when it is finished."""
        if not path.parent.is_dir():
            raise CannotOpen(f"{path}: the folder {path.parent} does not exist; create it or name another file")
        return cls(path, filling=True)

    async def _open(self) -> None:
        self._db = await self._in_thread(lambda: connect(self._file))

    async def holders(self) -> list[Holder]:
        return await self._in_thread(lambda: holders(self._path))

    async def is_empty(self) -> bool:
        return await self._in_thread(lambda: not self._path.exists() or _is_empty(self._path))

    async def count(self, kind: str) -> int:
        return await self._run(lambda db: int(db.execute(f"SELECT count(*) FROM {kind}").fetchone()[0]))  # noqa: S608

    async def read(self, kind: str) -> AsyncIterator[Sequence[Record]]:
        sql, _ = _READ.get(kind, (_DELIVERIES, None))
        cursor = await self._run(lambda db: db.execute(sql))
        while page := await self._run(lambda db: _page(db, kind, cursor)):
            yield page

    async def begin(self, origin: str) -> None:  # noqa: ARG002 - a file that is in the making speaks for itself
        await self._in_thread(lambda: backup.remove(self._file))
        await self._in_thread(lambda: prepare(self._file))
        await self._open()
        await self._run(lambda db: db.execute("PRAGMA synchronous = OFF"))  # nobody uses it before `finish`

    async def write(self, kind: str, records: Sequence[Record]) -> None:
        await self._run(lambda db: self._insert(db, kind, records))

    async def finish(self) -> None:
        await self._shut()
        await self._in_thread(self._take_place)
        self._finished = True

    def _take_place(self) -> None:
        if self._path.exists():  # an empty one
            backup.close_for_good(self._path)
        backup.put_in_place(self._file, self._path)

    async def close(self) -> None:
        await self._shut()
        if self._filling and not self._finished:
            await self._in_thread(lambda: backup.remove(self._file))
        self._thread.shutdown()

    async def _shut(self) -> None:
        if self._db is not None:
            await self._in_thread(self._db.close)
            self._db = None

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._db
        if db is None:
            raise CannotOpen(f"{self.name}: not open")
        return await self._in_thread(lambda: work(db))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            told = meaning(error)
            raise (error if told is error else type(told)(f"{self.name}: {told}")) from error

    # --- filling ------------------------------------------------------------------------------------

    def _insert(self, db: sqlite3.Connection, kind: str, records: Sequence[Record]) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            if kind == "deliveries":
                self._insert_stories(db, records)
            else:
                for statement, values in _statements(kind, records):
                    db.executemany(statement, values)
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _insert_stories(self, db: sqlite3.Connection, stories: Iterable[Story]) -> None:
        for story in stories:
            self._deliveries += 1
            key, last = self._deliveries, self._insert_lines(db, self._deliveries, story.attempts)
            db.execute(_INSERT_DELIVERY, (key, last, *rows.of_delivery(story.delivery)))
            if story.delivery.state is DeliveryState.SENDING:
                db.execute(
                    "INSERT INTO sending (key, account, sends, rung_at) VALUES (?, ?, ?, ?)",
                    rows.of_intent(key, story.delivery),
                )
            db.executemany(
                "INSERT INTO events (key, delivery, type, at, button, detail) VALUES (?, ?, ?, ?, ?, ?)",
                [(one.key, key, str(one.type), micros(one.at), one.button, one.detail) for one in story.events],
            )

    def _insert_lines(self, db: sqlite3.Connection, delivery: int, attempts: Iterable[Attempt]) -> int | None:
        """Answers the key of the last one."""
        previous = None
        for attempt in attempts:
            self._lines += 1
            db.execute(
                """
                INSERT INTO attempts (key, delivery, previous, at, round, rung, outcome, detail)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                """,
                (self._lines, delivery, previous, *rows.of_attempt(attempt)),
            )
            previous = self._lines
        return previous


def _prepared(path: Path) -> None:
    if not path.is_file():
        raise CannotOpen(f"{path}: there is no database; check the address")
    prepare(path)


def holders(path: Path, *, now: Callable[[], float] = time.time) -> list[Holder]:
    """Whoever holds a lease in the file, if there is one, that has not run out."""
    if not path.is_file():
        return []
    with backup.told(path), closing(connect(path)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'leases'").fetchone():
            return []
        sql = "SELECT account, owner FROM leases WHERE owner IS NOT NULL AND expires > ? ORDER BY account"
        return [Holder(*row) for row in db.execute(sql, (now(),))]


def _is_empty(path: Path) -> bool:
    """A file without any table is empty too."""
    with backup.told(path), closing(connect(path)) as db:
        there = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        ours = [kind for kind in KINDS if kind in there]
        if there and not ours:
            return False
        return not any(db.execute(f"SELECT 1 FROM {kind} LIMIT 1").fetchone() for kind in ours)  # noqa: S608


# --- reading ------------------------------------------------------------------------------------------


def _page(db: sqlite3.Connection, kind: str, cursor: sqlite3.Cursor) -> list[Record]:
    found = cursor.fetchmany(PAGE)
    if kind == "deliveries":
        return _stories(db, found)
    _, read = _READ[kind]
    return [read(row) for row in found]


def _stories(db: sqlite3.Connection, found: Sequence[rows.Row]) -> list[Story]:
    ids = {row[-2]: row[0] for row in found}
    attempts: dict[int, list[Attempt]] = {key: [] for key in ids}
    events: dict[int, list[Event]] = {key: [] for key in ids}
    lines = """
        WITH RECURSIVE line (key) AS (
            SELECT value FROM json_each(?)
            UNION ALL
            SELECT a.previous FROM line JOIN attempts a ON a.key = line.key WHERE a.previous IS NOT NULL
        )
        SELECT a.delivery, a.at, a.round, a.rung, a.outcome, a.detail
        FROM line JOIN attempts a ON a.key = line.key ORDER BY a.key
    """
    for key, *line in db.execute(lines, (_json(row[-1] for row in found if row[-1] is not None),)):
        attempts[key].append(rows.attempt((ids[key], *line)))
    came = """
        SELECT delivery, key, type, at, button, detail FROM events
        WHERE delivery IN (SELECT value FROM json_each(?)) ORDER BY number
    """
    for of, key, *rest in db.execute(came, (_json(ids),)):
        events[of].append(rows.event((key, ids[of], *rest)))
    return [Story(rows.delivery(row), tuple(attempts[row[-2]]), tuple(events[row[-2]])) for row in found]


def _json(values: Iterable[int]) -> str:
    return orjson.dumps([*values]).decode()


# --- writing ------------------------------------------------------------------------------------------

_Statement = tuple[str, list[Sequence[Any]]]


def _statements(kind: str, records: Sequence[Record]) -> list[_Statement]:
    """What puts the records of any kind but deliveries into their tables."""
    if kind == "recipients":
        return _people(records)
    sql, row = _WRITE[kind]
    return [(sql, [row(record) for record in records])]


def _people(people: Sequence[Recipient]) -> list[_Statement]:
    recipients = """
        INSERT INTO recipients (
            id, external_id, email, email_folded, first_name, last_name, locale, timezone, country, main_channel,
            doc, created_at, search, unsubscribed_at
        ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
    named = [(str(channel), id, one.id) for one in people for channel, id in one.identities.items()]
    return [
        (recipients, [(*rows.of_recipient(one), micros_or_none(one.unsubscribed_at)) for one in people]),
        ("INSERT INTO identities (channel, user_id, recipient) VALUES (?, ?, ?)", [*named]),
        (
            "INSERT INTO memberships (recipient, list) VALUES (?, ?)",
            [(one.id, name) for one in people for name in sorted(one.lists)],
        ),
    ]


def _of_campaign(one: Campaign) -> rows.Row:
    made = micros(one.created_at)
    return one.id, one.name, changes.fold(one.name), str(one.status), made, CAMPAIGN.encode(one)


def _of_broadcast(one: Launch) -> rows.Row:
    launched = micros(one.launched_at)
    return one.id, one.campaign, str(one.kind), str(one.status), launched, BROADCAST.encode(one)


_WRITE: dict[str, tuple[str, Callable[[Any], rows.Row]]] = {
    "lists": ("INSERT INTO lists (id, name) VALUES (?, ?)", lambda one: (one.id, one.name)),
    "conversations": (
        """
        INSERT INTO conversations (id, account, channel, recipient, user_id, reference, state, last_seen)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        """,
        rows.of_conversation,
    ),
    "campaigns": (
        "INSERT INTO campaigns (id, name, name_folded, status, created_at, doc) VALUES (?, ?, ?, ?, ?, ?)",
        _of_campaign,
    ),
    "broadcasts": (
        "INSERT INTO broadcasts (id, campaign, kind, status, launched_at, doc) VALUES (?, ?, ?, ?, ?, ?)",
        _of_broadcast,
    ),
    "tally": (
        "INSERT INTO tally (broadcast, path, count) VALUES (?, ?, ?)",
        lambda one: (one.broadcast, one.path, one.count),
    ),
    "waiting": (
        "INSERT INTO waiting (account, user_id, type, message_id, at, up_to, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
        rows.of_receipt,
    ),
    "inbound": (
        "INSERT INTO inbound (account, key, at) VALUES (?, ?, ?)",
        lambda one: (one.account, one.key, micros(one.at)),
    ),
    "presence": (
        "INSERT INTO presence (channel, hour, state, count) VALUES (?, ?, ?, ?)",
        lambda one: (one.channel.value, one.hour, one.state.value, one.count),
    ),
    "tokens": (
        "INSERT INTO tokens (id, hash, role, name, created_at) VALUES (?, ?, ?, ?, ?)",
        lambda one: (one.id, one.hash, one.role, one.name, micros(one.created_at)),
    ),
    "answers": (
        "INSERT INTO answers (key, fingerprint, answer, at) VALUES (?, ?, ?, ?)",
        lambda one: (one.key, one.fingerprint, b64decode(one.answer), micros(one.at)),
    ),
}
