"""Accounts as bodies."""

from __future__ import annotations

from typing import Literal

from bot.admin.services import Connection, Pace
from bot.admin.shapes.common import (
    Instant,
    Listed,
)
from bot.admin.validation import Shape
from broadcast.model import (
    ChannelName,
)
from broadcast.ports import Account


class AccountOut(Shape):
    """`status` is how it stands with its platform; `detail` what to do about it."""

    account: str
    channel: ChannelName
    rate: float
    reports_delivered: bool
    reports_read: bool
    status: Literal["connected", "not_connected", "unknown"]
    detail: str | None
    achieved_rate: float | None
    waiting_until: Instant | None


class AccountList(Listed):
    items: list[AccountOut]


def account_out(account: Account, connection: Connection | None, pace: Pace | None) -> AccountOut:
    stands = connection or Connection()
    does = pace or Pace()
    return AccountOut(
        account=account.key,
        channel=account.channel,
        rate=float(account.rate),
        reports_delivered=account.features.reports_delivered,
        reports_read=account.features.reports_read,
        status=_connection_status(stands.connected),
        detail=stands.detail,
        achieved_rate=does.achieved_rate,
        waiting_until=does.waiting_until,
    )


def _connection_status(connected: bool | None) -> Literal["connected", "not_connected", "unknown"]:
    if connected is None:
        return "unknown"
    return "connected" if connected else "not_connected"
