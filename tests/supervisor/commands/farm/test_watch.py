"""`watch`: each media file is submitted once, when it is whole, whatever happens meanwhile."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervisor.commands.farm.conftest import Operator
from tests.support.api_server import Process, connected
from tests.support.disks import fill, mounted
from tests.support.supervised import job
from tests.support.waiting import until

REPLACE = {"copy": [{"source": "{path}", "destination": "{dir}/out/{stem}.mp4"}]}


class Watcher:
    """`watch` on a directory; its jobs wait for a worker that there is not, unless `runs`."""

    def __init__(self, operator: Operator, directory: Path) -> None:
        self.operator, self.directory, self.log = operator, directory / "in", directory / "log"
        self.directory.mkdir()
        self.template = operator.write("watch.json", job(("cleanup", REPLACE), job_title=f"{directory.name} {{stem}}"))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, runs: bool = False) -> None:
        """Start it, and wait until it watches."""
        needs = () if runs else ("--requires", "gpu")
        words = ("watch", str(self.directory), "--template", str(self.template), "--settle", "0.5", *needs, *options)
        with self.log.open("wb") as log:
            self.process = self.operator.start(*words, stderr=log)
        until(lambda: "Watching" in self.log.read_text(), "it to watch")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it; returns the status."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(60)

    def submitted(self) -> list[str]:
        """The files whose jobs the server has, sorted."""
        listed = self.operator.api("GET", f"/jobs?limit=1000&q={self.directory.parent.name}").json()["jobs"]
        return sorted(each["job_title"].split(" ", 1)[1] for each in listed)

    def until_submitted(self, *stems: str) -> None:
        """Wait until exactly these have jobs."""
        until(lambda: self.submitted() == sorted(stems), f"{stems}; there are {self.submitted()}", 60)


@pytest.fixture
def watcher(operator: Operator, tmp_path: Path) -> Iterator[Watcher]:
    """A watcher that is not started."""
    watcher = Watcher(operator, tmp_path)
    yield watcher
    if watcher.process and watcher.process.poll() is None:
        watcher.stop(signal.SIGKILL)
    print(watcher.log.read_text() if watcher.log.exists() else "")  # seen where a test fails


@pytest.mark.parametrize("options", [[], ["--poll"]], ids=["events", "polling"])
def test_once_each(watcher: Watcher, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are there, renamed into place, in directories that come, or still open; and none of them twice."""
    (watcher.directory / "there.mkv").write_text("x")
    (watcher.directory / "there.txt").write_text("x")
    (watcher.directory / ".hidden.mkv").write_text("x")
    (watcher.directory / "skipped.mkv").write_text("x")
    watcher.start("--exclude", "skip*", *options)
    writer = (watcher.directory / "open.mkv").open("w")
    writer.write("x")
    writer.flush()
    (tmp_path / "dir" / "deep").mkdir(parents=True)
    (tmp_path / "dir" / "deep" / "inside.MKV").write_text("x")
    (tmp_path / "dir").rename(watcher.directory / "dir")
    (tmp_path / "part").write_text("x")
    (tmp_path / "part").rename(watcher.directory / "renamed.mp4")

    watcher.until_submitted("there", "inside", "renamed")
    writer.close()
    watcher.until_submitted("there", "inside", "renamed", "open")
    (watcher.directory / "there.mkv").rename(watcher.directory / "elsewhere.mkv")
    assert watcher.stop() == 0
    watcher.start("--exclude", "skip*", *options)
    (watcher.directory / "last.mkv").write_text("x")

    watcher.until_submitted("there", "inside", "renamed", "open", "last")
    assert watcher.stop(signal.SIGINT) == 0


def test_hard_names_and_refusals(watcher: Watcher) -> None:
    """A name that is not UTF-8 does not end it, and a job that the server refuses, as told once, holds up no other."""
    watcher.start("--priority", "9999999999")

    for name, word in (("a.mkv", "a.mkv"), ("b\udcff.mkv", "b\\udcff.mkv"), ("c.mkv", "c.mkv")):
        (watcher.directory / name).write_text("x")
        until(lambda word=word: word in watcher.log.read_text(), f"a word about {word}", 60)
    assert watcher.log.read_text().count("refuses its job: status 400: priority") == 3
    assert watcher.stop() == 0


