"""Runs jobs, and looks at what they did to the files in their directory."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisor.jobs.model import JobError
from tests.cases.checks import Result
from tests.cases.media import Media
from tests.cases.tasks import job, strings
from tests.support.api_server import Api
from tests.support.supervised import CLIENT, Supervised, Supervisor
from tests.support.waiting import until

PATIENCE = 60
"""Seconds after which a short job counts as hanging."""


def snapshot(directory: Path) -> dict[str, str]:
    """Hashes of all files below a directory, and the targets of links, by relative name."""
    found = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha1(path.read_bytes()).hexdigest()
    return found


def empty(directory: Path) -> None:
    """Remove all that is in a directory."""
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


class Client:
    """Runs jobs in a directory, and puts the media there that they name. It has files of its own beside that."""

    def __init__(self, home: Path, work: Path, media: Media, supervisor: Supervisor) -> None:
        self.home = home
        self.work = work
        self._media = media
        self._supervised = Supervised(home, supervisor)
        self.configure()

    def configure(self, **limits: str) -> None:
        """Set limits over the defaults."""
        modules = ("ffmpeg.Ffmpeg", "handbrake.Handbrake", "mkvmerge.Mkvmerge", "mkvextract.Mkvextract")
        lines = [f'{each.split(".")[0]} = "modules.{each}"' for each in (*modules, "cleanup.Cleanup")]
        lines = ["[tool.client.modules.enabled]", *lines, "[tool.client.limits]"]
        lines += [f'{name} = "{value}"' for name, value in limits.items()]
        self._supervised.config.write_text("\n".join(lines))

    def put(self, *names: str, directory: str = "") -> None:
        """Put media into the directory, or into one below it, unless they are there."""
        target = self.work / directory
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not os.path.lexists(target / name):
                self._media.put(name, target)

    def shell(self, script: str) -> None:
        """Prepare the directory with a shell's commands."""
        subprocess.run(["sh", "-ec", script], cwd=self.work, check=True)

    def provide(self, document: Any) -> None:
        """Put the media that a document names into the directory."""
        for text in strings(document):
            if self._media.knows(text):
                self.put(text)

    def write(self, document: Any) -> Path:
        """Write a job's file, beside the directory."""
        file = self.home / "job.json"
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        return file

    def command(self, name: str, *options: str, prefix: Sequence[str] = (), **popen: Any) -> "subprocess.Popen[str]":
        """Start a command of the program."""
        configured = [] if name == "submit" else ["--config", str(self._supervised.config)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*prefix, CLIENT, name, *configured, *options], **(pipes | {"cwd": self.work} | popen))

    def call(self, name: str, *options: str, **popen: Any) -> tuple[int, str, str]:
        """Run a command of the program to its end: status, standard output, standard error."""
        with self.command(name, *options, **popen) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, out, err

    def run(self, *tasks: Any, by_program: bool = False, **popen: Any) -> Result:
        """Run a job, a document or its tasks, to its end.

        It runs in the supervisor that the tests of a file share, unless it is to be by the program, or there are
        options for that: the program takes several times as long to start as most of these jobs.
        """
        document = tasks[0] if "tasks" in tasks[0] else job(*tasks)
        self.provide(document)
        before = snapshot(self.work)
        if by_program or popen:
            status, out, err = self.call("run", "--json", str(self.write(document)), **popen)
        else:
            status, out, err = self._run_here(document)
        assert status in (0, 1, 2), err
        after = snapshot(self.work)
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        return Result(self.work, status, json.loads(out) if status != 2 else {}, err, changed)

    def _run_here(self, document: Any) -> tuple[int, bytes, str]:
        """Status, record and message as the program has them."""
        try:
            (verdict,) = self._supervised.verdicts(json.loads(json.dumps(document)))
        except JobError as error:
            return 2, b"", str(error)
        if verdict.failure and (verdict.failure.cause.unusable or verdict.failure.cause.trouble):
            return 2, b"", verdict.failure.cause.message
        return int(verdict.failure is not None), msgspec.json.encode(verdict.info), ""


