"""What is done once at the start: does the token hold, and where do callbacks go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from bot.channels.http import Http, Reply, scrub
from bot.channels.viber.account import ViberAccount
from bot.channels.viber.callbacks import EVENTS
from broadcast.errors import PresenceUnavailable

#: What a person can do about a status (PLATFORMS D4).
_MENDS: Mapping[int, str] = {
    1: "the webhook's address is not taken: it must be public, https, and carry a certificate of a known authority",
    2: "Viber does not know the token; take the current one from the admin panel",
    7: "the bot is blocked; write to Viber's support",
    8: "the bot does not exist any more",
    9: "the bot is suspended; write to Viber's support",
    10: "no webhook is set; it is set when the host starts with a public address",
    15: "the bot is not authorised for this",
}


class ViberSetup:
    """Checks and registers one bot, and asks Viber things."""

    def __init__(self, account: ViberAccount, http: Http) -> None:
        self._account = account
        self._http = http

    async def check(self) -> str | None:
        """``None`` if Viber knows the bot, otherwise what to do about it."""
        return self._trouble(await self._ask("get_account_info", {}))

    async def connect(self, webhook: str) -> str | None:
        """Has callbacks sent to the address `webhook`, which Viber calls before it answers. ``None``, or what to
        do."""
        fields = {"url": webhook, "event_types": EVENTS, "send_name": True, "send_photo": False}
        return self._trouble(await self._ask("set_webhook", fields))

    async def ask(self, method: str, fields: Mapping[str, object]) -> Mapping[str, object]:
        """Viber's answer to a question of the presence provider. Raises `PresenceUnavailable` where there is none;
        what `status` means is left to whoever asks."""
        answer = await self._ask(method, fields)
        if isinstance(answer, str):
            raise PresenceUnavailable(answer)
        reply, data = answer
        if reply.status != 200 or not isinstance(data, dict):
            raise PresenceUnavailable(f"HTTP {reply.status}", wait=reply.retry_after)
        return data

    async def _ask(self, method: str, fields: Mapping[str, object]) -> str | tuple[Reply, Any]:
        """Reply and its JSON, or in words why there is none."""
        exchange = await self._http.request(
            "POST", self._account.url(method), orjson.dumps(fields), self._account.headers()
        )
        return (exchange, exchange.json()) if isinstance(exchange, Reply) else exchange.detail

    def _trouble(self, answer: str | tuple[Reply, Any]) -> str | None:
        who, where = self._account.key, self._account.api_url
        if isinstance(answer, str):
            return f"{who}: {where} could not be used ({answer}); is it reachable from here?"
        reply, data = answer
        status = data.get("status") if isinstance(data, dict) else None
        if not isinstance(status, int):
            return f"{who}: {where} does not answer as Viber does (HTTP {reply.status}); is the address right?"
        if status == 0:
            return None
        words = scrub(str(data.get("status_message") or ""), self._account.token)
        return f"{who}: {_MENDS.get(status, 'Viber refuses')} (status {status} {words})"
