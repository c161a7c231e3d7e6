"""As much of JSON Schema as the description uses: enough to hold a body against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
#: What is checked here, and what only tells or bounds.
_KNOWN = {"$ref", "additionalProperties", "anyOf", "const", "enum", "items", "properties", "propertyNames"}
_KNOWN |= {"default", "description", "examples", "exclusiveMinimum", "format", "maxItems", "maxLength", "maximum"}
_KNOWN |= {"minItems", "minLength", "minimum", "required", "title", "type"}


def mismatches(value: Any, schema: Mapping[str, Any], document: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Where a value is not what the schema says."""
    assert schema.keys() <= _KNOWN, f"this check does not know {schema.keys() - _KNOWN}"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from mismatches(value, document["components"]["schemas"][name], document, at)
        return
    if "anyOf" in schema:
        if all(list(mismatches(value, option, document, at)) for option in schema["anyOf"]):
            yield f"{at}: {value!r} fits nothing of anyOf"
        return
    if not _has_type(value, schema.get("type")) or value not in schema.get("enum", [value]):
        yield f"{at}: {value!r} is not {schema.get('enum') or schema.get('type')}"
    elif value != schema.get("const", value):
        yield f"{at}: {value!r} is not {schema['const']!r}"
    elif isinstance(value, dict):
        yield from _object_mismatches(value, schema, document, at)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from mismatches(item, schema.get("items", {}), document, f"{at}[{place}]")


def _has_type(value: Any, name: str | None) -> bool:
    if name is None:
        return True
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _object_mismatches(
    value: Mapping[str, Any], schema: Mapping[str, Any], document: Mapping[str, Any], at: str
) -> Iterator[str]:
    properties = schema.get("properties", {})
    yield from (f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value)
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        yield from mismatches(name, schema.get("propertyNames", {}), document, f"{at}.{name}")
        inner = properties.get(name, others)
        if inner is False:
            yield f"{at}: {name} is unknown"
        elif inner is not True:
            yield from mismatches(item, inner, document, f"{at}.{name}")
