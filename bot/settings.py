"""What Clarion is told before it starts: environment `CLARION_*` and `clarion.toml`, as one frozen object.

The only file that reads the environment. It wins over the file; options of the command line win over both. A value
`env:NAME` in the file is read from the variable NAME, so that secrets need not stand in files. What is at fault is
said with its key, its place and its mend; an account that only lacks a credential is no fault: it is kept, and its
`trouble` says what to do.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from broadcast import calendar
from broadcast.errors import ClarionError, Invalid
from broadcast.model import OFFICE_HOURS, ChannelName, Hours, Order, Schedule

CONFIG_FILE = "clarion.toml"
SECRET_LENGTH = 16

_ACCOUNT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_INDIRECT = "env:"


class SettingsError(ClarionError):
    """Settings at fault; the text names key, place and mend."""


# --- kinds of values ----------------------------------------------------------------------------------


def _refuse(message: str) -> PydanticCustomError:
    return PydanticCustomError("clarion", "{reason}", {"reason": message})


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise _refuse(f"{value} is no web address; write https://… without anything after the path")
    if parts.username or parts.password:
        raise _refuse("a web address carries no user name or password; remove them")
    return value.rstrip("/")


def _store_address(value: str) -> str:
    if not value.startswith(("sqlite:///", "mongodb://", "mongodb+srv://", "memory:")):
        raise _refuse("is no store; write sqlite:///clarion.db or mongodb://HOST/clarion")
    return value


def _listed(value: object) -> object:
    """The environment has lists with commas between."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _hours(value: object) -> Hours:
    if not isinstance(value, Mapping):
        raise _refuse('is a table of weekdays; write {mon = ["09:00-18:00"]}')
    try:
        return calendar.parse_hours(value, "")
    except Invalid as error:
        raise _refuse(str(error.faults[0])) from error


def _zone(value: str) -> str:
    try:
        return calendar.zone(value).key
    except Invalid as error:
        raise _refuse(error.faults[0].message) from error


Address = Annotated[str, AfterValidator(_web_address)]
Secret = SecretStr
Rate = Annotated[float, Field(gt=0, le=10_000)]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True, validate_default=False
    )


class LogFormat(StrEnum):
    """How log lines are written to standard error."""

    AUTO = "auto"  # text on a terminal, else JSON
    TEXT = "text"
    JSON = "json"


class TelegramMode(StrEnum):
    WEBHOOK = "webhook"  # Telegram calls us: needs a public address
    POLLING = "polling"  # we ask Telegram


# --- accounts -----------------------------------------------------------------------------------------


class AccountSettings(_Frozen):
    """What every account has. What is left out is the channel's own default."""

    channel: ChannelName
    name: str
    rate: Rate | None = None
    """Messages per second."""
    order: Order = Order.FAIR
    unset: Mapping[str, str] = Field(default_factory=dict, exclude=True)
    """Keys whose `env:NAME` names a variable that is not set, with that name."""
    from_environment: bool = Field(default=False, exclude=True)

    @property
    def key(self) -> str:
        """``teams/hr``."""
        return f"{self.channel}/{self.name}"

    @property
    def needs(self) -> tuple[str, ...]:
        """The keys without which the account cannot be connected."""
        return ()

    @property
    def trouble(self) -> str | None:
        """What is missing, with its mend; ``None`` where nothing is."""
        missing = [key for key in self.needs if not _said(getattr(self, key))]
        if not missing:
            return None
        return f"{self.key} has no {' and no '.join(missing)}: " + ", ".join(self._mend(key) for key in missing)

    def _mend(self, key: str) -> str:
        if key in self.unset:
            return f"set {self.unset[key]}, which {key} refers to"
        if self.from_environment:
            return f"set CLARION_{self.channel.upper()}_{key.upper()}"
        return f"give the account {key} in {CONFIG_FILE}"


def _said(value: object) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _account_name(value: str) -> str:
    if not _ACCOUNT_NAME.fullmatch(value):
        raise _refuse(f"{value} is no name of an account; use letters, digits, - and _")
    return value


