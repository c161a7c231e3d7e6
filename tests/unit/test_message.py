"""Messages: what is refused before anything is sent, and what one person gets to read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broadcast import message
from broadcast.message import MAX_BUTTONS, MAX_LABEL, MAX_URL, Rendering
from broadcast.model import Button, ButtonType, ChannelName, Media, MediaType, Message, Recipient, Variant
from broadcast.tracking import Links, Press, payload

ANN = Recipient(
    "rcp_ann",
    external_id="E1007",
    email="ann@example.com",
    first_name="Ann",
    last_name="Ash",
    locale="en",
    timezone="Europe/Paris",
    country="FR",
    attributes={"city": "Lyon", "cost center": "R&D 7", "empty": ""},
)
LINKS = Links(secret="s", public_url="https://clarion.example/")
ENROL = Button("enrol", ButtonType.LINK, "Enrol", url="https://intranet.example/enrol")
LATER = Button("later", ButtonType.REPLY, "Later", value="later")


def faults(said: Message, **limits: int) -> list[str]:
    known = ["city", "cost center", "empty"]
    found = message.faults(said, attributes=known, limits={ChannelName(name): n for name, n in limits.items()})
    return [str(fault) for fault in found]


def fields(said: Message) -> list[str]:
    return [fault.partition(":")[0] for fault in faults(said)]


def rendered(text: str, recipient: Recipient = ANN) -> str:
    assert faults(Message(text)) == []
    return Rendering(Message(text), ChannelName.TEAMS, LINKS).content(recipient, "dlv_1").text


# --- placeholders that are refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello [FIRSTNAM]", "did you mean FIRSTNAME?"),
        ("From [HR]", "write [[HR]] to show the word in brackets"),
        ("{{ recipient.first_nam }}", "did you mean first_name?"),
        ('{{ recipient["shoe size"] }}', "recipient.shoe size is unknown"),
        ("{{ firstname }}", "a placeholder begins with recipient"),
        ("{{ recipient }}", "recipient.NAME with filters, nothing else"),
        ("{{ recipient.first_name.upper() }}", "recipient.NAME with filters, nothing else"),
        ("{{ recipient.__class__ }}", "recipient.__class__ is unknown"),
        ("{{ recipient['__class__'] }}", "recipient.__class__ is unknown"),
        ("{{ recipient.city ~ recipient.city }}", "recipient.NAME with filters, nothing else"),
        ("{{ recipient.city if true else 1 }}", "recipient.NAME with filters, nothing else"),
        ("{{ 7 }}", "recipient.NAME with filters, nothing else"),
        ("{{ range(3) }}", "recipient.NAME with filters, nothing else"),
        ("{{ recipient.city | shout }}", "the filter shout() is unknown; there are default, upper"),
        ('{{ recipient.city | upper("x") }}', "the filter upper(…) is unknown"),
        ('{{ recipient.city | default("x", true) }}', "the filter default(…, …) is unknown"),
        ("{{ recipient.city | default(recipient.name) }}", "a filter takes words and nothing else"),
        ('{{ recipient.city | default(value="x") }}', "a filter takes words and nothing else"),
        ('{{ recipient.city | default(*["x"]) }}', "a filter takes words and nothing else"),
        ('{{ recipient.city | default(**{"x": 1}) }}', "a filter takes words and nothing else"),
        ('{{ recipient.city | default("\\x00") }}', "a filter takes words and nothing else"),
        ('{{ "\\ud800" }}', "recipient.NAME with filters, nothing else"),
        ("{{ recipient.city", "cannot be read: unexpected end of template"),
        ("{{ recipient.city", '; write {{ "{{" }} to show two braces'),
        ("two braces {{ alone", "cannot be read"),
        ("{{ }}", "cannot be read"),
        ("{{ recipient.city }", "cannot be read"),
        ("{{ " + "(" * 500 + "1", "too long"),
        ("{{ recipient.city" + " | upper" * 500 + " }}", "too long"),
        ("{{ " + "not " * 500 + "1 }}", "too long"),
        ("{{ " + "9" * 5000 + " }}", "cannot be read"),
        ("a\x00b", "contains control characters"),
        ("a\x00{% raw %}\x00", "contains control characters"),
        ("half a character \ud83d", "contains control characters"),
    ],
)  # fmt: skip
def test_a_placeholder_nobody_can_fill_is_refused_in_words(text: str, said: str) -> None:
    """Unknown names, anything but a field with filters, and what cannot be read are refused at validation."""
    [fault] = faults(Message(text))
    assert fault.startswith("message.text: ")
    assert said in fault


def test_every_placeholder_at_fault_is_named() -> None:
    """Somebody who corrects a text learns of all mistakes at once."""
    found = faults(Message("[HR] {{ recipient.x }} {{ recipient.city | y }} [FIRSTNAME]"))
    assert len(found) == 3


# --- placeholders that are filled ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Hello [FIRSTNAME] [LASTNAME]!", "Hello Ann Ash!"),
        ("{{ recipient.name }}, {{recipient.email}}", "Ann Ash, ann@example.com"),
        ("{{ recipient.external_id }} {{ recipient.locale }}", "E1007 en"),
        ("{{ recipient.timezone }} {{ recipient.country }}", "Europe/Paris FR"),
        ('{{ recipient.empty | default("there") }}', "there"),
        ("{{ recipient.empty | default(0) }}", "0"),
        ("{{ recipient.city | upper }}{{ recipient.city | lower }}", "LYONlyon"),
        ('{{ recipient.empty | default(" new york ") | trim | title }}', "New York"),
        ('{{ recipient.empty | default("nEW") | capitalize }}', "New"),
        ('{{ recipient["cost center"] }}', "R&D 7"),
        ("By [[HR]], [[FIRSTNAME]], [[[FIRSTNAME]]]", "By [HR], [FIRSTNAME], [[FIRSTNAME]]"),
        ("[firstname] [X] [] [A1] [FIRST NAME] ]", "[firstname] [X] [] [A1] [FIRST NAME] ]"),
        ('{{ "{{" }} {{ "[FIRSTNAME]" }} }}', "{{ [FIRSTNAME] }}"),
        ('{{ recipient.empty | default("}} [FIRSTNAME]") }}', "}} [FIRSTNAME]"),
        ("{% if %} {# not a comment #} {a} %} $x", "{% if %} {# not a comment #} {a} %} $x"),
        ("a  {{- recipient.city -}}  b", "aLyonb"),
        ("line\n\nline\t\n", "line\n\nline\t\n"),
        ("<b>&amp;*_`\\</b>", "<b>&amp;*_`\\</b>"),
        ("مرحبا [FIRSTNAME] \u200f!", "مرحبا Ann \u200f!"),
        ("👩‍👩‍👧 [FIRSTNAME]", "👩‍👩‍👧 Ann"),
    ],
)
def test_a_placeholder_is_filled(text: str, read: str) -> None:
    """Shorthands, fields, attributes and filters; all else stands as it was written."""
    assert rendered(text) == read


@pytest.mark.parametrize(
    "name", ["[LASTNAME]", "{{ recipient.email }}", "{{ x }}", "}}", "[[HR]]", "{%", "a{{b", "<b>", "\u202eAnn"]
)
def test_a_name_is_never_read_as_a_placeholder(name: str) -> None:
    """People choose their names: whatever they are, they stay what they are."""
    person = replace(ANN, first_name=name)
    assert rendered("[FIRSTNAME]/{{ recipient.first_name }}", person) == f"{name}/{name}"


def test_what_no_platform_takes_is_left_out_of_a_name() -> None:
    """Controls and halves of characters in a name would have the whole message refused."""
    assert rendered("[FIRSTNAME]", replace(ANN, first_name="A\x00n\x1b\ud83dn\x85")) == "Ann"


def test_what_is_not_known_of_a_person_is_empty() -> None:
    """Somebody has it, or validation would have refused it; this person has not."""
    assert rendered("[FIRSTNAME]{{ recipient.city }}{{ recipient.city | upper }}.", Recipient("rcp_x")) == "."


def test_a_field_beats_an_attribute_of_its_name() -> None:
    """An import cannot put other words into a field's mouth."""
    assert rendered("[FIRSTNAME]", replace(ANN, attributes={"first_name": "Eve"})) == "Ann"


