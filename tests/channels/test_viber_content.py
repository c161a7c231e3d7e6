"""Which requests a message becomes on Viber."""

from __future__ import annotations

import orjson
import pytest

from bot.channels.viber import ViberAccount
from bot.channels.viber.messages import BODY_LIMIT, Unfit, body, welcome
from bot.channels.viber.messages import of as messages
from broadcast.model import Media, MediaType
from broadcast.ports import Content, ReadyButton

ACCOUNT = ViberAccount("viber/news", "4a-SECRET", "News")
PICTURE = Media(MediaType.PICTURE, "https://x.example/a.png")
FILE = Media(MediaType.FILE, "https://x.example/a.pdf")
LINK = ReadyButton("Open <now>", url="https://x.example/r/1")
REPLY = ReadyButton("Later", payload="cl:dlv_1:later")
KEYBOARD = {
    "Type": "keyboard",
    "DefaultHeight": False,
    "Buttons": [
        {
            "Columns": 6,
            "Rows": 1,
            "ActionType": "open-url",
            "ActionBody": "https://x.example/r/1",
            "Text": "Open &lt;now&gt;",
            "Silent": True,
        },
        {
            "Columns": 6,
            "Rows": 1,
            "ActionType": "reply",
            "ActionBody": "cl:dlv_1:later",
            "Text": "Later",
            "Silent": True,
        },
    ],
}


def test_text_goes_out_as_it_is() -> None:
    """Nothing is escaped, and nothing is asked of the device."""
    assert messages(Content("<b>&_*[ 😀 שלום")).first == {"type": "text", "text": "<b>&_*[ 😀 שלום"}


def test_buttons_are_a_keyboard() -> None:
    """Labels are HTML to Viber; presses are silent and carry address or payload."""
    made = messages(Content("t", buttons=(LINK, REPLY)))
    assert made.first == {"type": "text", "text": "t", "keyboard": KEYBOARD}


def test_a_picture_carries_text_and_buttons() -> None:
    """One request as long as the text fits under the picture."""
    made = messages(Content("t", (PICTURE,), (LINK, REPLY)))
    assert made.first == {"type": "picture", "text": "t", "media": PICTURE.url, "keyboard": KEYBOARD}
    assert made.following == ()


@pytest.mark.parametrize(("length", "types"), [(512, ["picture"]), (513, ["text", "picture"])])
def test_words_under_a_picture_end_at_512(length: int, types: list[str]) -> None:
    """A longer text goes first and counts, the picture follows."""
    made = messages(Content("x" * length, (PICTURE,)))
    assert [one["type"] for one in (made.first, *made.following)] == types


def test_the_newest_message_keeps_the_buttons() -> None:
    """The client shows the newest keyboard only, so what follows repeats it."""
    made = messages(Content("x" * 513, (PICTURE, FILE), (LINK, REPLY)))
    assert [one["keyboard"] for one in (made.first, *made.following)] == [KEYBOARD] * 3


def test_a_file_is_sent_by_its_address() -> None:
    """Viber wants sizes we do not have: a link to it follows the text, or stands alone."""
    made = messages(Content("t", (FILE,)))
    assert (made.first, made.following) == (
        {"type": "text", "text": "t"},
        ({"type": "url", "media": FILE.url},),
    )
    assert messages(Content("", (FILE,))).first == {"type": "url", "media": FILE.url}


def test_a_request_names_receiver_and_sender() -> None:
    """The token stays in the header."""
    request = orjson.loads(body(ACCOUNT, "01=", {"type": "text", "text": "t"}))
    assert request == {"receiver": "01=", "sender": {"name": "News"}, "type": "text", "text": "t"}


def test_the_avatar_goes_along_where_there_is_one() -> None:
    """It is the sender's."""
    account = ViberAccount("viber/news", "t", "News", avatar="https://x.example/n.png")
    assert orjson.loads(body(account, "01=", {}))["sender"] == {"name": "News", "avatar": "https://x.example/n.png"}


@pytest.mark.parametrize("text", ["x" * BODY_LIMIT, "\ud800"])
def test_a_request_that_cannot_be_made(text: str) -> None:
    """Beyond 30 KB, or half a surrogate pair."""
    with pytest.raises(Unfit):
        body(ACCOUNT, "01=", {"type": "text", "text": text})


@pytest.mark.parametrize("button", [ReadyButton("B"), ReadyButton("B", url=""), ReadyButton("B", payload="")])
def test_a_button_carries_something(button: ReadyButton) -> None:
    """One that does nothing does not go out."""
    with pytest.raises(Unfit):
        messages(Content("t", buttons=(button,)))


def test_a_welcome_has_no_receiver() -> None:
    """It answers the callback itself; an empty text greets nobody."""
    said = welcome(ACCOUNT)
    assert said is not None
    assert orjson.loads(said) == {"sender": {"name": "News"}, "type": "text", "text": ACCOUNT.welcome}
    assert welcome(ViberAccount("viber/news", "t", "News", welcome="")) is None
