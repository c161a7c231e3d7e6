"""Deliveries as files, streamed: memory does not grow with their number."""

from __future__ import annotations

import asyncio
import csv
import io
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import IO

from aiohttp import hdrs, web
from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

from bot.admin import problems
from bot.admin.shapes.deliveries import DeliveryRow, delivery_row
from broadcast.model import Delivery, Recipient

CSV = "text/csv"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

#: The columns of SHAPES.md, deliveries row, in their order; nested names with a dot.
COLUMNS = (
    "id",
    "broadcast",
    "state",
    "reason",
    "recipient.id",
    "recipient.external_id",
    "recipient.name",
    "recipient.email",
    "channel",
    "account",
    "round",
    "rung",
    "attempts",
    "sends",
    "due_at",
    "sent_at",
    "delivered_at",
    "read_at",
    "clicked_at",
    "platform_message_id",
)
#: What people write of themselves: it must not become a formula in somebody's spreadsheet (OWASP, CSV injection).
_FOREIGN = frozenset({"recipient.external_id", "recipient.name", "recipient.email"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_AT_ONCE = 1_000
_CHUNK = 256 * 1024
#: Rows a sheet can hold, less its header.
_SHEET_ROWS = 2**20 - 1

Rows = AsyncIterator[tuple[Delivery, Recipient]]
Cell = str | int | None


async def csv_of(request: web.Request, filename: str, rows: Rows) -> web.StreamResponse:
    """UTF-8 with a header, lines ending in CR LF (RFC 4180)."""
    kind = f"{CSV}; charset=utf-8"
    if request.method == hdrs.METH_HEAD:
        return web.Response(headers=_headers(filename, kind))
    response = await _started(request, filename, kind)
    await response.write(_csv_lines([list(COLUMNS)]))
    async for batch in _batches(rows):
        await response.write(_csv_lines(_harmless(cells) for cells in batch))
    await response.write_eof()
    return response


def _csv_lines(rows: Iterable[list[Cell]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _harmless(cells: list[Cell]) -> list[Cell]:
    return [
        f"'{cell}" if name in _FOREIGN and str(cell).startswith(_FORMULA) else cell
        for name, cell in zip(COLUMNS, cells, strict=True)
    ]


async def xlsx_of(request: web.Request, filename: str, rows: Rows) -> web.StreamResponse:
    """One sheet, or as many as the rows need. It is made on disk before the first byte goes out."""
    if request.method == hdrs.METH_HEAD:
        return web.Response(headers=_headers(filename, XLSX))
    with tempfile.TemporaryFile() as file:
        sheets = _Sheets()
        async for batch in _batches(rows):
            await asyncio.to_thread(sheets.append, batch)
        await asyncio.to_thread(sheets.save, file)
        response = await _started(request, filename, XLSX)
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            await response.write(chunk)
        await response.write_eof()
    return response


class _Sheets:
    """A workbook that openpyxl writes to disk row by row."""

    def __init__(self) -> None:
        self._book = Workbook(write_only=True)
        self._begin()

    def append(self, batch: list[list[Cell]]) -> None:
        for cells in batch:
            if self._rows == _SHEET_ROWS:
                self._begin()
            self._sheet.append([self._cell(cell) for cell in cells])
            self._rows += 1

    def save(self, file: IO[bytes]) -> None:
        self._book.save(file)
        file.seek(0)

    def _begin(self) -> None:
        self._sheet = self._book.create_sheet()
        self._sheet.append(list(COLUMNS))
        self._rows = 0

    def _cell(self, value: Cell) -> object:
        """Text stays text: openpyxl takes what begins with = for a formula, and refuses control characters."""
        if not isinstance(value, str):
            return value
        text = ILLEGAL_CHARACTERS_RE.sub("", value)
        if not text.startswith("="):
            return text
        cell = WriteOnlyCell(self._sheet, text)
        cell.data_type = "s"
        return cell


async def _batches(rows: Rows) -> AsyncIterator[list[list[Cell]]]:
    batch: list[list[Cell]] = []
    async for delivery, recipient in rows:
        batch.append(_cells(delivery_row(delivery, recipient)))
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _cells(row: DeliveryRow) -> list[Cell]:
    flat = dict(_flat(row.model_dump(mode="json")))
    return [flat[name] for name in COLUMNS]


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Cell]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str | int) else None


async def _started(request: web.Request, filename: str, content_type: str) -> web.StreamResponse:
    response = web.StreamResponse(headers=_headers(filename, content_type))
    problems.starts(request)
    await response.prepare(request)
    return response


def _headers(filename: str, content_type: str) -> dict[str, str]:
    return {"Content-Type": content_type, "Content-Disposition": f'attachment; filename="{filename}"'}
