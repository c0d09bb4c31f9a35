"""Who is told of what: `[tool.server.notify]` of the configuration file, read and checked.

Nothing here is ever shown: a URL may hold a password, and often its path is one.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from app import NOTIFY_PREFIX
from app.config import VERSION
from app.module_settings import resolve
from server.errors import ServerError
from server.notify.apprise import open_apprise
from server.notify.times import read_time

Event = Literal["failed", "completed", "queue stuck", "worker lost"]
EVENTS = ("failed", "completed", "queue stuck", "worker lost")

DEFAULT_EVENTS = ("failed", "queue stuck", "worker lost")

WHERE = "tool.server.notify"


@dataclass(frozen=True)
class Target:
    """One place to send messages to: a webhook, which signs with `secret`, or a URL for Apprise."""

    name: str
    events: tuple[str, ...]
    webhook: str = ""
    secret: str = ""
    apprise: str = ""


@dataclass(frozen=True)
class NotifySettings:
    """The table, read."""

    targets: tuple[Target, ...]
    stuck_after: timedelta
    """The queue is stuck when a job waits for this long, and no worker that could do it works."""
    every: timedelta
    """The least time between two messages to one target. What happens meanwhile is bundled into the second."""


def read_notify(table: Any, environ: Mapping[str, str] = os.environ) -> NotifySettings:
    """Read the table; an empty one has no targets.

    Raises:
        ServerError: a key or a value is wrong, or a package is missing. The message shows no value of a secret.
    """
    table = _table(table, WHERE, {"every", "stuck_after", "targets"})
    times, expected = {}, "a time such as 90s or 30m"
    for key, default in (("stuck_after", "30m"), ("every", "1m")):
        times[key] = read_time(f"{WHERE}.{key}", text := table.get(key, default), expected)
        if not times[key]:
            raise ServerError(f"{WHERE}.{key}: {text!r} is not {expected}")
    targets = _table(table.get("targets", {}), f"{WHERE}.targets", None)
    read = tuple(_read_target(name, f"{WHERE}.targets.{name}", each, environ) for name, each in targets.items())
    return NotifySettings(read, **times)


def _read_target(name: str, where: str, table: Any, environ: Mapping[str, str]) -> Target:
    table = _table(table, where, {"apprise", "events", "secret", "webhook"})
    events = table.get("events", list(DEFAULT_EVENTS))
    if not isinstance(events, list) or not events or not all(event in EVENTS for event in events):
        raise ServerError(f"{where}.events: expected a list of some of: {', '.join(EVENTS)}")
    texts = {
        key: _resolve(f"{where}.{key}", table[key], environ) for key in ("apprise", "secret", "webhook") if key in table
    }
    target = Target(name, tuple(dict.fromkeys(events)), **texts)
    if bool(target.webhook) == bool(target.apprise):
        raise ServerError(f"{where}: expected one of webhook and apprise")
    if target.webhook:
        _check_webhook(where, target)
    else:
        _check_apprise(where, target)
    return target


def _check_webhook(where: str, target: Target) -> None:
    try:
        parts = urlsplit(target.webhook)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_url = False
    if not is_url:
        raise ServerError(f"{where}.webhook: expected an address such as https://HOST/PATH")
    if not target.secret:
        raise ServerError(f'{where}.secret: a webhook is signed: expected "${{NOTIFY_SECRET}}" or "file:PATH"')


def _check_apprise(where: str, target: Target) -> None:
    try:
        sender = open_apprise(target.apprise)
    except ImportError as error:
        raise ServerError(
            f"{where}.apprise: needs a package that is not installed: install the program's own file with its extra, as"
            f" in pip install './sisyphus_client-{VERSION}-py3-none-any.whl[server,notify]'"
        ) from error
    if not sender:
        raise ServerError(f"{where}.apprise: Apprise knows no such URL (https://appriseit.com/services/ lists them)")


def _table(value: Any, where: str, known: set[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ServerError(f"{where}: expected a table")
    for key in sorted(value.keys() - known) if known else ():
        raise ServerError(f"{where}.{key}: unknown key (known: {', '.join(sorted(known or ()))})")
    return value


def _resolve(where: str, text: Any, environ: Mapping[str, str]) -> str:
    """The value, or that of the file or the variables that it names."""
    if not isinstance(text, str) or not text:
        raise ServerError(f"{where}: expected a text")
    try:
        return resolve(text, environ, NOTIFY_PREFIX)
    except ValueError as error:
        raise ServerError(f"{where}: {error}") from error
