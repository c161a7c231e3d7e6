"""Messages as Teams activities."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from botbuilder.schema import Activity

from bot.channels.teams.cards import CARD, SUMMARY_LENGTH, activity
from broadcast.model import Media, MediaType
from broadcast.ports import Content, ReadyButton

BANNER = Media(MediaType.PICTURE, "https://intranet.example/banner.png", "Benefits week")
FILM = Media(MediaType.VIDEO, "https://intranet.example/films/a%20film.mp4")
BUTTONS = (ReadyButton("Enrol", url="https://clarion.example/r/t"), ReadyButton("Later", payload="cl:dlv_1:later"))


def built(content: Content) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(activity(content))
    return read


def test_words_alone_are_plain_text() -> None:
    """Nothing in them is read as markup."""
    assert built(Content("*Hello*\n<b>_you_</b>")) == {
        "type": "message",
        "text": "*Hello*\n<b>_you_</b>",
        "textFormat": "plain",
        "summary": "*Hello* <b>_you_</b>",
        "channelData": {"notification": {"alert": True}},
    }


@pytest.mark.parametrize(
    "content",
    [Content("Hi", media=(BANNER,)), Content("Hi", buttons=BUTTONS), Content("", media=(BANNER,), buttons=BUTTONS)],
)
def test_anything_more_is_one_card_and_no_text(content: Content) -> None:
    """Text and card in one activity would be split into two messages (PLATFORMS A2)."""
    message = built(content)
    assert "text" not in message
    assert [one["contentType"] for one in message["attachments"]] == [CARD]
    assert message["channelData"]["notification"]["alert"] is True


def test_the_card() -> None:
    card = built(Content("A *b*\n\nc\nd", media=(BANNER, FILM), buttons=BUTTONS))["attachments"][0]["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.5")
    assert [(one["type"], one.get("url"), one.get("spacing")) for one in card["body"]] == [
        ("Image", BANNER.url, None),
        ("RichTextBlock", None, "Default"),
        ("RichTextBlock", None, "Default"),
        ("RichTextBlock", None, "None"),
    ]
    assert [one["inlines"][0]["text"] for one in card["body"][1:]] == ["A *b*", "c", "d"]
    assert card["actions"] == [
        {"type": "Action.OpenUrl", "title": "Enrol", "url": "https://clarion.example/r/t"},
        {"type": "Action.Submit", "title": "Later", "data": {"clarion": "cl:dlv_1:later"}},
        {"type": "Action.OpenUrl", "title": "a film.mp4", "url": FILM.url},
    ]


def test_no_text_block_is_ever_used() -> None:
    """A TextBlock would read the words as markdown."""
    assert b"TextBlock" not in activity(Content("# no heading", media=(BANNER,))).replace(b"RichTextBlock", b"")


def test_the_summary_is_short() -> None:
    assert len(built(Content("word " * 100))["summary"]) <= SUMMARY_LENGTH
    assert "summary" not in built(Content("", media=(BANNER,)))


def test_botbuilder_reads_it_as_we_meant_it() -> None:
    """The SDK's own schema finds everything in its place."""
    read = Activity().deserialize(built(Content("Hi", media=(BANNER,), buttons=BUTTONS)))
    assert (read.type, read.summary, len(read.attachments)) == ("message", "Hi", 1)
    assert read.attachments[0].content_type == CARD
    assert read.additional_properties == {}
