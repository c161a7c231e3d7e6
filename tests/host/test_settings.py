"""Settings: where they come from, which of two wins, and what is said of faulty ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bot.cli import VARIABLES as SHOWN
from bot.settings import (
    CONFIG_VARIABLE,
    VARIABLES,
    Admin,
    Settings,
    SettingsError,
    TeamsSettings,
    TelegramMode,
    TelegramSettings,
    ViberSettings,
    load,
)
from broadcast.model import ChannelName

TOML = """
store = "sqlite:///clarion.db"
public_url = "https://clarion.example/"
admins = ["teams:8c1f-object-id", "telegram:184467"]
accounts = [
  {channel = "teams", name = "hr", app_id = "0a1b", app_password = "env:HR_PASSWORD", tenant_id = "2c3d", rate = 3},
  {channel = "telegram", name = "news", token = "env:NEWS_TOKEN", mode = "polling", rate = 30, order = "fair"},
]
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "clarion.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def test_without_any_settings_there_are_defaults() -> None:
    """Nothing has to be set: loopback, port 8080, an embedded store, no account."""
    settings = load(environ={})
    assert (settings.host, settings.port, settings.store) == ("127.0.0.1", 8080, "sqlite:///clarion.db")
    assert settings.accounts == ()
    assert settings.retention_days == 0  # nothing is removed that nobody asked to remove


def test_the_file_of_the_shapes_is_understood(toml: Path) -> None:
    """The example that scripts from outside stand on is read as it is written."""
    settings = load(config=toml, environ={"HR_PASSWORD": "hr-secret", "NEWS_TOKEN": "1:news"})
    assert settings.public_url == "https://clarion.example"
    assert settings.admins == (Admin(ChannelName.TEAMS, "8c1f-object-id"), Admin(ChannelName.TELEGRAM, "184467"))
    hr, news = settings.accounts
    assert isinstance(hr, TeamsSettings)
    assert isinstance(news, TelegramSettings)
    assert (hr.key, hr.app_password.get_secret_value(), hr.rate) == ("teams/hr", "hr-secret", 3)
    assert (news.key, news.token.get_secret_value(), news.mode) == ("telegram/news", "1:news", TelegramMode.POLLING)
    assert [hr.trouble, news.trouble] == [None, None]


def test_the_environment_makes_default_accounts() -> None:
    """Each platform's variables make the account called default."""
    settings = load(
        environ={
            "CLARION_TEAMS_APP_ID": "id",
            "CLARION_TEAMS_APP_PASSWORD": "password",
            "CLARION_TEAMS_TENANT_ID": "tenant",
            "CLARION_TEAMS_SERVICE_URLS": "http://127.0.0.1:9/teams/, example.org",
            "CLARION_TELEGRAM_TOKEN": "1:a",
            "CLARION_VIBER_TOKEN": "v",
            "CLARION_VIBER_NAME": "News",
        }
    )
    teams, telegram, viber = settings.accounts
    assert isinstance(teams, TeamsSettings)
    assert isinstance(viber, ViberSettings)
    assert [one.key for one in settings.accounts] == ["teams/default", "telegram/default", "viber/default"]
    assert teams.service_urls == ("http://127.0.0.1:9/teams/", "example.org")
    assert viber.sender == "News"
    assert telegram.trouble is None


def test_the_environment_wins_over_the_file_and_options_over_both(toml: Path) -> None:
    """Options, then environment, then file."""
    environ = {"CLARION_STORE": "sqlite:///other.db", "CLARION_PORT": "9000"}
    settings = load(config=toml, environ=environ, options={"port": 9001, "host": None})
    assert (settings.store, settings.port, settings.host) == ("sqlite:///other.db", 9001, "127.0.0.1")


def test_the_environment_completes_an_account_of_the_file(tmp_path: Path) -> None:
    """Variables speak of the account called default, also where the file has it."""
    path = tmp_path / "clarion.toml"
    path.write_text('accounts = [{channel = "telegram", name = "default", rate = 5}]', encoding="utf-8")
    [account] = load(config=path, environ={"CLARION_TELEGRAM_TOKEN": "1:a"}).accounts
    assert (account.rate, account.trouble) == (5, None)


def test_the_file_can_be_named_by_the_environment(toml: Path) -> None:
    """CLARION_CONFIG names the file."""
    assert len(load(environ={CONFIG_VARIABLE: str(toml)}).accounts) == 2


def test_a_file_lying_around_is_read_only_for_the_real_environment(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """./clarion.toml counts for who starts Clarion there, not for who passes an environment of their own."""
    monkeypatch.chdir(toml.parent)
    assert (len(load().accounts), len(load(environ={}).accounts)) == (2, 0)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"CLARION_TELEGRAM_MODE": "polling"}, "telegram/default has no token: set CLARION_TELEGRAM_TOKEN"),
        ({"CLARION_VIBER_NAME": "News"}, "viber/default has no token: set CLARION_VIBER_TOKEN"),
        (
            {"CLARION_TEAMS_APP_ID": "a", "CLARION_TEAMS_TENANT_ID": "t"},
            "teams/default has no app_password: set CLARION_TEAMS_APP_PASSWORD",
        ),
    ],
)
def test_a_missing_credential_is_no_fault(environ: Mapping[str, str], says: str) -> None:
    """The account is kept and says what to do."""
    [account] = load(environ=environ).accounts
    assert account.trouble == says


