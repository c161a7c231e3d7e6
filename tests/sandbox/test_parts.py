"""The parts that need no server: clock, agenda, limits, people, presence."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.acts import is_loopback
from sandbox.agenda import Agenda
from sandbox.availability import presence_at
from sandbox.clock import SandboxClock, iso
from sandbox.directory import Directory
from sandbox.limits import Trickle, Window, Windows, whole_seconds
from sandbox.people import Wish, person_from
from sandbox.settings import Behaviour, Channel, SandboxSettings
from sandbox.stats import Peak
from sandbox.telegram_text import TextError, parse, units
from tests.sandbox.conftest import EPOCH


class Wall:
    """A wall clock that is moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_clock_runs_faster() -> None:
    """A wall second is `speed` sandbox seconds, from the epoch on."""
    wall = Wall()
    clock = SandboxClock(EPOCH, 60, wall)
    assert clock.now() == EPOCH
    wall.now += 2
    assert (clock.now() - EPOCH).total_seconds() == 120
    assert clock.wall_seconds_until(clock.seconds() + 30) == 0.5


def test_clock_jumps_forward_only() -> None:
    """A jump adds to sandbox time; back is refused."""
    clock = SandboxClock(EPOCH, 1, Wall())
    clock.advance(90)
    assert (clock.now() - EPOCH).total_seconds() == 90
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)


def test_clock_refuses_nonsense() -> None:
    """An epoch without a zone and a speed of zero are refused."""
    with pytest.raises(ValueError, match="zone"):
        SandboxClock(EPOCH.replace(tzinfo=None), 1)
    with pytest.raises(ValueError, match="speed"):
        SandboxClock(EPOCH, 0)


def test_iso() -> None:
    """Instants are shown in UTC with milliseconds."""
    assert iso(EPOCH.timestamp() + 0.5) == "2026-03-24T09:00:00.500Z"


async def test_agenda_runs_in_order() -> None:
    """Acts run when due, in the order of their instants, whatever one of them does."""
    clock = SandboxClock(EPOCH, 1, Wall())
    agenda, done = Agenda(clock), list[str]()
    task = asyncio.create_task(agenda.run())
    agenda.after(20, lambda: done.append("later"))
    agenda.after(5, lambda: done.remove("never there"))
    agenda.after(10, lambda: done.append("sooner"))
    clock.advance(10)
    agenda.look()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done == ["sooner"]
    clock.advance(10)
    agenda.look()
    await asyncio.sleep(0.001)
    assert done == ["sooner", "later"]
    task.cancel()


def test_window_just_before_and_after() -> None:
    """The next event fits once the oldest is a period old, not before."""
    window = Window(2, 10.0)
    window.note(0.0)
    window.note(4.0)
    assert window.wait(9.0) == 1.0
    assert window.wait(10.0) == 0.0
    window.note(10.0)
    assert window.wait(10.0) == 4.0


def test_windows_are_per_key() -> None:
    """Every window counts, for each key apart."""
    windows = Windows(((1, 1.0), (2, 10.0)))
    windows.note("a", 0.0)
    assert windows.wait("a", 0.5) == 0.5
    windows.note("a", 1.0)
    assert windows.wait("a", 3.0) == 7.0
    assert windows.wait("b", 3.0) == 0.0


@given(st.lists(st.floats(0, 30), max_size=80), st.integers(1, 5))
def test_window_never_lets_more_through(moments: list[float], limit: int) -> None:
    """However events come, no period ever holds more than the limit."""
    window, passed = Window(limit, 3.0), list[float]()
    for moment in sorted(moments):
        if window.wait(moment) == 0:
            window.note(moment)
            passed.append(moment)
    for first, after in zip(passed, passed[limit:], strict=False):
        assert after - first >= 3.0 - 1e-9


def test_trickle() -> None:
    """A burst passes, then one each interval."""
    trickle = Trickle(1.0, 3)
    for _ in range(3):
        assert trickle.wait("a", 0.0) == 0
        trickle.note("a", 0.0)
    assert trickle.wait("a", 0.25) == 0.75
    assert trickle.wait("a", 1.0) == 0


def test_retry_after_is_at_least_one() -> None:
    """A wait is rounded up to whole seconds."""
    assert [whole_seconds(wait) for wait in (0.01, 1.0, 1.2)] == [1, 1, 2]


def test_peak_slides() -> None:
    """The peak is taken over any second, not over calendar seconds."""
    peak = Peak()
    for moment in (0.9, 1.0, 1.1, 1.95):
        peak.note(moment)
    assert peak.most == 3


