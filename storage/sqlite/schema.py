"""The tables, as numbered steps from the first one on. A step that was released is never edited: add another.

Instants are whole microseconds since 1970 in UTC. Closed sets are kept as their words. Only what belongs to its
owner's row has a foreign key: on the ledger each key would cost a lookup per write, and what it points at is
never deleted before it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: takes the schema from ``number - 1`` to ``number``."""

    number: int
    title: str
    statements: tuple[str, ...]


_PEOPLE = Migration(
    1,
    "people and where they can be reached",
    (
        # `doc`: tags, lists, identities, attributes; `search`: what `q` is looked for in, folded
        """
        CREATE TABLE recipients (
            id TEXT NOT NULL PRIMARY KEY, external_id TEXT UNIQUE, email TEXT, email_folded TEXT UNIQUE,
            first_name TEXT, last_name TEXT, locale TEXT, timezone TEXT, country TEXT, main_channel TEXT,
            doc TEXT NOT NULL, unsubscribed_at INTEGER, created_at INTEGER, search TEXT NOT NULL
        )
        """,
        """
        CREATE TABLE identities (
            channel TEXT NOT NULL, user_id TEXT NOT NULL,
            recipient TEXT NOT NULL REFERENCES recipients (id) ON DELETE CASCADE,
            PRIMARY KEY (channel, user_id)
        ) WITHOUT ROWID
        """,
        # Few people and conversations: what speaks against a send is looked up here, and mostly not found.
        "CREATE INDEX recipients_unsubscribed ON recipients (id) WHERE unsubscribed_at IS NOT NULL",
        "CREATE INDEX identities_of ON identities (recipient)",
        """
        CREATE TABLE memberships (
            recipient TEXT NOT NULL REFERENCES recipients (id) ON DELETE CASCADE, list TEXT NOT NULL,
            PRIMARY KEY (recipient, list)
        ) WITHOUT ROWID
        """,
        "CREATE TABLE lists (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID",
        """
        CREATE TABLE conversations (
            id TEXT NOT NULL PRIMARY KEY, account TEXT NOT NULL, channel TEXT NOT NULL, recipient TEXT NOT NULL,
            user_id TEXT NOT NULL, reference TEXT NOT NULL, state TEXT NOT NULL, last_seen INTEGER,
            UNIQUE (account, user_id)
        )
        """,
        "CREATE INDEX conversations_of ON conversations (recipient)",
        "CREATE INDEX conversations_closed ON conversations (id) WHERE state <> 'reachable'",
    ),
)

_CAMPAIGNS = Migration(
    2,
    "campaigns, their launches, and the counters",
    (
        """
        CREATE TABLE campaigns (
            id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, name_folded TEXT NOT NULL, status TEXT NOT NULL,
            created_at INTEGER NOT NULL, doc TEXT NOT NULL
        )
        """,
        "CREATE INDEX campaigns_named ON campaigns (name_folded)",
        """
        CREATE TABLE broadcasts (
            id TEXT NOT NULL PRIMARY KEY, campaign TEXT NOT NULL, kind TEXT NOT NULL, status TEXT NOT NULL,
            launched_at INTEGER NOT NULL, doc TEXT NOT NULL
        )
        """,
        "CREATE INDEX broadcasts_by_status ON broadcasts (status, id)",
        "CREATE INDEX broadcasts_of ON broadcasts (campaign)",
        """
        CREATE TABLE tally (
            broadcast TEXT NOT NULL, path TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (broadcast, path)
        ) WITHOUT ROWID
        """,
        "CREATE TABLE control (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL)",
        "INSERT INTO control VALUES (1, 0)",
    ),
)

_LEDGER = Migration(
    3,
    "deliveries and the lines of their timelines",
    (
        """
        CREATE TABLE deliveries (
            key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, broadcast TEXT NOT NULL, recipient TEXT NOT NULL,
            position INTEGER NOT NULL, channel TEXT, account TEXT, conversation TEXT, state TEXT NOT NULL,
            reason TEXT, round INTEGER NOT NULL, rung TEXT NOT NULL, due_at INTEGER, attempts INTEGER NOT NULL,
            sends INTEGER NOT NULL, tries INTEGER NOT NULL, throttles INTEGER NOT NULL, rung_at INTEGER,
            attempted_at INTEGER, ended_at INTEGER, sent_at INTEGER, delivered_at INTEGER, read_at INTEGER,
            clicked_at INTEGER, platform_message_id TEXT, possibly_doubled INTEGER NOT NULL, last_attempt INTEGER
        )
        """,
        # The intent to send, a short note beside the ledger: a delivery with one is in `sending`, while its own
        # row stays `planned` until the outcome is written. That halves what a delivery costs to write.
        """
        CREATE TABLE sending (
            key INTEGER PRIMARY KEY, account TEXT NOT NULL, sends INTEGER NOT NULL, rung_at INTEGER
        )
        """,
        # What is due: paused broadcasts are never looked at, each running one is read from its first due on, in
        # the order that is asked for. What is left of a broadcast, to be cancelled, is found here too.
        """
        CREATE INDEX deliveries_due ON deliveries (broadcast, account, due_at, position, id)
        WHERE state = 'planned'
        """,
        "CREATE INDEX deliveries_in_order ON deliveries (broadcast, position, id)",
        "CREATE INDEX deliveries_to ON deliveries (recipient)",
        "CREATE INDEX deliveries_on ON deliveries (conversation)",
        # Each line names the one before it and the delivery its last: appended to, never searched, so no index.
        """
        CREATE TABLE attempts (
            key INTEGER PRIMARY KEY, delivery INTEGER NOT NULL, previous INTEGER, at INTEGER NOT NULL,
            round INTEGER NOT NULL, rung TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT
        )
        """,
    ),
)

