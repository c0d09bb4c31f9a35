"""`[tool.client.modules.settings.NAME]`: an operator's settings for a module, and the secrets in them.

`resolve` also reads the secrets of `[tool.server.notify]`.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from app import MODULE_PREFIX

NOT_SHOWN = "(not shown)"

LEAST_SECRET = 4
"""Characters of a secret that is looked for in texts. A shorter one stands in many words."""

MOST_IN_FILE = 64 << 10
"""Bytes of a file that a setting names."""

_VARIABLE = re.compile(r"\$\{(\w*)\}")

_SECRET_KEY = re.compile(r"(?i)token|secret|passw|passphrase|credential|authori[sz]ation|bearer|(api|private)[-_]?key")
"""Keys whose values are secrets even where they stand in the file."""

_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/?#:\s]*:([^/?#\s]+)(?=@)")
"""User and password, up to the last `@` before the path: the host begins after that, as `urlsplit` reads it."""


class ModuleSettings(msgspec.Struct, frozen=True):
    """The settings of one module."""

    values: dict[str, Any] = {}
    shown: dict[str, str] = {}
    """The settings for a person, without secrets."""
    secrets: tuple[str, ...] = ()

    def redact(self, value: Any) -> Any:
        """Return a message, or what JSON can hold, with `NOT_SHOWN` in the place of each secret."""
        if not self.secrets:
            return value
        match value:
            case str():
                for secret in self.secrets:
                    value = value.replace(secret, NOT_SHOWN)
                return value
            case tuple():
                return tuple(map(self.redact, value))
            case list():
                return list(map(self.redact, value))
            case dict():
                return {self.redact(key): self.redact(item) for key, item in value.items()}
            case msgspec.Struct():
                fields = msgspec.structs.asdict(value)
                return msgspec.structs.replace(
                    value, **{key: self.redact(item) for key, item in fields.items() if key != "reason"}
                )
            case _:
                return value


def resolve(
    text: str, environ: Mapping[str, str], prefix: str, on_secret: Callable[[str], None] = lambda _: None
) -> str:
    """Return a text, or the content of the file or the variables that it names: `file:PATH`, `${NAME}`.

    `prefix` begins the names of the variables that may be named. `on_secret` is told each such content.

    Raises:
        ValueError: There is no such file or variable; the message says so.
    """
    if text.startswith("file:"):
        content = _read_file(text.removeprefix("file:"))
        on_secret(content)
        return content

    def value_of(found: re.Match[str]) -> str:
        name = found[1]
        if not name.startswith(prefix):
            raise ValueError(f"${{{name}}}: only variables {prefix}… are kept from tasks: expected such a name")
        if not (value := environ.get(name)):
            raise ValueError(f"{name} is not set in the environment")
        on_secret(value)
        return value

    return _VARIABLE.sub(value_of, text)


def _read_file(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to is not waited for
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("the file that it names cannot be read: it is no regular file")
            read = file.read(MOST_IN_FILE + 1)
        content = read.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError("the file that it names cannot be read: it is not UTF-8") from error
    except OSError as error:
        raise ValueError(f"the file that it names cannot be read: {error.strerror}") from error
    if not content or len(read) > MOST_IN_FILE:
        raise ValueError(f"the file that it names is {f'larger than {MOST_IN_FILE} bytes' if content else 'empty'}")
    return content


def read_module_settings(
    tables: Any, enabled: Collection[str], environ: Mapping[str, str]
) -> dict[str, ModuleSettings]:
    """Read the tables of all modules.

    Raises:
        ValueError: One is no table, is of no enabled module, or a value is wrong; the message begins with the key.
    """
    if not isinstance(tables, dict):
        raise ValueError(": expected a table")  # noqa: TRY004 - the file is wrong, not an argument's type
    for name, table in tables.items():
        if name not in enabled:
            raise ValueError(f".{name}: no module of this name is enabled")
        if not isinstance(table, dict):
            raise ValueError(f".{name}: expected a table")  # noqa: TRY004 - the same
    return {name: _read(name, table, environ) for name, table in tables.items()}


def _read(name: str, table: dict[str, Any], environ: Mapping[str, str]) -> ModuleSettings:
    reader = _SettingsReader(environ)
    values, shown = reader.read(f".{name}", table)
    for secret in reader.secrets:
        try:
            secret.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f".{name}: a secret is not UTF-8") from error
    parts = [part for secret in reader.secrets for part in (secret, *secret.splitlines())]  # the log goes by lines
    forms = {form for secret in parts for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])}
    texts = {key: text if isinstance(text, str) else json.dumps(text) for key, text in shown.items()}
    longest_first = sorted((form for form in forms if len(form) >= LEAST_SECRET), key=len, reverse=True)
    return ModuleSettings(values, texts, tuple(longest_first))


class _SettingsReader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.secrets: list[str] = []

    def read(self, where: str, value: Any) -> tuple[Any, Any]:
        """Return a value, and its form for a person. A date becomes a text."""
        match value:
            case dict():
                pairs = {key: self.read(f"{where}.{key}", item) for key, item in value.items()}
                return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}
            case list():
                items = [self.read(f"{where}[{index}]", item) for index, item in enumerate(value)]
                return [item[0] for item in items], [item[1] for item in items]
            case str():
                return self._read_text(where, value)
            case int() | float() if not isinstance(value, bool) and _is_secret(where):
                self.secrets.append(str(value))
                return value, NOT_SHOWN
            case bool() | int() | float():
                return value, value
            case _:
                return value.isoformat(), value.isoformat()  # the other types of TOML are dates and times

    def _read_text(self, where: str, text: str) -> tuple[str, str]:
        try:
            value = resolve(text, self._environ, MODULE_PREFIX, self.secrets.append)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if value == text and _is_secret(where):
            self.secrets.append(text)
            return value, NOT_SHOWN
        if value == text and (found := _PASSWORD_IN_URL.search(text)):
            self.secrets.append(found[1])
            return value, _PASSWORD_IN_URL.sub(NOT_SHOWN, text)
        return value, text


def _is_secret(where: str) -> bool:
    """True if the key of a value, or that of a table that it is in, is a secret's. The module's name says nothing."""
    return any(map(_SECRET_KEY.search, where.split(".")[2:]))
