"""Settings from the environment and `pyproject.toml`, checked once at the start.

The supervisor reads them (`load_settings`, `load_client`) and hands them on. A module sees them as attributes of
`Config`, which the task process fills in before it imports the module.
"""

import os
import re
import socket
import tomllib
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from app import SECRETS
from app import VERSION as VERSION
from app.formats import ID, ID_FORM
from app.hours import WorkHours
from app.installed import read_enabled
from app.module_settings import ModuleSettings, read_module_settings

MAX_SLOTS = 64
"""The largest WORKER_SLOTS: to the server each slot is a worker of its own, and each needs some threads."""


class ConfigError(Exception):
    """A setting or the configuration file is wrong. The text is one line that names the key."""


class Config:
    """The settings under the names that modules use. Outside a task process (an author's tests) they have defaults."""

    API_URL: ClassVar[str] = "http://localhost:5000"
    API_TIMEZONE: ClassVar[tzinfo] = UTC
    HOSTNAME: ClassVar[str] = "localhost"
    HOST_UUID: ClassVar[str] = "00000000-0000-0000-0000-000000000000"
    VERSION: ClassVar[str] = VERSION
    HEARTBEAT_INTERVAL: ClassVar[float] = 5.0
    QUEUE_POLL_INTERVAL: ClassVar[float] = 10.0
    NETWORK_RETRY_INTERVAL: ClassVar[float] = 20.0
    MODULES: ClassVar[dict[str, str]] = {}


class Settings(msgspec.Struct, frozen=True):
    """The settings from the environment, in the order of `SETTINGS`. Intervals are in seconds."""

    api_url: str
    api_token: str
    """The bearer token for the API; empty for none. It never leaves the supervisor: see `without_secrets`."""
    worker_token: str
    """A second token of a server of ours, for what workers call; empty for none."""
    api_timezone: str
    hostname: str
    host_uuid: str
    heartbeat_interval: float
    queue_poll_interval: float
    network_retry_interval: float
    worker_slots: int
    worker_tags: tuple[str, ...]
    """The jobs that require one of these tags, or none, are for this worker; only the embedded server knows tags."""
    on_restart: str
    """The treatment of jobs that a crash of the client interrupted: `resume`, `requeue` or `fail`."""
    shutdown_grace: float | None
    """Seconds for which a first SIGTERM lets the jobs in hand go on; `None`: to their end."""
    cancel_deleted_jobs: bool
    work_hours: str
    """The hours in which the worker takes jobs, as `app.hours` reads them; empty for always."""
    work_hours_pause: bool
    """Outside of them, jobs stand still, too."""
    metrics_port: str
    """Where to tell Prometheus of the worker, as `HOST:PORT`; empty for nowhere."""
    log_level: str
    state_directory: str

    def without_secrets(self) -> "Settings":
        """Return a copy without secrets, for processes that run modules."""
        return msgspec.structs.replace(self, api_token="", worker_token="", api_url=shown_url(self.api_url))

    def apply(self) -> None:
        """Fill in `Config`, for the modules of this process."""
        Config.API_URL = self.api_url
        Config.API_TIMEZONE = ZoneInfo(self.api_timezone)
        Config.HOSTNAME = self.hostname
        Config.HOST_UUID = self.host_uuid
        Config.HEARTBEAT_INTERVAL = self.heartbeat_interval
        Config.QUEUE_POLL_INTERVAL = self.queue_poll_interval
        Config.NETWORK_RETRY_INTERVAL = self.network_retry_interval


class Client(msgspec.Struct, frozen=True):
    """The `[tool.client]` tables of the configuration file."""

    file: Path
    chosen_by: str
    """How the file was chosen, for a person: `--config`, `SISYPHUS_CONFIG`, …"""
    modules: dict[str, str]
    """Enabled modules: the name that tasks use, and the import path of the class."""
    paths: tuple[str, ...]
    """Absolute directories to import modules from, besides the program's own."""
    limits: dict[str, Any]
    """`[tool.client.limits]` as it stands in the file; `supervisor.isolation.limits` interprets it."""
    hooks: dict[str, Any]
    """`[tool.client.hooks]`: `job_ended`, an argument list, and the limits of such commands."""
    server: dict[str, Any]
    """`[tool.server]`, as `load_server` returns it."""
    settings: dict[str, ModuleSettings] = {}
    """`[tool.client.modules.settings]`, by the name of the module."""


class Setting(NamedTuple):
    """A setting of the environment."""

    name: str
    default: str
    read: Callable[[str], Any]
    """Parses the text; raises `ValueError` with the expected form, such as "a number of slots from 1 to 64"."""


