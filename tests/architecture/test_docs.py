"""What the papers say agrees with what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bot.settings import CONFIG_VARIABLE, VARIABLES
from tests.architecture.sources import ROOT

PAPERS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "manifest").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_readme_names_every_setting_and_no_other() -> None:
    """A setting that is added, renamed or removed is so in the README too."""
    named = set(re.findall(r"CLARION_[A-Z0-9_]+", text(ROOT / "README.md")))
    assert named == {*VARIABLES, CONFIG_VARIABLE}


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(paper: Path) -> None:
    """A file that moves takes the links to it along."""
    targets = set(LINK.findall(text(paper)))
    assert [target for target in targets if not (paper.parent / target).exists()] == []


def test_every_target_of_make_in_the_papers_exists() -> None:
    """What a reader is told to type works."""
    targets = set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), flags=re.MULTILINE))
    told = {
        name for paper in PAPERS for name in re.findall(r"(?:^|`)make ([a-z-]+)", text(paper), flags=re.MULTILINE)
    }
    assert told <= targets


def test_decisions_are_numbered_without_gaps() -> None:
    """No two of them share a number."""
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
