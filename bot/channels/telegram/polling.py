"""Asking Telegram for updates, for installations without a public address.

The offset is kept in memory only: Telegram keeps what was not confirmed for a day and tells it again after a
restart, and the key of each update makes the repeat harmless.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
import structlog

from bot.channels.http import Exchange, Http, Reply, scrub
from bot.channels.telegram.account import TelegramAccount
from bot.channels.telegram.updates import ALLOWED_UPDATES
from bot.channels.webhook import Received
from broadcast.ports import Clock

log = structlog.get_logger(__name__)

#: How long Telegram holds a question open while there is nothing to tell, in seconds (at most 50, PLATFORMS C5).
HOLD = 50
#: The longest pause after failures in a row, in seconds.
LONGEST_PAUSE = 60.0

#: What a person can do about a refusal, by its code.
_MENDS = {
    401: "the token was revoked: take the current one from @BotFather",
    404: "Telegram does not know the token: take the current one from @BotFather",
    409: "another process asks for this bot's updates, or a webhook is set: run one of them only",
}


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a question brought no updates, and how long Telegram wants to be left alone, if it said so."""

    code: int | None
    detail: str
    wait: timedelta | None = None


async def poll(
    account: TelegramAccount,
    http: Http,
    clock: Clock,
    hear: Callable[[list[Any]], Received],
    *,
    hold: int = HOLD,
) -> AsyncGenerator[Received, None]:
    """Batches of updates, for ever. A batch is confirmed once the next one is asked for: whoever iterates has
    stored it by then. Faults of platform and network are waited out; cancelling ends it at any point."""
    offset: int | None = None
    faults = 0
    while True:
        updates = _updates(await _ask(account, http, offset, hold), account.token)
        if isinstance(updates, _Fault):
            faults += 1
            await _pause(account, clock, updates, faults)
            continue
        faults = 0
        if updates:
            yield hear(updates)
            offset = _after(updates, offset)


async def _ask(account: TelegramAccount, http: Http, offset: int | None, hold: int) -> Exchange:
    fields: dict[str, Any] = {"timeout": hold, "allowed_updates": ALLOWED_UPDATES}
    if offset is not None:
        fields["offset"] = offset
    return await http.post_json(account.url("getUpdates"), orjson.dumps(fields))


def _updates(exchange: Exchange, token: str) -> list[Any] | _Fault:
    if not isinstance(exchange, Reply):
        return _Fault(None, exchange.detail)
    data = exchange.json()
    data = data if isinstance(data, dict) else {}
    result = data.get("result")
    if data.get("ok") is True and isinstance(result, list):
        return result
    parameters = data.get("parameters")
    seconds = parameters.get("retry_after") if isinstance(parameters, dict) else None
    wait = timedelta(seconds=seconds) if isinstance(seconds, int | float) else exchange.retry_after
    return _Fault(exchange.status, scrub(str(data.get("description", "")), token), wait)


async def _pause(account: TelegramAccount, clock: Clock, fault: _Fault, faults: int) -> None:
    wait = fault.wait or timedelta(seconds=min(LONGEST_PAUSE, 2.0 ** min(faults - 1, 10)))
    log.warning(
        "updates could not be fetched",
        action="telegram_polling_failed",
        account=account.key,
        status=fault.code,
        detail=fault.detail,
        mend=_MENDS.get(fault.code or 0),
        wait_seconds=wait.total_seconds(),
    )
    await clock.sleep_until(clock.now() + wait)


def _after(updates: list[Any], offset: int | None) -> int | None:
    """The offset that confirms these updates: one above the highest id."""
    ids = [update["update_id"] for update in updates if isinstance(update, dict)]
    return max(ids) + 1 if ids else offset
