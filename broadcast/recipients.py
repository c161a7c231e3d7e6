"""Recipients as use cases: taken in from a file, looked up.

An import adds and never takes away: an empty cell changes nothing, and the tags and lists of a row are added to
those the person has.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from broadcast import calendar
from broadcast.errors import Conflict, Invalid, NotFound
from broadcast.model import ChannelName, Conversation, Recipient
from broadcast.ports import Clock, Listing, Page, Random, Store

#: The columns that have a meaning; every other one is a free attribute (SHAPES.md, recipient import).
IDENTITIES: Mapping[str, ChannelName] = MappingProxyType({f"{channel}_id": channel for channel in ChannelName})
IDENTIFYING = ("external_id", "email", *IDENTITIES)
COLUMNS = (
    "external_id",
    "email",
    "first_name",
    "last_name",
    "locale",
    "timezone",
    "country",
    "tags",
    "lists",
    "main_channel",
    *IDENTITIES,
)

#: Rows judged and written at once: few enough that whoever shares the loop waits no more than some 50 ms.
BATCH = 500
#: That many faulty rows are listed one by one; a last line says how many more there were.
MAX_ERRORS = 1_000
MAX_TEXT = 200
MAX_ATTRIBUTE = 2_000
MAX_EMAIL = 254  # RFC 5321 4.5.3.1.3, less the angle brackets
LIST_PREFIX = "lst_"
_TRIES = 2

_LIMITS = {column: MAX_TEXT for column in COLUMNS if column not in {"tags", "lists"}}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_EMAIL = re.compile(r"[^\s@<>,;]+@[^\s@<>,;]+")
_LOCALE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
_COUNTRY = re.compile(r"[A-Za-z]{2}")
_TELEGRAM_ID = re.compile(r"-?\d{1,19}")
_GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, by column; `line` is where the reader's editor or spreadsheet shows it."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RowError:
    """One row that was left out, and why. `field` is a column, or empty where the whole row is at fault."""

    line: int
    field: str
    message: str


Rows = AsyncIterable[Row | RowError] | Iterable[Row | RowError]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: rows that made somebody new, that changed somebody, that said nothing new, and those
    left out."""

    created: int
    updated: int
    unchanged: int
    errors: tuple[RowError, ...]


class Recipients:
    """Takes recipients in from files, and looks them up."""

    def __init__(self, store: Store, clock: Clock, random: Random) -> None:
        self._store = store
        self._clock = clock
        self._random = random

    async def get(self, id: str) -> Recipient:
        """Raises `NotFound`."""
        found = await self._store.recipient(id)
        if found is None:
            raise NotFound(f"there is no recipient {id}")
        return found

    async def conversations(self, id: str) -> list[Conversation]:
        """Where the person can be reached."""
        return await self._store.conversations_of(id)

    async def erase(self, id: str) -> datetime:
        """Removes the person and all that leads to them, and says when that was; what was counted stays counted.
        Raises `NotFound`, and `Conflict` while a broadcast is being planned."""
        at = self._clock.now()
        if not await self._store.erase_recipient(id, at):
            raise NotFound(f"there is no recipient {id}")
        return at

    async def find(self, q: str, page: Page) -> Listing[Recipient]:
        """Those whose name, e-mail or external id contains `q`."""
        return await self._store.recipients(q, page)

    async def take(self, rows: Rows) -> Imported:
        """Imports the rows, a batch at a time, so that memory does not grow with their number.

        A row is matched by `external_id`, else by `email`, else by its channel ids; the same person twice is first
        created, then updated. A faulty row is left out and listed; the others are taken. Reading stops where
        `rows` raises; what was taken before stays.
        """
        count = _Count()
        async for batch in _batches(rows):
            said = [_checked(item) if isinstance(item, Row) else item for item in batch]
            count.leave_out(*(item for item in said if isinstance(item, RowError)))
            await self._take_batch([item for item in said if isinstance(item, _Said)], count)
        return count.imported()

    async def _take_batch(self, rows: Sequence[_Said], count: _Count) -> None:
        """Somebody may come in through a webhook between reading and writing: then the batch is judged again. What
        the store still refuses is found row by row, so that the others are taken."""
        for _ in range(_TRIES):
            taking = _Taking(await self._known(rows), self._new)
            taking.take(rows)
            with suppress(Conflict):
                await self._save(taking)
                count.add(taking)
                return
        if len(rows) == 1:
            count.leave_out(RowError(rows[0].line, "", "names more than one recipient; correct one of them"))
            return
        for row in rows:
            await self._take_batch([row], count)

    async def _known(self, rows: Sequence[_Said]) -> _Known:
        """Everybody whom any key of these rows names, each key asked for by itself."""
        keys = list(dict.fromkeys(key for row in rows for key in row.keys))
        owners = await self._store.match_recipients([_asking(key) for key in keys])
        found = {key: owner for key, owner in zip(keys, owners, strict=True) if owner is not None}
        return _Known(
            people={owner.id: owner for owner in found.values()},
            owners={key: owner.id for key, owner in found.items()},
            lists=dict(await self._store.list_ids()),
        )

    async def _save(self, taking: _Taking) -> None:
        if taking.new_lists:
            await self._store.ensure_lists(taking.new_lists)
        if taking.changed:
            await self._store.save_recipients([taking.known.people[id] for id in taking.changed])

    def _new(self) -> Recipient:
        return Recipient(id=self._random.id("rcp"), created_at=self._clock.now())


