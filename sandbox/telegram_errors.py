"""How the Bot API says no (PLATFORMS C2)."""

import orjson

from sandbox.front import Ready
from sandbox.world import Json

ROWS = {
    "blocked": (403, "Forbidden: bot was blocked by the user"),
    "deactivated": (403, "Forbidden: user is deactivated"),
    "cant_initiate": (403, "Forbidden: bot can't initiate conversation with a user"),
    "kicked": (403, "Forbidden: bot was kicked from the group chat"),
    "kicked_supergroup": (403, "Forbidden: bot was kicked from the supergroup chat"),
    "kicked_channel": (403, "Forbidden: bot was kicked from the channel chat"),
    "not_member": (403, "Forbidden: bot is not a member of the channel chat"),
    "group_deleted": (403, "Forbidden: the group chat was deleted"),
    "chat_not_found": (400, "Bad Request: chat not found"),
    "private_chat_not_found": (400, "Bad Request: private chat not found"),
    "upgraded": (400, "Bad Request: group chat was upgraded to a supergroup chat"),
    "cant_parse": (400, 'Bad Request: can\'t parse entities: Unsupported start tag "p" at byte offset 0'),
    "not_modified": (
        400,
        (
            "Bad Request: message is not modified: specified new message content and reply markup are exactly"
            " the same as a current content and reply markup of the message"
        ),
    ),
    "query_too_old": (
        400,
        "Bad Request: query is too old and response timeout expired or query ID is invalid",
    ),
    "cant_delete": (400, "Bad Request: message can't be deleted for everyone"),
    "wrong_url": (400, "Bad Request: wrong HTTP URL specified"),
    "url_failed": (400, "Bad Request: failed to get HTTP URL content"),
    "wrong_type": (400, "Bad Request: wrong type of the web page content"),
    "unauthorized": (401, "Unauthorized"),
    "not_found": (404, "Not Found"),
    "conflict": (
        409,
        "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
    ),
    "webhook_active": (
        409,
        (
            "Conflict: can't use getUpdates method while webhook is active;"
            " use deleteWebhook to delete the webhook first"
        ),
    ),
    "internal": (500, "Internal Server Error"),
}
"""The error rows of PLATFORMS C2 and a few more, by the name a fault asks for them with."""


class TelegramError(Exception):
    """Ends a request with `{"ok": false, ...}`."""

    def __init__(self, status: int, description: str, parameters: Json | None = None) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters


def too_many(seconds: int) -> TelegramError:
    """The refusal of a request that comes too soon."""
    return TelegramError(429, f"Too Many Requests: retry after {seconds}", {"retry_after": seconds})


def throttled(seconds: int | None) -> Ready:
    """The same as an answer, with or without a wait."""
    if seconds is None:
        return failed(429, "Too Many Requests")
    return failed(429, f"Too Many Requests: retry after {seconds}", {"retry_after": seconds})


def failed(status: int, description: str, parameters: Json | None = None) -> Ready:
    """An error as the Bot API answers it."""
    body: Json = {"ok": False, "error_code": status, "description": description}
    if parameters is not None:
        body["parameters"] = parameters
    return Ready(orjson.dumps(body), status, (parameters or {}).get("retry_after"))