_INBOX = Migration(
    4,
    "what came in",
    (
        """
        CREATE TABLE inbound (
            account TEXT NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (account, key)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE events (
            number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, delivery INTEGER NOT NULL, type TEXT NOT NULL,
            at INTEGER NOT NULL, button TEXT, detail TEXT
        )
        """,
        "CREATE INDEX events_of ON events (delivery, type)",
        # receipts that may have overtaken the outcome they speak of; empty most of the time
        """
        CREATE TABLE waiting (
            number INTEGER PRIMARY KEY, account TEXT NOT NULL, user_id TEXT NOT NULL, type TEXT NOT NULL,
            message_id TEXT NOT NULL, at INTEGER NOT NULL, up_to INTEGER NOT NULL, detail TEXT,
            UNIQUE (account, user_id, type, message_id, up_to)
        )
        """,
    ),
)

_ACCESS = Migration(
    5,
    "leases, tokens and remembered answers",
    (
        """
        CREATE TABLE leases (
            account TEXT NOT NULL PRIMARY KEY, owner TEXT, fence INTEGER NOT NULL, expires REAL NOT NULL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE tokens (
            id TEXT NOT NULL PRIMARY KEY, hash TEXT NOT NULL UNIQUE, role TEXT NOT NULL, name TEXT NOT NULL,
            created_at INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE answers (
            key TEXT NOT NULL PRIMARY KEY, fingerprint TEXT NOT NULL, answer BLOB NOT NULL, at INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
    ),
)

_PRESENCE = Migration(
    6,
    "how often each presence was answered, by hour of the week over everybody",
    (
        """
        CREATE TABLE presence (
            channel TEXT NOT NULL, hour INTEGER NOT NULL, state TEXT NOT NULL, count INTEGER NOT NULL,
            PRIMARY KEY (channel, hour, state)
        ) WITHOUT ROWID
        """,
    ),
)

# Every claim reads a person and a conversation by their ids. Kept by id, each is one page to read instead of two;
# and a plan, which is in the order of its people, finds them side by side.
_BY_ID = Migration(
    7,
    "people and conversations kept by their ids",
    (
        """
        CREATE TABLE recipients_by_id (
            id TEXT NOT NULL PRIMARY KEY, external_id TEXT UNIQUE, email TEXT, email_folded TEXT UNIQUE,
            first_name TEXT, last_name TEXT, locale TEXT, timezone TEXT, country TEXT, main_channel TEXT,
            doc TEXT NOT NULL, unsubscribed_at INTEGER, created_at INTEGER, search TEXT NOT NULL
        ) WITHOUT ROWID
        """,
        "INSERT INTO recipients_by_id SELECT * FROM recipients ORDER BY id",
        "DROP TABLE recipients",
        "ALTER TABLE recipients_by_id RENAME TO recipients",
        "CREATE INDEX recipients_unsubscribed ON recipients (id) WHERE unsubscribed_at IS NOT NULL",
        """
        CREATE TABLE conversations_by_id (
            id TEXT NOT NULL PRIMARY KEY, account TEXT NOT NULL, channel TEXT NOT NULL, recipient TEXT NOT NULL,
            user_id TEXT NOT NULL, reference TEXT NOT NULL, state TEXT NOT NULL, last_seen INTEGER,
            UNIQUE (account, user_id)
        ) WITHOUT ROWID
        """,
        "INSERT INTO conversations_by_id SELECT * FROM conversations ORDER BY id",
        "DROP TABLE conversations",
        "ALTER TABLE conversations_by_id RENAME TO conversations",
        "CREATE INDEX conversations_of ON conversations (recipient)",
        "CREATE INDEX conversations_closed ON conversations (id) WHERE state <> 'reachable'",
    ),
)

MIGRATIONS = (_PEOPLE, _CAMPAIGNS, _LEDGER, _INBOX, _ACCESS, _PRESENCE, _BY_ID)
