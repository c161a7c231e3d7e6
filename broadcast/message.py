"""From a campaign's message to what one person gets: placeholders, tracked links, limits.

Text is plain text with placeholders: `[FIRSTNAME]`, `[LASTNAME]`, and `{{ recipient.city | default("there") }}` for
everything else. `[[HR]]` says a bracketed word literally. Names nobody knows are refused at validation, never
filled with nothing at send time.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from jinja2 import Environment, TemplateSyntaxError, nodes

from broadcast.errors import Fault
from broadcast.model import Button, ButtonType, ChannelName, Media, Message, Recipient
from broadcast.ports import Content, ReadyButton
from broadcast.tracking import Links, Press, payload

FIELDS = ("first_name", "last_name", "name", "email", "locale", "timezone", "country", "external_id")
SHORTHANDS = {"FIRSTNAME": "first_name", "LASTNAME": "last_name"}

MAX_BUTTONS = 10
MAX_LABEL = 80
MAX_URL = 2000  # PLATFORMS D3, the narrowest of the three
#: What Jinja may find in one placeholder. It reads by recursion, which ends the program where it goes too deep.
MAX_TOKENS = 30

_SHORTHAND = re.compile(r"\[\[([A-Z][A-Z_]+)\]\]|\[([A-Z][A-Z_]+)\]")
_BUTTON_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
#: No platform takes these: controls but tab and line ends, and halves of characters.
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
#: A host with its port; nothing a browser and `urlsplit` could read in different ways.
_AUTHORITY = re.compile(r"([^\s\\{}<>\"'`|^%@\[\]]+|\[[0-9A-Fa-f:.]+\](:\d+)?)")


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


def _shown(value: object) -> str:
    return "" if value is None else str(value)


# --- reading ------------------------------------------------------------------------------------------

# Jinja reads the texts; what it read is run here, because all that may be said is a field and its filters.
# Only {{ … }} is alive: a text may contain {% and {# as they stand.
_JINJA = Environment(
    block_start_string="\x00{%",
    block_end_string="%}\x00",
    comment_start_string="\x00{#",
    comment_end_string="#}\x00",
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - plain text: each channel escapes for its own platform
)


class _Unreadable(Exception):  # noqa: N818 - says what happened
    """What is wrong with a placeholder, in words."""


@dataclass(frozen=True, slots=True)
class _Placeholder:
    """A field of the person (or, without one, a word as it stands) and the filters it goes through."""

    field: str | None
    word: str = ""
    filters: tuple[tuple[str, tuple[object, ...]], ...] = ()

    def value(self, person: Values) -> object:
        found: object = self.word if self.field is None else person.get(self.field)
        for name, arguments in self.filters:
            found = FILTERS[name](found, *arguments)
        return found


def _nodes(text: str) -> list[nodes.Expr]:
    """The text as Jinja reads it. Raises `_Unreadable`."""
    try:
        _refuse_deep(text)
        return [node for output in _JINJA.parse(text).find_all(nodes.Output) for node in output.nodes]
    except TemplateSyntaxError as error:
        raise _Unreadable(f"has a placeholder that cannot be read: {_words(error)}{_LITERALLY}") from error
    except ValueError as error:  # a number of thousands of digits
        raise _Unreadable(f"has a placeholder that cannot be read{_LITERALLY}") from error


def _words(error: TemplateSyntaxError) -> str:
    return (error.message or "").rstrip(".")


_LITERALLY = '; write {{ "{{" }} to show two braces as they stand'


def _refuse_deep(text: str) -> None:
    count = 0
    for _, kind, _ in _JINJA.lex(text):
        count = 0 if kind == "variable_begin" else count + (kind != "whitespace")
        if count > MAX_TOKENS:
            raise _Unreadable("has a placeholder that is too long; it is recipient.NAME with a few filters")


def _plain(text: str) -> Iterator[str | _Placeholder]:
    """What stands outside of {{ }}: words, and shorthands. `[[HR]]`, and a shorthand nobody knows, are words."""
    end = 0
    for match in _SHORTHAND.finditer(text):
        yield text[end : match.start()]
        field = SHORTHANDS.get(match[2])
        yield _Placeholder(field) if field else f"[{match[1] or match[2]}]"
        end = match.end()
    yield text[end:]


def _placeholder(node: nodes.Expr) -> _Placeholder:
    """What stands inside of {{ }}. Raises `_Unreadable`."""
    filters: list[tuple[str, tuple[object, ...]]] = []
    while isinstance(node, nodes.Filter) and node.node is not None:
        filters.insert(0, _filter(node))
        node = node.node
    match node:
        case nodes.Const(value=str(word)) if not _UNFIT.search(word):
            return _Placeholder(None, word, tuple(filters))
        case (
            nodes.Getattr(node=nodes.Name(name="recipient"), attr=field)
            | nodes.Getitem(node=nodes.Name(name="recipient"), arg=nodes.Const(value=str(field)))
        ):
            return _Placeholder(field, filters=tuple(filters))
        case nodes.Name(name=name) if name != "recipient":
            mend = "a placeholder begins with recipient: {{ recipient.name }}"
            raise _Unreadable(f"{{{{ {name} }}}} is unknown; {mend}")
    raise _Unreadable("a placeholder is recipient.NAME with filters, nothing else")


def _filter(node: nodes.Filter) -> tuple[str, tuple[object, ...]]:
    arguments = tuple(arg.value for arg in node.args if isinstance(arg, nodes.Const))
    simple = len(arguments) == len(node.args) and not (node.kwargs or node.dyn_args or node.dyn_kwargs)
    if not simple or any(_UNFIT.search(_shown(each)) for each in arguments):
        raise _Unreadable('a filter takes words and nothing else, such as default("there")')
    if len(arguments) > ARGUMENTS.get(node.name, -1):
        dots = ", ".join("…" for _ in arguments)
        raise _Unreadable(f"the filter {node.name}({dots}) is unknown; there are {', '.join(FILTERS)}")
    return node.name, arguments


# --- checking -----------------------------------------------------------------------------------------


def faults(message: Message, *, attributes: Collection[str], limits: Mapping[ChannelName, int]) -> Iterator[Fault]:
    """Everything wrong with a message, by field: unknown placeholders, limits, buttons without their target.

    `attributes` are the free attributes that recipients have; `limits` the text limit (UTF-16 units) of each
    channel the campaign uses.
    """
    yield from _content_faults("message", message, message, attributes)
    for channel, variant in message.variants.items():
        own = Message(variant.text or "", variant.media or (), variant.buttons or ())
        yield from _content_faults(f"message.variants.{channel}", own, message.on(channel), attributes)
    for channel, limit in limits.items():
        yield from _length_faults(channel, message, limit)


def _content_faults(where: str, own: Message, whole: Message, attributes: Collection[str]) -> Iterator[Fault]:
    """`own` is what is said there, `whole` what people get of it."""
    if not (whole.text.strip() or whole.media):
        yield Fault(f"{where}.text", "is empty; write what people should read")
    yield from _text_faults(f"{where}.text", own.text, attributes)
    yield from _button_faults(f"{where}.buttons", own.buttons, attributes)
    yield from _media_faults(f"{where}.media", own.media)


def _text_faults(field: str, text: str, attributes: Collection[str]) -> Iterator[Fault]:
    if _UNFIT.search(text):
        yield Fault(field, "contains control characters; remove them")
        return
    known = {*FIELDS, *attributes}
    try:
        found = _nodes(text)
    except _Unreadable as problem:
        yield Fault(field, str(problem))
        return
    yield from (Fault(field, problem) for node in found for problem in _problems(node, known))


def _problems(node: nodes.Expr, known: Collection[str]) -> Iterator[str]:
    if isinstance(node, nodes.TemplateData):
        yield from _shorthand_problems(node.data)
        return
    try:
        field = _placeholder(node).field
    except _Unreadable as problem:
        yield str(problem)
        return
    if field is not None and field not in known:
        yield f"recipient.{field} is unknown{_hint(field, known)}"


def _shorthand_problems(text: str) -> Iterator[str]:
    for match in _SHORTHAND.finditer(text):
        if (word := match[2]) and word not in SHORTHANDS:
            mend = f"write [[{word}]] to show the word in brackets as it stands"
            yield f"[{word}] is no placeholder{_hint(word, SHORTHANDS)}; {mend}"


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
    if not _is_web_address(url or ""):
        yield Fault(field, f"{url or 'nothing'} is no web address; write one that begins with https://")
    elif len(url or "") > MAX_URL:
        yield Fault(field, f"is longer than {MAX_URL} characters")


def _is_web_address(url: str) -> bool:
    """`urlsplit` overlooks white space and line ends, which are no part of an address."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # read only to have it checked
    except ValueError:
        return False
    written = re.sub(r"\{\{.*?\}\}", "", url)
    return (
        parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and _AUTHORITY.fullmatch(parts.netloc) is not None
        and not re.search(r"\s", written)
        and not _UNFIT.search(url)
    )