async def _batches(rows: Rows) -> AsyncIterator[list[Row | RowError]]:
    batch: list[Row | RowError] = []
    async for item in _one_by_one(rows):
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def _one_by_one(rows: Rows) -> AsyncIterator[Row | RowError]:
    if isinstance(rows, AsyncIterable):
        async for item in rows:
            yield item
    else:
        for item in rows:
            yield item


@dataclass(slots=True)
class _Count:
    """The answer as it grows."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: list[RowError] = field(default_factory=list)
    unlisted: int = 0
    last_line: int = 0

    def add(self, taking: _Taking) -> None:
        self.created += taking.created
        self.updated += taking.updated
        self.unchanged += taking.unchanged
        self.leave_out(*taking.errors)

    def leave_out(self, *errors: RowError) -> None:
        for error in errors:
            self.last_line = max(self.last_line, error.line)
            if len(self.errors) < MAX_ERRORS:
                self.errors.append(error)
            else:
                self.unlisted += 1

    def imported(self) -> Imported:
        errors = sorted(self.errors, key=lambda error: error.line)
        if self.unlisted:
            errors.append(RowError(self.last_line, "", f"{self.unlisted} more faulty rows, not listed"))
        return Imported(self.created, self.updated, self.unchanged, tuple(errors))


# --- who a row means ----------------------------------------------------------------------------------

#: One way to name a person: an identifying column and what stands in it, an e-mail regardless of case.
Key = tuple[str, str]


def _keys_of(person: Recipient) -> Iterator[Key]:
    if person.external_id:
        yield "external_id", person.external_id
    if person.email:
        yield "email", _folded("email", person.email)
    for channel, user_id in person.identities.items():
        yield f"{channel}_id", user_id


def _asking(key: Key) -> Recipient:
    """A person of whom only this key is known."""
    column, value = key
    if column in IDENTITIES:
        return Recipient(id="", identities={IDENTITIES[column]: value})
    return Recipient(id="", external_id=value) if column == "external_id" else Recipient(id="", email=value)


@dataclass(slots=True)
class _Known:
    """The people a batch speaks of, as they stand after the rows taken so far."""

    people: dict[str, Recipient]
    owners: dict[Key, str]
    lists: dict[str, str]


class _Taking:
    """One batch, taken row by row on top of what is known. Nothing is written here."""

    def __init__(self, known: _Known, new: Callable[[], Recipient]) -> None:
        self.known = known
        self.created = self.updated = self.unchanged = 0
        self.errors: list[RowError] = []
        self.changed: dict[str, None] = {}
        self.new_lists: dict[str, str] = {}
        self._lists: dict[str, str] = {}  # id by the name that rows give
        self._new = new

    def take(self, rows: Iterable[_Said]) -> None:
        for row in rows:
            try:
                self._take(row)
            except _Faulty as fault:
                self.errors.append(RowError(row.line, fault.field, str(fault)))

    def _take(self, row: _Said) -> None:
        owner = next((self.known.owners[key] for key in row.keys if key in self.known.owners), None)
        before = self._new() if owner is None else self.known.people[owner]
        self._refuse_taken(row.keys, before)
        after = _updated(before, row.values, self._list_ids(row.values.get("lists", "")))
        if owner is not None and after == before:
            self.unchanged += 1
            return
        self._keep(before, after)
        self.created += owner is None
        self.updated += owner is not None

    def _refuse_taken(self, keys: Iterable[Key], person: Recipient) -> None:
        """What names a person names one only."""
        for key in keys:
            owner = self.known.owners.get(key, person.id)
            if owner != person.id:
                raise _Faulty(key[0], f"{key[1]} belongs to another recipient ({owner}); correct one of them")

    def _keep(self, before: Recipient, after: Recipient) -> None:
        for key in _keys_of(before):
            self.known.owners.pop(key, None)
        self.known.owners.update(dict.fromkeys(_keys_of(after), after.id))
        self.known.people[after.id] = after
        self.changed[after.id] = None

    def _list_ids(self, cell: str) -> frozenset[str]:
        return frozenset(self._list_id(name) for name in split(cell))

    def _list_id(self, name: str) -> str:
        """The list of this id or name; one that is not there yet is made."""
        if name not in self._lists:
            self._lists[name] = found = list_id(name, self.known.lists)
            if found not in self.known.lists:
                self.known.lists[found] = self.new_lists[found] = name.removeprefix(LIST_PREFIX)
        return self._lists[name]


def split(cell: str) -> list[str]:
    """The entries of a cell with ``;`` between them."""
    return [entry.strip() for entry in cell.split(";") if entry.strip()]


def list_id(name: str, lists: Mapping[str, str]) -> str:
    """The id of the list called `name`, which may be an id already: the one there is among `lists` (names by id),
    else the one it will have, such as ``lst_new_staff`` for ``New staff``."""
    same = [id for id, known in lists.items() if name == id or known.casefold() == name.casefold()]
    if same:
        return same[0]
    is_id = name.casefold().startswith(LIST_PREFIX)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", plain.removeprefix(LIST_PREFIX)).strip("_")
    if slug and (is_id or LIST_PREFIX + slug not in lists):
        return LIST_PREFIX + slug
    digest = hashlib.blake2b(name.casefold().encode(), digest_size=4).hexdigest()
    return LIST_PREFIX + "_".join(filter(None, (slug, digest)))


# --- what a row says ----------------------------------------------------------------------------------


class _Faulty(Exception):  # noqa: N818 - what a row is
    """A row that cannot be taken: the column and, as its text, the mend."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class _Said:
    """What one row says: its values in the form in which they are kept, and its keys in the order of matching."""

    line: int
    values: Mapping[str, str]
    keys: tuple[Key, ...]


