"""Microsoft Teams: activities in, activities out (PLATFORMS A)."""

from bot.channels.teams.account import TeamsAccount
from bot.channels.teams.inbound import TeamsInbound
from bot.channels.teams.outbound import TeamsChannel
from bot.channels.teams.token import ClientCredentials

__all__ = ["ClientCredentials", "TeamsAccount", "TeamsChannel", "TeamsInbound"]
