"""What MongoDB's errors mean to a person, and what to do about them: one table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo import errors

from broadcast.errors import StoreUnavailable
from storage.errors import CannotOpen

DUPLICATE = 11000  # the server's code for a key that is there already

_Meaning = tuple[type[StoreUnavailable], str]

#: By the server's error code, where it says more than the class of the error does.
BY_CODE: dict[int, _Meaning] = {
    13: (CannotOpen, "this user may not; give it the role readWrite on the database"),
    18: (CannotOpen, "user or password are refused; check the address, and authSource in it"),
    8000: (CannotOpen, "user or password are refused; check the address"),
    20: (CannotOpen, "the server is no replica set; start mongod with --replSet and run rs.initiate() once"),
    50: (StoreUnavailable, "the database took too long; it is tried again"),
    64: (StoreUnavailable, "a majority of the replica set does not confirm writes; start its other members"),
    14031: (StoreUnavailable, "the disk of the database is full; make room"),
}

#: By class, the first that fits.
_BY_CLASS: tuple[tuple[type[Exception], _Meaning], ...] = (
    (errors.ConfigurationError, (CannotOpen, "the address cannot be used; write mongodb://host:27017/clarion")),
    (errors.InvalidURI, (CannotOpen, "the address cannot be read; write mongodb://host:27017/clarion")),
    (
        errors.ServerSelectionTimeoutError,
        (StoreUnavailable, "no primary answers; check the address, the network, and that mongod runs"),
    ),
    (errors.WaitQueueTimeoutError, (StoreUnavailable, "all connections are busy; it is tried again")),
    (errors.ConnectionFailure, (StoreUnavailable, "the connection was lost; it is tried again")),
    (errors.WTimeoutError, BY_CODE[64]),
    (errors.ExecutionTimeout, BY_CODE[50]),
)

#: What the driver says of an error that a second try may mend.
_PASSING = ("TransientTransactionError", "RetryableWriteError", "UnknownTransactionCommitResult")


def meaning(error: errors.PyMongoError) -> Exception:
    """The error as the callers of a store know it; one that is not the world's doing stays what it is."""
    kind, text = _meaning(error) or (None, "")
    return error if kind is None else kind(f"MongoDB: {text}")


def _meaning(error: errors.PyMongoError) -> _Meaning | None:
    code = code_of(error)
    if code in BY_CODE:
        return BY_CODE[code]
    for kind, told in _BY_CLASS:
        if isinstance(error, kind):
            return told
    if any(error.has_error_label(label) for label in _PASSING):
        return StoreUnavailable, "the database is changing hands or overloaded; it is tried again"
    return None


def code_of(error: errors.PyMongoError) -> int | None:
    """The server's code; for a batch that of its first fault."""
    if isinstance(error, errors.BulkWriteError):
        details = error.details or {}
        faults = details.get("writeErrors") or details.get("writeConcernErrors") or [{}]
        found = faults[0].get("code")
        return None if found is None else int(found)
    return getattr(error, "code", None)


def is_duplicate(error: errors.PyMongoError) -> bool:
    return code_of(error) == DUPLICATE


@contextmanager
def told() -> Iterator[None]:
    """Lets nothing of the driver's pass that is the world's doing: it is translated, its cause kept."""
    try:
        yield
    except errors.PyMongoError as error:
        translated = meaning(error)
        if translated is error:
            raise
        raise translated from error
