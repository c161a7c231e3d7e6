"""`clarion simulate`: what comes out, and what a faulty file gets."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bot import simulate
from bot.cli import main
from tests.simulate.scenarios import WORKED, Json, one, played, played_text

LINES = """\
{"type": "delivery", "recipient": "ben", "state": "skipped", "reason": "unsubscribed", \
"at": "2026-03-27T08:00:00+01:00", "attempts": 0, "sends": 0}
{"type": "attempt", "recipient": "ann", "round": 1, "rung": "first", "at": "2026-03-27T14:27:00+01:00", \
"presence": "away", "outcome": "absent"}
{"type": "attempt", "recipient": "ann", "round": 1, "rung": "again", "at": "2026-03-27T14:37:00+01:00", \
"presence": "away", "outcome": "absent"}
{"type": "attempt", "recipient": "ann", "round": 1, "rung": "slot", "at": "2026-03-27T15:00:00+01:00", \
"presence": "available", "outcome": "throttled"}
{"type": "attempt", "recipient": "ann", "round": 1, "rung": "slot", "at": "2026-03-27T15:00:05+01:00", \
"presence": "available", "outcome": "sent"}
{"type": "delivery", "recipient": "ann", "state": "sent", "reason": null, \
"at": "2026-03-27T15:00:05+01:00", "attempts": 3, "sends": 2}
"""


def test_the_worked_example_to_the_letter(tmp_path: Path) -> None:
    """The documented file gives the documented lines."""
    path, out = tmp_path / "scenario.json", io.StringIO()
    path.write_text(json.dumps(WORKED))
    assert simulate.run(path, out=out) == 0
    assert out.getvalue() == LINES


def times(scenario: Json, folder: Path) -> list[str]:
    status, lines, err = played(scenario, folder)
    assert status == 0, err
    return [line["at"][11:16] + line["at"][19:] for line in lines if line["type"] == "attempt"]


def absent(first: str, **broadcast: Any) -> Json:
    scenario = one(first_at=[first], presence=[["2026-03-01T00:00:00+01:00", "away"]])
    scenario["broadcast"].update(broadcast)
    return scenario


@pytest.mark.parametrize(
    ("first", "attempts"),
    [
        ("14:27", "14:27 14:37 15:00"),
        ("14:50", "14:50 15:00 16:00"),
        ("14:55", "14:55 15:05 16:00"),
        ("11:52", "11:52 14:00"),
        ("11:45", "11:45 11:55 14:00"),
        ("17:45", "17:45 17:55"),
        ("17:55", "17:55"),
        ("09:00", "09:00 09:10 10:00"),
    ],
)
def test_rungs_of_one_day(first: str, attempts: str, tmp_path: Path) -> None:
    """Absent throughout one working day."""
    scenario = absent(f"2026-03-27T{first}:00+01:00")
    assert times(scenario, tmp_path) == [f"{time}+01:00" for time in attempts.split()]


@pytest.mark.parametrize(
    ("first", "attempts"),
    [
        ("2026-03-29T01:50:00+01:00", "01:50+01:00 03:00+02:00"),
        ("2026-10-25T02:27:00+02:00", "02:27+02:00 02:37+02:00 02:00+01:00"),
        ("2026-10-25T02:55:00+02:00", "02:55+02:00 02:05+01:00 03:00+01:00"),
    ],
)
def test_rungs_over_a_change_of_clocks(first: str, attempts: str, tmp_path: Path) -> None:
    """Sundays from one to four, when the clocks of Paris go forward and back."""
    scenario = absent(first, start=first[:10], hours={"sun": ["01:00-04:00"]})
    assert times(scenario, tmp_path) == attempts.split()


def delivery(scenario: Json, folder: Path, who: str = "ann") -> Json:
    status, lines, err = played(scenario, folder)
    assert status == 0, err
    [line] = [line for line in lines if line["type"] == "delivery" and line["recipient"] == who]
    return line


def test_the_offset_is_that_of_the_zone_the_hours_are_read_in(tmp_path: Path) -> None:
    """With `recipient_timezone` the recipient's own."""
    scenario = one(timezone="Asia/Kolkata", first_at=["2026-03-27T14:27:00+05:30"])
    scenario["broadcast"]["recipient_timezone"] = True
    assert delivery(scenario, tmp_path)["at"] == "2026-03-27T14:27:00+05:30"