@contextlib.contextmanager
def namespace(client: Client, script: str) -> Iterator[list[str]]:
    """Make a mount namespace and mounts with a shell script; yields the command prefix that enters the namespace."""
    options = ["--mount"] if os.geteuid() == 0 else ["--map-root-user", "--mount"]
    command = ["unshare", *options, "sh", "-ec", f"{script}\necho ready\nexec cat"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=client.work, **pipes) as holder:
        try:
            if holder.stdout.readline() != "ready\n":
                why = holder.communicate()[1].strip()
                assert "not permitted" in why or "denied" in why, why
                pytest.skip(f"the kernel allows no mount here: {why}")
            user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
            there = ["env", f"--chdir={client.work}"]  # by its path, which may lead into a mount
            yield ["nsenter", f"--target={holder.pid}", "--mount", *user, *there]
        finally:
            holder.kill()


def odd(directory: str, *options: str) -> str:
    """The script of a namespace that covers a directory with `odd_fs`."""
    return f"exec {sys.executable} {Path(__file__).with_name('odd_fs.py')} {directory} {' '.join(options)}"


@contextlib.contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` every few milliseconds, until the block ends or the file is gone."""
    over = threading.Event()

    def repeat() -> None:
        with contextlib.suppress(FileNotFoundError):
            while not over.wait(0.003):
                act()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


TS_PADDING = b"\x47\x1f\xff\x10" + bytes(184)
VOID = b"\xec\x84\0\0\0\0"
"""Padding that MPEG-TS and Matroska readers skip."""


def append(path: Path, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(data)


class Services:
    """The program's own API server, and workers and submitters, each in a process."""

    def __init__(self, client: Client, api: Api) -> None:
        self.client = client
        self._api = api
        self._started: list[subprocess.Popen[str]] = []

    def start_worker(self, prefix: Sequence[str] = (), **environ: str) -> "subprocess.Popen[str]":
        """Start a worker. All share a state directory, so that a second one resumes the job of a killed first one."""
        intervals = dict.fromkeys(("QUEUE_POLL_INTERVAL", "HEARTBEAT_INTERVAL", "NETWORK_RETRY_INTERVAL"), "0.2")
        return self._start("start", prefix=prefix, **{"API_URL": self._api.url} | intervals | environ)

    def submit(self, document: Any, *options: str, **environ: str) -> "subprocess.Popen[str]":
        """Start `submit`."""
        self.client.provide(document)
        return self._start("submit", *options, str(self.client.write(document)), **{"API_URL": self._api.url} | environ)

    def post(self, document: Any) -> str:
        """Put a job into the queue and return its id."""
        self.client.provide(document)
        return str(self.call("POST", "/queue", document)["job_id"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the server; returns the decoded answer, or `None` for a status of 400 or more."""
        answer = self._api(method, path, body)
        return answer.json() if answer.ok and answer.content else None

    def verdict(self, job_id: str) -> Result:
        """Wait until a job has ended, and return its record."""
        found = until(lambda: self.call("GET", f"/jobs/{job_id}/completed"), f"the end of {job_id}", 60)
        return Result(self.client.work, int(found["failed"]), found["info"], "")

    def working(self) -> list[dict[str, Any]]:
        """The last heartbeats of the workers that have a job."""
        return [each for each in self.call("GET", "/workers")["workers"] if each.get("job_id")]

    def log(self, process: "subprocess.Popen[str]") -> str:
        """The standard error of a process so far."""
        return (self.client.home / f"{self._started.index(process)}.err").read_text()

    def output(self, process: "subprocess.Popen[str]") -> str:
        """The standard output of a process so far."""
        return (self.client.home / f"{self._started.index(process)}.out").read_text()

    def close(self) -> None:
        """Stop all processes."""
        for process in reversed(self._started):
            for number in (signal.SIGQUIT, signal.SIGQUIT):
                if process.poll() is None:
                    process.send_signal(number)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, name: str, *options: str, prefix: Sequence[str] = (), **environ: str) -> "subprocess.Popen[str]":
        stem = self.client.home / str(len(self._started))
        with open(f"{stem}.out", "w") as out, open(f"{stem}.err", "w") as err:
            pipes = {"stdout": out, "stderr": err, "env": os.environ | environ}
            process = self.client.command(name, *options, prefix=prefix, **pipes)
        self._started.append(process)
        return process
