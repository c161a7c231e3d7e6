"""Files of recipients: CSV, XLSX and JSON lines read as rows, one at a time, with the line numbers that people's
own editors and spreadsheets show.

What is wrong with the file as a whole is raised as `Invalid` on the field ``file``; what is wrong with one row is
that row's error, and reading goes on.
"""

from __future__ import annotations

import asyncio
import codecs
import csv
import io
import re
import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from enum import StrEnum
from itertools import islice
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError

import orjson
from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from broadcast.errors import Fault, Invalid
from broadcast.recipients import COLUMNS, IDENTIFYING, Row, RowError

MAX_ROWS = 1_000_000
MAX_COLUMNS = 200
MAX_LINE = 1024 * 1024
#: What a spreadsheet may unpack to, and how many files it may be made of: a small file can claim to be huge.
MAX_UNPACKED = 256 * 1024 * 1024
MAX_PARTS = 2_000
_CHUNK = 1024 * 1024
_AT_ONCE = 200

Item = Row | RowError


class Format(StrEnum):
    """How a file of recipients is written."""

    CSV = "csv"
    XLSX = "xlsx"
    JSON_LINES = "jsonl"


CONTENT_TYPES: Mapping[str, Format] = MappingProxyType(
    {
        "text/csv": Format.CSV,
        "application/csv": Format.CSV,
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": Format.XLSX,
        "application/x-ndjson": Format.JSON_LINES,
        "application/jsonl": Format.JSON_LINES,
        "application/jsonlines": Format.JSON_LINES,
        "application/json-lines": Format.JSON_LINES,
        "application/json": Format.JSON_LINES,
    }
)
_SUFFIXES: Mapping[str, Format] = MappingProxyType(
    {
        ".csv": Format.CSV,
        ".tsv": Format.CSV,
        ".txt": Format.CSV,
        ".xlsx": Format.XLSX,
        ".jsonl": Format.JSON_LINES,
        ".ndjson": Format.JSON_LINES,
        ".json": Format.JSON_LINES,
    }
)


def format_of(content_type: str, filename: str = "") -> Format | None:
    """What a content type says, else what a file's name ends with; ``None`` where neither is known."""
    return CONTENT_TYPES.get(content_type.lower()) or _SUFFIXES.get(PurePath(filename).suffix.lower())


def rows(file: BinaryIO, format: Format, *, limit: int = MAX_ROWS) -> Iterator[Item]:
    """The rows of a file that can be sought in; after `limit` of them one error says so. Raises `Invalid`."""
    read = {Format.CSV: _csv_rows, Format.XLSX: _xlsx_rows, Format.JSON_LINES: _json_rows}[format]
    found = read(file)
    yield from islice(found, limit)
    for beyond in found:
        yield RowError(beyond.line, "", f"is beyond {limit} rows; import the rest from a file of its own")
        return


async def streamed(items: Iterator[Item]) -> AsyncIterator[Item]:
    """The same, read in a thread a piece at a time: a large file holds nobody up."""
    while piece := await asyncio.to_thread(list, islice(items, _AT_ONCE)):
        for item in piece:
            yield item


def _refused(message: str) -> Invalid:
    return Invalid([Fault("file", message)])


# --- header and cells ---------------------------------------------------------------------------------


def column_name(header: str) -> str:
    """The column that a header means: ``First Name`` is ``first_name``; a free attribute gets a name that a
    placeholder can say."""
    return re.sub(r"\W+", "_", header.strip().casefold()).strip("_")


def _columns(header: Sequence[str]) -> tuple[str, ...]:
    """The columns of a header row; a blank one has no name. Raises `Invalid`."""
    names = tuple(column_name(cell) for cell in header)
    if len(names) > MAX_COLUMNS:
        raise _refused(f"has {len(names)} columns; {MAX_COLUMNS} is the most")
    for name in filter(None, names):
        if names.count(name) > 1:
            raise _refused(f"has two columns {name}; give each a name of its own")
        if not name.isidentifier():
            raise _refused(f"has a column {name}; begin its name with a letter")
    if not set(IDENTIFYING) & set(names):
        raise _refused(
            f"names no column that says who is meant; the first row must be a header with one of "
            f"{', '.join(IDENTIFYING)}"
        )
    return names


