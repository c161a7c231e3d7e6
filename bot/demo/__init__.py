"""`clarion demo`: a broadcast over three working days in about a minute, against simulated platforms."""

from bot.demo.play import Wishes, run

__all__ = ["Wishes", "run"]
