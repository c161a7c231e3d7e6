"""Reading what Teams shows: an activity's text, cards, pictures and buttons."""

from collections.abc import Iterator
from typing import Any

from sandbox.messages import Button, Content, Json, Reading

ADAPTIVE = "application/vnd.microsoft.card.adaptive"
OLDER_CARDS = {
    "application/vnd.microsoft.card.hero",
    "application/vnd.microsoft.card.thumbnail",
}


def read_activity(activity: Json) -> Content:
    """What the person sees of an activity."""
    reading = Reading()
    reading.lines.append(str(activity.get("text") or ""))
    for attachment in activity.get("attachments") or ():
        _read_attachment(reading, attachment)
    for action in (activity.get("suggestedActions") or {}).get("actions") or ():
        _read_card_action(reading, action)
    return reading.content


def _read_attachment(reading: Reading, attachment: Json) -> None:
    kind, content = attachment.get("contentType"), attachment.get("content")
    if kind == ADAPTIVE and isinstance(content, dict):
        for element in _elements(content):
            _read_element(reading, element)
    elif kind in OLDER_CARDS and isinstance(content, dict):
        reading.lines.extend(str(content.get(key) or "") for key in ("title", "subtitle", "text"))
        reading.media.extend({"type": "picture", "url": one.get("url")} for one in content.get("images") or ())
        for action in content.get("buttons") or ():
            _read_card_action(reading, action)
    elif attachment.get("contentUrl"):
        kind = "picture" if str(kind).startswith("image/") else "file"
        reading.media.append({"type": kind, "url": attachment["contentUrl"], "name": attachment.get("name")})


def _elements(node: Any) -> Iterator[Json]:
    """Every element and action of an Adaptive Card, in reading order."""
    if isinstance(node, list):
        for one in node:
            yield from _elements(one)
    elif isinstance(node, dict):
        yield node
        for key in (
            "body",
            "items",
            "columns",
            "rows",
            "cells",
            "images",
            "selectAction",
            "inlineAction",
            "actions",
        ):
            yield from _elements(node.get(key))
        yield from _elements(node.get("card"))


def _read_element(reading: Reading, element: Json) -> None:
    match element.get("type"):
        case "TextBlock":
            reading.lines.append(str(element.get("text") or ""))
        case "RichTextBlock":
            runs = element.get("inlines") or ()
            reading.lines.append("".join(run if isinstance(run, str) else str(run.get("text", "")) for run in runs))
        case "FactSet":
            reading.lines.extend(f"{fact.get('title')} {fact.get('value')}" for fact in element.get("facts") or ())
        case "Image":
            reading.media.append({"type": "picture", "url": element.get("url"), "alt": element.get("altText")})
        case "Media":
            sources = element.get("sources") or ()
            reading.media.extend({"type": "video", "url": source.get("url")} for source in sources)
        case "Action.OpenUrl":
            reading.buttons.append(Button("link", str(element.get("title") or ""), element.get("url"), element))
        case "Action.Submit" | "Action.Execute":
            reading.buttons.append(Button("reply", str(element.get("title") or ""), element.get("data"), element))


def _read_card_action(reading: Reading, action: Json) -> None:
    kind = "link" if action.get("type") in {"openUrl", "signin"} else "reply"
    reading.buttons.append(Button(kind, str(action.get("title") or ""), action.get("value"), action))