def _media_faults(field: str, media: tuple[Media, ...]) -> Iterator[Fault]:
    if len(media) > 1:
        yield Fault(field, "one picture a message for now; remove the others")
    for index, item in enumerate(media):
        yield from url_faults(f"{field}[{index}].url", item.url)
        if "{{" in item.url or any(f"[{word}]" in item.url for word in SHORTHANDS):
            yield Fault(f"{field}[{index}].url", "is the same for everybody; remove the placeholder")
        if _UNFIT.search(item.alt):
            yield Fault(f"{field}[{index}].alt", "contains control characters; remove them")


def _length_faults(channel: ChannelName, message: Message, limit: int) -> Iterator[Fault]:
    text = message.on(channel).text
    length = len(text.encode("utf-16-le", "surrogatepass")) // 2
    if length > limit:
        own = channel in message.variants and message.variants[channel].text is not None
        field = f"message.variants.{channel}.text" if own else "message.text"
        yield Fault(field, f"is {length} characters long; {channel} takes {limit}")


# --- rendering ----------------------------------------------------------------------------------------


class Values:
    """What placeholders can say of a person. A field beats a free attribute of the same name. What no platform
    takes is left out: people choose their names themselves."""

    __slots__ = ("_recipient",)

    def __init__(self, recipient: Recipient) -> None:
        self._recipient = recipient

    def get(self, name: str) -> object:
        """``None`` where the person has no such thing. Worked out when asked: most messages ask for little."""
        recipient = self._recipient
        value = getattr(recipient, name) if name in FIELDS else recipient.attributes.get(name)
        return value if not value or value.isprintable() else _UNFIT.sub("", value)


