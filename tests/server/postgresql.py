"""A PostgreSQL of the tests' own, on a free port, in a directory of its own, as an ordinary user."""

import contextlib
import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.load.postgresql import Cluster
from tests.support.waiting import until

PASSWORD = "pass word/@:%"  # to be seen nowhere

PR_SET_CHILD_SUBREAPER = 36

# The shell ends PostgreSQL and removes its directory when its standard input is closed: at the end of the tests,
# however that comes. Nobody waits for it: tests count the children of this process.
KEEPER = """
( "$@" >"$data/log" 2>&1 </dev/null & echo $! >"$data/keeper.pid"
  read -r _; kill -QUIT "$(cat "$data/keeper.pid")"; wait; rm -rf "$(dirname "$data")" ) >/dev/null 2>&1 <&0 &
"""


class PostgreSql:
    """A running PostgreSQL, which ends with this process. `make_database` returns the URL of a new database."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="sisyphus-postgresql-"))
        self._cluster = Cluster(self._directory, PASSWORD)
        self._count = 0
        self.port = self._cluster.port
        self._input = self._start()
        until(self._cluster.is_up, "PostgreSQL to start")

    def make_database(self, port: int | None = None) -> str:
        """Make an empty database, to be reached at that port."""
        self._count += 1
        return self._cluster.make_database(f"test{self._count}", port)

    def allow_connections(self, url: str, allowed: bool) -> None:
        """Be away for a database's servers, or be there again."""
        with self._cluster.connect() as connection:
            connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} ALLOW_CONNECTIONS {allowed}")
        if not allowed:
            self.end_sessions()

    def end_sessions(self) -> None:
        """Break all connections of servers."""
        with self._cluster.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")

    def _start(self) -> int:
        ours, theirs = os.pipe()
        environ = os.environ | {"data": str(self._cluster.data)}
        with _no_subreaper():
            command = ["sh", "-c", KEEPER, "sh", *self._cluster.command]
            subprocess.run(command, stdin=ours, env=environ, cwd=self._directory, check=True)
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


@functools.cache
def postgresql() -> PostgreSql:
    """The one of this test session, started when it is first asked for."""
    return PostgreSql()
