"""Which calls a message becomes on Telegram."""

from __future__ import annotations

import pytest

from bot.channels.telegram.calls import Call, Calls, Unfit
from bot.channels.telegram.calls import of as calls
from broadcast.model import Media, MediaType
from broadcast.ports import Content, ReadyButton

PICTURE = Media(MediaType.PICTURE, "https://x.example/a.png", "A")
FILE = Media(MediaType.FILE, "https://x.example/a.pdf")
VIDEO = Media(MediaType.VIDEO, "https://x.example/a.mp4")
LINK = ReadyButton("Open", url="https://x.example/r/1")
REPLY = ReadyButton("Later", payload="cl:dlv_1:later")
MARKUP = {
    "reply_markup": {
        "inline_keyboard": [
            [{"text": "Open", "url": "https://x.example/r/1"}],
            [{"text": "Later", "callback_data": "cl:dlv_1:later"}],
        ]
    }
}
NO_PREVIEW = {"link_preview_options": {"is_disabled": True}}


def test_text_is_plain_and_without_previews() -> None:
    """Text goes out as it is: no parse mode, nothing escaped, no preview."""
    text = "<b>&_*[ 😀 שלום"
    assert calls(Content(text)) == Calls(Call("sendMessage", {"text": text, **NO_PREVIEW}))


def test_buttons_stand_one_below_the_other() -> None:
    """A link carries its address, a reply its payload."""
    assert calls(Content("t", buttons=(LINK, REPLY))).first.fields == {"text": "t", **NO_PREVIEW, **MARKUP}


def test_a_picture_carries_text_and_buttons() -> None:
    """One call as long as the text fits under the picture."""
    assert calls(Content("t", (PICTURE,), (LINK, REPLY))) == Calls(
        Call("sendPhoto", {"photo": PICTURE.url, "caption": "t", **MARKUP})
    )


def test_a_picture_without_words_has_no_caption() -> None:
    """An empty text is left out."""
    assert calls(Content("", (PICTURE,))).first == Call("sendPhoto", {"photo": PICTURE.url})


@pytest.mark.parametrize(("length", "method"), [(1024, "sendPhoto"), (1025, "sendMessage")])
def test_a_caption_holds_1024_units(length: int, method: str) -> None:
    """The limit is counted in UTF-16 units, so an emoji is two."""
    text = "😀" * (length // 2) + "x" * (length % 2)
    assert calls(Content(text, (PICTURE,))).first.method == method


def test_a_longer_text_keeps_its_picture_in_one_call() -> None:
    """Picture and long text are one message: the picture shows above the text as its preview."""
    text = "x" * 1025
    preview = {"url": PICTURE.url, "prefer_large_media": True, "show_above_text": True}
    assert calls(Content(text, (PICTURE,))) == Calls(
        Call("sendMessage", {"text": text, "link_preview_options": preview})
    )


@pytest.mark.parametrize(
    ("media", "method", "name"), [(FILE, "sendDocument", "document"), (VIDEO, "sendVideo", "video")]
)
def test_files_and_videos_are_named_by_address(media: Media, method: str, name: str) -> None:
    """Each kind of medium has its method."""
    assert calls(Content("t", (media,))).first == Call(method, {name: media.url, "caption": "t"})


def test_a_file_follows_a_text_too_long_for_its_caption() -> None:
    """Text and buttons go first and count; the file follows bare."""
    text = "x" * 1025
    assert calls(Content(text, (FILE,), (LINK, REPLY))) == Calls(
        Call("sendMessage", {"text": text, **NO_PREVIEW, **MARKUP}),
        (Call("sendDocument", {"document": FILE.url}),),
    )


def test_further_media_follow_the_first() -> None:
    """The first medium carries the words."""
    made = calls(Content("t", (PICTURE, FILE)))
    assert (made.first.method, [one.method for one in made.following]) == ("sendPhoto", ["sendDocument"])


@pytest.mark.parametrize("payload", [None, "", "x" * 65, "é" * 33])
def test_a_payload_must_fit(payload: str | None) -> None:
    """1 to 64 bytes of UTF-8, or the message does not fit Telegram."""
    with pytest.raises(Unfit):
        calls(Content("t", buttons=(ReadyButton("B", payload=payload),)))