def test_milliseconds_only_when_not_zero(tmp_path: Path) -> None:
    """Of two sends 40 ms apart the second one shows them."""
    scenario = one(first_at=["2026-03-27T15:00:00+01:00"])
    scenario["recipients"].append({**scenario["recipients"][0], "id": "bob"})
    scenario["accounts"] = {"teams": {"rate": 25}}
    assert delivery(scenario, tmp_path)["at"] == "2026-03-27T15:00:00+01:00"
    assert delivery(scenario, tmp_path, "bob")["at"] == "2026-03-27T15:00:00.040+01:00"


def test_people_due_together_go_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Whatever their ids."""
    scenario = one(first_at=["2026-03-27T15:00:00+01:00"])
    person = scenario["recipients"][0]
    scenario["recipients"] = [{**person, "id": id} for id in ("zoe", "ann", "mia")]
    _, lines, _ = played(scenario, tmp_path)
    assert [line["recipient"] for line in lines] == ["zoe", "zoe", "ann", "ann", "mia", "mia"]


def test_leaving_at_the_very_moment_comes_first(tmp_path: Path) -> None:
    """Nobody is written to at or after the moment they unsubscribed."""
    at = "2026-03-27T15:00:00+01:00"
    line = delivery(one(first_at=[at], unsubscribes_at=at), tmp_path)
    assert (line["state"], line["reason"], line["at"], line["sends"]) == ("skipped", "unsubscribed", at, 0)


def test_nobody_tried_has_the_end_of_the_last_day(tmp_path: Path) -> None:
    """What never came up because of the rate is `no_time`, at the end of the last working day."""
    scenario = one(first_at=["2026-03-27T17:59:00+01:00"])
    scenario["recipients"].append({**scenario["recipients"][0], "id": "bob"})
    scenario["accounts"] = {"teams": {"rate": 0.001}}
    line = delivery(scenario, tmp_path, "bob")
    assert (line["state"], line["reason"], line["at"]) == ("unscheduled", "no_time", "2026-03-27T18:00:00+01:00")


def test_what_ran_out_of_time_is_dated_and_placed_at_its_last_attempt(tmp_path: Path) -> None:
    """A hold that lasts past the end fails a retry at its last line, before lines that came later."""
    scenario = one(first_at=["2026-03-27T16:00:00+01:00"], answers=[500])
    bob = {"id": "bob", "channel": "teams", "first_at": ["2026-03-27T16:00:00+01:00"]}
    scenario["recipients"] += [{**bob, "answers": [429], "retry_after": 90_000}, {**bob, "id": "zoe"}]
    scenario["recipients"].append({"id": "tom", "channel": "telegram", "first_at": ["2026-03-27T17:00:00+01:00"]})
    _, lines, _ = played(scenario, tmp_path)
    shown = [(line["recipient"], line.get("outcome") or line["reason"] or line["state"]) for line in lines]
    assert shown == [
        ("ann", "error"),
        ("ann", "window_closed"),
        ("bob", "throttled"),
        ("bob", "window_closed"),
        ("tom", "sent"),
        ("tom", "sent"),
        ("zoe", "no_time"),
    ]


def test_an_account_that_stops_fails_nobody(tmp_path: Path) -> None:
    """After a 401 nothing more goes out, and nobody failed for it."""
    scenario = one(first_at=["2026-03-27T15:00:00+01:00"], answers=[401])
    scenario["recipients"].append({"id": "bob", "channel": "teams", "first_at": ["2026-03-27T16:00:00+01:00"]})
    _, lines, _ = played(scenario, tmp_path)
    assert [line["outcome"] for line in lines if line["type"] == "attempt"] == ["error"]
    assert [line["state"] for line in lines if line["type"] == "delivery"] == ["unscheduled", "unscheduled"]


@pytest.mark.parametrize(
    ("answers", "state", "reason"),
    [
        ([500] * 5, "failed", "retries_spent"),
        ([500] * 4, "sent", None),
        ([429] * 9, "sent", None),
        (["timeout"], "sent", None),
        (["blocked"], "failed", "refused"),
        ([403], "failed", "refused"),
        ([404], "failed", "refused"),
        ([400], "failed", "content"),
        ([413], "failed", "content"),
        ([201], "sent", None),
    ],
)
def test_answers(answers: list[Any], state: str, reason: str | None, tmp_path: Path) -> None:
    """What each answer makes of a delivery."""
    line = delivery(one(answers=answers), tmp_path)
    assert (line["state"], line["reason"]) == (state, reason)


def test_viber_waits_alone(tmp_path: Path) -> None:
    """A 429 of Viber holds the conversation, one of Teams the account."""
    ends = {}
    for channel in ("viber", "teams"):
        scenario = one(first_at=["2026-03-27T15:00:00+01:00"], answers=[429], retry_after=30)
        scenario["recipients"].append({"id": "bob", "channel": channel, "first_at": ["2026-03-27T15:00:01+01:00"]})
        scenario["recipients"][0]["channel"] = channel
        ends[channel] = delivery(scenario, tmp_path, "bob")["at"][17:19]
    assert ends == {"viber": "01", "teams": "30"}


def test_presence_is_null_where_the_channel_tells_none(tmp_path: Path) -> None:
    """Left out, it is always allowed; an empty list is `unknown` throughout."""
    for presence, shown, outcome in ((None, None, "sent"), ([], "unknown", "absent")):
        scenario = one(first_at=["2026-03-27T17:55:00+01:00"])
        if presence is not None:
            scenario["recipients"][0]["presence"] = presence
        _, lines, _ = played(scenario, tmp_path)
        assert (lines[0]["presence"], lines[0]["outcome"]) == (shown, outcome)


def test_a_date_time_start_cuts_time_off(tmp_path: Path) -> None:
    """The first moment lies behind it, and the day counts."""
    scenario = one()
    scenario["broadcast"]["start"] = "2026-03-27T17:59"
    assert delivery(scenario, tmp_path)["at"].startswith("2026-03-27T17:59:")


def test_the_same_file_gives_the_same_lines(tmp_path: Path) -> None:
    """Chance is the seed's alone; another recipient changes nobody's lines."""
    scenario = one(answers=[500, 500])
    lines = played(scenario, tmp_path)[1]
    scenario["recipients"].insert(0, {"id": "abe", "channel": "telegram"})
    assert [line for line in played(scenario, tmp_path)[1] if line["recipient"] == "ann"] == lines


# --- faulty files -------------------------------------------------------------------------------------


def changed(path: str, value: Any) -> Json:
    """The worked example with one thing changed; the path is as a fault names it."""
    scenario: Any = json.loads(json.dumps(WORKED))
    *way, last = path.replace("[", ".").replace("]", "").split(".")
    inner = scenario
    for step in way:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[int(last) if isinstance(inner, list) else last] = value
    return scenario  # type: ignore[no-any-return]  # JSON


@pytest.mark.parametrize(
    ("path", "value", "mend"),
    [
        ("colour", "red", "is unknown"),
        ("broadcast.slot_minute", 3, "did you mean slot_minutes?"),
        ("recipients[1].presense", [], "did you mean presence?"),
        ("recipients[1].id", "ann", "is that of recipients[0] too"),
        ("recipients[1].id", 7, "is a number; write a text"),
        ("recipients[1].channel", "email", "write one of teams, telegram, viber"),
        ("recipients[1].presence", [], "remove it"),
        ("recipients[0].timezone", "Europe/Pariss", "did you mean Europe/Paris?"),
        ("broadcast.timezone", "Paris", "is no time zone"),
        ("broadcast.hours.mon[0]", "12:00-09:00", "write 09:00-12:00"),
        ("broadcast.hours.mon[1]", "11:00-13:00", "overlaps 09:00-12:00; write 09:00-13:00"),
        ("broadcast.hours.tue", "09:00-18:00", "write ["),
        ("broadcast.hours.day", [], "is no weekday"),
        ("broadcast.hours", {}, "no window at all"),
        ("broadcast.holidays[0]", "30.3.2026", "is no date"),
        ("broadcast.start", "2026-02-30", "is no date"),
        ("broadcast.start", "2026-03-27T09:00:00+01:00", "write 2026-03-27T09:00:00"),
        ("broadcast.working_days", 0, "write a whole number from 1 to 366"),
        ("broadcast.working_days", True, "write a whole number"),
        ("broadcast.rounds", 2.5, "write a whole number from 1 to 100"),
        ("broadcast.presence", ["present"], "write one of"),
        ("broadcast.presence", [], "allows no state"),
        ("broadcast.when_unknown", "ask", "write one of send, wait"),
        ("accounts.teams.rate", 0, "more than 0"),
        ("accounts.email", {"rate": 1}, "is unknown"),
        ("recipients[0].first_at[0]", "2026-03-27T08:59:59+01:00", "write a moment inside the hours"),
        ("recipients[0].first_at[0]", "2026-03-30T10:00:00+02:00", "write a moment inside the hours"),
        ("recipients[0].first_at[0]", "2026-03-27T14:27:00", "has no offset"),
        ("recipients[0].first_at[0]", "soon", "is no instant"),
        ("recipients[0].presence[1]", ["2026-03-26T15:00:00+01:00", "away"], "in order of time"),
        ("recipients[0].presence[1]", "away", "write [instant, state]"),
        ("recipients[0].answers[1]", 302, "is no final answer"),
        ("recipients[0].answers[1]", "later", "is no answer"),
        ("recipients[0].retry_after", -1, "write seconds"),
        ("recipients[1].unsubscribes_at", "2026-03-27", "has no offset"),
        ("recipients", [], "write at least one"),
    ],
)
def test_a_faulty_file_is_told_in_one_line(path: str, value: Any, mend: str, tmp_path: Path) -> None:
    """Exit status 2, place and mend on standard error, nothing on standard output."""
    status, lines, err = played(changed(path, value), tmp_path)
    assert (status, lines, err.count("\n")) == (2, [], 1)
    assert f"{path}: " in err or f"{path}[" in err
    assert mend in err


@pytest.mark.parametrize(
    ("pins", "place"),
    [
        (["2026-03-27T10:00:00+01:00", "2026-03-27T11:00:00+01:00"], "recipients[0].first_at[1]"),
        (["2026-04-03T10:00:00+02:00", "2026-03-27T11:00:00+01:00"], "recipients[0].first_at[1]"),
    ],
)
def test_pins_ascend_one_a_day(pins: list[str], place: str, tmp_path: Path) -> None:
    """The later pin is at fault."""
    status, _, err = played(changed("recipients[0].first_at", pins), tmp_path)
    assert (status, f"{place}: " in err) == (2, True)


@pytest.mark.parametrize("missing", ["start", "hours", "presence"])
def test_what_has_no_default_is_asked_for(missing: str, tmp_path: Path) -> None:
    """The place is named."""
    scenario = json.loads(json.dumps(WORKED))
    del scenario["broadcast"][missing]
    status, _, err = played(scenario, tmp_path)
    assert (status, f"broadcast.{missing}: is missing" in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1, column 2: is no JSON"),
        ("[]", "the file: is a list"),
        ('{"seed": 1, "seed": 2}', "seed: is written twice"),
        ('{"seed": NaN}', "NaN: is no number"),
        ("[" * 100_000, "the file: is nested too deeply"),
    ],
)
def test_what_is_no_scenario_at_all(text: str, said: str, tmp_path: Path) -> None:
    """Told as plainly."""
    status, lines, err = played_text(text, tmp_path)
    assert (status, lines, err.count("\n")) == (2, [], 1)
    assert said in err


def test_the_command_prints_lines_and_nothing_else(tmp_path: Path) -> None:
    """Also where the platform fails, which a running engine would log."""
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps(one(answers=[500, 401])))
    result = CliRunner().invoke(main, ["simulate", str(path)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert [json.loads(line)["type"] for line in result.stdout.splitlines()] == ["attempt", "attempt", "delivery"]


def test_the_command_exits_with_2(tmp_path: Path) -> None:
    """And says why on standard error."""
    result = CliRunner().invoke(main, ["simulate", str(tmp_path / "none.json")])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Named, with what to check."""
    err = io.StringIO()
    assert simulate.run(tmp_path / "none.json", out=io.StringIO(), err=err) == 2
    assert "none.json" in err.getvalue()
    assert "check the name" in err.getvalue()
