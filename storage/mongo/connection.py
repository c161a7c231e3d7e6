"""The connection: the one file that knows motor, which is to give way to PyMongo's own asynchronous client.

What the rest of the store sees of it are `Access`, for reads and single writes, and `Unit`, one transaction. All
commands of one call are given from one thread, through the client that motor wraps: a way back to the loop between
them would cost as much as they do.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Protocol, TypeVar

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient, ReturnDocument, uri_parser
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from broadcast.errors import StoreUnavailable
from broadcast.tally import Delta
from storage.errors import CannotOpen
from storage.mongo.meaning import BY_CODE, code_of, is_duplicate, told

T = TypeVar("T")
Document = Mapping[str, Any]
Change = dict[str, Any]
Key = Sequence[tuple[str, Any]]  # of an index, field by field
Run = Callable[["Unit"], Awaitable[T]]


class Hop(Protocol):
    """Does a call to the server where it may wait."""

    async def __call__(self, call: Callable[[], T], /) -> T: ...


_APP = "clarion"
_OLDEST = (6, 0)
_HELP = "write mongodb://host:27017/clarion"
_SECONDS = 1_000  # in milliseconds, as the driver counts

#: What holds unless the address says otherwise.
_DEFAULTS: dict[str, Any] = {
    "appname": _APP,
    "serverSelectionTimeoutMS": 5 * _SECONDS,
    "connectTimeoutMS": 5 * _SECONDS,
    "socketTimeoutMS": 30 * _SECONDS,
    "heartbeatFrequencyMS": 2 * _SECONDS,  # how soon a new primary is known
}
#: What a store promises and no address may take back: what is confirmed survives, what is read was confirmed.
_PROMISED: dict[str, Any] = {"w": "majority", "journal": True, "retryWrites": True, "retryReads": True}

_MAJORITY = WriteConcern(w="majority", j=True)
_SNAPSHOT = ReadConcern("snapshot")

_PATIENCE = 10.0  # seconds for which a transaction that lost a race is begun anew
_COMMIT_PATIENCE = 20.0  # seconds for which the outcome of a commit is asked after
_LONGEST_PAUSE = 0.1  # seconds between two tries
_DUPLICATES = 5  # tries of a transaction that met a key which was not there when it looked
_STUCK = 2.0  # seconds after which, again and again, a transaction in the way is looked for
_ABANDONED = 3 * 1_000_000  # microseconds without a sign after which an open transaction's owner counts as dead
_IN_THE_WAY = 200  # milliseconds after which something stands in the way of a single write, at its first try
_NO_SUCH_TIME = 50  # the server's code for an operation that took longer than it may

_IN_ONE_COMMAND = 1_000  # changes: a command is at most 16 MB
_AT_ONCE = 10_000  # documents of one answer, where they fit into 16 MB

LANES = 6  # transactions at once
_THREADS = 4 * LANES  # for them, and for reads


class OutcomeUnknown(StoreUnavailable):
    """The connection was lost at the commit, for so long that it cannot be told what became of it."""


def change(id: str, update: Document, *, upsert: bool = False) -> Change:
    """What happens to the one document of that id."""
    return change_where({"_id": id}, update, upsert=upsert)


def change_where(filter: Document, update: Document | Sequence[Document], *, upsert: bool = False) -> Change:
    """What happens to the first document that fits."""
    return {"q": filter, "u": update, "upsert": upsert, "multi": False}


def change_all(ids: Iterable[str], update: Document, **more: Any) -> Change:
    """What happens to those of these ids that fit, too, what `more` says of their fields. The ids are what they are
    found by: the server's own choice may be an index in which all that fits lies."""
    return {"q": {"_id": {"$in": [*ids]}, **more}, "u": update, "upsert": False, "multi": True, "hint": "_id_"}


