"""The Teams app package keeps within the limits of its schema."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import pytest

from tests.architecture.sources import ROOT

TEAMS = ROOT / "manifest" / "teams"
REQUIRED = {"manifestVersion", "version", "id", "developer", "name", "description", "icons", "accentColor"}


@pytest.fixture
def manifest() -> dict[str, Any]:
    text = (TEAMS / "manifest.template.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_everything_the_schema_requires_is_there(manifest: dict[str, Any]) -> None:
    """Teams refuses a package that lacks one of these, or whose schema and version differ."""
    assert manifest.keys() >= REQUIRED
    assert f"/v{manifest['manifestVersion']}/" in manifest["$schema"]


def test_texts_keep_within_their_limits(manifest: dict[str, Any]) -> None:
    """With the longest bot name that the schema allows."""
    longest = {key: value.replace("{{BOT_NAME}}", "x" * 30) for key, value in manifest["name"].items()}
    assert len(longest["full"]) <= 100
    assert len(manifest["description"]["short"]) <= 80
    assert len(manifest["description"]["full"]) <= 4000


def test_a_person_can_write_stop(manifest: dict[str, Any]) -> None:
    """The bot is in personal scope, offers its commands, and leaves room to type."""
    (bot,) = manifest["bots"]
    (commands,) = bot["commandLists"]
    assert bot["scopes"] == commands["scopes"] == ["personal"]
    assert bot["isNotificationOnly"] is False
    assert [command["title"] for command in commands["commands"]] == ["start", "stop", "help"]


def test_read_receipts_are_asked_for(manifest: dict[str, Any]) -> None:
    """The permission, and the application it is given to: the bot's own."""
    (permission,) = manifest["authorization"]["permissions"]["resourceSpecific"]
    assert permission == {"name": "ChatMessageReadReceipt.Read.Chat", "type": "Application"}
    assert manifest["webApplicationInfo"]["id"] == manifest["bots"][0]["botId"]


def test_every_word_to_fill_in_is_explained() -> None:
    """The README beside the template names each of them."""
    words = set(re.findall(r"{{(\w+)}}", (TEAMS / "manifest.template.json").read_text(encoding="utf-8")))
    explained = (ROOT / "manifest" / "README.md").read_text(encoding="utf-8")
    assert {word for word in words if f"`{word}`" not in explained} == set()


@pytest.mark.parametrize(("name", "size"), [("color.png", 192), ("outline.png", 32)])
def test_icons_have_the_size_that_teams_wants(name: str, size: int) -> None:
    """Square, with opacity."""
    header = (TEAMS / name).read_bytes()[:26]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">IIBB", header[16:26]) == (size, size, 8, 6)
