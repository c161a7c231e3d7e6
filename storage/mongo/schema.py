"""The collections and their indexes, as numbered steps from the first one on.

A step that was released is never edited: add another. A step may run twice, or in two processes at once, and must
come out the same: that is how two that start together are safe without a lock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.errors import PyMongoError

from storage.codec import BROADCAST, micros_or_none
from storage.errors import TooNew
from storage.mongo.claiming import CLOSED, UNSUBSCRIBED
from storage.mongo.connection import Connection, opening
from storage.mongo.meaning import code_of

_EXISTS = 48  # the server's code for a collection that is there already
_NO_SUCH_INDEX = 27


@dataclass(frozen=True, slots=True)
class Index:
    """`unique`: of those that have the first field at all. `only`: which documents are in it."""

    name: str
    keys: Mapping[str, int]
    unique: bool = False
    only: Mapping[str, Any] | None = None

    def described(self) -> dict[str, Any]:
        described: dict[str, Any] = {"name": self.name, "key": dict(self.keys)}
        if self.unique:
            described |= {"unique": True, "sparse": True}
        if self.only is not None:
            described["partialFilterExpression"] = dict(self.only)
        return described


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: takes the schema from ``number - 1`` to ``number``."""

    number: int
    title: str
    collections: Mapping[str, tuple[Index, ...]] = field(default_factory=dict)
    change: Callable[[Connection], Awaitable[None]] | None = None


_FIRST = Migration(
    1,
    "people, campaigns, the ledger, what came in, who may",
    {
        "recipients": (
            # `names`: external id, e-mail and channel ids, each of one recipient only
            Index("named", {"names": 1}, unique=True),
            Index("on_list", {"lists": 1, "_id": 1}),
        ),
        "lists": (),
        "conversations": (
            Index("with_user", {"account": 1, "user_id": 1}, unique=True),
            Index("of_recipient", {"recipient": 1, "_id": 1}),
        ),
        "campaigns": (Index("named", {"name_folded": 1}), Index("newest", {"created_at": -1, "_id": -1})),
        "broadcasts": (
            Index("by_status", {"status": 1, "_id": 1}),
            Index("newest", {"launched_at": -1, "_id": -1}),
            Index("of_campaign", {"campaign": 1}),
        ),
        "tally": (Index("of_broadcast", {"broadcast": 1}),),
        "control": (),
        "deliveries": (
            # What is due: paused broadcasts are never looked at, each running one is read from its first due on.
            # What is in flight is in it too: every index of this collection has its price at every change of state.
            Index(
                "due",
                {"account": 1, "state": 1, "broadcast": 1, "due_at": 1, "position": 1, "_id": 1},
                only={"state": {"$in": ["planned", "sending"]}},
            ),
            Index("in_order", {"broadcast": 1, "position": 1, "_id": 1}),
            Index("to_recipient", {"recipient": 1}),
            Index("on_conversation", {"conversation": 1}),
        ),
        "events": (Index("of_delivery", {"delivery": 1, "type": 1}),),
        "inbound": (),
        # receipts that may have overtaken the outcome they speak of; empty most of the time
        "waiting": (Index("once", {"conversation": 1, "type": 1, "message_id": 1, "up_to": 1}, unique=True),),
        "leases": (),
        "tokens": (Index("with_hash", {"hash": 1}, unique=True),),
        "answers": (),
    },
)

_PRESENCE = Migration(
    2, "how often each presence was answered, by hour of the week over everybody", {"presence": ()}
)


async def _tell_when_finished(connection: Connection) -> None:
    """Broadcasts tell beside their document what retention asks of them."""
    for one in await connection.access.all("broadcasts", {"removal_done": {"$exists": False}}):
        broadcast = BROADCAST.decode(one["_id"], one["doc"])
        told = {"finished_at": micros_or_none(broadcast.finished_at), "removal_done": broadcast.removal_done}
        unchanged = {"_id": one["_id"], "doc": one["doc"]}  # whoever changes it meanwhile tells it as well
        await connection.access.update("broadcasts", unchanged, {"$set": told})


_RETENTION = Migration(
    3,
    "which broadcasts ended when, for those that are old to be found",
    {"broadcasts": (Index("finished", {"finished_at": 1, "_id": 1}, only={"removal_done": False}),)},
    change=_tell_when_finished,
)


async def _untie_states(connection: Connection) -> None:
    """What is in flight is told by the leases, and the index that all changes of state wrote goes."""
    flying: dict[str, list[str]] = defaultdict(list)
    for one in await connection.access.all("deliveries", {"state": "sending"}, {"account": True}):
        flying[one["account"]].append(one["_id"])
    for account, ids in flying.items():
        await connection.access.update("leases", {"_id": account}, {"$set": {"claims.before": ids}}, upsert=True)
    await connection.access.update_many("deliveries", {"state": "planned"}, [{"$set": {"turn": "$due_at"}}])
    try:
        await connection.command({"dropIndexes": "deliveries", "index": "due"})
    except PyMongoError as error:
        if code_of(error) != _NO_SUCH_INDEX:
            raise


_STATELESS = Migration(
    4,
    "no index is written when a delivery changes its state",
    {
        # What was planned where, each broadcast of an account in the order in which it is due, from its edge on.
        "deliveries": (Index("in_turn", {"account": 1, "broadcast": 1, "turn": 1, "position": 1, "_id": 1}),),
        "edges": (),
        # Those few who may not be written to.
        "recipients": (Index("unsubscribed", {"_id": 1, "unsubscribed_at": 1}, only=UNSUBSCRIBED),),
        "conversations": (Index("closed", {"_id": 1, "state": 1}, only=CLOSED),),
    },
    change=_untie_states,
)

MIGRATIONS: Sequence[Migration] = (_FIRST, _PRESENCE, _RETENTION, _STATELESS)


async def opened(url: str, *, slots: range) -> Connection:
    """A connection to a database of this version, created or migrated first. Raises `CannotOpen`."""
    connection = Connection(url, slots=slots)
    try:
        await connection.check()
        await prepare(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


async def prepare(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Makes the database one of this version; safe beside others that do the same. Raises `TooNew`."""
    with opening(connection.name):
        version, newest = await _version(connection), migrations[-1].number
        if version > newest:
            raise TooNew(
                f"the database has schema {version} and this version knows {newest}; "
                "upgrade Clarion, or restore a backup made before the upgrade"
            )
        for migration in migrations[version:]:
            await _apply(connection, migration)
            reached = {"$max": {"version": migration.number}}
            await connection.access.update("meta", {"_id": "schema"}, reached, upsert=True)


async def _version(connection: Connection) -> int:
    stored = await connection.access.one("meta", {"_id": "schema"})
    return int(stored["version"]) if stored else 0


async def _apply(connection: Connection, migration: Migration) -> None:
    there = await connection.collections()
    for collection, indexes in migration.collections.items():
        if collection not in there:
            await _create(connection, collection)
        if indexes:
            described = [index.described() for index in indexes]
            await connection.command({"createIndexes": collection, "indexes": described})
    if migration.change is not None:
        await migration.change(connection)


async def _create(connection: Connection, collection: str) -> None:
    try:
        await connection.command({"create": collection})
    except PyMongoError as error:
        if code_of(error) != _EXISTS:
            raise
