"""Calls of one kind that come while such a write is under way are written together, in one transaction.

A webhook brings one event, and a transaction costs the same for one as for a hundred: a burst of callbacks makes
the batches grow by itself, and a call that comes alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from broadcast.errors import StoreUnavailable

T = TypeVar("T")
R = TypeVar("R")

_MOST = 200  # calls in one transaction


class Together(Generic[T, R]):
    """`write` answers each call of a batch, in order; where it raises, nothing of the batch is written."""

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]], name: str) -> None:
        self._write = write
        self._name = name
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def call(self, asked: T) -> R:
        """Whoever stops waiting does not stop the write."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_waiting(), name=self._name)
        return await answer

    async def finish(self) -> None:
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write_waiting(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
                await self._answer(batch)
        finally:
            self._writer = None

    async def _answer(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._write([asked for asked, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            await self._refuse(batch, error)
            return
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if not waiting.done():
                waiting.set_result(answer)

    async def _refuse(self, batch: Sequence[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
        """A call that is at fault fails alone; where the store is, all wait for it anyway."""
        if len(batch) > 1 and not isinstance(error, StoreUnavailable):
            for one in batch:
                await self._answer([one])
            return
        for _, waiting in batch:
            if not waiting.done():
                waiting.set_exception(error)
