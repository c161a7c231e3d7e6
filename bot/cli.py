"""The command line `clarion`. Nothing heavy is imported before a command runs, so that help comes at once.

Whatever goes wrong is one line on standard error that names the mend, and exit status 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bot.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

AT_FAULT = 2
INTERRUPTED = 130

#: The variables of the environment as help shows them; a test compares them with those that settings read.
VARIABLES = (
    ("CLARION_CONFIG", "clarion.toml", "file of settings; the environment wins over it"),
    ("CLARION_STORE", "sqlite:///clarion.db", "where everything is kept"),
    ("CLARION_HOST", "127.0.0.1", "address to listen on"),
    ("CLARION_PORT", "8080", "port to listen on"),
    ("CLARION_PUBLIC_URL", "none", "how platforms and links reach this host, https://…"),
    ("CLARION_SECRET", "made once, beside the store", "signs links"),
    ("CLARION_ADMIN_TOKEN", "none", "a token of the role admin that always works"),
    ("CLARION_ADMINS", "none", "who may use commands in chat: teams:ID,telegram:ID"),
    ("CLARION_LOG", "auto", "auto, text or json"),
    ("CLARION_HOLD_LATE_START_MINUTES", "60", "a start that was missed by more waits for approval"),
    ("CLARION_RETENTION_DAYS", "0: for ever", "days that deliveries are kept after their broadcast ended"),
    ("CLARION_TEAMS_APP_ID", "none", "Microsoft Teams: the bot's app id"),
    ("CLARION_TEAMS_APP_PASSWORD", "none", "its client secret"),
    ("CLARION_TEAMS_TENANT_ID", "none", "the tenant it is registered in"),
    ("CLARION_TEAMS_LOGIN_URL", "Microsoft's", "where tokens are fetched"),
    ("CLARION_TEAMS_OPENID_URL", "Microsoft's", "where callers' keys are fetched"),
    ("CLARION_TEAMS_SERVICE_URLS", "Microsoft's", "hosts that messages may be posted to"),
    ("CLARION_GRAPH_URL", "Microsoft's", "where presence is asked"),
    ("CLARION_TELEGRAM_TOKEN", "none", "Telegram: the bot's token from @BotFather"),
    ("CLARION_TELEGRAM_MODE", "webhook with a public URL, else polling", "how updates come in"),
    ("CLARION_TELEGRAM_WEBHOOK_SECRET", "derived", "what Telegram proves itself with"),
    ("CLARION_TELEGRAM_API_URL", "Telegram's", "address of the Bot API"),
    ("CLARION_VIBER_TOKEN", "none", "Viber: the bot's token"),
    ("CLARION_VIBER_NAME", "Clarion", "the sender's name that people see"),
    ("CLARION_VIBER_API_URL", "Viber's", "address of the REST API"),
)


class OneLine(click.Group):
    """Says every fault in one line."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]  # a narrower signature on purpose
        extra["standalone_mode"] = False
        try:
            status = super().main(args, prog_name or "clarion", **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help())
            sys.exit(0)
        except click.ClickException as error:
            _fail(error.format_message().removesuffix("."))
        except (KeyboardInterrupt, click.Abort):
            sys.exit(INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - the outermost edge
            _fail_with(error)
        sys.exit(status if isinstance(status, int) else 0)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Environment"):
            formatter.write_dl([(name, f"{text} [default: {default}]") for name, default, text in VARIABLES])


def _fail(message: str, status: int = AT_FAULT) -> None:
    click.echo(f"clarion: {' '.join(message.split())}", err=True)
    sys.exit(status)


def _fail_with(error: Exception) -> None:
    from broadcast.errors import ClarionError  # noqa: PLC0415 - late, see the top

    if isinstance(error, ClarionError):
        _fail(str(error))
    if isinstance(error, OSError) and error.filename:
        _fail(f"{error.filename}: {error.strerror}; check the name and its rights")
    context = click.get_current_context(silent=True)
    if "--traceback" in sys.argv or (context and context.find_root().params.get("traceback")):
        raise error
    _fail(
        f"a fault of Clarion's own: {type(error).__name__}: {error}; --traceback before the command shows where", 1
    )


# --- what commands share ------------------------------------------------------------------------------


def _configured(command: F) -> F:
    """The options of everything that opens the store."""
    command = click.option("--store", metavar="ADDRESS", help="Where everything is kept. [env: CLARION_STORE]")(
        command
    )
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="File of settings. [env: CLARION_CONFIG; default: clarion.toml]",
    )(command)