def _row(line: int, columns: Sequence[str], cells: Sequence[str]) -> Item | None:
    """A row under its header; ``None`` where nothing stands in it."""
    if not any(cells):
        return None
    for place, cell in enumerate(cells):
        if cell and (place >= len(columns) or not columns[place]):
            return RowError(line, "", f"has {cell[:40]} in column {place + 1}, which the header does not name")
    return Row(line, {name: cell for name, cell in zip(columns, cells, strict=False) if cell})


# --- CSV ----------------------------------------------------------------------------------------------


def _csv_rows(file: BinaryIO) -> Iterator[Item]:
    _refuse_other_encodings(file)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        yield from _lines_of_csv(text)
    finally:
        text.detach()


def _lines_of_csv(text: io.TextIOWrapper) -> Iterator[Item]:
    first = text.readline(MAX_LINE)
    text.seek(0)
    reader = csv.reader(text, delimiter=_delimiter(first))
    columns: tuple[str, ...] | None = None
    line = 0
    try:
        for cells in reader:
            began, line = line + 1, reader.line_num
            stripped = [cell.strip() for cell in cells]
            if columns is None:
                columns = _columns(stripped) if any(stripped) else None
            elif found := _row(began, columns, stripped):
                yield found
    except csv.Error as error:
        yield RowError(line + 1, "", f"cannot be read as CSV ({error}); nothing after it was taken")
    if columns is None:
        raise _refused("is empty; the first row names the columns")


def _delimiter(header: str) -> str:
    """What stands between the cells of the header: whatever gives the most columns that we know, then the most."""

    def worth(delimiter: str) -> tuple[int, int]:
        names = [column_name(cell) for cell in next(csv.reader([header], delimiter=delimiter), [])]
        return len(set(names) & set(COLUMNS)), len(names)

    return max(",;\t", key=worth)


def _refuse_other_encodings(file: BinaryIO) -> None:
    """Reads all of it once: a file that turns out not to be UTF-8 half way through must not be half imported."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    for chunk in iter(lambda: file.read(_CHUNK), b""):
        if line == 1 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise _refused("is UTF-16; save it as CSV UTF-8")
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            line += chunk.count(b"\n", 0, error.start)
            raise _refused(f"is not UTF-8 (line {line}); save it as CSV UTF-8") from error
        line += chunk.count(b"\n")
    file.seek(0)


# --- XLSX ---------------------------------------------------------------------------------------------

#: What openpyxl raises for a file that is not what it says.
_BROKEN = (
    zipfile.BadZipFile,
    InvalidFileException,
    ParseError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    EOFError,
    OSError,
)


def _xlsx_rows(file: BinaryIO) -> Iterator[Item]:
    _refuse_bombs(file)
    try:
        workbook = load_workbook(file, read_only=True, data_only=True, keep_links=False)
    except _BROKEN as error:
        raise _no_spreadsheet() from error
    try:
        if not workbook.worksheets:
            raise _refused("has no sheet")
        yield from _sheet_rows(workbook.worksheets[0])
    finally:
        workbook.close()


def _no_spreadsheet() -> Invalid:
    return _refused("is no XLSX spreadsheet that can be read; save it as XLSX or CSV UTF-8")


def _refuse_bombs(file: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(file) as packed:
            parts = packed.infolist()
    except _BROKEN as error:
        raise _no_spreadsheet() from error
    # zipfile unpacks no more of a part than its entry says, so that the sum cannot be lied about.
    if len(parts) > MAX_PARTS or sum(part.file_size for part in parts) > MAX_UNPACKED:
        raise _refused(f"unpacks to more than {MAX_UNPACKED // 2**20} MiB; import a smaller one, or CSV")
    file.seek(0)


def _sheet_rows(sheet: Any) -> Iterator[Item]:
    """`sheet` is openpyxl's read-only worksheet, whose types say less than it has."""
    sheet.reset_dimensions()  # what a file says of its own size is often wrong
    header, columns = _sheet_header(sheet)
    # Asking for one column more shows a cell without a header; asking for all would fill every row up with blanks.
    read = sheet.iter_rows(min_row=header + 1, max_row=header + MAX_ROWS + 1, max_col=len(columns) + 1)
    for line, row in _until_broken(read, header + 1):
        found = row if isinstance(row, RowError) else _sheet_row(line, columns, row)
        if found is not None:
            yield found


