"""`clarion simulate FILE`: a scenario in, one JSON line per attempt and per delivery out (RULES.md, simulate)."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path
from typing import NoReturn, TextIO
from zoneinfo import ZoneInfo

import structlog

from bot import scenario
from broadcast import simulation
from broadcast.errors import Invalid
from broadcast.simulation import AttemptLine, DeliveryLine, Line, Scenario
from storage.memory import MemoryStore

#: The exit status of a file at fault.
AT_FAULT = 2


def run(path: Path | str, *, out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Plays the scenario in the file and writes its lines; answers the exit status. Of a faulty file one line on
    `err` says what to mend, and nothing is written to `out`."""
    try:
        told = scenario.read(Path(path).read_text(encoding="utf-8-sig"))
    except Invalid as error:
        return _fault(f"{path}: {error.faults[0]}", err)
    except UnicodeDecodeError:
        return _fault(f"{path}: is no UTF-8 text; save it as UTF-8", err)
    except OSError as error:
        return _fault(f"{path}: cannot be read ({error.strerror}); check the name and its rights", err)
    write(told, out or sys.stdout)
    return 0


def _fault(message: str, err: TextIO | None) -> int:
    print(f"clarion: {' '.join(message.split())}", file=err or sys.stderr)
    return AT_FAULT


def write(told: Scenario, out: TextIO) -> None:
    """Plays a scenario and writes its lines in order."""
    texts = _Texts(told)
    with closing(_Spool()) as spool, _silence():
        simulation.play(told, MemoryStore(), lambda line: spool.add(line, texts.of(line)))
        out.writelines(spool.in_order())


@contextmanager
def _silence() -> Iterator[None]:
    """What the engine logs of platforms that fail is what the file asked for, and says nothing of this host."""

    def drop(*_: object) -> NoReturn:
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[drop])
    try:
        yield
    finally:
        structlog.configure(**before)


# --- order --------------------------------------------------------------------------------------------


class _Spool:
    """Lines put into order in memory that does not grow with the number of attempts.

    They come in order of instant, but for deliveries dated back when their time ran out: of those there is at
    most one a recipient. What is in order goes to a file, an instant at a time; what is late is merged in later.
    """

    _KEY = 44

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="ascii", newline="\n")  # noqa: SIM115 - closed by `close`
        self._instant = datetime.min.replace(tzinfo=UTC)
        self._same: list[str] = []
        self._late: list[str] = []

    def add(self, line: Line, text: str) -> None:
        at, place, kind = line.key
        entry = f"{at.isoformat(timespec='microseconds')}{place:011}{kind}{text}\n"
        if at > self._instant:
            self._flush()
            self._instant = at
        (self._late if at < self._instant else self._same).append(entry)

    def _flush(self) -> None:
        self._same.sort(key=_key)
        self._file.writelines(self._same)
        self._same.clear()

    def in_order(self) -> Iterator[str]:
        self._flush()
        self._file.seek(0)
        self._late.sort(key=_key)
        lines: Iterable[str] = merge(self._file, self._late, key=_key) if self._late else self._file
        return (line[self._KEY :] for line in lines)

    def close(self) -> None:
        self._file.close()


def _key(entry: str) -> str:
    return entry[: _Spool._KEY]  # noqa: SLF001 - one thing in two parts


# --- words --------------------------------------------------------------------------------------------


class _Texts:
    """Lines as JSON, instants with the offset of the zone that the recipient's hours are read in."""

    def __init__(self, told: Scenario) -> None:
        self._zones = [ZoneInfo(zone) for zone in simulation.zones(told)]
        self._ids = [person.id for person in told.people]

    def of(self, line: Line) -> str:
        at = _written(line.at.astimezone(self._zones[line.place]))
        who = self._ids[line.place]
        return json.dumps(_attempt(line, who, at) if isinstance(line, AttemptLine) else _end(line, who, at))


def _written(at: datetime) -> str:
    """Milliseconds only when not zero."""
    return at.isoformat(timespec="milliseconds" if at.microsecond >= 1000 else "seconds")


def _attempt(line: AttemptLine, recipient: str, at: str) -> dict[str, object]:
    return {
        "type": "attempt",
        "recipient": recipient,
        "round": line.round,
        "rung": line.rung,
        "at": at,
        "presence": line.presence,
        "outcome": line.outcome,
    }


def _end(line: DeliveryLine, recipient: str, at: str) -> dict[str, object]:
    return {
        "type": "delivery",
        "recipient": recipient,
        "state": line.state,
        "reason": line.reason,
        "at": at,
        "attempts": line.attempts,
        "sends": line.sends,
    }
