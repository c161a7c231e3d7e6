"""Finds the places of a module that read the real clock or wait on it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# What reads the clock, or waits in real time, of each module or class that can.
FORBIDDEN = {
    "datetime.datetime": {"now", "utcnow", "today"},
    "datetime.date": {"today"},
    "asyncio": {"sleep", "timeout", "timeout_at", "wait_for"},
}
FORBIDDEN_WHOLE = "time"


def imported_names(module: ast.Module) -> dict[str, str]:
    """What each name of the module stands for, as far as imports say: ``{"dt": "datetime.datetime"}``."""
    names: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def full_name(node: ast.expr, names: dict[str, str]) -> str | None:
    """The dotted name of an expression, its first part resolved through the imports."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (owner := full_name(node.value, names)):
        return f"{owner}.{node.attr}"
    return None


def is_forbidden(name: str) -> bool:
    owner, _, attribute = name.rpartition(".")
    return FORBIDDEN_WHOLE in (name, owner) or attribute in FORBIDDEN.get(owner, ())


def turns_of_the_loop(module: ast.Module) -> set[ast.expr]:
    """The ``sleep`` of every ``sleep(0)``, which lets others run and waits for no clock."""
    calls = (node for node in ast.walk(module) if isinstance(node, ast.Call))
    return {call.func for call in calls if [ast.unparse(each) for each in call.args] == ["0"]}


def clock_reads(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every use of the real clock."""
    names = imported_names(module)
    harmless = turns_of_the_loop(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Name | ast.Attribute) and node not in harmless:
            name = full_name(node, names)
            if name and is_forbidden(name):
                yield node.lineno, name
