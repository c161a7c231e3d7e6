"""What Teams posts to us: verified first, then read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
import structlog

from bot.channels.http import Http
from bot.channels.teams import handler
from bot.channels.teams.account import TeamsAccount
from bot.channels.teams.auth import Keys, Reason, Refusal, Verifier
from bot.channels.teams.turn import Turn
from bot.channels.webhook import BODY_LIMIT, Received
from broadcast.ports import Clock

log = structlog.get_logger()


class TeamsInbound:
    """One account's messaging endpoint.

    `unverified_loopback` opens it for local emulators, which sign nothing: only for an account without an app id,
    and the host has to see to it that it listens on loopback only. Service addresses are checked all the same.
    """

    def __init__(
        self,
        account: TeamsAccount,
        clock: Clock,
        *,
        http: Http | None = None,
        keys: Keys | None = None,
        unverified_loopback: bool = False,
    ) -> None:
        if unverified_loopback and account.app_id:
            raise ValueError(f"{account.key} has an app id: what claims to come from Teams is always verified")
        self._account = account
        self._clock = clock
        self._http = http or Http()
        self._keys = keys or Keys(self._http, account.openid_url)
        self._verifier = None if unverified_loopback else Verifier(account, self._keys)

    async def receive(self, headers: Mapping[str, str], body: bytes) -> Received:
        """Who sent it is settled before the body is looked at, and that the body is theirs before it is read."""
        activity = await self._verified(headers, body)
        if isinstance(activity, Refusal):
            return Received(activity.status, refused=activity.reason.value)
        turn = Turn(self._account, activity, self._clock.now(), hashlib.blake2b(body, digest_size=16).hexdigest())
        try:
            await handler.read(turn)
        except Exception:  # what Teams adds one day must not make it repeat itself
            log.exception("activity not understood", action="teams_activity_unreadable", account=self._account.key)
            return Received()
        answer = None if turn.answer is None else orjson.dumps(turn.answer)
        return Received(body=answer, inbound=tuple(turn.inbound), receipts=tuple(turn.receipts))

    async def close(self) -> None:
        """Ends what is under way."""
        await self._keys.close()
        await self._http.close()

    async def _verified(self, headers: Mapping[str, str], body: bytes) -> dict[str, Any] | Refusal:
        if len(body) > BODY_LIMIT:
            return Refusal(Reason.TOO_LARGE)
        if self._verifier is None:
            return _activity(body)
        sender = await self._verifier.sender(headers.get("Authorization") or headers.get("authorization"))
        if isinstance(sender, Refusal):
            return sender
        activity = _activity(body)
        if isinstance(activity, Refusal):
            return activity
        mismatch = sender.speaks_for(channel_id=activity.get("channelId"), service_url=activity.get("serviceUrl"))
        return mismatch or activity


def _activity(body: bytes) -> dict[str, Any] | Refusal:
    try:
        activity = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Refusal(Reason.BODY)
    if not isinstance(activity, dict) or not isinstance(activity.get("type"), str):
        return Refusal(Reason.BODY)
    return activity
