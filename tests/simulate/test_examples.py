"""The scenario files and the page that show the rules agree with what is played."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from bot import simulate
from tests.simulate.scenarios import Json, played_text

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.json"))


def lines_of(name: str) -> list[Json]:
    out = io.StringIO()
    assert simulate.run(DOCS / "examples" / name, out=out) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def ends(name: str) -> dict[str, str]:
    told = (line for line in lines_of(name) if line["type"] == "delivery")
    return {line["recipient"]: line["reason"] or line["state"] for line in told}


def test_the_drawing_is_what_happens_to_bea() -> None:
    """Rounds, rungs, times and outcomes."""
    hers = [line for line in lines_of("office-week.json") if line["recipient"] == "busy-bea"]
    shown = [(line["round"], line["rung"], line["at"][8:16], line["outcome"]) for line in hers[:-1]]
    assert shown == [
        (1, "first", "13T14:27", "absent"),
        (1, "again", "13T14:37", "absent"),
        (1, "slot", "13T15:00", "absent"),
        (2, "first", "14T11:52", "absent"),
        (2, "slot", "14T14:00", "absent"),
        (3, "first", "15T10:20", "absent"),
        (3, "again", "15T10:30", "sent"),
    ]
    page = (DOCS / "rules.md").read_text(encoding="utf-8")
    assert [time for _, _, time, _ in shown if time[3:] not in page] == []


def test_the_office_week_shows_how_deliveries_end() -> None:
    """Sent, absent to the end, unsubscribed."""
    assert ends("office-week.json") == {
        "busy-bea": "sent",
        "present-paul": "sent",
        "holiday-hanna": "absent",
        "telegram-tom": "sent",
        "leaving-lea": "unsubscribed",
    }


def test_the_sunday_on_which_an_hour_comes_twice() -> None:
    """The slot at two comes after the try at 02:37, on the second pass."""
    hers = [line["at"] for line in lines_of("clock-change.json") if line["recipient"] == "twice-tara"]
    assert hers[1:3] == ["2026-10-25T02:37:00+02:00", "2026-10-25T02:00:00+01:00"]


def test_platform_trouble_shows_how_sends_end() -> None:
    """Every way there is."""
    assert ends("platform-trouble.json") == {
        "throttled": "sent",
        "next-in-line": "sent",
        "shaky": "sent",
        "down-all-day": "retries_spent",
        "blocked-us": "refused",
        "too-large": "content",
        "viber-waits-alone": "sent",
        "viber-goes-on": "sent",
        "after-hours": "sent",
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_the_page_names_every_example(path: Path) -> None:
    """A file that is added is told of."""
    assert f"examples/{path.name}" in (DOCS / "rules.md").read_text(encoding="utf-8")


def test_the_scenario_on_the_page_can_be_played(tmp_path: Path) -> None:
    """It is a whole file."""
    page = (DOCS / "rules.md").read_text(encoding="utf-8")
    [scenario] = re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)
    status, lines, err = played_text(scenario, tmp_path)
    assert (status, err) == (0, "")
    assert lines[-1]["state"] == "sent"