# --- text, media, buttons -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "field"),
    [
        (Message("  \n"), "message.text"),
        (Message("x", variants={ChannelName.VIBER: Variant(text=" ")}), "message.variants.viber.text"),
        (Message("x", variants={ChannelName.VIBER: Variant(text="[HR]")}), "message.variants.viber.text"),
        (Message("x", buttons=(replace(ENROL, id="a.b"),)), "message.buttons[0].id"),
        (Message("x", buttons=(replace(ENROL, id="a:b"),)), "message.buttons[0].id"),
        (Message("x", buttons=(replace(ENROL, id="später"),)), "message.buttons[0].id"),
        (Message("x", buttons=(replace(ENROL, id="a\n"),)), "message.buttons[0].id"),
        (Message("x", buttons=(replace(ENROL, id="x" * 33),)), "message.buttons[0].id"),
        (Message("x", buttons=(ENROL, replace(LATER, id="enrol"))), "message.buttons[1].id"),
        (Message("x", buttons=(replace(ENROL, label=" "),)), "message.buttons[0].label"),
        (Message("x", buttons=(replace(ENROL, label="[HR]"),)), "message.buttons[0].label"),
        (Message("x", buttons=(replace(ENROL, label="x" * (MAX_LABEL + 1)),)), "message.buttons[0].label"),
        (Message("x", buttons=(replace(LATER, url="https://x.example"),)), "message.buttons[0].url"),
        (Message("x", buttons=(replace(ENROL, url=None),)), "message.buttons[0].url"),
        (Message("x", buttons=(replace(ENROL, type=ButtonType.BUY, url=None),)), "message.buttons[0].url"),
        (Message("x", buttons=(replace(ENROL, url="https://x.example/[HR]"),)), "message.buttons[0].url"),
        (Message("x", variants={ChannelName.VIBER: Variant(buttons=(replace(ENROL, url="ftp://x"),))}),
         "message.variants.viber.buttons[0].url"),
        (Message("x", media=(Media(MediaType.PICTURE, "x.png"),)), "message.media[0].url"),
        (Message("x", media=(Media(MediaType.PICTURE, "https://x.example/{{ recipient.city }}"),)),
         "message.media[0].url"),
        (Message("x", media=(Media(MediaType.FILE, "https://x.example/[FIRSTNAME].pdf"),)), "message.media[0].url"),
        (Message("x", media=(Media(MediaType.VIDEO, "https://x.example/", "\x00"),)), "message.media[0].alt"),
        (Message("x", variants={ChannelName.VIBER: Variant(media=(Media(MediaType.PICTURE, "javascript:x"),))}),
         "message.variants.viber.media[0].url"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_by_its_field(said: Message, field: str) -> None:
    """Each mistake is found at its place, in the message and in its variants."""
    assert fields(said) == [field]


def test_a_picture_alone_is_a_message() -> None:
    """Words are not needed where there is something to see."""
    picture = Media(MediaType.PICTURE, "https://x.example/a.png", "A picture")
    assert faults(Message("", media=(picture,))) == []
    assert fields(Message("x", media=(picture, picture))) == ["message.media"]


def test_a_message_takes_so_many_buttons_and_no_more() -> None:
    """Just below the limit, and just beyond it."""
    buttons = tuple(replace(LATER, id=f"b{number}") for number in range(MAX_BUTTONS + 1))
    assert faults(Message("x", buttons=buttons[:-1])) == []
    assert fields(Message("x", buttons=buttons)) == ["message.buttons"]


def test_length_is_counted_as_platforms_count_it() -> None:
    """In UTF-16 units: an emoji is two."""
    assert faults(Message("😀" * 5), telegram=10) == []
    assert faults(Message("😀" * 5 + "x"), telegram=10) == [
        "message.text: is 11 characters long; telegram takes 10"
    ]


def test_the_length_of_a_variant_is_its_own() -> None:
    """A channel that says something shorter is held to that alone."""
    said = Message("x" * 20, variants={ChannelName.VIBER: Variant(text="x" * 5)})
    assert faults(said, viber=10) == []
    own = replace(said, variants={ChannelName.VIBER: Variant(text="x" * 11)})
    assert faults(own, viber=10, teams=20) == ["message.variants.viber.text: is 11 characters long; viber takes 10"]


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "intranet.example",
        "//intranet.example",
        "https:///path",
        "https://",
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://intranet.example",
        "https://user@intranet.example",
        "https://intranet.example@evil.example",
        "https://intranet.example\\@evil.example",
        "https://intranet.example\\.evil.example/",
        "https://{{ recipient.city }}.example/",
        "https://intranet.example{{ recipient.city }}/",
        "{{ recipient.city }}://intranet.example",
        "https://[FIRSTNAME]/",
        "https://[FIRSTNAME].example/",
        "https://intra net.example/",
        "https://intranet.example/a b",
        "https://intranet.example/\r\nSet-Cookie: a=b",
        "https://intranet.example/\x00",
        "\thttps://intranet.example/",
        "https://intranet.example:port/",
        "https://intranet.example:99999/",
        "https://intranet.example/" + "x" * MAX_URL,
    ],
)
def test_an_address_that_leads_elsewhere_than_it_says_is_refused(url: str | None) -> None:
    """Only absolute web addresses, whose host nobody but the author decides."""
    assert len(list(message.url_faults("url", url))) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://intranet.example",
        "HTTPS://Intranet.Example:8443/a?b=c&d=%20#e",
        "https://münchen.example/für",
        "https://[2001:db8::1]:8080/",
        'https://intranet.example/{{ recipient.city | default("a b") }}?who=[LASTNAME]',
    ],
)
def test_an_address_may_be_any_web_address(url: str) -> None:
    """Ports, other letters, literal addresses, and placeholders behind the host."""
    assert faults(Message("x", buttons=(replace(ENROL, url=url),))) == []


