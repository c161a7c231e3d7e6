"""A whole store in one file: JSON lines in gzip. A head, one line per record in the order of the kinds, and an end
with the counts, without which it is not whole."""

from __future__ import annotations

import gzip
import os
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from storage.errors import Damaged, TooNew
from storage.records import KINDS, PAGE, Holder, Record, vocabulary

FORMAT = 1  # another number means another meaning of the lines
_GZIP = b"\x1f\x8b"
_END = b'{"end":'


def is_archive(file: Path) -> bool:
    """By what it begins with."""
    with file.open("rb") as opened:
        return opened.read(len(_GZIP)) == _GZIP


class ArchiveSource:
    """Reads the file from its beginning to its end."""

    def __init__(self, file: Path, *, shown: Path | None = None) -> None:
        self.name = str(shown or file)
        self._file = file
        self._counts: Mapping[str, int] = {}
        self._lines: Iterator[bytes] = iter(())
        self._next = b""
        self._number = 0

    def check(self) -> None:
        """Raises `CannotOpen` unless this is a whole file of a format that is known."""
        found: Counter[str] = Counter()
        last = b""
        for number, line in enumerate(self._all()):
            if number == 0:
                self._counts = self._known(line)
            elif not line.startswith(_END):
                found[_kind(line)] += 1
            last = line
        if not last.startswith(_END) or orjson.loads(last)["end"] != found:
            raise Damaged(f"{self.name}: is not whole; take another backup")

    def _known(self, head: bytes) -> Mapping[str, int]:
        """The counts in it."""
        try:
            told = orjson.loads(head)
            number, counts, fields = int(told["clarion"]), dict(told["counts"]), {*told.get("fields", ())}
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{self.name}: is no backup of Clarion; name another file") from error
        if number > FORMAT or fields - {*vocabulary()}:
            raise TooNew(
                f"{self.name}: is of a newer version, with more in it than this one keeps; upgrade Clarion first"
            )
        return counts

    def _all(self) -> Iterator[bytes]:
        try:
            with gzip.open(self._file, "rb") as file:
                yield from file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Damaged(f"{self.name}: is damaged; take another backup") from error

    async def holders(self) -> list[Holder]:
        return []

    async def count(self, kind: str) -> int:
        return self._counts.get(kind, 0)

    async def read(self, kind: str) -> AsyncIterator[Sequence[Record]]:
        if kind == next(iter(KINDS)):
            self._lines = self._all()
            self._number = 0
            self._advance()
            self._advance()
        while page := self._page(kind):
            yield page

    def _advance(self) -> None:
        self._next = next(self._lines, b"")
        self._number += 1

    def _page(self, kind: str) -> list[Record]:
        begins = len(f'{{"{kind}":')
        page: list[Record] = []
        while len(page) < PAGE and _kind(self._next) == kind:
            text = self._next.rstrip()[begins:-1].decode()
            page.append(KINDS[kind].decode(f"in line {self._number} of {self.name}", text))
            self._advance()
        return page

    async def close(self) -> None:
        """Nothing is held open between two pages that would have to be let go of."""


class ArchiveTarget:
    """Writes the file beside its place, readable by its owner only, and renames it when it is whole. `schema` and
    `counts` are those of the store it is made from."""

    def __init__(self, file: Path, *, schema: int, counts: Mapping[str, int]) -> None:
        self.name = str(file)
        self._file = file
        self._draft = file.with_name(f"{file.name}.part")
        self._head = {"clarion": FORMAT, "schema": schema, "counts": dict(counts), "fields": vocabulary()}
        self._written: Counter[str] = Counter()
        self._out: gzip.GzipFile | None = None
        self._made = ArchiveSource(self._draft, shown=file)

    async def holders(self) -> list[Holder]:
        return []

    async def is_empty(self) -> bool:
        """Who names a file to be replaced has said so before."""
        return True

    async def count(self, kind: str) -> int:
        return self._written[kind]

    async def begin(self, origin: str) -> None:
        self._out = _made(self._draft)
        self._out.write(orjson.dumps({**self._head, "from": origin}) + b"\n")

    async def write(self, kind: str, records: Sequence[Record]) -> None:
        if self._out is not None:
            for record in records:
                self._out.write(f'{{"{kind}":{KINDS[kind].encode(record)}}}\n'.encode())
        self._written[kind] += len(records)

    async def read(self, kind: str) -> AsyncIterator[Sequence[Record]]:
        self._end()
        async for page in self._made.read(kind):
            yield page

    def _end(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            out.write(orjson.dumps({"end": dict(self._written)}) + b"\n")
            _shut(out)

    async def finish(self) -> None:
        self._end()
        self._draft.replace(self._file)

    async def close(self) -> None:
        if self._out is not None:
            _shut(self._out)
        self._draft.unlink(missing_ok=True)


def _kind(line: bytes) -> str:
    return line[2 : line.find(b'"', 2)].decode(errors="replace")


def _made(draft: Path) -> gzip.GzipFile:
    """An empty file that is its owner's alone."""
    draft.unlink(missing_ok=True)
    raw = os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0)


def _shut(out: gzip.GzipFile) -> None:
    """On the disk when it returns."""
    raw: Any = out.fileobj
    out.close()
    raw.flush()
    os.fsync(raw.fileno())
    raw.close()
