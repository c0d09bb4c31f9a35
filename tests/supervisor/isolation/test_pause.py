"""Pause and resume: everything stops, no time-out runs, and it goes on where it was."""

import hashlib
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ipc import linux
from tests.support.media import encode, make_clip
from tests.support.supervised import Supervised, job
from tests.support.waiting import pass_time, until


def states(client: "subprocess.Popen[str]") -> set[str]:
    """The states of all task processes and their tools."""
    (zygote,) = psutil.Process(client.pid).children()
    return {linux.state(process.pid) for process in zygote.children(recursive=True)} - {"Z", "X"}


def pause(client: "subprocess.Popen[str]") -> None:
    client.send_signal(signal.SIGUSR2)
    until(lambda: states(client) <= {"T", "D"}, "everything to be stopped")


def still(file: Path) -> bool:
    """Whether a file does not grow for a while, in which all that writes to it would have."""
    size = file.stat().st_size
    pass_time(0.25)
    return file.stat().st_size == size


def test_everything_stops_and_goes_on(supervised: Supervised, tmp_path: Path) -> None:
    """A tree that forks all the time is stopped, what it forks meanwhile too, and goes on when it is resumed."""
    marks, end = tmp_path / "marks", tmp_path / "end"
    client = supervised.start(
        job(("hostile", {"step": "run", "act": "tick", "ready": str(marks), "until": str(end)})), "--json"
    )
    until(lambda: marks.exists() and marks.stat().st_size > 20, "the tool to be at work")

    for _ in range(3):
        pause(client)
        assert still(marks)
        size = marks.stat().st_size
        client.send_signal(signal.SIGUSR2)
        until(lambda size=size: marks.stat().st_size > size, "the tool to go on")
    end.touch()
    out, _ = client.communicate()

    assert client.returncode == 0, out


def test_time_outs_do_not_run(supervised: Supervised) -> None:
    """Neither run_timeout nor stall_timeout counts the time spent paused; afterwards they do."""
    supervised.configure({"run_timeout": "3s", "stall_timeout": "2s"})
    client = supervised.start_at("quiet", "--json")
    pause(client)
    pass_time(3.5)
    alive = client.poll() is None
    client.send_signal(signal.SIGUSR2)
    out, _ = client.communicate()

    assert alive
    assert json.loads(out)["error"]["reason"] == "stall"


@pytest.mark.parametrize("times", [1, 2], ids=["asked", "killed"])
def test_cancel_works_while_paused(supervised: Supervised, times: int) -> None:
    """A paused job can be cancelled, and killed."""
    supervised.configure({"grace": "1h"})
    client = supervised.start_at("run_tool" if times == 1 else "ignore_everything", argv=["sleep", "1000"])
    pause(client)

    client.send_signal(signal.SIGINT)
    if times == 2:
        assert client.stderr is not None
        until(
            lambda: "again to kill it" in (client.stderr.readline() if client.stderr else ""), "the first to be taken"
        )
        client.send_signal(signal.SIGINT)
    client.communicate()

    assert client.returncode == 130


@pytest.mark.parametrize("victim", ["supervisor", "zygote"])
def test_nothing_survives_while_paused(supervised: Supervised, victim: str) -> None:
    """What is stopped does not survive the loss of its parents either."""
    client = supervised.start_at("tool")
    pause(client)
    (zygote,) = psutil.Process(client.pid).children()

    os.kill(client.pid if victim == "supervisor" else zygote.pid, signal.SIGKILL)
    if victim == "zygote":
        client.send_signal(signal.SIGINT)  # the task would begin again
    client.communicate()  # that nothing is alive is asserted after every test


def test_no_step_begins_while_paused(supervised: Supervised, tmp_path: Path) -> None:
    """A job that is paused between its steps begins none of them."""
    log, ready = tmp_path / "log", tmp_path / "ready"
    first = {"step": "init", "act": "tick", "ready": str(ready), "until": str(tmp_path / "end"), "log": str(log)}
    client = supervised.start(job(("hostile", first)))
    until(ready.exists, "the first step to be under way")
    pause(client)
    (tmp_path / "end").touch()
    paused = still(log)
    client.send_signal(signal.SIGUSR2)
    client.communicate()

    assert paused
    assert client.returncode == 0


@pytest.mark.slow
def test_paused_encode_gives_the_same_file(supervised: Supervised, tmp_path: Path) -> None:
    """An encode that was paused and resumed writes the same bytes as one that was not."""
    clip = make_clip(tmp_path / "clip.mkv", audio=False)

    def start(name: str) -> "subprocess.Popen[str]":
        reading = {"re": True, "fflags": "+bitexact"}
        return supervised.start(job(encode(clip, tmp_path / name, reading, threads=1, flags="+bitexact")))

    def encoding(client: "subprocess.Popen[str]") -> bool:
        with suppress(psutil.NoSuchProcess):  # one that looked into the source, and has ended
            return any(
                "-progress" in process.cmdline() for process in psutil.Process(client.pid).children(recursive=True)
            )
        return False

    plain = start("plain.ts")
    plain.communicate()
    paused = start("paused.ts")
    until(lambda: encoding(paused), "the encode to be under way")
    for _ in range(3):
        pause(paused)
        paused.send_signal(signal.SIGUSR2)
        until(lambda: "T" not in states(paused), "the encode to go on")
    paused.communicate()

    assert (plain.returncode, paused.returncode) == (0, 0)
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("plain.ts", "paused.ts")}
    assert len(digests) == 1