def _checked(row: Row) -> _Said | RowError:
    try:
        found = {column: _value(column, text.strip()) for column, text in row.cells.items()}
    except _Faulty as fault:
        return RowError(row.line, fault.field, str(fault))
    values = {column: value for column, value in found.items() if value}
    keys = tuple((column, _folded(column, values[column])) for column in IDENTIFYING if column in values)
    if not keys:
        return RowError(row.line, "", f"names nobody; fill in one of {', '.join(IDENTIFYING)}")
    return _Said(row.line, values, keys)


def _folded(column: str, value: str) -> str:
    return value.casefold() if column == "email" else value


def _value(column: str, text: str) -> str:
    if not text:
        return ""
    limit = _LIMITS.get(column, MAX_ATTRIBUTE)
    if len(text) > limit:
        raise _Faulty(column, f"is {len(text)} characters long; {limit} is the most")
    if _CONTROL.search(text):
        raise _Faulty(column, "contains control characters; remove them")
    return _KINDS.get(column, _as_it_stands)(column, text)


def _as_it_stands(column: str, text: str) -> str:  # noqa: ARG001 - one of `_KINDS`
    return text


def _email(column: str, text: str) -> str:
    if not _EMAIL.fullmatch(text) or len(text) > MAX_EMAIL:
        raise _Faulty(column, f"{text} is no e-mail address; write ann@example.com")
    return text


def _zone(column: str, text: str) -> str:
    try:
        return calendar.zone(text, column).key
    except Invalid as error:
        raise _Faulty(column, error.faults[0].message) from error


def _country(column: str, text: str) -> str:
    if not _COUNTRY.fullmatch(text):
        raise _Faulty(column, f"{text} is no country code; write two letters such as FR")
    return text.upper()


def _locale(column: str, text: str) -> str:
    if not _LOCALE.fullmatch(text):
        raise _Faulty(column, f"{text} is no locale; write one such as fr or fr-FR")
    return text.replace("_", "-")


def _channel(column: str, text: str) -> str:
    names = [channel.value for channel in ChannelName]
    if text.lower() in names:
        return text.lower()
    near = difflib.get_close_matches(text.lower(), names, n=1)
    raise _Faulty(
        column, f"{text} is no channel; " + (f"did you mean {near[0]}?" if near else f"write {', '.join(names)}")
    )


def _telegram_id(column: str, text: str) -> str:
    if not _TELEGRAM_ID.fullmatch(text):
        raise _Faulty(column, f"{text} is no Telegram user id; it is a number such as 184467")
    return text


def _teams_id(column: str, text: str) -> str:  # noqa: ARG001 - one of `_KINDS`
    """Entra writes object ids in lower case; portals do not always."""
    return text.lower() if _GUID.fullmatch(text) else text


def _entries(column: str, text: str) -> str:
    for entry in split(text):
        if len(entry) > MAX_TEXT:
            raise _Faulty(column, f"has an entry of {len(entry)} characters; {MAX_TEXT} is the most")
    return text


_KINDS: Mapping[str, Callable[[str, str], str]] = MappingProxyType(
    {
        "tags": _entries,
        "lists": _entries,
        "email": _email,
        "timezone": _zone,
        "country": _country,
        "locale": _locale,
        "main_channel": _channel,
        "telegram_id": _telegram_id,
        "teams_id": _teams_id,
    }
)

#: Columns that are plain fields of a recipient.
_FIELDS = ("external_id", "email", "first_name", "last_name", "locale", "timezone", "country")


def _updated(person: Recipient, values: Mapping[str, str], lists: frozenset[str]) -> Recipient:
    """The person with what the row says."""
    fields: dict[str, Any] = {name: values[name] for name in _FIELDS if name in values}
    identities = {IDENTITIES[name]: values[name] for name in IDENTITIES if name in values}
    attributes = {name: value for name, value in values.items() if name not in COLUMNS}
    main = values.get("main_channel")
    return replace(
        person,
        **fields,
        tags=person.tags.union(split(values.get("tags", ""))),
        lists=person.lists | lists,
        main_channel=ChannelName(main) if main else person.main_channel,
        identities={**person.identities, **identities},
        attributes={**person.attributes, **attributes},
    )
