"""Viber through its REST bot API."""

from bot.channels.viber.account import ViberAccount
from bot.channels.viber.inbound import ViberInbound
from bot.channels.viber.outbound import ViberChannel

__all__ = ["ViberAccount", "ViberChannel", "ViberInbound"]