def load_settings(environ: Mapping[str, str], state_directory: Path) -> Settings:
    """Read the settings from `environ`. An empty variable counts as absent.

    Raises:
        ConfigError: a value is wrong.
    """
    values: dict[str, Any] = {"state_directory": str(state_directory)}
    for field, setting in SETTINGS.items():
        text = environ.get(setting.name, "").strip()
        is_secret = setting.name in SECRETS or (field == "api_url" and "@" in text)
        shown = "what it holds" if is_secret else repr(text)
        try:
            values[field] = setting.read(text or setting.default)
        except ValueError as error:
            raise ConfigError(f"{setting.name}: {shown} is not {error}") from error
        _require_utf8(setting.name, text)
    values["host_uuid"] = values["host_uuid"] or _kept_uuid(state_directory)
    return Settings(**values)


def is_set(name: str, environ: Mapping[str, str]) -> bool:
    """Return whether a setting comes from the environment, and not from the defaults."""
    return bool(environ.get(name, "").strip())


def shown_url(url: str) -> str:
    """Return a URL without the user name and password that it may hold."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def load_client(option: str | None, environ: Mapping[str, str]) -> Client:
    """Read the configuration file: `--config`, `SISYPHUS_CONFIG`, `./pyproject.toml`, or the program's own.

    Raises:
        ConfigError: the file is missing, is not TOML, or has a wrong table.
    """
    file, chosen_by = _find_file(option, environ)
    tools = _read(file)
    if "client" not in tools:
        raise ConfigError(f"{file}: has no [tool.client] table")
    client = _table(tools["client"], f"{file}: tool.client")
    _refuse_unknown(client, {"hooks", "limits", "modules"}, f"{file}: tool.client", "table")
    modules = _table(client.get("modules", {}), f"{file}: tool.client.modules")
    _refuse_unknown(modules, {"enabled", "paths", "settings"}, f"{file}: tool.client.modules", "key")
    where = f"{file}: tool.client.modules.enabled"
    try:
        enabled = read_enabled(_table(modules.get("enabled", {}), where))
    except ValueError as error:
        raise ConfigError(f"{where}{error}") from error
    paths = _read_paths(modules.get("paths", []), file)
    limits = _table(client.get("limits", {}), f"{file}: tool.client.limits")
    hooks = _read_hooks(client.get("hooks", {}), file)
    server, settings = _read_server(tools, file), _read_module_settings(modules, file, environ)
    return Client(file, chosen_by, enabled, paths, limits, hooks, server, settings)


def load_server(option: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    """Read `[tool.server]` of the configuration file that `load_client` reads; the file need not have that table.

    Raises:
        ConfigError: the file is missing, is not TOML, or has a wrong table.
    """
    file, _ = _find_file(option, environ)
    return _read_server(_read(file), file)


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a table")
    return value


def _refuse_unknown(table: dict[str, Any], known: set[str], where: str, kind: str) -> None:
    for key in sorted(table.keys() - known):
        raise ConfigError(f"{where}.{key}: unknown {kind} (known: {', '.join(sorted(known))})")


def _read_paths(paths: Any, file: Path) -> tuple[str, ...]:
    where = f"{file}: tool.client.modules.paths"
    if not (isinstance(paths, list) and all(isinstance(path, str) for path in paths)):
        raise ConfigError(f"{where}: expected a list of directories")
    directories = tuple(os.path.normpath(file.parent.absolute() / path) for path in paths)
    for directory in directories:
        _require_utf8(where, directory)
    return directories


def _read_module_settings(modules: dict[str, Any], file: Path, environ: Mapping[str, str]) -> dict[str, ModuleSettings]:
    try:
        return read_module_settings(modules.get("settings", {}), modules.get("enabled", {}), environ)
    except ValueError as error:
        raise ConfigError(f"{file}: tool.client.modules.settings{error}") from error


def _read_server(tools: dict[str, Any], file: Path) -> dict[str, Any]:
    server = _table(tools.get("server", {}), f"{file}: tool.server")
    _refuse_unknown(server, {"notify"}, f"{file}: tool.server", "table")
    return server


def _read_hooks(hooks: Any, file: Path) -> dict[str, Any]:
    table = _table(hooks, f"{file}: tool.client.hooks")
    command = table.get("job_ended", [])
    if not (isinstance(command, list) and all(isinstance(part, str) and "\0" not in part for part in command)):
        raise ConfigError(f'{file}: tool.client.hooks.job_ended: expected a list such as ["command", "argument"]')
    return table


def _find_file(option: str | None, environ: Mapping[str, str]) -> tuple[Path, str]:
    if option:
        return Path(option), "--config"
    if named := environ.get("SISYPHUS_CONFIG", "").strip():
        return Path(named), "SISYPHUS_CONFIG"
    here = Path("pyproject.toml")
    if here.is_file():
        try:
            tools = tomllib.loads(here.read_text(encoding="utf-8-sig")).get("tool")
        except (OSError, ValueError):
            tools = None  # another project's file in the working directory may well be broken
        if isinstance(tools, dict) and "client" in tools:
            return here, "the working directory"
    package = Path(__file__).parent.parent
    in_wheel = package / "supervisor" / "pyproject.toml"
    return (in_wheel if in_wheel.is_file() else package / "pyproject.toml"), "default"


def _read(file: Path) -> dict[str, Any]:
    """Return the tables in `[tool]`."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML: both messages say where
        raise ConfigError(f"{file}: is not TOML: {error}") from error
    tools = document.get("tool")
    return tools if isinstance(tools, dict) else {}


