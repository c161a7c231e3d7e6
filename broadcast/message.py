"""From a campaign's message to what one person gets: placeholders, tracked links, limits.

Text is plain text with placeholders: `[FIRSTNAME]`, `[LASTNAME]`, and `{{ recipient.city | default("there") }}` for
everything else. `[[HR]]` says a bracketed word literally. Names nobody knows are refused at validation, never
filled with nothing at send time.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from urllib.parse import quote, urlsplit

from jinja2 import Environment, TemplateSyntaxError, nodes

from broadcast.errors import Fault
from broadcast.model import Button, ButtonType, ChannelName, Message, Recipient
from broadcast.ports import Content, ReadyButton
from broadcast.tracking import Links, Press, payload

FIELDS = ("first_name", "last_name", "name", "email", "locale", "timezone", "country", "external_id")
SHORTHANDS = {"FIRSTNAME": "first_name", "LASTNAME": "last_name"}

MAX_BUTTONS = 10
MAX_LABEL = 80
MAX_URL = 2000  # PLATFORMS D3, the narrowest of the three

_BRACKETS = re.compile(r"\[\[([A-Z][A-Z_]+)\]\]|\[([A-Z][A-Z_]+)\]|\{\{.*?\}\}", re.DOTALL)
_BUTTON_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


def _default(value: object, fallback: object = "") -> object:
    return fallback if value is None or value == "" else value


Filter = Callable[..., object]

FILTERS: Mapping[str, Filter] = {
    "default": _default,
    "upper": lambda value: _shown(value).upper(),
    "lower": lambda value: _shown(value).lower(),
    "title": lambda value: _shown(value).title(),
    "capitalize": lambda value: _shown(value).capitalize(),
    "trim": lambda value: _shown(value).strip(),
}

#: How many arguments each filter takes at most.
ARGUMENTS: Mapping[str, int] = {name: int(name == "default") for name in FILTERS}

# Jinja reads the templates; what it read is run here, because all that may be said is a field and its filters.
# Only {{ … }} is alive: a text may contain {% and {# as they stand.
_JINJA = Environment(
    block_start_string="\x00{%",
    block_end_string="%}\x00",
    comment_start_string="\x00{#",
    comment_end_string="#}\x00",
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - plain text: each channel escapes for its own platform
)


def _shown(value: object) -> str:
    return "" if value is None else str(value)


# --- checking -----------------------------------------------------------------------------------------


def faults(message: Message, *, attributes: Collection[str], limits: Mapping[ChannelName, int]) -> Iterator[Fault]:
    """Everything wrong with a message, by field: unknown placeholders, limits, buttons without their target.

    `attributes` are the free attributes that recipients have; `limits` the text limit (UTF-16 units) of each
    channel the campaign uses.
    """
    if not (message.text.strip() or message.media):
        yield Fault("message.text", "is empty; write what people should read")
    yield from _text_faults("message.text", message.text, attributes)
    yield from _button_faults("message.buttons", message.buttons, attributes)
    yield from _media_faults("message.media", message)
    for channel, variant in message.variants.items():
        where = f"message.variants.{channel}"
        yield from _text_faults(f"{where}.text", variant.text or "", attributes)
        yield from _button_faults(f"{where}.buttons", variant.buttons or (), attributes)
    for channel, limit in limits.items():
        yield from _length_faults(channel, message, limit)


def _text_faults(field: str, text: str, attributes: Collection[str]) -> Iterator[Fault]:
    if any(ord(char) < 32 and char not in "\n\t\r" for char in text):
        yield Fault(field, "contains control characters; remove them")
        return
    for match in _BRACKETS.finditer(text):
        if (word := match[2]) and word not in SHORTHANDS:
            yield Fault(
                field,
                f"[{word}] is no placeholder{_hint(word, SHORTHANDS)}; "
                f"write [[{word}]] to show the word in brackets as it stands",
            )
    try:
        tree = _JINJA.parse(_expressions(text))
    except TemplateSyntaxError as error:
        yield Fault(field, f"has a placeholder that cannot be read: {error.message}")
        return
    yield from (Fault(field, problem) for problem in _expression_faults(tree, attributes))


def _expression_faults(tree: nodes.Template, attributes: Collection[str]) -> Iterator[str]:
    known = set(FIELDS) | set(attributes)
    for output in tree.body:
        for node in output.iter_child_nodes():
            if problem := _problem(node, known):
                yield problem


def _problem(node: nodes.Node | None, known: Collection[str]) -> str | None:
    match node:
        case nodes.TemplateData() | nodes.Const():
            return None
        case nodes.Getattr(node=nodes.Name(name="recipient"), attr=attr):
            return None if attr in known else f"recipient.{attr} is unknown{_hint(attr, known)}"
        case nodes.Name(name=name) if name != "recipient":
            return f"{{{{ {name} }}}} is unknown; a placeholder begins with recipient: {{{{ recipient.name }}}}"
        case nodes.Filter(node=inner, name=name, args=args, kwargs=[]) if _constant(args):
            if len(args) > ARGUMENTS.get(name, -1):
                return (
                    f"the filter {name}({', '.join('…' for _ in args)}) is unknown; there are {', '.join(FILTERS)}"
                )
            return _problem(inner, known)
    return "a placeholder is recipient.NAME with filters, nothing else"


def _constant(args: list[nodes.Expr]) -> bool:
    return all(isinstance(arg, nodes.Const) for arg in args)


def _hint(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"


def _button_faults(field: str, buttons: tuple[Button, ...], attributes: Collection[str]) -> Iterator[Fault]:
    if len(buttons) > MAX_BUTTONS:
        yield Fault(field, f"has {len(buttons)} buttons; {MAX_BUTTONS} is the most")
    seen: set[str] = set()
    for index, button in enumerate(buttons):
        where = f"{field}[{index}]"
        if not _BUTTON_ID.fullmatch(button.id):
            yield Fault(f"{where}.id", "is 1 to 32 of letters, digits, - and _")
        if button.id in seen:
            yield Fault(f"{where}.id", f"{button.id} is there twice; give each button an id of its own")
        seen.add(button.id)
        yield from _label_faults(where, button, attributes)
        yield from _target_faults(where, button, attributes)


def _label_faults(where: str, button: Button, attributes: Collection[str]) -> Iterator[Fault]:
    if not 1 <= len(button.label.strip()) <= MAX_LABEL:
        yield Fault(f"{where}.label", f"is 1 to {MAX_LABEL} characters")
    yield from _text_faults(f"{where}.label", button.label, attributes)


def _target_faults(where: str, button: Button, attributes: Collection[str]) -> Iterator[Fault]:
    if button.type is ButtonType.REPLY:
        if button.url is not None:
            yield Fault(f"{where}.url", "belongs to a link button; a reply button has a value")
        return
    yield from url_faults(f"{where}.url", button.url)
    yield from _text_faults(f"{where}.url", button.url or "", attributes)


def url_faults(field: str, url: str | None) -> Iterator[Fault]:
    """An address must be absolute http(s), its host without placeholders, without user info."""
    try:
        parts = urlsplit(url or "")
    except ValueError:
        yield Fault(field, f"{url} is no address; write https://…")
        return
    if parts.scheme not in {"http", "https"} or not parts.hostname or "{" in parts.netloc or "@" in parts.netloc:
        yield Fault(field, f"{url or 'nothing'} is no web address; write one that begins with https://")
    elif len(url or "") > MAX_URL:
        yield Fault(field, f"is longer than {MAX_URL} characters")


def _media_faults(field: str, message: Message) -> Iterator[Fault]:
    if len(message.media) > 1:
        yield Fault(field, "one picture a message for now; remove the others")
    for index, item in enumerate(message.media):
        yield from url_faults(f"{field}[{index}].url", item.url)


def _length_faults(channel: ChannelName, message: Message, limit: int) -> Iterator[Fault]:
    text = message.on(channel).text
    length = len(text.encode("utf-16-le")) // 2
    if length > limit:
        own = channel in message.variants and message.variants[channel].text is not None
        field = f"message.variants.{channel}.text" if own else "message.text"
        yield Fault(field, f"is {length} characters long; {channel} takes {limit}")


# --- rendering ----------------------------------------------------------------------------------------


def _expressions(text: str) -> str:
    """The text with its shorthands written as expressions; what stands inside {{ }} is left alone."""

    def expression(match: re.Match[str]) -> str:
        if match[1]:
            return f"[{match[1]}]"
        field = SHORTHANDS.get(match[2])
        return f"{{{{ recipient.{field} }}}}" if field else match[0]

    return _BRACKETS.sub(expression, text)


Values = Mapping[str, object]


def values(recipient: Recipient) -> Values:
    """What placeholders can say of a person. A field beats a free attribute of the same name."""
    return {
        **recipient.attributes,
        "first_name": recipient.first_name,
        "last_name": recipient.last_name,
        "name": recipient.name,
        "email": recipient.email,
        "locale": recipient.locale,
        "timezone": recipient.timezone,
        "country": recipient.country,
        "external_id": recipient.external_id,
    }


Filler = Callable[[Values], str]


def _filler(text: str) -> Filler:
    """Compiles a text once; filling it is then a function of the person alone. An attribute that this person
    lacks is empty: that somebody has it was checked at validation."""
    parts = [_part(node) for output in _JINJA.parse(_expressions(text)).body for node in _pieces(output)]
    if all(isinstance(part, str) for part in parts):
        return lambda _: text if not parts else "".join(map(str, parts))
    return lambda person: "".join([part if isinstance(part, str) else _shown(part(person)) for part in parts])


def _pieces(output: nodes.Node) -> Iterator[nodes.Expr]:
    if not isinstance(output, nodes.Output):
        raise TypeError(f"{output} passed validation")  # only {{ }} is alive
    yield from output.nodes


def _part(node: nodes.Expr) -> str | Callable[[Values], object]:
    match node:
        case nodes.TemplateData(data=data):
            return data
        case nodes.Const(value=value):
            return _shown(value)
        case nodes.Getattr(attr=attr):
            return lambda person: person.get(attr)
        case nodes.Filter(node=nodes.Expr() as inner, name=name, args=args):
            return _filtered(_part(inner), FILTERS[name], [arg.as_const() for arg in args])
    raise TypeError(f"{node} passed validation")


def _filtered(
    inner: str | Callable[[Values], object], apply: Filter, args: list[object]
) -> Callable[[Values], object]:
    if isinstance(inner, str):
        return lambda _: apply(inner, *args)
    return lambda person: apply(inner(person), *args)


def _url_filler(url: str) -> Filler:
    fill = _filler(url)

    def filled(person: Values) -> str:
        return fill({key: quote(str(value), safe="") for key, value in person.items() if value is not None})

    return filled


def target(button: Button, recipient: Recipient) -> str:
    """Where a link leads for this person: the stored address with its placeholders filled, percent-encoded."""
    return _url_filler(button.url or "")(values(recipient))


class Rendering:
    """A message as one channel says it, compiled once for a whole broadcast."""

    def __init__(self, message: Message, channel: ChannelName, links: Links) -> None:
        own = message.on(channel)
        self._text = _filler(own.text)
        self._media = own.media
        self._buttons = tuple(partial(_ready, button, _filler(button.label), links) for button in own.buttons)

    def content(self, recipient: Recipient, delivery: str) -> Content:
        person = values(recipient)
        return Content(
            text=self._text(person),
            media=self._media,
            buttons=tuple(ready(person, delivery) for ready in self._buttons),
        )


def _ready(button: Button, label: Filler, links: Links, person: Values, delivery: str) -> ReadyButton:
    press = Press(delivery, button.id)
    if button.type is ButtonType.REPLY:
        return ReadyButton(label(person), payload=payload(press))
    return ReadyButton(label(person), url=links.url(press))
