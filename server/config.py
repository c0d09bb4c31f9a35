"""The settings of a server."""

import math
import re
import ssl
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from server.errors import ServerError
from server.notify.targets import read_notify
from server.notify.times import read_time

POSTGRESQL = ("postgresql://", "postgres://")
"""The beginnings of a URL of PostgreSQL, in libpq's form: several hosts and all its parameters are allowed."""

ROUTES = ("data", "doc", "events", "farm", "jobs", "metrics", "queue", "status", "workers")
"""The beginnings of the server's own paths."""

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
    worker_token: str = ""
    """A token for the calls of workers alone; empty for none."""
    tls_cert: str = ""
    """A file with the certificate, in PEM, for HTTPS; empty for HTTP."""
    tls_key: str = ""
    """A file with its key, unless that is in the same file."""
    root_path: str = ""
    """The path under which a proxy shows this server, such as `/sisyphus`; the proxy takes it off."""
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

    notify: dict[str, Any] = {}
    """`[tool.server.notify]` as it stands in the file: the secrets are not in it, but where they are."""

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ServerError: a value makes no sense.
        """
        if not 0 < self.vanished_after < math.inf:
            raise ServerError(f"vanished_after: {self.vanished_after!r} is not a number of seconds greater than 0")
        if not (self.token or self.insecure or _is_loopback(self.host)):
            raise ServerError(
                f"{self.host}: other machines could reach this server and give work to its workers: set API_TOKEN for"
                " all of them, or say --insecure"
            )
        if self.worker_token and self.token in ("", self.worker_token):
            raise ServerError("WORKER_TOKEN: it needs an API_TOKEN beside it, and another one than that")
        if self.root_path and not re.fullmatch(r"(/[\w.~-]+)+", self.root_path):
            raise ServerError(f"root-path: {self.root_path!r} is not a path such as /sisyphus")
        if self.root_path.split("/")[1:2] in [[name] for name in ROUTES]:
            raise ServerError(f"root-path: {self.root_path} is a path of the server itself; take another one")
        for name in self.allow_host:
            if not re.fullmatch(r"[\w.-]+", name):
                raise ServerError(f"allow-host: {name!r} is not a name such as farm: leave out scheme, port and path")
        for origin in self.cors_origin:
            if not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ServerError(f"cors-origin: {origin!r} is not an origin such as https://farm.example: no path")
        self._check_certificate()
        if self.processes > 1 and not is_postgresql(self.database):
            raise ServerError(
                "processes: an SQLite file has one server; more need PostgreSQL (--database postgresql://…)"
            )
        self.retention()
        read_notify(self.notify)

    def _check_certificate(self) -> None:
        if self.tls_key and not self.tls_cert:
            raise ServerError("tls-key: it needs a certificate (--tls-cert)")
        if self.tls_cert:
            try:
                # The password of an encrypted key is not asked for: nobody may be there.
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.tls_cert, self.tls_key or None, password=lambda: "")
            except (OSError, ValueError) as error:
                files = self.tls_cert + (f", {self.tls_key}" if self.tls_key else "")
                raise ServerError(f"tls-cert: {files}: the certificate cannot be used: {_why(error)}") from error

    def retention(self) -> dict[str, timedelta]:
        """Return the time that jobs are kept after their end, by their state. What is missing is kept for ever.

        Raises:
            ServerError: a time cannot be read.
        """
        keep, keep_failed = read_time("keep", self.keep), read_time("keep-failed", self.keep_failed)
        times = {"completed": keep, "cancelled": keep, "failed": keep_failed}
        return {state: time for state, time in times.items() if time}


def is_postgresql(database: Path | str) -> bool:
    """Return whether a database is a URL of PostgreSQL."""
    return isinstance(database, str) and database.startswith(POSTGRESQL)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        without = "there is no certificate in PEM, or no key without a password"
        return error.reason.replace("_", " ").lower() if error.reason else without
    return getattr(error, "strerror", None) or str(error)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