def _settings(config: Path | None, **options: object) -> Settings:
    from bot import log, settings  # noqa: PLC0415

    loaded = settings.load(config=config, options=options)
    log.configure(loaded.log, secrets=loaded.secrets)
    return loaded


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs it on uvloop where there is one."""
    import asyncio  # noqa: PLC0415

    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


# --- commands -----------------------------------------------------------------------------------------


@click.group(
    "clarion",
    cls=OneLine,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="clarion", prog_name="clarion")
@click.option("--traceback", is_flag=True, help="Show where in the program something failed.")
def main(traceback: bool) -> None:
    """Broadcasts for Microsoft Teams, Telegram and Viber: unhurried, inside working hours, nothing lost."""


@main.command(short_help="Host and engine in one process.")
@click.option("--host", help="Address to listen on. [env: CLARION_HOST; default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on, 0 for a free one. [env: CLARION_PORT; default: 8080]")
@click.option("--no-engine", is_flag=True, help="Take in and administer only; workers send.")
@_configured
def serve(config: Path | None, store: str | None, host: str | None, port: int | None, *, no_engine: bool) -> None:
    """Host and engine in one process. Starts without any settings too, and says how to go on."""
    settings = _settings(config, store=store, host=host, port=port)
    from bot import run  # noqa: PLC0415

    _run(run.until_stopped(settings, engine=not no_engine, say=_say))


@main.command(short_help="Engine alone; any number of them on one store.")
@_configured
def worker(config: Path | None, store: str | None) -> None:
    """Engine alone. Any number of them on one store take turns at the accounts."""
    settings = _settings(config, store=store)
    from bot import run  # noqa: PLC0415

    _run(run.until_stopped(settings, web=False, say=_say))


@main.command(short_help="The simulated platforms alone.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=8090, show_default=True, help="Port to listen on.")
@click.option("--seed", type=int, default=1, show_default=True, help="Who lives there and what they do.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="How many times faster they live.")
@click.option("--people", type=click.IntRange(0), default=20, show_default=True, help="How many on each platform.")
def sandbox(host: str, port: int, seed: int, speed: float, people: int) -> None:
    """The simulated platforms alone, with people behind them."""
    from bot.listening import listen  # noqa: PLC0415
    from sandbox.server import run as serve_sandbox  # noqa: PLC0415
    from sandbox.settings import SandboxSettings  # noqa: PLC0415

    if speed <= 0:
        raise click.BadParameter("time runs forward only; give a number above 0", param_hint="--speed")
    listen(host, port).close()  # says in words what is wrong with the address
    serve_sandbox(SandboxSettings(seed=seed, speed=speed, people=people), host, port)


@main.command(short_help="See a broadcast go out on simulated platforms.")
@click.option("--exit", "leave", is_flag=True, help="End after the report; status 0 only if all is accounted for.")
@click.option("--recipients", type=click.IntRange(1), default=240, show_default=True, help="How many people.")
@click.option("--port", type=int, default=8080, show_default=True, help="Port to listen on, 0 for a free one.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same people, same moments.")
@click.option("--speed", type=float, default=4000.0, show_default=True, help="How many times faster time runs.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where to keep it. [default: temporary]")
@click.option("--picture", type=click.Path(path_type=Path), hidden=True, help="Draw what was shown, as SVG.")
def demo(
    leave: bool,
    recipients: int,
    port: int,
    seed: int,
    speed: float,
    directory: Path | None,
    picture: Path | None,
) -> int:
    """A broadcast over three working days, in about a minute, on simulated platforms."""
    from bot import demo as play  # noqa: PLC0415
    from bot import log  # noqa: PLC0415
    from bot.settings import LogFormat  # noqa: PLC0415

    if speed <= 0:
        raise click.BadParameter("time runs forward only; give a number above 0", param_hint="--speed")
    log.configure(LogFormat.AUTO, level=log.QUIET)
    wishes = play.Wishes(
        recipients=recipients,
        port=port,
        seed=seed,
        speed=speed,
        directory=directory,
        exit=leave,
        picture=picture,
    )
    return play.run(wishes)


@main.command(short_help="Play a scenario file ahead of time.")
@click.argument("file", type=click.Path(path_type=Path))
def simulate(file: Path) -> int:
    """Plays the broadcast that FILE describes under a virtual clock: one JSON line per attempt and per delivery."""
    from bot import simulate as simulation  # noqa: PLC0415

    return simulation.run(file)


@main.command(short_help="What a launch now would come to.")
@click.argument("campaign")
@click.option("--seeds", type=int, default=5, show_default=True, help="How many runs it is made of.")
@click.option("--full", is_flag=True, help="Over everybody, however many: no sample.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, as the endpoint answers it.")
@_configured
def forecast(
    campaign: str, seeds: int, config: Path | None, store: str | None, *, full: bool, as_json: bool
) -> None:
    """What CAMPAIGN (id or name) would come to if it were launched now: its end, its reach, what limits it."""
    settings = _settings(config, store=store)
    from bot import forecast as foretelling  # noqa: PLC0415

    _run(foretelling.tell(settings, campaign, seeds=seeds, full=full, as_json=as_json, say=_say))


@main.command("import", short_help="Recipients from a file.")
@click.argument("file", type=click.Path(path_type=Path))
@_configured
def import_(file: Path, config: Path | None, store: str | None) -> int:
    """Recipients from FILE: CSV, XLSX or JSON lines. Faulty rows are listed and left out, the others are taken."""
    settings = _settings(config, store=store)
    from bot import errands  # noqa: PLC0415

    return int(_run(errands.import_file(settings, file, say=_say)))


@main.command("try", short_help="Send a campaign to one recipient now.")
@click.argument("campaign")
@click.option("--to", "who", required=True, metavar="WHO", help="One recipient: e-mail, id or external id.")
@_configured
def try_(campaign: str, who: str, config: Path | None, store: str | None) -> int:
    """Send CAMPAIGN (id or name) to one recipient now. A running `clarion serve` on the same store sends it."""
    settings = _settings(config, store=store)
    from bot import errands  # noqa: PLC0415

    return int(_run(errands.try_campaign(settings, campaign, who, say=_say)))


@main.group()
def token() -> None:
    """Tokens of the admin endpoint."""


@token.command("create")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["viewer", "editor", "approver", "admin"]),
    help="What it may do; each may what those before it may.",
)
@click.option("--name", default="", help="What it is for.")
@_configured
def token_create(role: str, name: str, config: Path | None, store: str | None) -> None:
    """A new token; it is shown once."""
    settings = _settings(config, store=store)
    from bot import errands  # noqa: PLC0415

    _run(errands.create_token(settings, role, name, say=_say))


@main.group()
def db() -> None:
    """The database: upgrade, back up, restore, move."""


@db.command("upgrade")
@_configured
def db_upgrade(config: Path | None, store: str | None) -> None:
    """Brings the database to this version's schema. Opening it does so too; this says what it did."""
    settings = _settings(config, store=store)
    from bot import database  # noqa: PLC0415

    _run(database.upgrade(settings, say=_say))


