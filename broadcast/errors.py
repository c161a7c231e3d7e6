"""What went wrong on our side, one class per reaction.

ClarionError
├── Invalid        input at fault: say field and mend, change nothing        (HTTP 422, exit 2)
├── NotFound       no such thing                                             (HTTP 404)
├── Ambiguous      a name that fits several: ask, never guess                (HTTP 409)
├── Conflict       the state does not allow it                               (HTTP 409)
├── Removed        it was there, and is not kept any more                    (HTTP 410)
├── LeaseLost      another worker drives this account: stop at once
├── StoreUnavailable   the store cannot write now: wait and say so           (HTTP 503)
└── PresenceUnavailable   the provider failed: the attempt waits, no rung is used
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the input: where (`schedule.hours.mon[0]`) and what, with its mend."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class ClarionError(Exception):
    """Any error that Clarion raises on purpose; its text is meant for a person."""


class Invalid(ClarionError):  # noqa: N818 - reads as a sentence where it is raised
    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class NotFound(ClarionError):  # noqa: N818
    pass


class Ambiguous(ClarionError):  # noqa: N818
    pass


class Conflict(ClarionError):  # noqa: N818
    pass


class Removed(ClarionError):  # noqa: N818
    pass


class LeaseLost(ClarionError):  # noqa: N818
    pass


class StoreUnavailable(ClarionError):  # noqa: N818
    pass


class PresenceUnavailable(ClarionError):  # noqa: N818
    """`wait` is the provider's own word on when to ask again, if it gave one."""

    def __init__(self, detail: str, *, wait: timedelta | None = None) -> None:
        super().__init__(detail)
        self.wait = wait