def test_a_reference_to_a_variable_that_is_not_set_is_named(toml: Path) -> None:
    """`env:NAME` without NAME is a missing credential that names it."""
    hr, news = load(config=toml, environ={"NEWS_TOKEN": "1:a"}).accounts
    assert hr.trouble == "teams/hr has no app_password: set HR_PASSWORD, which app_password refers to"
    assert news.trouble is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("potr = 1", "potr is no setting; did you mean port?"),
        ('port = "eighty"', "port: should be a valid integer"),
        ("port = 70000", "port: should be less than or equal to 65535"),
        ("retention_days = -1", "retention_days: should be greater than or equal to 0"),
        ("retention_days = 0.5", "retention_days: should be a valid integer"),
        ('secret = "short"', "secret is too short to be safe; make it 16 characters or more"),
        ('store = "postgres://x"', "store is no store; write sqlite:///clarion.db"),
        ('public_url = "clarion.example"', "public_url clarion.example is no web address"),
        ('public_url = "https://ann:pw@clarion.example"', "carries no user name"),
        ('admins = ["ann"]', "admins[0] ann is no admin; write CHANNEL:ID"),
        ('admins = ["smoke:1"]', "the channel one of teams, telegram, viber"),
        ('secret = "env:NOT_SET"', "secret refers to NOT_SET, which is not set; set it"),
        ("accounts = 3", "accounts is a list; write [{channel"),
        ('accounts = [{channel = "smoke", name = "x"}]', "accounts[0].channel is one of teams, telegram, viber"),
        ('accounts = [{name = "x"}]', "accounts[0].channel is one of teams, telegram, viber"),
        (
            'accounts = [{channel = "teams", name = "x", app_idd = "1"}]',
            "accounts[0].app_idd is no setting; did you mean app_id?",
        ),
        ('accounts = [{channel = "viber", name = "a/b"}]', "accounts[0].name a/b is no name of an account"),
        ('accounts = [{channel = "viber", name = "a", rate = 0}]', "accounts[0].rate: should be greater than 0"),
        (
            'accounts = [{channel = "telegram", name = "a", mode = "push"}]',
            "accounts[0].mode: should be 'webhook' or 'polling'",
        ),
        (
            'accounts = [{channel = "viber", name = "a"}, {channel = "viber", name = "a"}]',
            "viber/a is there twice; give each account a name of its own",
        ),
        (
            '[defaults]\ntimezone = "Europe/Pariss"',
            "defaults.timezone Europe/Pariss is no time zone; did you mean Europe/Paris?",
        ),
        ('[defaults]\nhours = {mon = ["12:00-09:00"]}', "defaults.hours.mon[0]: 12:00-09:00 ends before it starts"),
        ("this is not toml", "is no TOML"),
    ],
)
def test_a_fault_names_key_place_and_mend(text: str, says: str, tmp_path: Path) -> None:
    """Each fault of the file is said with the file, the key and what to write instead."""
    path = tmp_path / "clarion.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(config=path, environ={})
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_fault_of_the_environment_names_the_variable() -> None:
    """Where a value came from is where it has to be mended."""
    with pytest.raises(SettingsError, match="CLARION_PORT: port"):
        load(environ={"CLARION_PORT": "99999"})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A file that was named has to be there."""
    with pytest.raises(SettingsError, match="there is no such file"):
        load(config=tmp_path / "none.toml", environ={})


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """Nobody has to start three times for three faults."""
    path = tmp_path / "clarion.toml"
    path.write_text('potr = 1\nport = "x"\nadmins = ["ann"]', encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(config=path, environ={})
    assert str(caught.value).count(str(path)) == 3


def test_no_secret_is_shown() -> None:
    """Neither the settings nor a fault about them show a secret."""
    secret = "1234567:do-not-show-this"
    environ = {
        "CLARION_TELEGRAM_TOKEN": secret,
        "CLARION_SECRET": secret,
        "CLARION_STORE": f"mongodb://ann:{secret.partition(':')[2]}@db.example/clarion",
    }
    settings = load(environ=environ)
    assert "do-not-show" not in repr(settings)
    assert settings.secrets == {secret, "do-not-show-this"}
    with pytest.raises(SettingsError) as caught:
        load(environ=environ | {"CLARION_SECRET": "do-not-show"})
    assert "do-not-show" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "public_url", "private"),
    [
        ("127.0.0.1", None, True),
        ("localhost", None, True),
        ("::1", None, True),
        ("127.0.0.1", "http://127.0.0.1:8080", True),
        ("127.0.0.1", "https://clarion.example", False),
        ("0.0.0.0", None, False),  # noqa: S104 - read, not bound
        ("192.168.1.5", None, False),
        ("clarion.example", None, False),
    ],
)
def test_private_is_who_nobody_else_can_reach(host: str, public_url: str | None, *, private: bool) -> None:
    """Loopback alone does not do where a public address says that something in front passes requests on."""
    assert Settings(host=host, public_url=public_url).private is private


def test_help_shows_the_variables_that_are_read() -> None:
    """The list in the help of the command line is the list of settings."""
    assert {name for name, _, _ in SHOWN} == {*VARIABLES, CONFIG_VARIABLE}


def test_settings_do_not_change() -> None:
    """One frozen object."""
    with pytest.raises(ValueError, match="frozen"):
        load(environ={}).port = 1  # type: ignore[misc]  # that is the point
