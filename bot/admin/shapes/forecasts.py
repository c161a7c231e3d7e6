"""Forecasts as bodies: what a campaign would come to if it were launched now."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from pydantic import Field

from bot.admin.shapes.campaigns import Start, read_start
from bot.admin.shapes.common import Count, Instant
from bot.admin.validation import Shape
from broadcast.forecast import (
    MAX_SEEDS,
    SEEDS,
    Forecast,
    FullForecast,
    FullForecastStatus,
    LimitKind,
    Moment,
    Number,
)
from broadcast.model import Reason


class ForecastBody(Shape):
    """`start` as a launch would have it; `seeds` is how many runs are made. With `full` everybody is played,
    however many they are, in the background."""

    start: Start = None
    seeds: Annotated[int, Field(ge=1, le=MAX_SEEDS)] = SEEDS
    full: bool = False


def start_of(body: ForecastBody) -> date | datetime | None:
    return read_start(body.start) if body.start else None


class NumberOut(Shape):
    """The mean over the runs, the least and the most of them."""

    expected: Count
    low: Count
    high: Count


class MomentOut(Shape):
    """The mean over the runs, the earliest and the latest of them."""

    expected: Instant
    low: Instant
    high: Instant


class ForecastHour(Shape):
    hour: Instant
    sent: Count


class LimitOut(Shape):
    """`account` is whose rate it is, where it is one; `text` says the whole in words."""

    kind: LimitKind
    account: str | None
    text: str


class SkippedOut(Shape):
    reason: Reason
    people: Count


class SampleOut(Shape):
    """So many deliveries were played for all of them."""

    played: Count
    of: Count


class ForecastOut(Shape):
    """`people` are `reached`, `unreached` and `skipped` together. `sample` is null where everybody was played."""

    campaign: str
    as_of: Instant
    finish: MomentOut
    hours: list[ForecastHour]
    people: Count
    reached: NumberOut
    unreached: NumberOut
    skipped: list[SkippedOut]
    limit: LimitOut
    warnings: list[str]
    seeds: list[int]
    sample: SampleOut | None


class FullForecastOut(Shape):
    """`progress` is the share of the simulated deliveries that have an end, over all runs. `result` is there once
    the status is done; `detail` says what went wrong where it is failed."""

    id: str
    status: FullForecastStatus
    progress: Annotated[float, Field(ge=0, le=1)]
    result: ForecastOut | None
    detail: str | None


def full_forecast_out(told: FullForecast) -> FullForecastOut:
    return FullForecastOut(
        id=told.id,
        status=told.status,
        progress=told.progress,
        result=None if told.result is None else forecast_out(told.result),
        detail=told.detail,
    )


def forecast_out(told: Forecast) -> ForecastOut:
    sample = told.sample
    return ForecastOut(
        campaign=told.campaign,
        as_of=told.as_of,
        finish=_moment(told.finish),
        hours=[ForecastHour(hour=line.hour, sent=line.sent) for line in told.hours],
        people=told.people,
        reached=_number(told.reached),
        unreached=_number(told.unreached),
        skipped=[SkippedOut(reason=reason, people=people) for reason, people in sorted(told.skipped.items())],
        limit=LimitOut(kind=told.limit.kind, account=told.limit.account, text=told.limit.text),
        warnings=list(told.warnings),
        seeds=list(told.seeds),
        sample=None if sample is None else SampleOut(played=sample.played, of=sample.of),
    )


def _number(number: Number) -> NumberOut:
    return NumberOut(expected=number.expected, low=number.low, high=number.high)


def _moment(moment: Moment) -> MomentOut:
    return MomentOut(expected=moment.expected, low=moment.low, high=moment.high)