@db.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@_configured
def db_backup(file: Path, config: Path | None, store: str | None, *, force: bool) -> int:
    """Everything into FILE, as it is at one moment. SQLite may be in use meanwhile; stop what works on MongoDB."""
    settings = _settings(config, store=store)
    from bot import database  # noqa: PLC0415

    return int(_run(database.back_up(settings, file, force=force, say=_say)))


@db.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--go-on", is_flag=True, help="Do not pause the broadcasts that had not ended.")
@_configured
def db_restore(file: Path, config: Path | None, store: str | None, *, go_on: bool) -> int:
    """What FILE holds becomes the database; the one that was there is kept beside it. Stop everything first."""
    settings = _settings(config, store=store)
    from bot import database  # noqa: PLC0415

    return int(_run(database.restore(settings, file, go_on=go_on, say=_say)))


@db.command("copy")
@click.argument("origin", metavar="FROM")
@click.argument("goal", metavar="TO")
@click.option("--config", type=click.Path(path_type=Path), help="File of settings. [env: CLARION_CONFIG]")
def db_copy(origin: str, goal: str, config: Path | None) -> int:
    """Everything at the address FROM into an empty database at TO, SQLite or MongoDB, then compares both. Stop
    everything first. Status 0 only if all agrees."""
    settings = _settings(config)
    from bot import database  # noqa: PLC0415

    return int(_run(database.copy(settings, origin, goal, say=_say)))


if __name__ == "__main__":
    main()
