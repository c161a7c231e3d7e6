"""Who drives which account, who may ask, and what was answered before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pymongo.errors import PyMongoError

from broadcast.errors import Conflict, LeaseLost
from broadcast.ports import ApiToken, Lease
from storage.codec import micros
from storage.mongo import documents
from storage.mongo.base import Base
from storage.mongo.connection import Unit
from storage.mongo.meaning import is_duplicate, told


class Leases(Base):
    async def acquire_lease(self, account: str, owner: str, seconds: float) -> Lease | None:
        """A lease that ran out and that nobody else took is still one's own: the same fence. What the last owner
        left half written when it died is undone first."""
        now = self._now()
        held = {
            "$and": [
                {"$gt": ["$owner", None]},
                {"$ne": ["$owner", {"$literal": owner}]},
                {"$gt": ["$expires", now]},
            ]
        }
        grown = {"$add": [{"$ifNull": ["$fence", 0]}, {"$cond": [{"$eq": ["$owner", {"$literal": owner}]}, 0, 1]}]}
        mine = {"owner": {"$literal": owner}, "fence": grown, "expires": self._until(seconds)}
        taken = {name: {"$cond": [held, f"${name}", value]} for name, value in mine.items()}
        access = self._connection.access
        with told():
            stored = await self._connection.past_abandoned(
                lambda limit: access.updated("leases", {"_id": account}, [{"$set": taken}], milliseconds=limit)
            )
        if stored is None or stored["owner"] != owner:
            return None
        return Lease(account, owner, int(stored["fence"]))

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        change = [{"$set": {"expires": self._until(seconds)}}]
        return await self._read(lambda db: db.update("leases", self._held(lease), change)) == 1

    async def release_lease(self, lease: Lease) -> None:
        await self._read(lambda db: db.update("leases", _named(lease), {"$set": {"owner": None}}))

    async def _check(self, unit: Unit, lease: Lease, noted: Mapping[str, Any]) -> None:
        """Raises `LeaseLost` unless the lease is held, in the transaction that goes on to write under it. It writes
        to the lease, also what is `noted` there: a takeover and this transaction cannot both take hold."""
        if not await unit.update("leases", self._held(lease), {"$inc": {"writes": 1}, **noted}):
            raise LeaseLost(f"{lease.owner} no longer holds {lease.account}")

    def _held(self, lease: Lease) -> dict[str, Any]:
        return {**_named(lease), "$expr": {"$gt": ["$expires", self._now()]}}

    def _until(self, seconds: float) -> dict[str, Any]:
        return {"$add": [self._now(), round(seconds * 1_000)]}


class Tokens(Base):
    async def save_token(self, token: ApiToken) -> None:
        change = {"$set": documents.of_token(token)}
        with told():
            try:
                await self._connection.access.update("tokens", {"_id": token.id}, change, upsert=True)
            except PyMongoError as error:
                if not is_duplicate(error):
                    raise
                raise Conflict(f"the secret of token {token.id} belongs to another token") from error

    async def token_by_hash(self, hash: str) -> ApiToken | None:
        found = await self._read(lambda db: db.one("tokens", {"hash": hash}))
        return documents.token(found) if found else None

    async def tokens(self) -> list[ApiToken]:
        found = await self._read(lambda db: db.all("tokens", {}, sort=[("created_at", 1), ("_id", 1)]))
        return [documents.token(document) for document in found]

    async def remember_answer(self, key: str, fingerprint: str, answer: bytes, at: datetime) -> None:
        document = {"_id": key, "fingerprint": fingerprint, "answer": answer, "at": micros(at)}
        await self._read(lambda db: db.insert_new("answers", document))

    async def remembered_answer(self, key: str, since: datetime) -> tuple[str, bytes] | None:
        found = await self._read(lambda db: db.one("answers", {"_id": key, "at": {"$gte": micros(since)}}))
        return (found["fingerprint"], found["answer"]) if found else None


def _named(lease: Lease) -> dict[str, Any]:
    return {"_id": lease.account, "owner": lease.owner, "fence": lease.fence}
