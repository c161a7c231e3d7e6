"""What all bodies share: kinds of fields, errors, and the parts of a list."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bot.admin.validation import Query, Shape
from broadcast.errors import Fault
from broadcast.ports import Page

MAX_PER_PAGE = 1_000


def _in_utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC)


def is_none(value: object) -> bool:
    return value is None


#: Written with ``Z``.
Instant = Annotated[datetime, AfterValidator(_in_utc)]
Id = Annotated[str, Field(min_length=1, max_length=200)]
Ids = Annotated[list[Id], Field(max_length=10_000)]
Text = Annotated[str, Field(max_length=40_000)]
Short = Annotated[str, Field(max_length=2_000)]
Count = Annotated[int, Field(ge=0)]


class FaultOut(Shape):
    field: str
    message: str


def faults_out(faults: Iterable[Fault]) -> list[FaultOut]:
    return [FaultOut(field=fault.field, message=fault.message) for fault in faults]


class Problem(Shape):
    """Every error (RFC 9457). `errors` names the fields at fault of a 422."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FaultOut] = Field(default_factory=list, exclude_if=lambda errors: not errors)


def listed(value: object) -> object:
    """Several values of one field stand in one, with commas between."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


PageNumber = Annotated[int, Field(ge=1, le=1_000_000)]
PerPage = Annotated[int, Field(ge=1, le=MAX_PER_PAGE)]
Search = Annotated[str, Field(max_length=200)]


class Paged(Query):
    page: PageNumber = 1
    per_page: PerPage = 10

    @property
    def part(self) -> Page:
        return Page(self.page, self.per_page)


class Listed(Shape):
    """What every list has beside its `items`."""

    page: int
    per_page: int
    total: int