class TeamsSettings(AccountSettings):
    channel: Literal[ChannelName.TEAMS] = ChannelName.TEAMS
    name: Annotated[str, AfterValidator(_account_name)]
    app_id: str = ""
    app_password: Secret = Secret("")
    tenant_id: str = ""
    login_url: Address | None = None
    openid_url: Address | None = None
    service_urls: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Hosts or addresses that a conversation may lead to; the first that is an address is used for people of whom
    none is known."""
    graph_url: Address | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return ("app_id", "app_password", "tenant_id")


class TelegramSettings(AccountSettings):
    channel: Literal[ChannelName.TELEGRAM] = ChannelName.TELEGRAM
    name: Annotated[str, AfterValidator(_account_name)]
    token: Secret = Secret("")
    api_url: Address | None = None
    mode: TelegramMode | None = None
    """Left out: `webhook` where there is a public address, else `polling`."""
    webhook_secret: Secret = Secret("")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("token",)


class ViberSettings(AccountSettings):
    channel: Literal[ChannelName.VIBER] = ChannelName.VIBER
    name: Annotated[str, AfterValidator(_account_name)]
    token: Secret = Secret("")
    sender: Annotated[str, Field(min_length=1, max_length=28)] = "Clarion"
    """The name people see."""
    api_url: Address | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return ("token",)


AnyAccount = Annotated[TeamsSettings | TelegramSettings | ViberSettings, Discriminator("channel")]


# --- everything ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admin:
    """Somebody who may use the commands of admins: their id on one channel (Teams: the Entra object id)."""

    channel: ChannelName
    user_id: str


def _admin(value: object) -> Admin:
    if isinstance(value, Admin):
        return value
    channel, colon, user_id = str(value).partition(":")
    known = [member.value for member in ChannelName]
    if not colon or not user_id.strip() or channel.strip() not in known:
        raise _refuse(f"{value} is no admin; write CHANNEL:ID, the channel one of {', '.join(known)}")
    return Admin(ChannelName(channel.strip()), user_id.strip())


class Defaults(_Frozen):
    """What campaigns have that say nothing else."""

    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    working_days: Annotated[int, Field(ge=1, le=366)] = 1
    hours: Annotated[Any, BeforeValidator(_hours)] = Field(default_factory=lambda: OFFICE_HOURS)
    holiday_country: str | None = None

    @property
    def schedule(self) -> Schedule:
        return Schedule(
            timezone=self.timezone,
            working_days=self.working_days,
            hours=self.hours,
            holiday_country=self.holiday_country,
        )


class Settings(_Frozen):
    """Everything. Addresses have no slash at their end."""

    store: Annotated[str, AfterValidator(_store_address), Field(repr=False)] = "sqlite:///clarion.db"
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    public_url: Address | None = None
    secret: Secret | None = None
    admin_token: Secret | None = None
    admins: Annotated[tuple[Annotated[Admin, BeforeValidator(_admin)], ...], BeforeValidator(_listed)] = ()
    accounts: tuple[AnyAccount, ...] = ()
    graph_url: Address | None = None
    log: LogFormat = LogFormat.AUTO
    hold_late_start_minutes: Annotated[int, Field(ge=1, le=10_080)] = 60
    """A start that was missed by more is held until somebody approves it."""
    retention_days: Annotated[int, Field(ge=0, le=36_500)] = 0
    """How long after its end a broadcast's single deliveries are kept; 0 is for ever."""
    defaults: Defaults = Field(default_factory=Defaults)

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        keys = [account.key for account in self.accounts]
        for key in keys:
            if keys.count(key) > 1:
                raise _refuse(f"accounts: {key} is there twice; give each account a name of its own")
        for name in ("secret", "admin_token"):
            value: SecretStr | None = getattr(self, name)
            if value is not None and len(value.get_secret_value()) < SECRET_LENGTH:
                raise _refuse(f"{name} is too short to be safe; make it {SECRET_LENGTH} characters or more")
        return self

    @property
    def address(self) -> str:
        """Where this machine itself reaches the host."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - read, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def links_url(self) -> str:
        """What tracked links begin with."""
        return self.public_url or self.address

    @property
    def private(self) -> bool:
        """Whether nobody but this machine can reach the host: it listens on loopback, and no public address says
        that something in front of it passes requests on."""
        return is_loopback(self.host) and (self.public_url is None or is_loopback_url(self.public_url))

    @property
    def sqlite_path(self) -> Path | None:
        """The file of an embedded store."""
        prefix = "sqlite:///"
        return Path(self.store.removeprefix(prefix)) if self.store.startswith(prefix) else None

    @property
    def secrets(self) -> frozenset[str]:
        """Every secret there is, for whoever has to keep them out of something."""
        values: list[object] = [self.secret, self.admin_token]
        for account in self.accounts:
            values += [value for _, value in account]
        texts = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
        password = urlsplit(self.store).password
        return frozenset(texts - {""} | ({password} if password else set()))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_loopback_url(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


# --- the environment ----------------------------------------------------------------------------------

_OWN = (
    "store",
    "host",
    "port",
    "public_url",
    "secret",
    "admin_token",
    "admins",
    "graph_url",
    "log",
    "hold_late_start_minutes",
    "retention_days",
)
_OF_ACCOUNTS: Mapping[ChannelName, Mapping[str, str]] = MappingProxyType(
    {
        ChannelName.TEAMS: {
            key.upper(): key
            for key in ("app_id", "app_password", "tenant_id", "login_url", "openid_url", "service_urls")
        },
        ChannelName.TELEGRAM: {key.upper(): key for key in ("token", "api_url", "mode", "webhook_secret")},
        ChannelName.VIBER: {"TOKEN": "token", "NAME": "sender", "API_URL": "api_url"},
    }
)
CONFIG_VARIABLE = "CLARION_CONFIG"

#: Every variable, and where its value goes.
VARIABLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {f"CLARION_{key.upper()}": (key,) for key in _OWN}
    | {
        f"CLARION_{channel.upper()}_{name}": ("accounts", channel.value, key)
        for channel, keys in _OF_ACCOUNTS.items()
        for name, key in keys.items()
    }
)


def load(
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
) -> Settings:
    """The settings. `options` are those of the command line. Raises `SettingsError`.

    With an `environ` of one's own, no file is read but one that is named: what lies in the current directory is
    somebody else's.
    """
    path = config or (_path(os.environ) if environ is None else _named(environ))
    environ = os.environ if environ is None else environ
    raw = _Raw(_read(path) if path else {}, environ, str(path) if path else CONFIG_FILE)
    raw.merge_environment()
    raw.merge_options(options or {})
    return raw.settings()


def _path(environ: Mapping[str, str]) -> Path | None:
    """The file that was named; else the one in the current directory, if there is one."""
    return _named(environ) or (Path(CONFIG_FILE) if Path(CONFIG_FILE).is_file() else None)


def _named(environ: Mapping[str, str]) -> Path | None:
    return Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: there is no such file; name another one with --config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); make it a readable UTF-8 file") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is no TOML: {error}; mend that place") from error


class _Raw:
    """Settings on their way: what was written, and where each key was."""

    def __init__(self, data: dict[str, Any], environ: Mapping[str, str], file: str) -> None:
        self._environ = environ
        self._file = file
        self._places: dict[tuple[str | int, ...], str] = {}
        self._data = self._from_file(data)

    def settings(self) -> Settings:
        try:
            return Settings.model_validate(self._data)
        except ValidationError as error:
            faults = dict.fromkeys(self._said(detail) for detail in error.errors(include_url=False))
            raise SettingsError("; ".join(faults)) from None  # the cause would show what was written

    # --- what was written -----------------------------------------------------------------------------

    def _from_file(self, data: dict[str, Any]) -> dict[str, Any]:
        accounts = data.get("accounts", [])
        if not isinstance(accounts, list) or not all(isinstance(account, dict) for account in accounts):
            raise SettingsError(
                f'{self._file}: accounts is a list; write [{{channel = "telegram", name = "news"}}]'
            )
        own = {key: self._own_value(key, value) for key, value in data.items() if key != "accounts"}
        return {**own, "accounts": [self._account_from_file(account) for account in accounts]}

    def _own_value(self, key: str, value: object) -> object:
        name = _indirect(value)
        if name is None:
            return value
        if not self._environ.get(name):
            raise SettingsError(f"{self._file}: {key} refers to {name}, which is not set; set it")
        return self._environ[name]

    def _account_from_file(self, account: dict[str, Any]) -> dict[str, Any]:
        refers = {key: name for key, value in account.items() if (name := _indirect(value))}
        unset = {key: name for key, name in refers.items() if not self._environ.get(name)}
        found = {key: self._environ[name] for key, name in refers.items() if key not in unset}
        kept = {key: value for key, value in account.items() if key not in refers}
        return {**kept, **found, **({"unset": unset} if unset else {})}

    def merge_environment(self) -> None:
        for variable, (first, *rest) in VARIABLES.items():
            value = self._environ.get(variable, "").strip()
            if not value:
                continue
            if rest:
                channel, key = rest
                index, account = self._default_account(channel)
                account[key] = value
                self._places["accounts", index, key] = variable
            else:
                self._data[first] = value
                self._places[first,] = variable

    def _default_account(self, channel: str) -> tuple[int, dict[str, Any]]:
        """The account that the environment speaks of; it may be in the file as well."""
        accounts: list[dict[str, Any]] = self._data["accounts"]
        for index, account in enumerate(accounts):
            if (account.get("channel"), account.get("name")) == (channel, "default"):
                return index, account
        accounts.append({"channel": channel, "name": "default", "from_environment": True})
        return len(accounts) - 1, accounts[-1]

    def merge_options(self, options: Mapping[str, object]) -> None:
        for key, value in options.items():
            if value is not None:
                self._data[key] = value
                self._places[key,] = f"--{key.replace('_', '-')}"

    # --- what is wrong with it ------------------------------------------------------------------------

    def _said(self, detail: ErrorDetails) -> str:
        """One fault in words: place, key, mend. Never the value: it may be a secret."""
        path = tuple(part for part in detail["loc"] if part not in set(ChannelName))
        where = _written(path)
        place = self._places.get(path) or self._places.get(path[:1]) or self._file
        if detail["type"] == "extra_forbidden":
            return f"{self._file}: {where} is no setting{self._hint(path)}"
        if detail["type"] == "clarion":
            joint = " " if path and not detail["msg"].startswith(".") else ""
            return f"{place}: {where}{joint}{detail['msg']}"
        if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
            return f"{place}: {where}.channel is one of {', '.join(ChannelName)}"
        return f"{place}: {where}: {detail['msg'].removeprefix('Input ')}"

    def _hint(self, path: tuple[str | int, ...]) -> str:
        known = sorted(self._fields(path[:-1]))
        close = difflib.get_close_matches(str(path[-1]), known, n=1)
        return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"

    def _fields(self, path: tuple[str | int, ...]) -> Iterator[str]:
        model: type[BaseModel] = Settings
        if path[:1] == ("defaults",):
            model = Defaults
        elif len(path) == 2 and isinstance(path[1], int):
            channel = self._data["accounts"][path[1]].get("channel")
            model = next(one for one in _account_models() if one.model_fields["channel"].default == channel)
        return (name for name, field in model.model_fields.items() if not field.exclude)


def _account_models() -> Iterator[type[BaseModel]]:
    union: UnionType = get_args(AnyAccount)[0]
    yield from get_args(union)


def _indirect(value: object) -> str | None:
    return value.removeprefix(_INDIRECT).strip() if isinstance(value, str) and value.startswith(_INDIRECT) else None


def _written(path: tuple[str | int, ...]) -> str:
    """``accounts[0].rate``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