def test_own_outputs(watcher: Watcher) -> None:
    """What its jobs write is not taken for a new file, below the directory or in the place of the source."""
    task = job(
        ("cleanup", REPLACE),
        ("cleanup", {"copy": [{"source": "/etc/hostname", "destination": "{path}"}]}),
        job_title=f"{watcher.directory.parent.name} {{stem}}",
    )
    watcher.operator.write("watch.json", task)
    (watcher.directory / "film.mkv").write_text("a film")
    watcher.start(runs=True)
    until(lambda: (watcher.directory / "film.mkv").read_bytes() == Path("/etc/hostname").read_bytes(), "the copies", 60)
    (watcher.directory / "next.mkv").write_text("x")

    watcher.until_submitted("film", "next")
    (watcher.directory / "film.mkv").write_text("another film of that name")
    watcher.until_submitted("film", "film", "next")
    assert watcher.stop() == 0
    assert (watcher.directory / "out" / "film.mp4").exists()


def test_kills_and_a_lost_server(watcher: Watcher, tmp_path: Path) -> None:
    """While the server is away it waits; killed at any instant, it submits each file once all the same."""
    server = Process(tmp_path, tmp_path / "server.sqlite3")
    with connected(server.start()) as api:
        watcher.operator = Operator(watcher.operator.directory, api)
        server.kill()
        (watcher.directory / "0.mkv").write_text("x")
        watcher.start()
        until(lambda: "takes no job; trying again: Connection refused" in watcher.log.read_text(), "a word about it")
        server.start()
        watcher.until_submitted("0")
        for number in range(1, 6):
            for each in range(10):
                (watcher.directory / f"{number}{each}.mkv").write_text("x")
            until(lambda number=number: len(watcher.submitted()) > 10 * (number - 1) + 1, "the first of them")
            watcher.stop(signal.SIGKILL)
            watcher.start()
        watcher.until_submitted("0", *map(str, range(10, 60)))
        assert watcher.stop() == 0
        server.kill()


def test_a_full_disk(watcher: Watcher, tmp_path: Path) -> None:
    """It ends where it cannot write down what it submits, and says where; with room, each file has one job."""
    state = tmp_path / "state"
    watcher.operator = Operator(watcher.operator.directory, watcher.operator.api)
    watcher.operator.environ["SISYPHUS_STATE_DIR"] = str(state)
    with mounted(state, "8m"):
        watcher.start()
        assert watcher.process
        filler = fill(state)
        names = [f"{number}{200 * 'x'}" for number in range(9)]
        for name in names:
            (watcher.directory / f"{name}.mkv").write_text("x")

        assert watcher.process.wait(60) == 2
        last = watcher.log.read_text().splitlines()[-1]
        assert last.startswith(f"{state}/watch-"), last
        assert last.endswith(": what was submitted cannot be written down: database or disk is full")
        filler.unlink()
        watcher.start()
        watcher.until_submitted(*names)
        assert watcher.stop() == 0


def test_refused(watcher: Watcher) -> None:
    """A template that is no job, a directory that is none, and one that is watched already: a line, and status 2."""
    watcher.start()
    bad = watcher.operator.write("bad.json", {"tasks": []})

    twice = watcher.operator("watch", str(watcher.directory), "--template", str(watcher.template))
    no_job = watcher.operator("watch", str(watcher.directory), "--template", str(bad))
    nowhere = watcher.operator("watch", "/none", "--template", str(watcher.template))

    assert (twice.returncode, twice.stderr) == (2, f"{watcher.directory}: another process watches it already\n")
    assert (no_job.returncode, no_job.stderr) == (
        2,
        f"{bad}: tasks: the job has no tasks (a list of at least one is needed)\n",
    )
    assert (nowhere.returncode, nowhere.stderr) == (2, "/none: is no directory\n")
    assert watcher.stop() == 0
