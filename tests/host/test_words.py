"""What admins may write, and how it is read."""

from __future__ import annotations

import pytest

from bot.commands.words import Command, Incomplete, Launch, ListCampaigns, Press, Status, Try, parse


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/campaigns", ListCampaigns()),
        ("  /Campaigns  ", ListCampaigns()),
        ("/campaigns@clarion_bot", ListCampaigns()),
        ("/try Benefits week", Try("Benefits week")),
        ("/try@clarion_bot Benefits week", Try("Benefits week")),
        ("<at>Clarion</at> /try Benefits week", Try("Benefits week")),
        ('<at id="0">Clarion</at>&nbsp;/try x', Try("x")),
        ('/try "Benefits week"', Try("Benefits week")),
        ("/try “Benefits week”", Try("Benefits week")),
        ("/status cmp_91k", Status("cmp_91k")),
        ("/launch Benefits week", Launch("Benefits week")),
        ("/launch Benefits week confirm", Launch("Benefits week", confirmed=True)),
        ("/launch “Benefits week” CONFIRM", Launch("Benefits week", confirmed=True)),
        ("/launch confirm", Launch("confirm")),
        ("ask:y:cmp_1:abc:def", Press("ask:y:cmp_1:abc:def")),
        ("/launch", Incomplete("Which campaign? Write /launch NAME; /campaigns lists them.")),
        ("/try   ", Incomplete("Which campaign? Write /try NAME; /campaigns lists them.")),
        ("/status@bot", Incomplete("Which campaign? Write /status NAME; /campaigns lists them.")),
        ("/unknown x", None),
        ("campaigns", None),
        ("please /launch x", None),
        ("//launch x", None),
        ("/", None),
        ("", None),
    ],
)
def test_what_is_written_is_read(text: str, command: Command | None) -> None:
    """The commands and their neighbours; anything else is no command."""
    assert parse(text) == command
