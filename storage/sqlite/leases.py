"""Who drives which account, who may ask, and what was answered before."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from broadcast.errors import Conflict, LeaseLost
from broadcast.ports import ApiToken, Lease
from storage.codec import micros
from storage.sqlite import rows
from storage.sqlite.base import Base, one
from storage.sqlite.lanes import Unit


class Leases(Base):
    async def acquire_lease(self, account: str, owner: str, seconds: float) -> Lease | None:
        """A lease that ran out and that nobody else took is still one's own: the same fence."""

        def run(unit: Unit) -> Lease | None:
            now = self._wall()
            sql = "SELECT owner, fence, expires FROM leases WHERE account = ?"
            holder, fence, expires = unit.db.execute(sql, (account,)).fetchone() or (None, 0, 0.0)
            if holder not in {None, owner} and expires > now:
                return None
            fence += holder != owner
            unit.db.execute(
                "INSERT OR REPLACE INTO leases (account, owner, fence, expires) VALUES (?, ?, ?, ?)",
                (account, owner, fence, now + seconds),
            )
            return Lease(account, owner, fence)

        return await self._write(run)

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        def run(unit: Unit) -> bool:
            now = self._wall()
            sql = "UPDATE leases SET expires = ? WHERE account = ? AND owner = ? AND fence = ? AND expires > ?"
            return unit.db.execute(sql, (now + seconds, *_named(lease), now)).rowcount == 1

        return await self._write(run)

    async def release_lease(self, lease: Lease) -> None:
        sql = "UPDATE leases SET owner = NULL WHERE account = ? AND owner = ? AND fence = ?"
        await self._write(lambda unit: unit.db.execute(sql, _named(lease)))


class Tokens(Base):
    async def save_token(self, token: ApiToken) -> None:
        def run(unit: Unit) -> None:
            try:
                unit.db.execute(
                    """
                    INSERT INTO tokens (id, hash, role, name, created_at) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (id) DO UPDATE SET
                        hash = excluded.hash, role = excluded.role, name = excluded.name,
                        created_at = excluded.created_at
                    """,
                    (token.id, token.hash, token.role, token.name, micros(token.created_at)),
                )
            except sqlite3.IntegrityError as error:
                raise Conflict(f"the secret of token {token.id} belongs to another token") from error

        await self._write(run)

    async def token_by_hash(self, hash: str) -> ApiToken | None:
        sql = "SELECT id, hash, role, name, created_at FROM tokens WHERE hash = ?"
        return await self._read(lambda db: one(db.execute(sql, (hash,)).fetchone(), rows.token))

    async def tokens(self) -> list[ApiToken]:
        sql = "SELECT id, hash, role, name, created_at FROM tokens ORDER BY created_at, id"
        return await self._read(lambda db: [rows.token(row) for row in db.execute(sql)])

    async def remember_answer(self, key: str, fingerprint: str, answer: bytes, at: datetime) -> None:
        row = (key, fingerprint, answer, micros(at))
        await self._write(lambda unit: unit.db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", row))

    async def remembered_answer(self, key: str, since: datetime) -> tuple[str, bytes] | None:
        wanted = (key, micros(since))
        sql = "SELECT fingerprint, answer FROM answers WHERE key = ? AND at >= ?"
        return await self._read(lambda db: db.execute(sql, wanted).fetchone())


def _named(lease: Lease) -> tuple[str, str, int]:
    return lease.account, lease.owner, lease.fence


def check(db: sqlite3.Connection, lease: Lease, now: float) -> None:
    """Raises `LeaseLost` unless the lease is held, in the transaction that goes on to write under it."""
    sql = "SELECT 1 FROM leases WHERE account = ? AND owner = ? AND fence = ? AND expires > ?"
    if db.execute(sql, (*_named(lease), now)).fetchone() is None:
        raise LeaseLost(f"{lease.owner} no longer holds {lease.account}")
