"""Which words of the domain (enum members, error classes) the tests speak of."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from types import ModuleType

from tests.architecture.sources import ROOT, python_files, tree


def domain_modules() -> Iterator[ModuleType]:
    for path in python_files("broadcast"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield import_module(".".join(part for part in parts if part != "__init__"))


def classes_of(kind: type) -> list[type]:
    """Every class of `kind` that the domain itself defines."""
    found = {
        value
        for module in domain_modules()
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, kind) and value.__module__ == module.__name__
    }
    return sorted(found, key=lambda each: each.__qualname__)


def enum_members() -> list[str]:
    """``Rung.FIRST`` and so on."""
    return [
        f"{enum.__name__}.{member.name}"
        for enum in classes_of(Enum)
        for member in enum  # type: ignore[attr-defined]  # iterating an enum class gives its members
    ]


def error_classes() -> list[str]:
    """Those that callers can meet: a private one never leaves its module."""
    return [error.__name__ for error in classes_of(Exception) if not error.__name__.startswith("_")]


def words_in(module: ast.Module) -> Iterator[str]:
    """Each name as it stands (``LeaseLost``) and each attribute with its owner's last name (``Rung.FIRST``)."""
    for node in ast.walk(module):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
            owner = node.value
            if isinstance(owner, ast.Name):
                yield f"{owner.id}.{node.attr}"
            elif isinstance(owner, ast.Attribute):
                yield f"{owner.attr}.{node.attr}"


def words_of_tests() -> set[str]:
    """What all test sources but these speak of."""
    paths = [path for path in python_files("tests") if "architecture" not in path.parts]
    return {word for path in paths for word in words_in(tree(path))}