class _Places:
    """A database with its collections, which the driver would make anew each time."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self.db = db
        self.collection = cache(db.get_collection)


class Access:
    """Reads and single writes, in a transaction if there is one. `hop` takes each command to where it may wait."""

    def __init__(self, places: _Places, session: ClientSession | None, hop: Hop) -> None:
        self._db = places.db
        self._at = places.collection
        self._session = session
        self._hop = hop

    async def one(self, collection: str, filter: Document, fields: Document | None = None) -> dict[str, Any] | None:
        return await self._hop(lambda: self._at(collection).find_one(filter, fields, session=self._session))

    async def all(
        self,
        collection: str,
        filter: Document,
        fields: Document | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        skip: int = 0,
        hint: str | None = None,
        stretch: tuple[Key, Key] | None = None,
    ) -> list[dict[str, Any]]:
        """`stretch`: of the index in `hint`, from the first key on up to the second, which is not in it."""
        cursor = self._at(collection).find(
            filter, fields, limit=limit, skip=skip, batch_size=_AT_ONCE, session=self._session
        )
        if sort:
            cursor = cursor.sort(list(sort))
        if hint is not None:
            cursor = cursor.hint(hint)
        if stretch is not None:
            cursor = cursor.min(list(stretch[0])).max(list(stretch[1]))
        return await self._hop(cursor.to_list)

    async def piped(self, collection: str, pipeline: Sequence[Document]) -> list[dict[str, Any]]:
        def run() -> list[dict[str, Any]]:
            found = self._at(collection).aggregate(list(pipeline), batchSize=_AT_ONCE, session=self._session)
            return found.to_list()

        return await self._hop(run)

    async def count(self, collection: str, filter: Document) -> int:
        return await self._hop(lambda: self._at(collection).count_documents(filter, session=self._session))

    async def distinct(self, collection: str, field: str) -> list[Any]:
        return await self._hop(lambda: self._at(collection).distinct(field, session=self._session))

    async def insert(self, collection: str, documents: Sequence[dict[str, Any]]) -> None:
        if documents:
            into = self._at(collection)
            await self._hop(lambda: into.insert_many(documents, ordered=False, session=self._session))

    async def insert_new(self, collection: str, document: dict[str, Any]) -> bool:
        """False where its id, or anything else that is unique, was there."""
        try:
            await self._hop(lambda: self._at(collection).insert_one(document, session=self._session))
        except PyMongoError as error:
            if is_duplicate(error):
                return False
            raise
        return True

    async def update(
        self, collection: str, filter: Document, change: Document | Sequence[Document], *, upsert: bool = False
    ) -> int:
        """How many documents fitted: one, or none."""
        stored = self._at(collection)
        result = await self._hop(lambda: stored.update_one(filter, change, upsert=upsert, session=self._session))
        return result.matched_count

    async def update_many(self, collection: str, filter: Document, change: Document | Sequence[Document]) -> None:
        await self._hop(lambda: self._at(collection).update_many(filter, change, session=self._session))

    async def updated(
        self, collection: str, filter: Document, change: Sequence[Document], *, milliseconds: int
    ) -> dict[str, Any] | None:
        """The one document as it is after the change, made if need be."""
        return await self._hop(
            lambda: self._at(collection).find_one_and_update(
                filter,
                list(change),
                upsert=True,
                return_document=ReturnDocument.AFTER,
                session=self._session,
                maxTimeMS=milliseconds,
            )
        )

    async def change(self, collection: str, changes: Sequence[Change]) -> int:
        """One after the other, in one command for many of them: half the price of the driver's own bulk writes.
        Answers how many documents fitted, or were made."""
        fitted = 0
        for begin in range(0, len(changes), _IN_ONE_COMMAND):
            updates = changes[begin : begin + _IN_ONE_COMMAND]
            command = partial(self._db.command, {"update": collection, "updates": updates}, session=self._session)
            written: Document = await self._hop(command)
            if written.get("writeErrors"):
                raise BulkWriteError(dict(written))
            fitted += int(written["n"])
        return fitted

    async def delete_many(self, collection: str, filter: Document) -> None:
        await self._hop(lambda: self._at(collection).delete_many(filter, session=self._session))


class Unit(Access):
    """One transaction. What it adds to the counters and to the control version is written last, so that the
    documents which many share are held for the shortest time, and into a slot of this transaction's own."""

    def __init__(self, places: _Places, session: ClientSession, slot: int) -> None:
        super().__init__(places, session, _at_once)
        self._slot = slot
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.controls = 0

    def tally(self, broadcast: str, deltas: Iterable[Delta], *, times: int = 1) -> None:
        counts = self._counts[broadcast]
        for path, delta in deltas:
            counts[path] += delta * times

    def counted(self, broadcast: str) -> Mapping[str, int]:
        """What it adds to the counters of the broadcast so far."""
        return self._counts.get(broadcast, {})

    def raise_control(self) -> None:
        self.controls += 1

    async def write_counts(self) -> None:
        for broadcast, counts in self._counts.items():
            change = {f"counts.{field(path)}": delta for path, delta in counts.items() if delta}
            if change:
                name = {"_id": f"{broadcast}#{self._slot}"}
                await self.update(
                    "tally", name, {"$inc": change, "$setOnInsert": {"broadcast": broadcast}}, upsert=True
                )
        if self.controls:
            await self.update("control", {"_id": self._slot}, {"$inc": {"version": self.controls}}, upsert=True)


def field(path: str) -> str:
    """A path of the counters as the name of a field: without what MongoDB reads in names."""
    for sign in ("%", ".", "$", "\0"):
        path = path.replace(sign, f"%{ord(sign):02x}")
    return path


