"""Engine and `simulate` against a second, naive implementation of the rules."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings

from broadcast import calendar
from broadcast.model import Schedule
from tests.simulate import naive_engine
from tests.simulate.scenarios import Json, played, scenarios


def schedule_of(scenario: Json) -> Schedule:
    told = scenario["broadcast"]
    return Schedule(
        start=dt.date.fromisoformat(told["start"]),
        working_days=told["working_days"],
        timezone=told["timezone"],
        recipient_timezone=told["recipient_timezone"],
        holidays=frozenset(map(dt.date.fromisoformat, told["holidays"])),
        hours=calendar.parse_hours(told["hours"]),
    )


def lines_of(scenario: Json) -> list[Json]:
    with TemporaryDirectory() as folder:
        status, lines, err = played(scenario, Path(folder))
    assert status == 0, err
    return lines


@given(scenarios())
@settings(max_examples=100, deadline=None)
def test_where_nobody_waits_for_anybody_the_lines_are_the_naive_ones(scenario: Json) -> None:
    """Every line, in order: calendars, rounds, presence, answers, retries, opt-outs."""
    assert lines_of(scenario) == list(naive_engine.lines(scenario, schedule_of(scenario)))


@given(scenarios(crowd=True))
@settings(max_examples=25, deadline=None)
def test_where_people_wait_the_promises_hold(scenario: Json) -> None:
    """Everybody ends once; nothing outside hours or after an opt-out; rates kept; numbers agree; in order."""
    lines = lines_of(scenario)
    attempts: dict[str, list[Json]] = defaultdict(list)
    for line in lines:
        if line["type"] == "attempt":
            attempts[line["recipient"]].append(line)
    ends = {line["recipient"]: line for line in lines if line["type"] == "delivery"}
    assert [*ends] == list(dict.fromkeys(line["recipient"] for line in lines if line["type"] == "delivery"))
    assert len([line for line in lines if line["type"] == "delivery"]) == len(scenario["recipients"])
    for place, person in enumerate(scenario["recipients"]):
        check_person(naive_engine.Person(scenario, place, schedule_of(scenario)), attempts, ends[person["id"]])
    check_rates(scenario, lines)
    check_order(scenario, lines)


def instant(line: Json) -> dt.datetime:
    return dt.datetime.fromisoformat(line["at"])


def check_person(person: naive_engine.Person, attempts: dict[str, list[Json]], end: Json) -> None:
    mine = attempts[person.raw["id"]]
    assert all(person.working.contains(instant(line)) for line in mine)
    if "unsubscribes_at" in person.raw:
        assert all(instant(line) < dt.datetime.fromisoformat(person.raw["unsubscribes_at"]) for line in mine)
    assert end["attempts"] == len({(line["round"], line["rung"]) for line in mine})
    assert end["sends"] == len([line for line in mine if line["outcome"] != "absent"])
    assert (end["state"] == "sent") == any(line["outcome"] == "sent" for line in mine)
    assert [line["outcome"] for line in mine].count("sent") <= 1
    assert all(person.allows(line["presence"]) == (line["outcome"] != "absent") for line in mine)


def check_rates(scenario: Json, lines: list[Json]) -> None:
    channels = {person["id"]: person["channel"] for person in scenario["recipients"]}
    for channel, account in scenario["accounts"].items():
        sends = [
            instant(line)
            for line in lines
            if channels[line["recipient"]] == channel and line.get("outcome", "absent") != "absent"
        ]
        least = dt.timedelta(seconds=1 / account["rate"]) - dt.timedelta(milliseconds=1)  # as it is printed
        assert all(later - earlier >= least for earlier, later in pairwise(sends))


def check_order(scenario: Json, lines: list[Json]) -> None:
    places = {person["id"]: place for place, person in enumerate(scenario["recipients"])}

    def key(line: Json) -> tuple[Any, ...]:
        return instant(line), places[line["recipient"]], line["type"] == "delivery"

    assert lines == sorted(lines, key=key)
