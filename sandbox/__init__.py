"""The platforms' own HTTP interfaces, simulated, with people behind them.

Bot Connector, Entra sign-in and Graph for Teams, the Bot API for Telegram, the REST API for Viber.
It shares no code with Clarion: it speaks HTTP, as the platforms do.
"""
