"""The base of every shape, and its errors as faults that name their field (`schedule.hours.mon[0]`)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from broadcast.errors import Fault, Invalid

S = TypeVar("S", bound="Shape")
T = TypeVar("T")


class Shape(BaseModel):
    """A JSON body, one way or the other. Nothing is coerced, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Query(Shape):
    """What stands behind the question mark: text, read as what the field is."""

    model_config = ConfigDict(strict=False)


class Nothing(Shape):
    """A call that takes no body and no query."""


class NotJson(Exception):  # noqa: N818 - says what the body is
    """The body cannot be read as JSON; the text says where."""


def read_json(shape: type[S], raw: bytes) -> S:
    """The body as its shape; an empty one is an empty object. Raises `NotJson`, or `Invalid` with every fault."""
    try:
        return shape.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise _told(error, shape, "body") from error


def read_query(shape: type[S], values: Mapping[str, object]) -> S:
    """Raises `Invalid`."""
    try:
        return shape.model_validate(values)
    except ValidationError as error:
        raise _told(error, shape, "query") from error


def refused(faults: Iterable[Fault]) -> ValidationError:
    """What a validator raises for faults below its own field."""
    return ValidationError.from_exception_data(
        "shape",
        [
            InitErrorDetails(
                type=PydanticCustomError("fault", "{message}", {"message": fault.message}),
                loc=(fault.field.lstrip("."),) if fault.field else (),
                input=None,
            )
            for fault in faults
        ],
    )


def checked_by(parse: Callable[[Any], object]) -> Callable[[T], T]:
    """A validator that keeps what was written, once `parse` (which raises `Invalid`) could read it."""

    def check(value: T) -> T:
        if value is not None:
            try:
                parse(value)
            except Invalid as error:
                raise refused(error.faults) from error
        return value

    return check


# --- what pydantic found, in our words ----------------------------------------------------------------

_SAID: Mapping[str, str] = MappingProxyType(
    {
        "missing": "is required",
        "string_type": "must be text",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_from_float": "must be a whole number",
        "int_parsing_size": "is out of reach",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "finite_number": "must be a finite number",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "list_type": "must be a list",
        "tuple_type": "must be a list",
        "dict_type": "must be an object",
        "model_type": "must be an object",
        "date_type": "must be a date such as 2026-03-27",
        "date_parsing": "must be a date such as 2026-03-27",
        "date_from_datetime_parsing": "must be a date such as 2026-03-27",
        "enum": "must be {expected}",
        "string_too_short": "must have {min_length} characters or more",
        "string_too_long": "must have {max_length} characters or fewer",
        "too_long": "must have {max_length} entries or fewer",
        "greater_than": "must be more than {gt}",
        "greater_than_equal": "must be {ge} or more",
        "less_than_equal": "must be {le} or less",
    }
)


def _told(error: ValidationError, shape: type[Shape], whole: str) -> NotJson | Invalid:
    details = error.errors(include_url=False, include_input=False)
    broken = next((detail for detail in details if detail["type"] == "json_invalid"), None)
    if broken is not None:
        return NotJson(f"the body is no JSON: {broken['ctx']['error']}")
    return Invalid([Fault(_field(detail["loc"]) or whole, _message(detail, shape)) for detail in details])


def _field(loc: Sequence[int | str]) -> str:
    """``("buttons", 1, "url")`` as ``buttons[1].url``."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.startswith("[") and part != "[key]":
            text += part  # a place within the field, from one of our validators
        elif part != "[key]":  # pydantic's mark for a key at fault, which the part before it names
            text += f".{part}"
    return text.lstrip(".")


def _message(detail: ErrorDetails, shape: type[Shape]) -> str:
    if detail["type"] == "extra_forbidden":
        *path, key = detail["loc"]
        return f"is no field here; {_did_you_mean(str(key), _fields_at(shape, path))}"
    said = _SAID.get(detail["type"])
    return detail["msg"] if said is None else said.format(**detail.get("ctx", {}))


def _did_you_mean(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"there are {', '.join(words)}" if words else "leave it out"


def _fields_at(shape: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The fields of the shape that a path leads to."""
    for part in path:
        if isinstance(part, str) and part in shape.model_fields:
            shape = next(_shapes_in(shape.model_fields[part].annotation), shape)
    return list(shape.model_fields)


def _shapes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The shapes that an annotation such as ``dict[ChannelName, VariantShape] | None`` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _shapes_in(argument)
