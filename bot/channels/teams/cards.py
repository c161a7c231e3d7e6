"""A message as a Teams activity: plain text, or one Adaptive Card, never both (PLATFORMS A2, A8)."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from broadcast.model import Media, MediaType
from broadcast.ports import Content, ReadyButton

CARD = "application/vnd.microsoft.card.adaptive"
#: The key in a pressed button's data that holds our payload.
PAYLOAD = "clarion"
#: As much of the text as a feed notification shows.
SUMMARY_LENGTH = 120

Json = dict[str, Any]


def activity(content: Content) -> bytes:
    """The body to post."""
    message: Json = {"type": "message", "channelData": {"notification": {"alert": True}}}
    if summary := _summary(content.text):
        message["summary"] = summary
    if content.media or content.buttons:
        message["attachments"] = [{"contentType": CARD, "content": card(content)}]
    else:
        message["text"] = content.text
        message["textFormat"] = "plain"
    return orjson.dumps(message)


def card(content: Content) -> Json:
    """Version 1.5, as Teams shows it on every client."""
    pictures = [one for one in content.media if one.type is MediaType.PICTURE]
    others = [one for one in content.media if one.type is not MediaType.PICTURE]
    actions = [_action(button) for button in content.buttons] + [_link(one) for one in others]
    shown: Json = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.5",
        "body": [_picture(one) for one in pictures] + _paragraphs(content.text),
    }
    return {**shown, "actions": actions} if actions else shown


def _paragraphs(text: str) -> list[Json]:
    """Line by line. Only a TextBlock is read as markdown: a RichTextBlock shows what it is given."""
    blocks: list[Json] = []
    after_a_gap = True
    for line in text.splitlines():
        if line.strip():
            spacing = "Default" if after_a_gap else "None"
            blocks.append({"type": "RichTextBlock", "spacing": spacing, "inlines": [_run(line)]})
        after_a_gap = not line.strip()
    return blocks


def _run(line: str) -> Json:
    return {"type": "TextRun", "text": line}


def _picture(media: Media) -> Json:
    return {"type": "Image", "url": media.url, "altText": media.alt, "size": "Stretch"}


def _action(button: ReadyButton) -> Json:
    if button.url is not None:
        return {"type": "Action.OpenUrl", "title": button.label, "url": button.url}
    return {"type": "Action.Submit", "title": button.label, "data": {PAYLOAD: button.payload or ""}}


def _link(media: Media) -> Json:
    """Films and files are links: cards of version 1.5 do not play, and a file would need the person's consent."""
    name = unquote(urlsplit(media.url).path.rpartition("/")[2])
    return {"type": "Action.OpenUrl", "title": media.alt or name or media.url, "url": media.url}


def _summary(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SUMMARY_LENGTH else line[: SUMMARY_LENGTH - 1].rstrip() + "…"
