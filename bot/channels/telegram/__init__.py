"""Telegram through the Bot API."""

from bot.channels.telegram.account import Mode, TelegramAccount
from bot.channels.telegram.channel import TelegramChannel

__all__ = ["Mode", "TelegramAccount", "TelegramChannel"]
