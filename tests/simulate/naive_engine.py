"""What becomes of one person, told a second time: a loop over due moments that can be read against RULES.md.

It knows no engine, no store, no pacing and no other people, so it is right where nobody stands in anybody's way. It
shares with the product only how chance is drawn (`plan.drawn`, `plan.unit`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from broadcast import calendar, plan
from broadcast.model import Policies, Rung, Schedule
from tests import naive

MINUTE = dt.timedelta(minutes=1)


@dataclass
class Ended(Exception):  # noqa: N818 - how a story ends
    state: str
    reason: str | None
    at: dt.datetime | None = None


class Person:
    """One recipient of a scenario, from its JSON."""

    def __init__(self, scenario: dict[str, Any], place: int, schedule: Schedule) -> None:
        told, self.raw = scenario["broadcast"], scenario["recipients"][place]
        self.place, self.told, self.seed = place, told, scenario["seed"]
        own = self.raw.get("timezone") if told.get("recipient_timezone") else None
        self.zone = ZoneInfo(own or told["timezone"])
        launch = dt.datetime.combine(schedule.start, dt.time(), dt.UTC) - 3 * naive.DAY  # type: ignore[arg-type]  # a date
        self.working = naive.working_time(schedule, self.zone, launch)
        self.days = {day.date: day for day in calendar.working_time(schedule, self.zone, not_before=launch).days}
        self.policies = Policies(
            rounds=told["rounds"], retry_minutes=told["retry_minutes"], slot_minutes=told["slot_minutes"]
        )
        self.lines: list[tuple[dt.datetime, dict[str, Any]]] = []
        self.rungs: set[tuple[int, str]] = set()
        self.sends = 0
        self.asked: tuple[dt.datetime, str] | None = None

    # --- the whole story ------------------------------------------------------------------------------

    def tell(self) -> list[tuple[dt.datetime, int, int, dict[str, Any]]]:
        """Its lines: (instant, place, attempt before delivery, line)."""
        try:
            self.live()
        except Ended as end:
            state, reason, at = end.state, end.reason, end.at
        last = self.lines[-1][0] if self.lines else self.working.all[-1] + MINUTE
        at = at or last
        line = {
            "type": "delivery",
            "recipient": self.raw["id"],
            "state": state,
            "reason": reason,
            "at": self.shown(at),
            "attempts": len(self.rungs),
            "sends": self.sends,
        }
        attempts = [(when, self.place, 0, attempt) for when, attempt in self.lines]
        return [*attempts, (at, self.place, 1, line)]

    def live(self) -> None:
        first = list(self.working.minutes)[: max(1, len(self.working.minutes) - self.policies.rounds + 1)]
        due = self.moment(1, [self.days[date] for date in sorted(first)])
        number, rung = 1, Rung.FIRST
        while True:
            at, came = self.attempt(number, rung, due)
            step = naive.after_absent(
                self.working,
                self.policies,
                self.first,
                self.raw["id"],
                round=number,
                rung=rung,
                rung_at=came,
                at=at,
            )
            if step is None:
                raise Ended("unscheduled", "absent")
            number, rung, due = step

    def first(self, _: str, number: int, minutes: Sequence[dt.datetime]) -> dt.datetime:
        return self.moment(number, [self.days[self.working.local_date(minutes[0])]])

    def moment(self, number: int, days: Sequence[calendar.WorkingDay]) -> dt.datetime:
        pins = [dt.datetime.fromisoformat(pin).astimezone(dt.UTC) for pin in self.raw.get("first_at", [])]
        if number <= len(pins) and self.working.local_date(pins[number - 1]) >= days[0].date:
            return pins[number - 1]
        return plan.drawn(self.seed)(self.raw["id"], number, days)

    # --- one attempt ----------------------------------------------------------------------------------

    def attempt(self, number: int, rung: Rung, due: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
        """Until it is met by absence: the moment of that, and the actual time of the rung."""
        came: dt.datetime | None = None
        errors = throttles = 0
        while True:
            self.leave_before(due)
            came = came or due
            state = self.state(due)
            self.rungs.add((number, rung))
            if not self.allows(state):
                self.line(due, number, rung, state, "absent")
                return due, came
            answer = self.answer()
            if answer == 429:
                self.line(due, number, rung, state, "throttled")
                throttles += 1
                wanted = due + self.wait(number, rung, throttles)
            else:
                self.judge(answer, due, number, rung, state)
                errors += 1
                if errors == 5:
                    raise Ended("failed", "retries_spent")
                wanted = due + self.back_off("retry", number, rung, errors)
            again = self.working.next_open(wanted)
            if again is None:
                raise Ended("failed", "window_closed")
            due = again

    def judge(self, answer: Any, due: dt.datetime, number: int, rung: Rung, state: str | None) -> None:
        """Ends the story, or leaves it to be tried again."""
        if answer == "timeout" or (isinstance(answer, int) and answer >= 500):
            self.line(due, number, rung, state, "error")
            if answer == "timeout" and self.told.get("after_crash") == "hold":
                raise Ended("uncertain", None)
        elif answer == 200:
            self.line(due, number, rung, state, "sent")
            raise Ended("sent", None)
        elif answer in ("blocked", 403, 404):
            self.line(due, number, rung, state, "refused")
            raise Ended("failed", "refused")
        elif answer in (400, 413):
            self.line(due, number, rung, state, "refused")
            raise Ended("failed", "content")
        else:
            self.line(due, number, rung, state, "error")
            self.leave_before(None)
            raise Ended("unscheduled", "no_time")  # the account stopped, and nobody saw to it

    def leave_before(self, due: dt.datetime | None) -> None:
        """Whether they leave at or before what is due; ``None``: whenever they do."""
        if "unsubscribes_at" in self.raw:
            at = dt.datetime.fromisoformat(self.raw["unsubscribes_at"]).astimezone(dt.UTC)
            if due is None or at <= due:
                raise Ended("skipped", "unsubscribed", at)

    def wait(self, number: int, rung: Rung, throttles: int) -> dt.timedelta:
        if "retry_after" in self.raw:
            return dt.timedelta(seconds=self.raw["retry_after"])
        return self.back_off("throttle", number, rung, throttles)

    def back_off(self, label: str, number: int, rung: Rung, n: int) -> dt.timedelta:
        drawn = plan.unit(self.seed, label, self.raw["id"], number, rung.value, n)
        return dt.timedelta(milliseconds=int(drawn * min(60, 2 ** (n - 1)) * 1000))

    def answer(self) -> Any:
        self.sends += 1
        answers = self.raw.get("answers", [])
        return answers[self.sends - 1] if self.sends <= len(answers) else 200

    # --- presence -------------------------------------------------------------------------------------

    def state(self, now: dt.datetime) -> str | None:
        if "presence" not in self.raw:
            return None
        if self.asked is None or now - self.asked[0] > dt.timedelta(seconds=60):
            since = [state for at, state in self.raw["presence"] if dt.datetime.fromisoformat(at) <= now]
            self.asked = now, since[-1] if since else "unknown"
        return self.asked[1]

    def allows(self, state: str | None) -> bool:
        allowed = self.told["presence"]
        if state is None or allowed == ["any"] or state in allowed:
            return True
        return state == "unknown" and self.told["when_unknown"] == "send"

    # --- words ----------------------------------------------------------------------------------------

    def line(self, at: dt.datetime, number: int, rung: Rung, state: str | None, outcome: str) -> None:
        line = {
            "type": "attempt",
            "recipient": self.raw["id"],
            "round": number,
            "rung": rung.value,
            "at": self.shown(at),
            "presence": state,
            "outcome": outcome,
        }
        self.lines.append((at, line))

    def shown(self, at: dt.datetime) -> str:
        local = at.astimezone(self.zone)
        return local.isoformat(timespec="milliseconds" if local.microsecond >= 1000 else "seconds")


def lines(scenario: dict[str, Any], schedule: Schedule) -> Iterator[dict[str, Any]]:
    """The lines of everybody, in order."""
    told = [
        line for place in range(len(scenario["recipients"])) for line in Person(scenario, place, schedule).tell()
    ]
    told.sort(key=lambda line: line[:3])
    return (line for *_, line in told)
