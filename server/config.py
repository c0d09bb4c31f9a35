"""The settings of a server."""

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import msgspec

from server.errors import ServerError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

MAX_DIGITS = 5

POSTGRESQL = ("postgresql://", "postgres://")
"""The beginnings of a URL of PostgreSQL, in libpq's form: several hosts and all its parameters are allowed."""

VANISHED_AFTER = 30.0
"""Seconds after a worker's last heartbeat until its job goes back to the queue."""


class ServerSettings(msgspec.Struct, frozen=True):
    """The database to serve, and the address to serve it at."""

    database: Path | str
    """A file for SQLite, or a URL of PostgreSQL."""
    host: str = "127.0.0.1"
    port: int = 5000
    """0 for any free port."""
    vanished_after: float = VANISHED_AFTER
    """Seconds without a heartbeat after which a worker's job goes back to the queue."""
    token: str = ""
    """The bearer token that requests must carry; empty for none."""
    keep: str = "90d"
    """The time that completed and cancelled jobs are kept, such as `12h` or `90d`; `0` for ever."""
    keep_failed: str = "365d"
    """The time that failed jobs are kept."""

    allow_host: tuple[str, ...] = ()
    """Names of this server in URLs, besides localhost and IP addresses."""
    cors_origin: tuple[str, ...] = ()
    """Origins of web pages of other sites that may use this server, such as `https://farm.example`."""
    insecure: bool = False
    """Other machines may reach this server though it has no token."""
    processes: int = 1
    """More than one share a database of PostgreSQL."""

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ServerError: a value makes no sense.
        """
        if not self.vanished_after > 0:
            raise ServerError(f"vanished_after: {self.vanished_after!r} is not a number of seconds greater than 0")
        if not (self.token or self.insecure or _is_loopback(self.host)):
            raise ServerError(
                f"{self.host}: other machines could reach this server and give work to its workers: set API_TOKEN for"
                " all of them, or say --insecure"
            )
        if self.processes > 1 and not is_postgresql(self.database):
            raise ServerError(
                "processes: an SQLite file has one server; more need PostgreSQL (--database postgresql://…)"
            )
        self.retention()

    def retention(self) -> dict[str, timedelta]:
        """Return the time that jobs are kept after their end, by their state. What is missing is kept for ever.

        Raises:
            ServerError: a time cannot be read.
        """
        keep, keep_failed = _read_time("keep", self.keep), _read_time("keep-failed", self.keep_failed)
        times = {"completed": keep, "cancelled": keep, "failed": keep_failed}
        return {state: time for state, time in times.items() if time}


def is_postgresql(database: Path | str) -> bool:
    """Return whether a database is a URL of PostgreSQL."""
    return isinstance(database, str) and database.startswith(POSTGRESQL)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_time(name: str, text: str) -> timedelta:
    number, unit = text[:-1], text[-1:]
    if text == "0":
        return timedelta()
    if not number.isdecimal() or len(number) > MAX_DIGITS or unit not in _SECONDS:
        raise ServerError(f"{name}: {text!r} is not a time such as 12h or 90d, or 0 for ever")
    return timedelta(seconds=int(number) * _SECONDS[unit])