def test_people_repeat() -> None:
    """The same seed and number give the same person, another seed another."""
    wish = Wish((Channel.TEAMS,))
    assert person_from(1, 5, wish) == person_from(1, 5, wish)
    assert person_from(1, 5, wish) != person_from(2, 5, wish)


def test_people_are_distinct() -> None:
    """A thousand people have a thousand ids on each channel, and plain e-mail addresses."""
    people = list(Directory(SandboxSettings(people=1000)).people.values())
    assert len(people) == 3000
    for field in ("telegram_id", "viber_id", "entra_id", "teams_user_id", "email"):
        assert len({getattr(person, field) for person in people}) == 3000
    assert all(person.email.isascii() for person in people)
    assert len({person.locale for person in people}) == 10


def test_one_person_everywhere() -> None:
    """Somebody may live on all channels at once."""
    directory = Directory(SandboxSettings(people=0, people_everywhere=1))
    [person] = directory.people.values()
    assert {contact.account.channel for contact in directory.contacts_of(person.id)} == set(Channel)


def test_presence_is_pure_and_lasts() -> None:
    """The same instant gives the same state, and states last for minutes."""
    person, behaviour = person_from(1, 1, Wish((Channel.TEAMS,), timezone="Europe/Paris")), Behaviour()
    start = EPOCH.timestamp()
    day = [presence_at(1, person, start + minute * 60, behaviour) for minute in range(300)]
    assert day == [presence_at(1, person, start + minute * 60, behaviour) for minute in range(300)]
    changes = sum(one != two for one, two in pairwise(day))
    assert 1 <= changes <= 300 / 25 * 2


def test_presence_shares() -> None:
    """Most people are available at work, hardly any at night."""
    people = [person_from(1, number, Wish((Channel.TEAMS,), timezone="Europe/Paris")) for number in range(2000)]
    behaviour = Behaviour()
    noon = datetime(2026, 3, 24, 11, 0, tzinfo=UTC).timestamp()
    night = datetime(2026, 3, 24, 23, 0, tzinfo=UTC).timestamp()
    at_work = Counter(presence_at(1, one, noon, behaviour).availability for one in people)
    off_work = Counter(presence_at(1, one, night, behaviour).availability for one in people)
    assert 0.67 < at_work["Available"] / 2000 < 0.77
    assert off_work["Available"] / 2000 < 0.1
    assert set(at_work) == {"Available", "Away", "Busy", "DoNotDisturb", "Offline"}


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("http://127.0.0.1:8080/r/x", True),
        ("http://localhost/r", True),
        ("http://[::1]:1/", True),
        ("https://a.example/", False),
        ("http://127.0.0.1.a.example/", False),
        ("http://user@10.0.0.1/", False),
        ("file:///etc/passwd", False),
        ("tg://resolve", False),
    ],
)
def test_only_loopback_is_fetched(url: str, answer: bool) -> None:
    """People open links on this machine only."""
    assert is_loopback(url) is answer


@given(st.text(alphabet=st.characters(exclude_characters="<>&", exclude_categories=["Cs"])))
def test_plain_text_is_html(text: str) -> None:
    """Text without special characters passes as it is."""
    assert parse(text, "HTML") == (text, [])


def test_html_offsets_are_utf16() -> None:
    """Offsets and lengths of entities count UTF-16 units."""
    text, entities = parse('😀 <b>x&lt;<a href="https://a.example/?a=1&amp;b=2">y</a></b>', "HTML")
    assert text == "😀 x<y"
    assert sorted(entities, key=lambda entity: entity["offset"]) == [
        {"type": "bold", "offset": 3, "length": 3},
        {"type": "text_link", "offset": 5, "length": 1, "url": "https://a.example/?a=1&b=2"},
    ]
    assert units("😀") == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [("*bold* _it_ \\. \\!", "bold it . !"), ("[a](https://a.example/x.y)", "a"), ("`code`", "code")],
)
def test_markdown_v2(text: str, shown: str) -> None:
    """Marks go, escaped characters stay."""
    assert parse(text, "MarkdownV2")[0] == shown


@pytest.mark.parametrize("text", ["a.b", "1-2", "x!", "*bold"])
def test_markdown_v2_reserved(text: str) -> None:
    """Reserved characters must be escaped, marks must be closed."""
    with pytest.raises(TextError, match="can't parse entities"):
        parse(text, "MarkdownV2")
