"""What there is to be had on MongoDB: a bare aiohttp client beside the least ledger of a document a delivery.

No engine: nobody is looked up, nothing is rendered, paced, guarded, counted or told in a timeline. Only what a
crash must not lose is written, in transactions confirmed by a majority and journalled: an intent before each send,
an outcome after it. One thread keeps the ledger, batch after batch; while a transaction is on its way the client
sends what the one before it granted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue
from typing import Any

import aiohttp
import orjson
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from bench import world
from bench.world import Run

#: As many as the engine loads at once.
_BATCH = 500
_FIELDS = {"_id": True, "turn": True, "chat": True}
_SURE = WriteConcern("majority", j=True)

_Database = Database[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Sent:
    id: str
    at: int
    message_id: str


@dataclass(slots=True)
class _Ledger:
    """Its thread claims and records; the loop takes from `granted` and gives to `answers`."""

    client: MongoClient[dict[str, Any]]
    loop: asyncio.AbstractEventLoop
    total: int
    granted: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    answers: SimpleQueue[_Sent] = field(default_factory=SimpleQueue)

    def keep(self) -> None:
        """Until the last outcome is written."""
        db, behind, claimed, recorded = self.client.get_default_database(), -1, 0, 0
        while recorded < self.total:
            due = _due(db, behind) if claimed < self.total else []
            behind = due[-1]["turn"] if due else behind
            ahead = claimed - recorded
            wanted = 0 if due and ahead <= _BATCH else min(ahead, _BATCH)  # first it gets ahead of the sends
            answered = [self.answers.get() for _ in range(wanted)]
            with self.client.start_session() as session:
                session.start_transaction(ReadConcern("snapshot"), _SURE)
                for updates in ([_intent(due)] if due else []), [*map(_outcome, answered)]:
                    if updates:
                        db.command({"update": "least", "updates": updates}, session=session)
                session.commit_transaction()
            claimed, recorded = claimed + len(due), recorded + len(answered)
            self.loop.call_soon_threadsafe(self._grant, [one["_id"] for one in due])

    def _grant(self, ids: Sequence[str]) -> None:
        for id in ids:
            self.granted.put_nowait(id)


def _due(db: _Database, behind: int) -> list[dict[str, Any]]:
    later = {"account": "one", "turn": {"$gt": behind}}
    return db.least.find(later, _FIELDS, sort=[("account", 1), ("turn", 1)], limit=_BATCH).to_list()


def _intent(due: Sequence[dict[str, Any]]) -> dict[str, Any]:
    wanted = {"_id": {"$in": [one["_id"] for one in due]}, "state": "planned"}
    return {"q": wanted, "u": {"$set": {"state": "sending"}}, "multi": True, "hint": "_id_"}


def _outcome(sent: _Sent) -> dict[str, Any]:
    told = {"state": "sent", "sent_at": sent.at, "message_id": sent.message_id}
    return {"q": {"_id": sent.id}, "u": {"$set": told}}


async def send(address: str, bodies: Sequence[bytes], store_url: str, *, concurrency: int) -> Run:
    """Posts each once, between its intent and its outcome."""
    runs: list[Run] = []
    with MongoClient[dict[str, Any]](store_url) as client, ThreadPoolExecutor(1) as thread:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(thread, _fill, client.get_default_database(), len(bodies))
        ledger, left = _Ledger(client, loop, len(bodies)), iter(bodies)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
            with world.timed(len(bodies), runs):
                kept = loop.run_in_executor(thread, ledger.keep)
                await asyncio.gather(*(_send_on(session, address, left, ledger) for _ in range(concurrency)))
                await kept
    return runs[0]


async def _send_on(session: aiohttp.ClientSession, address: str, left: Iterator[bytes], ledger: _Ledger) -> None:
    headers = {"Content-Type": "application/json"}
    for body in left:
        id = await ledger.granted.get()
        async with session.post(address, data=body, headers=headers) as answer:
            told = orjson.loads(await answer.read())
        ledger.answers.put(_Sent(id, time.time_ns() // 1_000, str(told["result"]["message_id"])))


def _fill(db: _Database, number: int) -> None:
    db.least.create_index([("account", 1), ("turn", 1)])
    every = ({"_id": f"dlv_{n}", "account": "one", "turn": n, "state": "planned", "chat": n} for n in range(number))
    while page := list(islice(every, 5_000)):
        db.least.insert_many(page)
