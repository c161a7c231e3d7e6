"""Viber through its REST bot API."""

from bot.channels.viber.account import ViberAccount
from bot.channels.viber.channel import ViberChannel

__all__ = ["ViberAccount", "ViberChannel"]
