"""python-telegram-bot over the shared transport, by the library's own extension point."""

from __future__ import annotations

import orjson
from telegram.error import NetworkError, TimedOut
from telegram.request import BaseRequest, RequestData

from bot.channels.http import Http, NoAnswer, NoConnection

_JSON = {"Content-Type": "application/json"}


class HttpRequest(BaseRequest):
    """Carries what a `telegram.Bot` asks for. The time-outs are those of the transport; files are not uploaded."""

    __slots__ = ("_http",)

    def __init__(self, http: Http) -> None:
        self._http = http

    @property
    def read_timeout(self) -> float | None:
        return self._http.settings.total

    async def initialize(self) -> None:
        """Nothing to do: the transport opens with its first request."""

    async def shutdown(self) -> None:
        """Nothing to do: whoever owns the transport closes it."""

    async def do_request(
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: object = BaseRequest.DEFAULT_NONE,  # noqa: ARG002 - see the class
        write_timeout: object = BaseRequest.DEFAULT_NONE,  # noqa: ARG002
        connect_timeout: object = BaseRequest.DEFAULT_NONE,  # noqa: ARG002
        pool_timeout: object = BaseRequest.DEFAULT_NONE,  # noqa: ARG002
    ) -> tuple[int, bytes]:
        if request_data is not None and request_data.contains_files:
            raise NetworkError("files are sent by their address, never uploaded")
        body = orjson.dumps(request_data.parameters) if request_data else None
        match await self._http.request(method, url, body, _JSON if body else None):
            case NoConnection(detail):
                raise NetworkError(detail)
            case NoAnswer(detail):
                raise TimedOut(detail)
            case reply:
                return reply.status, reply.body
