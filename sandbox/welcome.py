"""The page at `/`: what this is, and where to look."""

from html import escape

from sandbox.world import World

PLACES = (
    ("/sandbox/messages", "what everybody received"),
    ("/sandbox/people", "who lives here"),
    ("/sandbox/stats", "requests, limits, callbacks"),
    ("/sandbox/callbacks", "what the bots were told, and what they answered"),
    ("/sandbox/faults", "what goes wrong on request"),
    ("/sandbox/behaviour", "what people do of their own accord"),
    ("/sandbox/clock", "what time it is here"),
    ("/sandbox/env", "the settings that connect a local Clarion"),
)
PLATFORMS = (
    ("/teams/", "Bot Connector (service URL)"),
    ("/login/", "Entra sign-in"),
    ("/botframework/.well-known/openidconfiguration", "keys of Bot Connector"),
    ("/graph/v1.0", "Microsoft Graph"),
    ("/telegram/bot<token>/<method>", "Telegram Bot API"),
    ("/viber/pa/<method>", "Viber REST API"),
)
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sandbox</title>
<style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem}}
td{{padding:.15rem 1.5rem .15rem 0;vertical-align:top}}</style>
<h1>Sandbox</h1>
<p>Teams, Telegram and Viber, simulated: {people} people, {messages} messages received.
Nothing here leaves this machine.</p>
<h2>Look</h2><table>{places}</table>
<h2>Platforms</h2><table>{platforms}</table>
</html>
"""


def page(url: str, world: World) -> str:
    """The page as HTML."""
    places = "".join(f'<tr><td><a href="{path}">{path}</a><td>{escape(what)}' for path, what in PLACES)
    platforms = "".join(f"<tr><td><code>{escape(url + path)}</code><td>{escape(what)}" for path, what in PLATFORMS)
    return PAGE.format(
        people=len(world.directory.people), messages=world.record.total, places=places, platforms=platforms
    )
