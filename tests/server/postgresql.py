"""A PostgreSQL of the tests' own, on a free port, in a directory of its own, as an ordinary user."""

import contextlib
import ctypes
import functools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg

from tests.support.waiting import until

PASSWORD = "pass word/@:%"  # to be seen nowhere

PR_SET_CHILD_SUBREAPER = 36

# The shell ends PostgreSQL and removes its directory when its standard input is closed: at the end of the tests,
# however that comes. Nobody waits for it: tests count the children of this process.
KEEPER = """
( "$@" postgres -D "$data" >"$data/log" 2>&1 </dev/null & echo $! >"$data/keeper.pid"
  read -r _; kill -QUIT "$(cat "$data/keeper.pid")"; wait; rm -rf "$(dirname "$data")" ) >/dev/null 2>&1 <&0 &
"""

CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = '32MB'
fsync = off  # only the machine's crash would need it
"""


class PostgreSql:
    """A running PostgreSQL, which ends with this process. `make_database` returns the URL of a new database."""

    def __init__(self) -> None:
        self._as_user: list[str] = []
        self._directory = Path(tempfile.mkdtemp(prefix="sisyphus-postgresql-"))
        if os.geteuid() == 0:  # PostgreSQL refuses root
            shutil.chown(self._directory, "nobody", "nogroup")
            self._as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        self._count = 0
        self.port = _free_port()
        self._make_cluster()
        self._input = self._start()
        until(self._is_up, "PostgreSQL to start")

    def make_database(self, port: int | None = None) -> str:
        """Make an empty database, to be reached at that port."""
        self._count += 1
        name = f"test{self._count}"
        with self._connection() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://sisyphus:{quote(PASSWORD, safe='')}@127.0.0.1:{port or self.port}/{name}"

    def allow_connections(self, url: str, allowed: bool) -> None:
        """Be away for a database's servers, or be there again."""
        with self._connection() as connection:
            connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} ALLOW_CONNECTIONS {allowed}")
        if not allowed:
            self.end_sessions()

    def end_sessions(self) -> None:
        """Break all connections of servers."""
        with self._connection() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")

    def _connection(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="sisyphus", password=PASSWORD, dbname="postgres", autocommit=True
        )

    def _is_up(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self._connection():
            return True
        return False

    def _make_cluster(self) -> None:
        password = self._directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        data = self._directory / "data"
        options = ["--username=sisyphus", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8"]
        command = [*self._as_user, _program("initdb"), "--pgdata", str(data), "--no-locale", "--no-sync", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._directory)
        configuration = data / "postgresql.conf"
        configuration.write_text(configuration.read_text() + CONFIGURATION.format(port=self.port))

    def _start(self) -> int:
        ours, theirs = os.pipe()
        environ = os.environ | {"data": str(self._directory / "data")}
        postgres = [*self._as_user, "env", f"PATH={Path(_program('initdb')).parent}:{os.environ['PATH']}"]
        with _no_subreaper():
            subprocess.run(
                ["sh", "-c", KEEPER, "sh", *postgres], stdin=ours, env=environ, cwd=self._directory, check=True
            )
        os.close(ours)
        return theirs


@contextlib.contextmanager
def _no_subreaper() -> Iterator[None]:
    """Let orphans fall to somebody else."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 1)


def _program(name: str) -> str:
    """The newest of Debian's, which are not on PATH, or another one's."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    program = str(found[-1]) if found else shutil.which(name)
    assert program, "PostgreSQL is not installed: scripts/test installs it"
    return program


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@functools.cache
def postgresql() -> PostgreSql:
    """The one of this test session, started when it is first asked for."""
    return PostgreSql()
