"""Reading what Telegram shows: entities in HTML and MarkdownV2, keyboards, media (PLATFORMS C3)."""

import html
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from sandbox.messages import Button, Content, Json, Reading

TAGS = {
    "b": "bold", "strong": "bold", "i": "italic", "em": "italic", "u": "underline", "ins": "underline",
    "s": "strikethrough", "strike": "strikethrough", "del": "strikethrough", "span": "spoiler",
    "tg-spoiler": "spoiler", "a": "text_link", "tg-emoji": "custom_emoji", "code": "code", "pre": "pre",
    "blockquote": "blockquote",
}  # fmt: skip
MARKUP = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]*)?((?:\s[^<>]*)?)>|<|&(?:lt|gt|amp|quot|#\d+|#x[0-9a-fA-F]+);")
HREF = re.compile(r"""href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
MEDIA_FIELDS = {"photo": "picture", "document": "file", "video": "video", "animation": "video", "audio": "audio"}
RESERVED = set("_*[]()~`>#+-=|{}.!")
MARKS = set("_*~`|[]()>")
PARSE = "Bad Request: can't parse entities: "


class TextError(ValueError):
    """Entities that cannot be parsed; the text is the platform's description."""


def units(text: str) -> int:
    """Length in UTF-16 code units, as Telegram counts."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def parse(text: str, parse_mode: str | None) -> tuple[str, list[Json]]:
    """The text as people see it, with its entities."""
    match (parse_mode or "").lower():
        case "":
            return text, []
        case "html":
            return _parse_html(text) if "<" in text or "&" in text else (text, [])
        case "markdownv2":
            return _parse_markdown(text), []
        case "markdown":
            return re.sub(r"[*_`]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)), []
        case _:
            raise TextError("Bad Request: unsupported parse_mode")


@lru_cache(maxsize=512)  # a broadcast says the same to many
def _parse_html(text: str) -> tuple[str, list[Json]]:
    shown: list[str] = []
    length = position = 0
    opened: list[tuple[str, int, str]] = []
    entities: list[Json] = []
    for match in MARKUP.finditer(text):
        before = text[position : match.start()]
        shown.append(before)
        length += units(before)
        position = match.end()
        if match[0][0] == "&":
            letter = html.unescape(match[0])
            shown.append(letter)
            length += units(letter)
            continue
        if match[1]:
            entities.append(_close(match, opened, length))
        else:
            opened.append(_open(match, length))
    shown.append(text[position:])
    if opened:
        raise TextError(f'{PARSE}Can\'t find end tag corresponding to start tag "{opened[-1][0]}"')
    return "".join(shown), sorted((one for one in entities if one["length"]), key=lambda one: one["offset"])


def _offset(match: re.Match[str]) -> int:
    return len(match.string[: match.start()].encode())


def _open(match: re.Match[str], length: int) -> tuple[str, int, str]:
    tag = (match[2] or "").lower()
    if tag not in TAGS:
        raise TextError(f'{PARSE}Unsupported start tag "{tag}" at byte offset {_offset(match)}')
    return tag, length, match[3] or ""


def _close(match: re.Match[str], opened: list[tuple[str, int, str]], length: int) -> Json:
    tag = (match[2] or "").lower()
    if not opened:
        raise TextError(f"{PARSE}Unexpected end tag at byte offset {_offset(match)}")
    expected, start, attributes = opened.pop()
    if tag != expected:
        wanted = f'expected "</{expected}>", found "</{tag}>"'
        raise TextError(f"{PARSE}Unmatched end tag at byte offset {_offset(match)}, {wanted}")
    entity: Json = {"type": TAGS[tag], "offset": start, "length": length - start}
    if tag == "a":
        href = HREF.search(attributes)
        entity["url"] = html.unescape(next((one for one in href.groups() if one), "")) if href else ""
    return entity


def _parse_markdown(text: str) -> str:
    """Crude: refuses the reserved characters that never mean anything, and drops the marks."""
    bare = re.sub(r"(?<!\\)\[((?:\\.|[^\]\\])*)\]\((?:\\.|[^)\\])*\)", r"\1", text)
    bare = re.sub(r"(?m)^>", "", bare)
    shown: list[str] = []
    letters: Iterator[str] = iter(bare)
    for letter in letters:
        if letter == "\\":
            shown.append(next(letters, ""))
        elif letter in RESERVED - MARKS:
            raise TextError(f"{PARSE}Character '{letter}' is reserved and must be escaped with the preceding '\\'")
        elif letter not in MARKS:
            shown.append(letter)
    if bare.replace("\\*", "").count("*") % 2:
        raise TextError(f"{PARSE}Can't find end of Bold entity at byte offset {len(text.encode())}")
    return "".join(shown)


def read_message(params: Json) -> Content:
    """What the person sees of a sent message."""
    reading = Reading()
    text = str(params.get("text") or params.get("caption") or "")
    reading.lines.append(parse(text, params.get("parse_mode"))[0])
    reading.media.extend(_media(params))
    for row in keyboard_rows(params.get("reply_markup")):
        reading.buttons.extend(_button(one) for one in row)
    return reading.content


def _media(params: Json) -> Iterator[Json]:
    for field, kind in MEDIA_FIELDS.items():
        if field in params:
            yield {"type": kind, "url": params[field]}
    for item in params.get("media") or ():
        kind = MEDIA_FIELDS.get(item.get("type"), "file")
        yield {"type": kind, "url": item.get("media"), "caption": item.get("caption")}


def keyboard_rows(markup: Any) -> list[list[Json]]:
    """The rows of an inline keyboard."""
    if not isinstance(markup, dict):
        return []
    rows = markup.get("inline_keyboard")
    return rows if isinstance(rows, list) else []


def _button(button: Json) -> Button:
    if "callback_data" in button:
        return Button("reply", str(button.get("text", "")), button["callback_data"], button)
    web_app = button.get("web_app") or {}
    return Button("link", str(button.get("text", "")), button.get("url") or web_app.get("url"), button)


def keyboard_problem(markup: Any) -> str | None:
    """The platform's description of what is wrong with a keyboard."""
    for row in keyboard_rows(markup):
        for button in row:
            problem = _button_problem(button)
            if problem:
                return problem
    return None


def _button_problem(button: Json) -> str | None:
    if len(button) == 2 and "text" in button and str(button.get("url", "")).startswith(("https://", "http://")):
        return None  # what nearly all of them look like
    if not button.get("text"):
        return "Bad Request: can't parse inline keyboard button: Text must be non-empty"
    actions = [key for key in button if key not in {"text", "style", "icon_custom_emoji_id"}]
    if not actions:
        return "Bad Request: can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard"
    data = button.get("callback_data")
    if "callback_data" in button and not 1 <= len(str(data).encode()) <= 64:
        return "Bad Request: BUTTON_DATA_INVALID"
    if "url" in button and not re.match(r"(https?|tg)://", str(button["url"])):
        return f"Bad Request: inline keyboard button URL '{button['url']}' is invalid: Wrong HTTP URL"
    return None
