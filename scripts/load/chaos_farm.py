"""A farm that can be harmed: PostgreSQL, servers and workers as processes that are started again, behind proxies."""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from postgresql import Cluster, free_port

from ipc import linux

CLIENT = os.path.join(os.path.dirname(sys.executable), "sisyphus-client")

VANISHED_AFTER = 15.0
"""The servers' patience with silent workers, in seconds."""

SERVERS, WORKERS = 2, 8

# The name of the worker is in its copy: tasks do not know it.
MODULES = '''
import os
import random
import time

from app.exceptions import RunError
from modules.base import BaseModule


class Effect(BaseModule):
    """Leaves a line in the job's own file when it begins, and one when it ends."""

    def validate(self):
        pass

    def run(self):
        self.note("began")
        time.sleep(random.uniform(0, self.task["seconds"]))
        if self.task["fails"]:
            raise RunError("failed on purpose")
        self.note("ended")

    def note(self, what):
        file = os.open(self.task["file"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, f"{what} {time.time()} NAME\\n".encode())
        os.close(file)
'''

CONFIGURATION = """
[tool.client.modules]
paths = ["."]

[tool.client.modules.enabled]
ffmpeg = "modules.ffmpeg.Ffmpeg"
effect = "chaos_modules.Effect"
"""


class Program:
    """A program that is started again whenever it has ended, as systemd would do."""

    def __init__(self, kind: str, name: str, command: list[str], directory: Path, **environ: str) -> None:
        self.kind, self.name = kind, name
        self.ends: Counter[int] = Counter()
        # Whatever ends this process ends all of them.
        self._command = ["setpriv", "--pdeathsig", "KILL", *command]
        self.directory = directory
        self._environ = os.environ | environ
        self.process: subprocess.Popen[bytes] | None = None
        self._log = directory / "log"

    def read_log(self) -> bytes:
        """Return what it has logged."""
        return self._log.read_bytes() if self._log.exists() else b""

    async def keep_running(self) -> None:
        """Run it again and again."""
        while True:
            with self._log.open("ab") as log:
                self.process = subprocess.Popen(
                    self._command,
                    cwd=self.directory,
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for this process alone
                )
            while (status := self.process.poll()) is None:
                await asyncio.sleep(0.1)
            self.ends[status] += 1
            await asyncio.sleep(random.uniform(0.5, 3))

    def tree(self) -> list[psutil.Process]:
        """Return its processes, the first one first; those of tasks are not among them."""
        try:
            first = psutil.Process(self.process.pid if self.process else -1)
            return [first, *first.children()]
        except (psutil.NoSuchProcess, ValueError):  # between two runs
            return []

    async def stop_for(self, processes: list[psutil.Process], seconds: float) -> None:
        """Stop processes where they are, and let them go on."""
        _signal(processes, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            _signal(processes, signal.SIGCONT)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


class Proxy:
    """Passes connections on to `ports` in turn, leaving out those where nobody listens."""

    def __init__(self, *ports: int) -> None:
        self._ports = itertools.cycle(ports)
        self._count = len(ports)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Take no more connections."""
        if self._server:
            self._server.close()

    def cut(self) -> None:
        """Break all connections."""
        for writer in self._open:
            writer.transport.abort()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [(reader, writer)]
        for _ in range(self._count):
            with contextlib.suppress(OSError):
                ends.append(await asyncio.open_connection("127.0.0.1", next(self._ports)))
                break
        if len(ends) == 2:
            writers = {ends[0][1], ends[1][1]}
            self._open |= writers
            ways = [asyncio.create_task(_copy(ends[0][0], ends[1][1])), asyncio.create_task(_copy(ends[1][0], writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            self._open -= writers
            for way in ways:
                way.cancel()
        for _, end in ends:
            end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


class ChaosFarm:
    """All programs of the farm, and the proxies between them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "postgresql").mkdir()
        self.cluster = Cluster(directory / "postgresql", "secret")
        self.programs = [Program("PostgreSQL", "PostgreSQL", self.cluster.command, directory / "postgresql")]
        ports = [free_port() for _ in range(SERVERS)]
        self.to_servers, self.to_database = Proxy(*ports), Proxy(self.cluster.port)
        self._ports = ports
        self.url = ""

    async def start(self) -> None:
        """Start everything, and make the database."""
        keepers = [asyncio.create_task(self.programs[0].keep_running())]
        await until(self.cluster.is_up, "PostgreSQL to start")
        url = self.cluster.make_database("chaos", await self.to_database.start())
        self.url = f"http://127.0.0.1:{await self.to_servers.start()}"
        serve = [CLIENT, "serve", "--processes", "2", "--vanished-after", str(VANISHED_AFTER)]
        for number, port in enumerate(self._ports, 1):
            self._add("server", f"server{number}", [*serve, "--port", str(port)], DATABASE_URL=url)
        for number in range(1, WORKERS + 1):
            worker = self._add("worker", f"worker{number}", [CLIENT, "start", "--config", "client.toml"])
            (worker.directory / "chaos_modules.py").write_text(MODULES.replace("NAME", worker.name))
            (worker.directory / "client.toml").write_text(CONFIGURATION)
        self.tasks = keepers + [asyncio.create_task(program.keep_running()) for program in self.programs[1:]]
        await until(lambda: all(b"Serving" in server.read_log() for server in self.kind("server")), "the servers")

    def _add(self, kind: str, name: str, command: list[str], **environ: str) -> Program:
        directory = self.directory / name
        (directory / "tmp").mkdir(parents=True)
        own = {"SISYPHUS_STATE_DIR": str(directory / "state"), "TMPDIR": str(directory / "tmp")}
        own |= {"API_URL": self.url, "HOSTNAME_OVERRIDE": name, "HEARTBEAT_INTERVAL": "2", "QUEUE_POLL_INTERVAL": "1"}
        own |= {"NETWORK_RETRY_INTERVAL": "2", "LOGURU_LEVEL": "INFO"}
        self.programs.append(Program(kind, name, command, directory, **own, **environ))
        return self.programs[-1]

    def kind(self, kind: str) -> list[Program]:
        """Return the programs of a kind."""
        return [program for program in self.programs if program.kind == kind]

    def reap(self) -> None:
        """Take leave of orphans that ended: what a killed program leaves falls to this process."""
        own = {program.process.pid for program in self.programs if program.process}
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
                if child.pid not in own and child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, os.WNOHANG)


async def until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Wait for something.

    Raises:
        SystemExit: it did not happen in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:g} s for {what}")
        await asyncio.sleep(0.1)


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Kill all that was started and remains at the end."""
    linux.become_subreaper()  # orphans stay below this process
    try:
        yield
    finally:
        while children := [each for each in psutil.Process().children(recursive=True) if _is_alive(each)]:
            _signal(children, signal.SIGKILL)
            time.sleep(0.05)


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
