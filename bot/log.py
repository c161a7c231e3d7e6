"""How log lines are written: events with a fixed `action` and fields, on standard error.

No secret ever gets out: besides nobody logging any, every line is searched for those in the settings.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection
from typing import TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

from bot.settings import LogFormat

#: A level at which a person at a terminal is left alone.
QUIET = logging.ERROR

#: Libraries that tell of every request, addresses with tokens among them.
_QUIET = ("aiohttp.access", "apscheduler", "telegram", "httpx", "httpcore", "botbuilder", "asyncio")


def configure(
    format: LogFormat, *, secrets: Collection[str] = (), level: int = logging.INFO, stream: TextIO | None = None
) -> None:
    """Sets up logging of Clarion and of the libraries below it, for the whole process."""
    stream = stream or sys.stderr
    as_json = format is LogFormat.JSON or (format is LogFormat.AUTO and not stream.isatty())
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Scrubbing(_renderers(as_json=as_json, colours=stream.isatty()), common, secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _renderers(*, as_json: bool, colours: bool) -> list[Processor]:
    if as_json:
        return [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    return [structlog.dev.ConsoleRenderer(colors=colours)]


def _json(event: EventDict, **_: object) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class _Scrubbing(structlog.stdlib.ProcessorFormatter):
    """Renders a line and leaves no secret in it."""

    def __init__(self, renderers: list[Processor], common: list[Processor], secrets: Collection[str]) -> None:
        super().__init__(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
            foreign_pre_chain=common,
        )
        self._secrets = tuple(sorted(filter(None, secrets), key=len, reverse=True))

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line
