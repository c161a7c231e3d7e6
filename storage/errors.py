"""What a store says when it cannot be opened or believed, beside the errors of the domain.

StoreUnavailable (broadcast.errors)
└── CannotOpen         the address, the file or its rights are at fault: one line, with the mend
    ├── Damaged        the file is no database, or a broken one: restore a backup
    └── TooNew         written by a newer version: upgrade, never downgrade
Undecodable            one stored record cannot be read: names it; its neighbours are unharmed
"""

from __future__ import annotations

from broadcast.errors import ClarionError, StoreUnavailable


class CannotOpen(StoreUnavailable):
    pass


class Damaged(CannotOpen):
    pass


class TooNew(CannotOpen):
    pass


class Undecodable(ClarionError):  # noqa: N818 - names what the record is
    pass
