"""Another process that holds the lock on writing: ``python -m tests.troubles.holder PATH``. It says "held" once it
has it, and lets go with the next line it reads."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing


def main(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as db:
        db.execute("BEGIN IMMEDIATE")
        print("held", flush=True)  # noqa: T201 - what the parent reads
        sys.stdin.readline()
        db.execute("ROLLBACK")


if __name__ == "__main__":
    main(sys.argv[1])
