"""Viber's messages: what is allowed in them, and what people see of them (PLATFORMS D3, D4)."""

from sandbox.messages import Button, Content, Json, Reading

MAX_TEXT, MAX_CAPTION, MAX_TRACKING, MAX_SENDER, MAX_URL = 7000, 512, 4000, 28, 2000
MAX_VIDEO, MAX_FILE = 26 * 1024 * 1024, 50 * 1024 * 1024
API_VERSION = 10
"""The newest `min_api_version` that simulated devices understand."""

STATUSES = {
    0: "ok", 1: "invalidUrl", 2: "invalidAuthToken", 3: "badData", 4: "missingData", 5: "receiverNotRegistered",
    6: "receiverNotSubscribed", 7: "publicAccountBlocked", 8: "publicAccountNotFound", 9: "publicAccountSuspended",
    10: "webhookNotSet", 11: "receiverNoSuitableDevice", 12: "tooManyRequests", 13: "apiVersionNotSupported",
    14: "incompatibleWithVersion", 15: "publicAccountNotAuthorized", 16: "inchatReplyMessageNotAllowed",
    17: "publicAccountIsNotInline", 18: "noPublicChat", 19: "cannotSendBroadcast", 20: "broadcastNotAllowed",
    21: "unsupportedCountry", 22: "paymentUnsupported", 23: "freeMessagesExceeded", 24: "noBalance",
    99: "generalError",
}  # fmt: skip
"""Status codes of PLATFORMS D4; 99 stands for "others"."""


class ViberError(Exception):
    """Ends a request with a status of D4."""

    def __init__(self, status: int, message: str | None = None) -> None:
        self.status = status
        self.message = message or STATUSES.get(status, "generalError")
        super().__init__(self.message)


def check_message(body: Json) -> None:
    """The limits of D3; raises the status the platform answers."""
    kind = body.get("type")
    sender = body.get("sender")
    if not kind or not isinstance(sender, dict) or not sender.get("name"):
        raise ViberError(4)
    if len(str(sender["name"])) > MAX_SENDER or len(str(body.get("tracking_data") or "")) > MAX_TRACKING:
        raise ViberError(3)
    if int(body.get("min_api_version") or 1) > API_VERSION:
        raise ViberError(13)
    _check_kind(str(kind), body)


REQUIRED = {
    "text": ("text",),
    "picture": ("media",),
    "video": ("media", "size"),
    "file": ("media", "size", "file_name"),
    "url": ("media",),
    "contact": ("contact",),
    "location": ("location",),
    "sticker": ("sticker_id",),
    "rich_media": ("rich_media",),
}
LONGEST = {
    "text": {"text": MAX_TEXT},
    "picture": {"text": MAX_CAPTION, "media": MAX_URL},
    "video": {"text": MAX_CAPTION, "media": MAX_URL},
    "file": {"file_name": 256, "media": MAX_URL},
    "url": {"media": MAX_URL},
}
BIGGEST = {"video": MAX_VIDEO, "file": MAX_FILE}


def _check_kind(kind: str, body: Json) -> None:
    if kind not in REQUIRED:
        raise ViberError(3)
    if any(not body.get(name) for name in REQUIRED[kind]):
        raise ViberError(4)
    if any(len(str(body.get(name) or "")) > most for name, most in LONGEST.get(kind, {}).items()):
        raise ViberError(3)
    if kind in BIGGEST and int(body["size"]) > BIGGEST[kind]:
        raise ViberError(3)
    if kind == "rich_media" and int(body.get("min_api_version") or 1) < 2:
        raise ViberError(13)
    for button in _buttons(body):
        _check_button(button)


def _check_button(button: Json) -> None:
    if "ActionBody" not in button and button.get("ActionType", "reply") != "none":
        raise ViberError(4)
    if not 1 <= int(button.get("Columns", 6)) <= 6 or not 1 <= int(button.get("Rows", 1)) <= 7:
        raise ViberError(3)


def _buttons(body: Json) -> list[Json]:
    return [one for part in ("rich_media", "keyboard") for one in (body.get(part) or {}).get("Buttons") or ()]


def read_message(body: Json) -> Content:
    """What the person sees of a message."""
    reading = Reading()
    reading.lines.append(str(body.get("text") or ""))
    if body.get("media"):
        reading.media.append({"type": body.get("type"), "url": body["media"], "name": body.get("file_name")})
    for button in _buttons(body):
        _read_button(reading, button)
    return reading.content


def _read_button(reading: Reading, button: Json) -> None:
    label, value = str(button.get("Text") or ""), button.get("ActionBody")
    if button.get("Image"):
        reading.media.append({"type": "picture", "url": button["Image"]})
    match button.get("ActionType", "reply"):
        case "open-url":
            reading.buttons.append(Button("link", label, value, button))
        case "reply":
            reading.buttons.append(Button("reply", label, value, button))
        case _:
            reading.lines.append(label)
