"""A PostgreSQL of one's own: in a directory of its own, on a free port of loopback, as an ordinary user.

The tests use it, too.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

PATIENCE = 60.0
"""Seconds for it to start."""

CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = '32MB'
fsync = off  # only the machine's crash would need it
"""


class Cluster:
    """The data of a PostgreSQL. It runs while somebody runs `command`."""

    def __init__(self, directory: Path, password: str) -> None:
        """Make the data in `directory`, which every user can reach."""
        self.port = free_port()
        self.data = directory / "data"
        self._password = password
        as_user = []
        if os.geteuid() == 0:  # PostgreSQL refuses root
            shutil.chown(directory, "nobody", "nogroup")
            as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        self.command = [*as_user, _program("postgres"), "-D", str(self.data)]
        secret = directory / "password"
        secret.write_text(password)
        secret.chmod(0o644)
        options = ["--username=sisyphus", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8"]
        command = [*as_user, _program("initdb"), "--pgdata", str(self.data), "--no-locale", "--no-sync", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=directory)
        configuration = self.data / "postgresql.conf"
        configuration.write_text(configuration.read_text() + CONFIGURATION.format(port=self.port))

    def connect(self, database: str = "postgres") -> "psycopg.Connection[Any]":
        """Return a new connection, which commits each statement."""
        known = {"host": "127.0.0.1", "port": self.port, "user": "sisyphus", "password": self._password}
        return psycopg.connect(**known, dbname=database, autocommit=True)

    def is_up(self) -> bool:
        """Return whether it takes connections."""
        with contextlib.suppress(psycopg.OperationalError), self.connect():
            return True
        return False

    def make_database(self, name: str, port: int | None = None) -> str:
        """Make an empty database; returns its URL, at another port if there is a proxy."""
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name, port)

    def url(self, name: str, port: int | None = None) -> str:
        """Return the URL of a database."""
        return f"postgresql://sisyphus:{quote(self._password, safe='')}@127.0.0.1:{port or self.port}/{name}"


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    """Run a new one, in a directory that is not there yet."""
    directory.mkdir(parents=True)
    cluster = Cluster(directory, "secret")
    with open(directory / "log", "wb") as log, subprocess.Popen(cluster.command, stderr=log, cwd=directory) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not cluster.is_up():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"PostgreSQL does not start: {(directory / 'log').read_text()}")
                time.sleep(0.05)
            yield cluster
        finally:
            process.send_signal(signal.SIGQUIT)  # at once


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _program(name: str) -> str:
    """The newest of Debian's, which are not on PATH, or another one's."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    program = str(found[-1]) if found else shutil.which(name)
    assert program, "PostgreSQL is not installed: scripts/test installs it"
    return program