def path(field: str) -> str:
    """The path behind a `field`."""
    for sign in ("\0", "$", ".", "%"):
        field = field.replace(f"%{ord(sign):02x}", sign)
    return field


class _Lane:
    """Where one transaction after the other runs: a slot to count in, and a session that lasts."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self._session: ClientSession | None = None

    def begin(self, client: MongoClient[dict[str, Any]]) -> ClientSession:
        if self._session is None:
            self._session = client.start_session()
        return self._session

    def end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.end_session()


class Connection:
    """A database of MongoDB. `slots` is where this process's transactions count: as many as it runs at once."""

    def __init__(self, url: str, *, slots: range) -> None:
        self.name = _without_secrets(url)
        with opening(self.name):
            address = _parsed(url)
            given = {name.lower() for name in address["options"]}
            defaults = {name: value for name, value in _DEFAULTS.items() if name.lower() not in given}
            self._client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(url, **defaults, **_PROMISED)
        self._app = address["options"].get("appname", _APP)
        self._hosts: list[tuple[str, int | None]] = address["nodelist"]
        self._db = self._client.get_database(
            address["database"],
            read_concern=ReadConcern("majority"),
            write_concern=_MAJORITY,
            read_preference=ReadPreference.PRIMARY,
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="mongo")
        self._closed = False
        self._here = _Places(self._db.delegate)
        self.access = Access(self._here, None, self._apart)
        self._lanes = [_Lane(slot) for slot in reversed(slots)]
        self._free = asyncio.Semaphore(len(self._lanes))

    async def close(self) -> None:
        """Once no transaction is under way."""
        if not self._closed:
            self._closed = True
            for lane in self._lanes:
                await self._apart(lane.end)
            self._threads.shutdown(wait=False)
            self._client.close()

    # --- what it talks to ---------------------------------------------------------------------------

    async def check(self) -> None:
        """Raises `CannotOpen` for a server that cannot keep what a store promises."""
        with opening(self.name):
            about = await self._greet()
            here = await self._client.admin.command("hello")
            if tuple(about["versionArray"][:2]) < _OLDEST:
                oldest = ".".join(map(str, _OLDEST))
                raise CannotOpen(f"MongoDB {about['version']} is too old; upgrade it to {oldest} or newer")
            if "setName" not in here and here.get("msg") != "isdbgrid":
                raise CannotOpen(BY_CODE[20][1])

    async def _greet(self) -> Mapping[str, Any]:
        """A server that is away may come; one whose name is wrong never does."""
        try:
            return await self._client.admin.command("buildInfo")
        except ServerSelectionTimeoutError as error:
            if all([await _is_nobody(host) for host, _ in self._hosts]):
                names = ", ".join(host for host, _ in self._hosts)
                raise CannotOpen(f"there is no host called {names}; check the address") from error
            raise

    async def command(self, command: Document) -> Mapping[str, Any]:
        return await self._db.command(dict(command))

    async def collections(self) -> set[str]:
        return {*await self._db.list_collection_names()}

    @asynccontextmanager
    async def changes(self, collection: str) -> AsyncIterator[AsyncIterator[Any]]:
        """Tells of every change from now on, whoever makes it."""
        async with self._db[collection].watch(max_await_time_ms=1 * _SECONDS) as stream:
            yield stream

    async def _apart(self, call: Callable[[], T]) -> T:
        """In a thread that may wait for the server."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def read(self, run: Callable[[Access], Awaitable[T]]) -> T:
        """All of its commands in one thread, with no way back to the loop between them. None is told of less than
        one before it was."""

        def driven() -> T:
            with self._client.delegate.start_session(causal_consistency=True) as session:
                return _driven(run(Access(self._here, session, _at_once)))

        return await self._apart(driven)

    # --- transactions -------------------------------------------------------------------------------

    async def transact(self, run: Run[T]) -> tuple[T, int]:
        """Does it in one transaction, anew where it met another one; answers what it answered and how often it
        raised the control version. Where it raises, nothing is written; `OutcomeUnknown`: nobody knows."""
        async with self._free:
            lane = self._lanes.pop()
            try:
                return await self._persist(lane, run)
            except BaseException:
                await self._apart(lane.end)
                raise
            finally:
                self._lanes.append(lane)

    async def _persist(self, lane: _Lane, run: Run[T]) -> tuple[T, int]:
        tries = _Tries()
        while True:
            try:
                return await self._apart(lambda: self._once(lane, run))
            except PyMongoError as error:
                if not tries.may_go_on(error):
                    raise
            if tries.stuck():
                await self.free_abandoned()
            await tries.pause()

    def _once(self, lane: _Lane, run: Run[T]) -> tuple[T, int]:
        session = lane.begin(self._client.delegate)
        unit = Unit(self._here, session, lane.slot)
        session.start_transaction(_SNAPSHOT, _MAJORITY, ReadPreference.PRIMARY)
        try:
            answer = _driven(run(unit))
            _driven(unit.write_counts())
        except BaseException:
            with suppress(PyMongoError):
                session.abort_transaction()
            raise
        _commit(session)
        return answer, unit.controls

    async def free_abandoned(self) -> None:
        """Ends transactions that a process of ours began and left open when it died: MongoDB would keep what they
        touched from everybody else for a minute. One whose owner only slept begins it anew."""
        open_ones = [
            {"$currentOp": {"idleSessions": True, "allUsers": False}},
            {
                "$match": {
                    "type": "idleSession",
                    "appName": self._app,
                    "transaction.timeInactiveMicros": {"$gt": _ABANDONED},
                }
            },
            {"$project": {"lsid.id": 1}},
        ]
        with suppress(PyMongoError):  # without the right to look, the server's own time limit ends them
            found = await self._client.admin.aggregate(open_ones).to_list(None)
            if found:
                sessions = [{"id": one["lsid"]["id"]} for one in found]
                await self._client.admin.command({"killSessions": sessions})

    async def past_abandoned(self, write: Callable[[int], Awaitable[T]]) -> T:
        """Does a single write, given its milliseconds; where a transaction stands in the way whose owner is dead,
        that is ended first."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        milliseconds = _IN_THE_WAY
        while True:
            try:
                return await write(milliseconds)
            except PyMongoError as error:
                if code_of(error) != _NO_SUCH_TIME or asyncio.get_running_loop().time() > deadline:
                    raise
            await self.free_abandoned()
            milliseconds = min(2 * milliseconds, 1 * _SECONDS)  # a server that is slow gets its time


