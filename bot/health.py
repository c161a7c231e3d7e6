"""Is the process alive, and can it do its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from bot.accounts import Accounts
from bot.leases import Standing
from bot.webhooks import Webhooks
from broadcast.errors import StoreUnavailable
from broadcast.ports import Store


class Health:
    """``/healthz`` and ``/readyz``. Ready means: what comes in can be stored. An account that is not connected is
    told of, but no load balancer could mend it."""

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        webhooks: Webhooks,
        standings: Callable[[], Mapping[str, Standing]] = dict,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._webhooks = webhooks
        self._standings = standings

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/healthz", self._alive), web.get("/readyz", self._ready)]

    async def _alive(self, _request: web.Request) -> web.Response:
        return _json(200, {"status": "ok"})

    async def _ready(self, _request: web.Request) -> web.Response:
        try:
            await self._store.ping()
        except StoreUnavailable as error:
            return _json(503, {"status": "unavailable", "store": str(error)} | self._detail())
        return _json(200, {"status": "ready", "store": "ok"} | self._detail())

    def _detail(self) -> dict[str, Any]:
        standings = self._standings()
        return {
            "accounts": [
                {
                    "account": one.key,
                    "connected": one.connected,
                    "do": one.trouble,
                    "engine": standings[one.key].value if one.key in standings else None,
                }
                for one in self._accounts.all.values()
            ],
            "webhooks_refused": dict(sorted(self._webhooks.refused.items())),
        }


def _json(status: int, body: Mapping[str, Any]) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
