"""Telegram through the Bot API."""

from bot.channels.telegram.account import Mode, TelegramAccount
from bot.channels.telegram.inbound import TelegramInbound
from bot.channels.telegram.outbound import TelegramChannel

__all__ = ["Mode", "TelegramAccount", "TelegramChannel", "TelegramInbound"]
