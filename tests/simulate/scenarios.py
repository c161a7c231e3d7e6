"""Scenarios as JSON values: the smallest one, the one of the documentation, and random ones."""

from __future__ import annotations

import datetime as dt
import io
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from bot import simulate

Json = dict[str, Any]

#: The documented example, with exactly these lines.
WORKED: Json = {
    "seed": 7,
    "broadcast": {
        "start": "2026-03-27",
        "working_days": 5,
        "timezone": "Europe/Paris",
        "hours": {"mon": ["09:00-12:00", "14:00-18:00"], "tue": ["09:00-18:00"], "fri": ["09:00-18:00"]},
        "holidays": ["2026-03-30"],
        "recipient_timezone": False,
        "presence": ["available"],
        "when_unknown": "wait",
        "rounds": 3,
        "retry_minutes": 10,
        "slot_minutes": 60,
    },
    "accounts": {"teams": {"rate": 50}, "telegram": {"rate": 30}, "viber": {"rate": 50}},
    "recipients": [
        {
            "id": "ann",
            "channel": "teams",
            "timezone": "Europe/Athens",
            "first_at": ["2026-03-27T14:27:00+01:00"],
            "presence": [["2026-03-27T00:00:00+01:00", "away"], ["2026-03-27T15:00:00+01:00", "available"]],
            "answers": [429, 200],
            "retry_after": 5,
        },
        {"id": "ben", "channel": "telegram", "unsubscribes_at": "2026-03-27T08:00:00+01:00"},
    ],
}


def played(scenario: Json, folder: Path) -> tuple[int, list[Json], str]:
    """Exit status, lines, and what stood on standard error."""
    return played_text(json.dumps(scenario), folder)


def played_text(text: str, folder: Path) -> tuple[int, list[Json], str]:
    path = folder / "scenario.json"
    path.write_text(text, encoding="utf-8")
    out, err = io.StringIO(), io.StringIO()
    status = simulate.run(path, out=out, err=err)
    return status, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue()


def one(**person: Any) -> Json:
    """Ann on a Friday from nine to noon and from two to six in Paris, absent as she is told."""
    broadcast = {
        "start": "2026-03-27",
        "working_days": 1,
        "timezone": "Europe/Paris",
        "hours": {day: ["09:00-12:00", "14:00-18:00"] for day in ("mon", "tue", "wed", "thu", "fri")},
        "presence": ["available"],
        "when_unknown": "wait",
    }
    return {"seed": 7, "broadcast": broadcast, "recipients": [{"id": "ann", "channel": "teams", **person}]}


# --- random ones --------------------------------------------------------------------------------------

ZONES = {
    "Europe/Paris": dt.date(2026, 3, 29),
    "America/Havana": dt.date(2026, 11, 1),
    "Australia/Lord_Howe": dt.date(2026, 10, 4),
    "Africa/Casablanca": dt.date(2026, 2, 15),
    "Asia/Kathmandu": dt.date(2026, 5, 1),
}
EDGES = (0, 60, 90, 120, 180, 540, 720, 840, 1080, 1380, 1440)
STATES = ("available", "away", "busy", "do_not_disturb", "offline", "unknown")
FEW = st.integers(0, 4)
CHANNELS = ("teams", "viber", "telegram")


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@st.composite
def days(draw: st.DrawFn) -> list[str]:
    edges = sorted(draw(st.lists(st.sampled_from(EDGES), min_size=2, max_size=4, unique=True)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    return [f"{clock(start)}-{clock(end)}" for start, end in pairs]


@st.composite
def people(draw: st.DrawFn, id: str, channel: str, near: dt.date) -> Json:
    midnight = dt.datetime.combine(near, dt.time(), dt.UTC)
    minutes = st.integers(-2 * 24 * 60, 8 * 24 * 60)
    person: Json = {"id": id, "channel": channel}
    if draw(st.booleans()):
        person["timezone"] = draw(st.sampled_from(sorted(ZONES)))
    if channel != "telegram" and draw(st.integers(0, 3)):
        at = sorted(draw(st.sets(minutes, max_size=8)))
        person["presence"] = [
            [(midnight + dt.timedelta(minutes=m)).isoformat(), draw(st.sampled_from(STATES))] for m in at
        ]
    answers = [200, 200, 429, 429, 500, 503, "timeout", "blocked", 400, 403]
    person["answers"] = draw(st.lists(st.sampled_from(answers), max_size=7))
    if draw(st.booleans()):
        person["retry_after"] = draw(st.sampled_from([0, 1.5, 5, 59, 60, 61, 600, 7200, 100_000]))
    if not draw(st.integers(0, 3)):
        person["unsubscribes_at"] = (midnight + dt.timedelta(minutes=draw(minutes))).isoformat()
    return person


@st.composite
def scenarios(draw: st.DrawFn, *, crowd: bool = False) -> Json:
    """One person a channel at a rate at which nobody waits, or with `crowd` many at one that makes them wait."""
    zone = draw(st.sampled_from(sorted(ZONES)))
    start = ZONES[zone] - dt.timedelta(days=draw(st.integers(0, 2)))
    weekdays = draw(st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=3))
    broadcast = {
        "start": start.isoformat(),
        "working_days": draw(st.integers(1, 4)),
        "timezone": zone,
        "hours": {day: draw(days()) for day in sorted(weekdays)},
        "holidays": [
            (start + dt.timedelta(days=n)).isoformat() for n in draw(st.sets(st.integers(0, 4), max_size=1))
        ],
        "recipient_timezone": draw(st.booleans()),
        "presence": draw(st.one_of(st.just(["any"]), st.lists(st.sampled_from(STATES), min_size=1, unique=True))),
        "when_unknown": draw(st.sampled_from(["send", "wait"])),
        "rounds": draw(st.integers(1, 4)),
        "retry_minutes": draw(st.sampled_from([1, 7, 10, 45, 90])),
        "slot_minutes": draw(st.sampled_from([1, 15, 45, 60, 90])),
        "after_crash": draw(st.sampled_from(["resend", "hold"])),
    }
    names = [(f"p{n}", channel) for n, channel in enumerate(CHANNELS * (8 if crowd else 1))]
    rate = draw(st.sampled_from([0.001, 0.02, 1, 20])) if crowd else 1_000_000
    return {
        "seed": draw(st.integers(0, 2**31)),
        "broadcast": broadcast,
        "accounts": {channel: {"rate": rate} for channel in CHANNELS},
        "recipients": [draw(people(id, channel, start)) for id, channel in names],
    }