def _require_utf8(where: str, text: str) -> None:
    """Refuse text that is not UTF-8: the messages between the processes cannot carry it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where}: {os.fsencode(text)!r} is not UTF-8") from error


def _kept_uuid(state_directory: Path) -> str:
    """Return the id of this worker, which is made once and kept in the state directory."""
    file = state_directory / "host_uuid"
    try:
        try:
            return str(uuid.UUID(file.read_text(encoding="ascii").strip()))
        except (FileNotFoundError, ValueError):  # one that cannot be read may hold an id: it must not be replaced
            made = str(uuid.uuid4())
        os.makedirs(os.path.realpath(state_directory), 0o700, exist_ok=True)  # a link may lead to one that is missing
        fresh = file.with_name(f"host_uuid.{made}")
        try:
            fresh.touch(0o600)
            fresh.write_text(made + "\n", encoding="ascii")
            fresh.replace(file)
        finally:
            fresh.unlink(missing_ok=True)  # a full disk must not keep one of each start
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read or written: {error.strerror} (set SISYPHUS_STATE_DIR)") from error
    return made


def _url(text: str) -> str:
    expected = "the address of a server (such as http://farm:5000)"
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises if it is none
    except ValueError as error:
        raise ValueError(expected) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(expected)
    return text.rstrip("/")


def _token(text: str) -> str:
    if not re.fullmatch(r"[!-~]*", text):
        raise ValueError("a bearer token (printable ASCII without spaces)")
    return text


def _time_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("a time zone of this system (such as Europe/Berlin)") from error
    return text


def _id(text: str) -> str:
    if text and not ID.fullmatch(text):
        raise ValueError(f"an id ({ID_FORM})")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ValueError("a number of seconds greater than 0")
    return value


def _slots(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_SLOTS:
        raise ValueError(f"a number of slots from 1 to {MAX_SLOTS}")
    return int(text)


def _tags(text: str) -> tuple[str, ...]:
    if not text.isprintable():
        raise ValueError("a list of tags, separated by commas (such as gpu,av1)")
    return tuple(dict.fromkeys(tag for each in text.split(",") if (tag := each.strip())))


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 1 << 16 and host.isprintable()):
        raise ValueError("a port, or an address and a port (such as 9100 or 0.0.0.0:9100)")
    return f"{host or '127.0.0.1'}:{port}" if text else ""


def _hours(text: str) -> str:
    WorkHours(text)
    return text


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ValueError(f"one of {', '.join(choices)}")

    return read


def _yes_or_no(text: str) -> bool:
    return _one_of("0", "1")(text) == "1"


SETTINGS = {
    "api_url": Setting("API_URL", "http://localhost:5000", _url),
    "api_token": Setting("API_TOKEN", "", _token),
    "worker_token": Setting("WORKER_TOKEN", "", _token),
    "api_timezone": Setting("API_TIMEZONE", "UTC", _time_zone),
    "hostname": Setting("HOSTNAME_OVERRIDE", "", lambda text: text or socket.gethostname()),
    "host_uuid": Setting("HOST_UUID", "", _id),
    "heartbeat_interval": Setting("HEARTBEAT_INTERVAL", "5", _seconds),
    "queue_poll_interval": Setting("QUEUE_POLL_INTERVAL", "10", _seconds),
    "network_retry_interval": Setting("NETWORK_RETRY_INTERVAL", "20", _seconds),
    "worker_slots": Setting("WORKER_SLOTS", "1", _slots),
    "worker_tags": Setting("WORKER_TAGS", "", _tags),
    "on_restart": Setting("ON_RESTART", "resume", _one_of("resume", "requeue", "fail")),
    "shutdown_grace": Setting("SHUTDOWN_GRACE", "", lambda text: _seconds(text) if text else None),
    "cancel_deleted_jobs": Setting("CANCEL_DELETED_JOBS", "0", _yes_or_no),
    "work_hours": Setting("WORK_HOURS", "", _hours),
    "work_hours_pause": Setting("WORK_HOURS_PAUSE", "0", _yes_or_no),
    "metrics_port": Setting("METRICS_PORT", "", _address),
    "log_level": Setting(
        "LOGURU_LEVEL", "INFO", _one_of("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")
    ),
}
"""The environment's settings by field of `Settings`, in the order of the README."""
