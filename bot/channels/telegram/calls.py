"""What is sent for a message: one call where Telegram allows it.

The first call carries text and buttons, and its id is the message's: its answer decides, and nothing that was
delivered is ever sent again because of something smaller. What does not fit into it follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from telegram.constants import InlineKeyboardButtonLimit, MessageLimit

from broadcast.model import Media, MediaType
from broadcast.ports import Content, ReadyButton

#: Plain text: no `parse_mode`, so nothing in it is markup; and no preview of a link in it.
_NO_PREVIEW: Mapping[str, Any] = {"is_disabled": True}

_METHODS: Mapping[MediaType, tuple[str, str]] = {
    MediaType.PICTURE: ("sendPhoto", "photo"),
    MediaType.VIDEO: ("sendVideo", "video"),
    MediaType.FILE: ("sendDocument", "document"),
}


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the Bot API and its fields, all but the chat."""

    method: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Calls:
    """The call that is the message, and those that follow once it is accepted."""

    first: Call
    following: tuple[Call, ...] = field(default=())


class Unfit(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """The content breaks a limit of Telegram's; its text says which."""


def of(content: Content) -> Calls:
    """The calls for a message. Raises `Unfit`."""
    buttons = keyboard(content.buttons)
    if not content.media:
        return Calls(_text(content.text, buttons))
    first, *others = content.media
    following = tuple(_media(media) for media in others)
    if _units(content.text) <= MessageLimit.CAPTION_LENGTH:
        return Calls(_media(first, content.text, buttons), following)
    if first.type is MediaType.PICTURE:
        return Calls(_text(content.text, buttons, above=first.url), following)
    return Calls(_text(content.text, buttons), (_media(first), *following))


def keyboard(buttons: tuple[ReadyButton, ...]) -> dict[str, Any]:
    """The field of an inline keyboard, one button a row; empty where there are none."""
    if not buttons:
        return {}
    return {"reply_markup": {"inline_keyboard": [[_button(button)] for button in buttons]}}


def _button(button: ReadyButton) -> dict[str, str]:
    if button.url is not None:
        return {"text": button.label, "url": button.url}
    payload = button.payload or ""
    if not 1 <= len(payload.encode(errors="replace")) <= InlineKeyboardButtonLimit.MAX_CALLBACK_DATA:
        raise Unfit(f"the button {button.label!r} carries no 1 to 64 bytes")
    return {"text": button.label, "callback_data": payload}


def _text(text: str, buttons: Mapping[str, Any], *, above: str | None = None) -> Call:
    """A text; `above` is a picture shown over it as a large preview, which is how one message holds a picture and
    more than a caption's worth of text."""
    preview = {"url": above, "prefer_large_media": True, "show_above_text": True} if above else _NO_PREVIEW
    return Call("sendMessage", {"text": text, "link_preview_options": preview, **buttons})


def _media(media: Media, caption: str = "", buttons: Mapping[str, Any] | None = None) -> Call:
    method, name = _METHODS[media.type]
    words = {"caption": caption} if caption else {}
    return Call(method, {name: media.url, **words, **(buttons or {})})


def _units(text: str) -> int:
    """The length in UTF-16 units, as Telegram counts."""
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2
