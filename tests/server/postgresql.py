"""A PostgreSQL of the tests' own, on a free port, in a directory of its own, as an ordinary user."""

import contextlib
import copy
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from scripts.load.postgresql import Cluster, free_port
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
        until(self._cluster.is_up, "PostgreSQL to start", 90)

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


class Crashing:
    """A PostgreSQL of one test, which can be stopped and killed. It is reached at the relay's port."""

    def __init__(self, directory: Path, cluster: Cluster | None = None) -> None:
        directory.chmod(0o755)
        self._directory = directory
        self.cluster = cluster or Cluster(directory, PASSWORD)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        until(self._is_started, "PostgreSQL to start", 90)

    def _is_started(self) -> bool:
        # It gives up at once while its port is another connection's, or memory of its killed processes is in use.
        if self._process is None or self._process.poll() is not None:
            with open(self._directory / "log", "ab") as log:
                self._process = subprocess.Popen(self.cluster.command, stderr=log, cwd=self._directory)
        return self.cluster.is_up()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes at once, as far as that is possible."""
        if self._process is None or self._process.poll() is not None:
            return
        main = psutil.Process(self._process.pid)
        main.suspend()  # it shall not see its children die
        for process in main.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        main.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def kill_backend(self) -> None:
        """Kill one process that serves a connection: PostgreSQL ends all the others then, and recovers."""
        with self.cluster.connect() as connection:
            others = "SELECT pid FROM pg_stat_activity WHERE datname LIKE 'test%' LIMIT 1"
            row = connection.execute(others).fetchone()
            assert row
            os.kill(row[0], signal.SIGKILL)

    def make_standby(self, directory: Path) -> "Crashing":
        """Copy it, and start the copy, which gets every commit before that is answered."""
        other = copy.copy(self.cluster)
        other.port, other.data = free_port(), directory / "data"
        *user, postgres, _, _ = self.cluster.command
        other.command = [*user, postgres, "-D", str(other.data)]
        shutil.chown(directory, "nobody", "nogroup") if user else None
        url = self.cluster.url("postgres")
        copying = [*user, str(Path(postgres).with_name("pg_basebackup")), "-R", "--checkpoint=fast", "--no-sync"]
        subprocess.run([*copying, "-D", str(other.data), "-d", url], check=True, cwd=directory)
        with open(other.data / "postgresql.conf", "a") as configuration:
            configuration.write(f"port = {other.port}\n")
        standby = Crashing(directory, other)
        standby.start()
        with self.cluster.connect() as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            state = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            until(lambda: connection.execute(state).fetchone(), "the standby to be in step")
        return standby

    def promote(self) -> None:
        """Make a standby the one that takes changes, which waits for no other."""
        with self.cluster.connect() as connection:
            connection.execute("SELECT pg_promote()")
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
            connection.execute("SELECT pg_reload_conf()")


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
