"""Whatever people write and whatever they are called."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from hypothesis import example, given, settings
from hypothesis import strategies as st

from broadcast import message
from broadcast.message import Rendering
from broadcast.model import Button, ButtonType, ChannelName, Message, Recipient
from broadcast.tracking import Links

LINKS = Links(secret="s", public_url="https://clarion.example")
ATTRIBUTES = ["city", "cost center"]


def accepted(text: str) -> bool:
    return not list(message.faults(Message(text), attributes=ATTRIBUTES, limits={}))


def kept(said: str) -> str:
    """What platforms take of it."""
    return "".join(c for c in said if c in "\n\t\r" or not (ord(c) < 32 or 127 <= ord(c) < 160))


#: Pieces that mean something here, there, or in some template language.
PIECES = st.sampled_from(
    [
        *("[FIRSTNAME]", "[LASTNAME]", "[[HR]]", "[[", "]]", "[", "]", "[X]"),
        *("{{", "}}", "{", "}", "{%", "%}", "{#"),
        *("{{ recipient.city }}", '{{ recipient.city | default("there") | upper }}', '{{ "{{" }}', "{{-", "-}}"),
        *("recipient", ".", "|", "(", ")", '"', "'", "\\", "$", "<b>", "\n", " "),
        *("\u200f", "\u202e", "é", "😀", "\x00"),
    ]
)
WRITTEN = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)
#: The same without what no text may have alone.
SOUND = st.lists(
    PIECES.filter(lambda piece: piece not in {"{{", "{", "{{-", "\x00"}) | st.sampled_from("abc .,!"), max_size=12
).map("".join)
#: Names with everything in them that could be taken for ours.
CALLED = st.lists(PIECES | st.text(st.characters(codec="utf-8"), max_size=4), max_size=6).map("".join)
NAMED = CALLED.filter(lambda name: bool(kept(name)))
FIRST, LAST, CITY = "\ue000", "\ue001", "\ue002"  # nobody's letters


def rendered(text: str, first: str, last: str, city: str) -> str:
    person = Recipient("rcp_1", first_name=first, last_name=last, attributes={"city": city})
    return Rendering(Message(text), ChannelName.TEAMS, LINKS).content(person, "dlv_1").text


@given(WRITTEN)
@settings(max_examples=100, deadline=None)
def test_a_text_is_refused_or_can_be_sent(text: str) -> None:
    """Checking never fails, and what passes it never fails either, whatever is known of the person."""
    if accepted(text):
        Rendering(Message(text), ChannelName.TEAMS, LINKS).content(Recipient("rcp_1"), "dlv_1")


@given(SOUND.filter(accepted), NAMED, NAMED)
@example("{{ recipient.first_name }}[LASTNAME]", "[LASTNAME]", "{{ recipient.city }}")
@settings(max_examples=100, deadline=None)
def test_what_somebody_is_called_changes_nothing_but_their_name(text: str, first: str, last: str) -> None:
    """The words around it are those of everybody else, and the name is as it was given."""
    frame = rendered(text, FIRST, LAST, CITY)
    assert rendered(text, first, last, CITY) == frame.replace(FIRST, kept(first)).replace(LAST, kept(last))


@given(CALLED, st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_the_length_is_that_of_the_words_and_the_names(name: str, times: int) -> None:
    """Nothing is cut, nothing is added."""
    text = "[FIRSTNAME] and " * times
    assert len(rendered(text, name, "", "")) == times * (len(kept(name)) + len(" and "))


@given(st.text(st.characters(codec="utf-8", exclude_characters="{}[]\r", exclude_categories=["Cc"])))
@settings(max_examples=100, deadline=None)
def test_words_without_brackets_are_sent_as_they_are(text: str) -> None:
    """Letter by letter, in any script."""
    assert rendered(text, "Ann", "Ash", "Lyon") == text


@given(st.sampled_from(["FIRSTNAME", "LASTNAME", "HR", "ABC_D"]))
@settings(max_examples=100, deadline=None)
def test_a_word_in_two_brackets_stands_in_one(word: str) -> None:
    """Also where it would be a placeholder."""
    assert rendered(f"a [[{word}]] b", "Ann", "Ash", "") == f"a [{word}] b"


@given(CALLED, CALLED)
@settings(max_examples=100, deadline=None)
def test_what_somebody_is_called_adds_nothing_to_an_address(first: str, city: str) -> None:
    """Host, path, number of parts and their names stay; the values come back as they were given."""
    button = Button(
        "b", ButtonType.LINK, "B", url="https://x.example/a/[FIRSTNAME]/b?n=[FIRSTNAME]&c={{ recipient.city }}#e"
    )
    person = Recipient("rcp_1", first_name=first, attributes={"city": city})
    url = message.target(button, person)
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "x.example", "e")
    assert parts.path.count("/") == 3
    assert parse_qsl(parts.query, keep_blank_values=True) == [("n", kept(first)), ("c", kept(city))]
    assert url.isascii()
