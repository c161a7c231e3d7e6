"""Campaigns, broadcasts, their counters, and the version of what steers them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import Any

from broadcast.errors import Conflict
from broadcast.model import Broadcast, BroadcastKind, BroadcastStatus, Campaign, CampaignStatus, ChannelName
from broadcast.ports import Listing, Page
from storage import changes
from storage.codec import BROADCAST, CAMPAIGN, micros
from storage.sqlite.base import Base, words
from storage.sqlite.lanes import Unit

_POLL_SECONDS = 0.4  # how often a waiter looks for control writes of other processes


class Campaigns(Base):
    async def campaign(self, id: str) -> Campaign | None:
        return await self._read(lambda db: _campaign(db, id))

    async def campaigns_named(self, name: str) -> list[Campaign]:
        def run(db: sqlite3.Connection) -> list[Campaign]:
            sql = "SELECT id, doc, name = ? FROM campaigns WHERE name_folded = ? ORDER BY id"
            found = db.execute(sql, (name, changes.fold(name))).fetchall()
            exact = [row for row in found if row[2]]
            return [CAMPAIGN.decode(id, doc) for id, doc, _ in exact or found]

        return await self._read(run)

    async def save_campaign(self, campaign: Campaign, *, expected: CampaignStatus | None) -> None:
        def run(unit: Unit) -> None:
            if not _write_campaign(unit.db, campaign, expected):
                raise Conflict(f"campaign {campaign.id} is not {expected or 'new'} any more")

        await self._write(run)

    async def campaigns(
        self, *, status: CampaignStatus | None, q: str, channel: ChannelName | None, page: Page
    ) -> Listing[Campaign]:
        where = """
            WHERE (:status IS NULL OR status = :status)
            AND (:q = '' OR instr(name_folded, :q))
            AND (:channel IS NULL
                OR :channel IN (SELECT value FROM json_each(campaigns.doc, '$.audience.channels')))
        """
        wanted = {
            "status": status and str(status),
            "q": changes.fold(q),
            "channel": channel and str(channel),
            **_span(page),
        }

        def run(db: sqlite3.Connection) -> Listing[Campaign]:
            (total,) = db.execute(f"SELECT count(*) FROM campaigns {where}", wanted).fetchone()  # noqa: S608 - constant
            found = db.execute(
                f"SELECT id, doc FROM campaigns {where} ORDER BY created_at DESC, id DESC LIMIT :limit OFFSET :offset",  # noqa: S608, E501 - constant
                wanted,
            )
            return Listing(tuple(CAMPAIGN.decode(id, doc) for id, doc in found), total)

        return await self._list(run)

    async def repeating(self) -> list[Campaign]:
        sql = "SELECT id, doc FROM campaigns WHERE json_extract(doc, '$.next_launch_at') IS NOT NULL"

        def run(db: sqlite3.Connection) -> list[Campaign]:
            return changes.next_first(CAMPAIGN.decode(id, doc) for id, doc in db.execute(sql))

        return await self._list(run)

    async def broadcast(self, id: str) -> Broadcast | None:
        def run(db: sqlite3.Connection) -> Broadcast | None:
            row = db.execute("SELECT doc FROM broadcasts WHERE id = ?", (id,)).fetchone()
            return None if row is None else BROADCAST.decode(id, row[0])

        return await self._read(run)

    async def save_broadcast(self, broadcast: Broadcast, *, expected: BroadcastStatus | None) -> None:
        await self._write(lambda unit: _save_broadcast(unit, broadcast, expected))

    async def broadcasts(
        self,
        *,
        statuses: Collection[BroadcastStatus] = (),
        kind: BroadcastKind | None = None,
        campaign: str | None = None,
        page: Page,
    ) -> Listing[Broadcast]:
        where = """
            WHERE (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
            AND (:kind IS NULL OR kind = :kind)
            AND (:campaign IS NULL OR campaign = :campaign)
        """
        wanted = {"statuses": words(statuses), "kind": kind and str(kind), "campaign": campaign, **_span(page)}

        def run(db: sqlite3.Connection) -> Listing[Broadcast]:
            (total,) = db.execute(f"SELECT count(*) FROM broadcasts {where}", wanted).fetchone()  # noqa: S608 - constant
            found = db.execute(
                f"SELECT id, doc FROM broadcasts {where} ORDER BY launched_at DESC, id DESC LIMIT :limit OFFSET :offset",  # noqa: S608, E501 - constant
                wanted,
            )
            return Listing(tuple(BROADCAST.decode(id, doc) for id, doc in found), total)

        return await self._list(run)

    async def broadcasts_beginning(self, id: str) -> list[Broadcast]:
        def run(db: sqlite3.Connection) -> list[Broadcast]:
            # a stretch of the ids from this one on; behind it come those with a greater sign in its place
            sql = "SELECT id, doc FROM broadcasts WHERE id >= :id AND id < :id || char(0x10ffff) ORDER BY id"
            return [BROADCAST.decode(*row) for row in db.execute(sql, {"id": id})]

        return await self._read(run)

    async def running_on(self, account: str) -> list[str]:
        sql = """
            SELECT b.id FROM broadcasts b
            WHERE b.status = 'running' AND EXISTS (
                SELECT 1 FROM deliveries d INDEXED BY deliveries_due
                WHERE d.state = 'planned' AND d.account = :account AND d.broadcast = b.id
            )
            ORDER BY b.id
        """
        return await self._read(lambda db: [id for (id,) in db.execute(sql, {"account": account})])

    async def tally(self, broadcast: str) -> Mapping[str, int]:
        return await self._read(lambda db: counters(db, broadcast))

    async def control_version(self) -> int:
        return await self._read(_control_version)

    async def wait_control(self, seen: int) -> int:
        return await self._waiters.moved_on(seen, self.control_version, lambda: _POLL_SECONDS)


def _span(page: Page) -> dict[str, Any]:
    return {"limit": page.per_page, "offset": page.offset}


def _campaign(db: sqlite3.Connection, id: str) -> Campaign | None:
    row = db.execute("SELECT doc FROM campaigns WHERE id = ?", (id,)).fetchone()
    return None if row is None else CAMPAIGN.decode(id, row[0])


def _write_campaign(db: sqlite3.Connection, campaign: Campaign, expected: CampaignStatus | None) -> bool:
    """False where the stored status is another."""
    row = {
        "id": campaign.id,
        "name": campaign.name,
        "folded": changes.fold(campaign.name),
        "status": str(campaign.status),
        "created_at": micros(campaign.created_at),
        "doc": CAMPAIGN.encode(campaign),
        "expected": expected and str(expected),
    }
    if expected is None:
        sql = "INSERT OR IGNORE INTO campaigns VALUES (:id, :name, :folded, :status, :created_at, :doc)"
    else:
        sql = """
            UPDATE campaigns
            SET name = :name, name_folded = :folded, status = :status, created_at = :created_at, doc = :doc
            WHERE id = :id AND status = :expected
        """
    return db.execute(sql, row).rowcount == 1


def _save_broadcast(unit: Unit, broadcast: Broadcast, expected: BroadcastStatus | None) -> None:
    row = {
        "id": broadcast.id,
        "campaign": broadcast.campaign,
        "kind": str(broadcast.kind),
        "status": str(broadcast.status),
        "launched_at": micros(broadcast.launched_at),
        "doc": BROADCAST.encode(broadcast),
        "expected": expected and str(expected),
    }
    if expected is None:
        sql = "INSERT OR IGNORE INTO broadcasts VALUES (:id, :campaign, :kind, :status, :launched_at, :doc)"
    else:
        sql = """
            UPDATE broadcasts
            SET campaign = :campaign, kind = :kind, status = :status, launched_at = :launched_at, doc = :doc
            WHERE id = :id AND status = :expected
        """
    if unit.db.execute(sql, row).rowcount != 1:
        raise Conflict(f"broadcast {broadcast.id} is not {expected or 'new'} any more")
    if expected is None and broadcast.kind is BroadcastKind.CAMPAIGN:
        _count_launch(unit.db, broadcast)
    unit.raise_control()


def _count_launch(db: sqlite3.Connection, broadcast: Broadcast) -> None:
    campaign = _campaign(db, broadcast.campaign)
    if campaign is not None:
        _write_campaign(db, changes.launched(campaign, broadcast), campaign.status)


def counters(db: sqlite3.Connection, broadcast: str) -> dict[str, int]:
    return dict(
        db.execute("SELECT path, count FROM tally WHERE broadcast = ? AND count <> 0", (broadcast,)).fetchall()
    )


def _control_version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("SELECT version FROM control").fetchone()
    return int(version)
