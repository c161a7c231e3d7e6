"""What is said when the host starts: where it is, how to get in, and what is not connected yet."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from bot.accounts import Accounts, ConfiguredAccount
from bot.settings import Settings, TeamsSettings, TelegramSettings

_HOW = """\
No platform is connected yet. The quickest is Telegram: ask @BotFather there for a token, then start with
  CLARION_TELEGRAM_TOKEN=TOKEN clarion serve
Teams wants CLARION_TEAMS_APP_ID, CLARION_TEAMS_APP_PASSWORD, CLARION_TEAMS_TENANT_ID and CLARION_PUBLIC_URL;
Viber wants CLARION_VIBER_TOKEN and CLARION_PUBLIC_URL. To try it all without any: clarion demo"""


def address(settings: Settings, token: str | None) -> Iterator[str]:
    """Where to go, and with what."""
    yield f"Clarion {_version()} is at {settings.address}".replace("  ", " ")
    yield f"  Admin endpoint  {settings.address}/api/v1 (described at {settings.address}/api/v1/openapi.json)"
    if token is not None:
        yield f"  Admin token     {token}"
        yield "                  It is shown this once; keep it, or make another with: clarion token create"
    if settings.public_url is not None and settings.public_url != settings.address:
        yield f"  Public address  {settings.public_url}"


def accounts(settings: Settings, found: Accounts) -> Iterator[str]:
    """How each account stands."""
    for one in found.all.values():
        yield from _account(one, settings)
    if not any(one.face is not None and not one.open for one in found.all.values()):
        yield _HOW


def _account(one: ConfiguredAccount, settings: Settings) -> Iterator[str]:
    if one.open:
        yield f"  {one.key}  OPEN: whoever is on this machine can speak to it as Teams, without any proof."
        yield f"    For emulators only, at {settings.address}/api/messages; set CLARION_TEAMS_APP_ID to close it."
    elif one.connected:
        yield f"  {one.key}  connected{_way(one, settings)}"
    elif not one.known.is_set():
        yield f"  {one.key}  its platform has not answered yet; the log tells when it does"
    else:
        do = (one.trouble or "").removeprefix(one.key).lstrip(": ")
        yield f"  {one.key}  NOT CONNECTED, do this: {do}"


def _way(one: ConfiguredAccount, settings: Settings) -> str:
    match one.settings:
        case TelegramSettings():
            return ", updates are fetched" if one.face and one.face.poll else ", updates are sent to us"
        case TeamsSettings(name=name):
            path = "/api/messages" if name == "default" else f"/webhooks/teams/{name}"
            return f", its messaging endpoint is {settings.links_url}{path}"
    return ""


def _version() -> str:
    try:
        return version("clarion")
    except PackageNotFoundError:  # run from a checkout
        return ""
