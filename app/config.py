"""Settings: what the environment and `pyproject.toml` say, checked once at the start.

The supervisor reads them (`load_settings`, `load_client`) and hands them on; a module sees them as attributes of
`Config`, which the task process fills in before the module is imported.
"""

import os
import re
import socket
import tomllib
import uuid
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import msgspec

VERSION = "1.4.0"
"""The client's version, as the server and modules are told."""

MODULE_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
"""A class named by its import path, such as `modules.ffmpeg.Ffmpeg`."""


class ConfigError(Exception):
    """A setting or the configuration file is wrong; the text is one line that names the key."""


class Config:
    """The settings as modules know them. Outside a task process (an author's tests) the defaults stand."""

    API_URL: ClassVar[str] = "http://localhost:5000"
    API_TIMEZONE: ClassVar[tzinfo] = UTC
    HOSTNAME: ClassVar[str] = "localhost"
    HOST_UUID: ClassVar[str] = "00000000-0000-0000-0000-000000000000"
    VERSION: ClassVar[str] = VERSION
    HEARTBEAT_INTERVAL: ClassVar[float] = 5.0
    MODULES: ClassVar[dict[str, str]] = {}


class Settings(msgspec.Struct, frozen=True):
    """The settings from the environment. Intervals are in seconds."""

    api_url: str
    api_timezone: str
    hostname: str
    host_uuid: str
    heartbeat_interval: float
    log_level: str

    def apply(self) -> None:
        """Make these the settings that modules of this process see in `Config`."""
        Config.API_URL = self.api_url
        Config.API_TIMEZONE = ZoneInfo(self.api_timezone)
        Config.HOSTNAME = self.hostname
        Config.HOST_UUID = self.host_uuid
        Config.HEARTBEAT_INTERVAL = self.heartbeat_interval


class Client(msgspec.Struct, frozen=True):
    """The `[tool.client]` tables of the configuration file."""

    file: Path
    modules: dict[str, str]
    """Enabled modules: the name a task uses, and the class that serves it."""
    paths: tuple[str, ...]
    """Absolute directories to import modules from, besides the program's own."""
    limits: dict[str, Any]
    """`[tool.client.limits]` as it stands in the file; `supervisor.limits` gives it meaning."""


def load_settings(environ: Mapping[str, str], state_directory: Path) -> Settings:
    """Read the settings from `environ`. One that is present but empty counts as absent.

    Raises:
        ConfigError: a value makes no sense.
    """

    def setting(name: str, default: str) -> str:
        return environ.get(name, "").strip() or default

    timezone = setting("API_TIMEZONE", "UTC")
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(
            f"API_TIMEZONE: {timezone!r} is not a time zone of this system (such as Europe/Berlin)"
        ) from error
    level = setting("LOGURU_LEVEL", "INFO").upper()
    if level not in {"TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"}:
        raise ConfigError(f"LOGURU_LEVEL: {level!r} is no log level (TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL)")
    for name in ("API_URL", "HOSTNAME_OVERRIDE", "HOST_UUID"):
        _require_utf8(name, environ.get(name, ""))
    return Settings(
        api_url=setting("API_URL", "http://localhost:5000").rstrip("/"),
        api_timezone=timezone,
        hostname=setting("HOSTNAME_OVERRIDE", socket.gethostname()),
        host_uuid=setting("HOST_UUID", "") or _kept_uuid(state_directory),
        heartbeat_interval=_seconds("HEARTBEAT_INTERVAL", setting("HEARTBEAT_INTERVAL", "5")),
        log_level=level,
    )


def load_client(option: str | None, environ: Mapping[str, str]) -> Client:
    """Read the configuration file: `--config`, `SISYPHUS_CONFIG`, `./pyproject.toml`, or the program's own.

    Raises:
        ConfigError: no such file, not TOML, or a table that is not as it should be.
    """
    file = _find_file(option, environ)
    table = _read(file)
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: tool.client: expected a table")
    unknown = sorted(set(table) - {"modules", "limits"})
    if unknown:
        raise ConfigError(f"{file}: tool.client.{unknown[0]}: unknown table (known: limits, modules)")
    modules = table.get("modules", {})
    if not isinstance(modules, dict):
        raise ConfigError(f"{file}: tool.client.modules: expected a table")
    enabled = modules.get("enabled", {})
    if not isinstance(enabled, dict):
        raise ConfigError(f"{file}: tool.client.modules.enabled: expected a table")
    for name, target in enabled.items():
        if not (isinstance(target, str) and MODULE_TARGET.fullmatch(target)):
            raise ConfigError(
                f'{file}: tool.client.modules.enabled.{name}: expected "package.module.Class", got {target!r}'
            )
    paths = modules.get("paths", [])
    if not (isinstance(paths, list) and all(isinstance(path, str) for path in paths)):
        raise ConfigError(f"{file}: tool.client.modules.paths: expected a list of directories")
    unknown = sorted(set(modules) - {"enabled", "paths"})
    if unknown:
        raise ConfigError(f"{file}: tool.client.modules.{unknown[0]}: unknown key (known: enabled, paths)")
    limits = table.get("limits", {})
    if not isinstance(limits, dict):
        raise ConfigError(f"{file}: tool.client.limits: expected a table")
    base = file.parent.absolute()
    places = tuple(os.path.normpath(base / path) for path in paths)
    for place in places:
        _require_utf8(f"{file}: tool.client.modules.paths", place)
    return Client(file, dict(enabled), places, limits)


def _find_file(option: str | None, environ: Mapping[str, str]) -> Path:
    named = option or environ.get("SISYPHUS_CONFIG", "").strip()
    if named:
        return Path(named)
    here = Path("pyproject.toml")
    if here.is_file():
        try:
            tools = tomllib.loads(here.read_text(encoding="utf-8")).get("tool")
        except (OSError, ValueError):
            tools = None  # somebody else's project in the working directory, broken or not, is not our business
        if isinstance(tools, dict) and "client" in tools:
            return here
    package = Path(__file__).parent.parent
    in_wheel = package / "supervisor" / "pyproject.toml"
    return in_wheel if in_wheel.is_file() else package / "pyproject.toml"


def _read(file: Path) -> Any:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML: both messages say where
        raise ConfigError(f"{file}: is not TOML: {error}") from error
    tools = document.get("tool", {})
    if not isinstance(tools, dict) or "client" not in tools:
        raise ConfigError(f"{file}: has no [tool.client] table")
    return tools["client"]


def _require_utf8(where: str, text: str) -> None:
    """Refuse what the messages between the processes cannot carry."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where}: {os.fsencode(text)!r} is not UTF-8") from error


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name}: {text!r} is not a number of seconds greater than 0")
    return value


def _kept_uuid(state_directory: Path) -> str:
    """The id of this worker, made once and kept in the state directory."""
    file = state_directory / "host_uuid"
    try:
        return str(uuid.UUID(file.read_text(encoding="ascii").strip()))
    except (OSError, ValueError):
        made = str(uuid.uuid4())
    try:
        state_directory.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"host_uuid.{made}")
        fresh.write_text(made + "\n", encoding="ascii")
        fresh.replace(file)
    except OSError as error:
        raise ConfigError(
            f"{state_directory}: the state directory cannot be written: {error.strerror} (set SISYPHUS_STATE_DIR)"
        ) from error
    return made
