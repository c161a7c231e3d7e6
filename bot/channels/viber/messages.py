"""What is sent for a message: one request where Viber allows it.

The first one carries text and buttons, and its token is the message's: its answer decides, and nothing that was
delivered is ever sent again because of something smaller. What does not fit into it follows.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from viberbot.api.messages import PictureMessage, TextMessage, URLMessage

from bot.channels.viber.account import ViberAccount
from broadcast.model import Media, MediaType
from broadcast.ports import Content, ReadyButton

#: Characters of a text, and of the words under a picture (PLATFORMS D3).
TEXT_LIMIT = 7000
CAPTION_LIMIT = 512
#: Bytes of one request's JSON (PLATFORMS D).
BODY_LIMIT = 30 * 1024

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Messages:
    """The message that counts, and those that follow once it is accepted: fields without receiver and sender."""

    first: Fields
    following: tuple[Fields, ...] = ()


class Unfit(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """The content breaks a limit of Viber's; its text says which."""


def of(content: Content) -> Messages:
    """The messages for a content. The client shows the buttons of the newest one only, so all of them carry them.
    Raises `Unfit`."""
    buttons = keyboard(content.buttons)
    first, *others = content.media or (None,)
    if first and _holds_text(first, content.text):
        return Messages(_medium(first, buttons, content.text), tuple(_medium(media, buttons) for media in others))
    following = tuple(_medium(media, buttons) for media in content.media)
    return Messages(_checked(TextMessage(text=content.text, keyboard=buttons)), following)


def body(account: ViberAccount, receiver: str, fields: Fields) -> bytes:
    """The request for one message. Raises `Unfit`."""
    try:
        written = orjson.dumps({"receiver": receiver, "sender": sender(account), **fields})
    except TypeError as error:
        raise Unfit(f"cannot be written as JSON: {error}") from error
    if len(written) > BODY_LIMIT:
        raise Unfit(f"{len(written)} bytes are more than the {BODY_LIMIT} of one Viber request")
    return written


def sender(account: ViberAccount) -> Fields:
    """Who the message is from, as people see it."""
    return {"name": account.sender, **({"avatar": account.avatar} if account.avatar else {})}


def welcome(account: ViberAccount) -> bytes | None:
    """What answers an opened chat within the callback's own response."""
    if not account.welcome:
        return None
    return orjson.dumps({"sender": sender(account), **_checked(TextMessage(text=account.welcome))})


def keyboard(buttons: tuple[ReadyButton, ...]) -> Fields | None:
    """The buttons under the chat, one a row. Viber reads a label as HTML. Every device understands all of this, so
    no `min_api_version` is asked for."""
    if not buttons:
        return None
    return {"Type": "keyboard", "DefaultHeight": False, "Buttons": [_button(button) for button in buttons]}


def _button(button: ReadyButton) -> Fields:
    """`Silent`: the press does not show up as something the person wrote."""
    action = ("open-url", button.url) if button.url is not None else ("reply", button.payload)
    if not action[1]:
        raise Unfit(f"the button {button.label!r} carries nothing")
    return {
        "Columns": 6,
        "Rows": 1,
        "ActionType": action[0],
        "ActionBody": action[1],
        "Text": html.escape(button.label, quote=False),
        "Silent": True,
    }


def _holds_text(media: Media, text: str) -> bool:
    return not text or (media.type is MediaType.PICTURE and len(text) <= CAPTION_LIMIT)


def _medium(media: Media, buttons: Fields | None, text: str = "") -> Fields:
    """A picture as one; anything else by its address: Viber asks for the size of a video or file."""
    if media.type is MediaType.PICTURE:
        return _checked(PictureMessage(media=media.url, text=text, keyboard=buttons))
    return _checked(URLMessage(media=media.url, keyboard=buttons))


def _checked(message: Any) -> Fields:
    if not message.validate():
        raise Unfit("a required field is missing")
    fields: Mapping[str, Any] = message.to_dict()
    return {name: value for name, value in fields.items() if value is not None}