# --- buttons as they go out ---------------------------------------------------------------------------


def test_a_link_goes_out_tracked_and_a_reply_with_its_payload() -> None:
    """The address itself is never in the message, nor is the value of a reply."""
    said = Message("x", buttons=(replace(ENROL, label="Enrol, [FIRSTNAME]"), LATER))
    link, reply = Rendering(said, ChannelName.TELEGRAM, LINKS).content(ANN, "dlv_1").buttons
    assert (link.label, link.url, link.payload) == ("Enrol, Ann", LINKS.url(Press("dlv_1", "enrol")), None)
    assert (reply.label, reply.url, reply.payload) == ("Later", None, payload(Press("dlv_1", "later")))


def test_a_channel_says_its_own_variant() -> None:
    """What a variant leaves out is the message's own."""
    said = Message("all", buttons=(ENROL,), variants={ChannelName.VIBER: Variant(text="viber", buttons=())})
    teams, viber = (
        Rendering(said, channel, LINKS).content(ANN, "dlv_1") for channel in (ChannelName.TEAMS, ChannelName.VIBER)
    )
    assert (teams.text, len(teams.buttons)) == ("all", 1)
    assert (viber.text, len(viber.buttons)) == ("viber", 0)


@pytest.mark.parametrize(
    ("url", "leads_to"),
    [
        ("https://x.example/?n=[FIRSTNAME]", "https://x.example/?n=A%26n%2Fn%20%C3%9F"),
        ("https://x.example/{{ recipient.first_name | lower }}", "https://x.example/a%26n%2Fn%20%C3%9F"),
        ("https://x.example/{{ recipient.first_name | upper }}", "https://x.example/A%26N%2FN%20SS"),
        ('https://x.example/{{ recipient.none | default("a b") }}', "https://x.example/a%20b"),
        ("https://x.example/?a=b&c=d%20#e", "https://x.example/?a=b&c=d%20#e"),
    ],
)
def test_what_a_person_says_is_quoted_in_an_address(url: str, leads_to: str) -> None:
    """A value adds no part to an address: it is filled in last, percent-encoded."""
    assert message.target(replace(ENROL, url=url), replace(ANN, first_name="A&n/n ß")) == leads_to


@pytest.mark.parametrize(
    ("url", "leads_to"),
    [
        ("https://x.example/a?b=c#d", "https://x.example/a?b=c#d"),
        ("https://x.example/[[HR]]", "https://x.example/[HR]"),
        ("https://x.example/?who=[FIRSTNAME]", None),
        ('https://x.example/{{ recipient.city | default("there") }}', None),
    ],
)
def test_a_link_may_be_the_same_for_everybody(url: str, leads_to: str | None) -> None:
    """Without a placeholder of any kind; then nobody has to be known to follow it."""
    assert message.common_target(replace(ENROL, url=url)) == leads_to