def _sheet_header(sheet: Any) -> tuple[int, tuple[str, ...]]:
    """The line of the first row that is not blank, and its columns."""
    for line, row in _until_broken(sheet.iter_rows(max_row=MAX_ROWS, max_col=MAX_COLUMNS + 1), 1):
        if isinstance(row, RowError):
            raise _no_spreadsheet()
        texts = [_text(cell.value) for cell in row]
        if any(texts):
            return line, _columns(_trimmed(texts))
    raise _refused("is empty; the first row of the first sheet names the columns")


def _sheet_row(line: int, columns: Sequence[str], row: Sequence[Any]) -> Item | None:
    return _cell_error(line, row) or _row(line, columns, [_text(cell.value) for cell in row])


def _until_broken(read: Iterable[Sequence[Any]], first: int) -> Iterator[tuple[int, Sequence[Any] | RowError]]:
    """The rows with their numbers, counted from `first`; where the sheet is broken, an error ends it."""
    line = first
    try:
        for row in read:
            yield line, row
            line += 1
    except _BROKEN:
        yield line, RowError(line, "", "cannot be read; nothing after it was taken")


def _trimmed(texts: list[str]) -> list[str]:
    while texts and not texts[-1]:
        texts.pop()
    return texts


def _cell_error(line: int, row: Sequence[Any]) -> RowError | None:
    """A formula that came to nothing is no value."""
    wrong = next((cell.value for cell in row if getattr(cell, "data_type", "") == "e"), None)
    return None if wrong is None else RowError(line, "", f"has a cell with the error {wrong}; correct it")


def _text(value: object) -> str:
    """A value as people would write it: spreadsheets keep numbers where they see digits."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer():
            return str(int(value))
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case datetime() | date() | time():
            return value.isoformat()
    return str(value).strip()


# --- JSON lines ---------------------------------------------------------------------------------------


def _json_rows(file: BinaryIO) -> Iterator[Item]:
    for line, raw in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=1):
        if len(raw) == MAX_LINE:
            yield RowError(line, "", f"is longer than {MAX_LINE} bytes; nothing after it was taken")
            return
        text = raw.removeprefix(codecs.BOM_UTF8).strip() if line == 1 else raw.strip()
        if text:
            yield _json_row(line, text)


def _json_row(line: int, text: bytes) -> Item:
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError:
        return RowError(line, "", 'is no JSON; write one object a line, such as {"email": "ann@example.com"}')
    if not isinstance(given, dict):
        return RowError(line, "", 'is no object; write {"email": "ann@example.com"}')
    cells: dict[str, str] = {}
    for key, value in given.items():
        name, cell = column_name(key), _json_text(value)
        if cell is None:
            return RowError(line, key, "is no text, number or list of texts; attributes stand beside the others")
        if not name.isidentifier():
            return RowError(line, key, "is no name of a column; begin it with a letter")
        cells[name] = cell
    return Row(line, {name: cell for name, cell in cells.items() if cell})


def _json_text(value: object) -> str | None:
    """A value as a cell would hold it; ``None`` for what no cell can."""
    if isinstance(value, list):
        return ";".join(value) if all(isinstance(entry, str) for entry in value) else None
    return None if isinstance(value, dict) else _text(value)