Filler = Callable[[Values], str]


def _filler(text: str, shown: Callable[[object], str] = _shown) -> Filler:
    """Compiles a text once; filling it is then a function of the person alone. An attribute that this person
    lacks is empty: that somebody has it was checked at validation. What a person says is never read again."""
    parts = [part for node in _nodes(text) for part in _parts(node)]
    if all(isinstance(part, str) for part in parts):
        words = "".join(map(str, parts))
        return lambda _: words
    return lambda person: "".join([part if isinstance(part, str) else shown(part.value(person)) for part in parts])


def _parts(node: nodes.Expr) -> Iterator[str | _Placeholder]:
    if isinstance(node, nodes.TemplateData):
        yield from _plain(node.data)
    else:
        yield _placeholder(node)


def _quoted(value: object) -> str:
    return quote(_shown(value), safe="")


def target(button: Button, recipient: Recipient) -> str:
    """Where a link leads for this person: the stored address with its placeholders filled, percent-encoded."""
    return _filler(button.url or "", _quoted)(Values(recipient))


def common_target(button: Button) -> str | None:
    """Where a link leads if that is the same for everybody, else ``None``."""
    parts = [part for node in _nodes(button.url or "") for part in _parts(node)]
    words = [part for part in parts if isinstance(part, str)]
    return "".join(words) if len(words) == len(parts) else None


class Rendering:
    """A message as one channel says it, compiled once for a whole broadcast."""

    def __init__(self, message: Message, channel: ChannelName, links: Links) -> None:
        own = message.on(channel)
        self._text = _filler(own.text)
        self._media = own.media
        self._buttons = [_maker_of(button, links) for button in own.buttons]

    def content(self, recipient: Recipient, delivery: str) -> Content:
        person = Values(recipient)
        buttons = [ready(person, delivery) for ready in self._buttons]
        return Content(self._text(person), self._media, tuple(buttons))


def _maker_of(button: Button, links: Links) -> Callable[[Values, str], ReadyButton]:
    """What makes the button ready for one person and delivery."""
    label, id = _filler(button.label), button.id
    if button.type is ButtonType.REPLY:
        return lambda person, delivery: ReadyButton(label(person), payload=payload(Press(delivery, id)))
    return lambda person, delivery: ReadyButton(label(person), url=links.url(Press(delivery, id)))