def _commit(session: ClientSession) -> None:
    """Asks until it is told what became of it: a commit may be repeated, and is done once."""
    deadline = time.monotonic() + _COMMIT_PATIENCE
    while True:
        try:
            session.commit_transaction()
        except PyMongoError as error:
            if not error.has_error_label("UnknownTransactionCommitResult"):
                raise
            if time.monotonic() > deadline:
                raise OutcomeUnknown("MongoDB: the connection was lost in the middle of a write") from error
            time.sleep(_LONGEST_PAUSE)
        else:
            return


async def _at_once(call: Callable[[], T]) -> T:
    """Where waiting is no harm already."""
    return call()


def _driven(run: Awaitable[T]) -> T:
    """What comes of something that waits for nothing but what is done `_at_once`."""
    steps = run.__await__()
    try:
        next(steps)
    except StopIteration as end:
        answer: T = end.value
        return answer
    raise RuntimeError("a unit of work waited for something else than its database")


class _Tries:
    """How often, and for how long, a transaction was begun."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop()
        self._began = self._looked = self._clock.time()
        self._number = 0
        self._duplicates = 0

    def may_go_on(self, error: PyMongoError) -> bool:
        if is_duplicate(error):
            self._duplicates += 1
            return self._duplicates < _DUPLICATES
        passing = error.has_error_label("TransientTransactionError")
        return passing and self._clock.time() < self._began + _PATIENCE

    def stuck(self) -> bool:
        """Whether it is time, again, to look for what stands in the way."""
        if self._clock.time() < self._looked + _STUCK:
            return False
        self._looked = self._clock.time()
        return True

    async def pause(self) -> None:
        self._number += 1
        await asyncio.sleep(min(_LONGEST_PAUSE, 0.001 * 2**self._number))


@contextmanager
def opening(name: str) -> Iterator[None]:
    """Whatever keeps the database from being opened is told in one line that names it."""
    try:
        with told():
            yield
    except StoreUnavailable as error:
        raise type(error)(f"{name}: {error}") from error


async def _is_nobody(host: str) -> bool:
    """Whether it is sure that the name is no host's; one that cannot be asked for now may be."""
    if host.startswith("/"):  # a socket of this machine
        return False
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None)
    except socket.gaierror as error:
        return error.errno == socket.EAI_NONAME
    except UnicodeError:  # no name at all
        return True
    return False


def _parsed(url: str) -> dict[str, Any]:
    """What the address says. What is wrong with it is not repeated: that may be half a password."""
    try:
        parsed: dict[str, Any] = uri_parser.parse_uri(url, warn=False)
    except ValueError as error:  # how the driver refuses a port, or the value of an option
        raise CannotOpen(f"the port or an option of the address cannot be used; {_HELP}") from error
    if not parsed["database"]:
        raise CannotOpen(f"the address names no database; {_HELP}")
    return parsed


def _without_secrets(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def as_date(seconds: float) -> datetime:
    """An instant as MongoDB's own clock tells it, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC)
