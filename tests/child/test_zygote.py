"""The zygote's own side: what it forks, and what it leaves."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from child.zygote import PATIENCE
from tests.attacks import seize
from tests.support.processes import await_none_alive, living
from tests.support.supervised import Supervised, job
from tests.support.waiting import until


def test_nothing_survives_a_supervisor_that_had_not_read(supervised: Supervised, tmp_path: Path) -> None:
    """A supervisor killed before it has read what the zygote told it: the zygote takes that for its end, too."""
    ready = tmp_path / "ready"
    tasks = [("hostile", {"step": "run", "act": "tool", "ready": str(ready)}), ("benign", {})]
    client = supervised.start(job(*tasks))
    until(lambda: ready.exists() and ready.read_text(), "the first task to run")
    (zygote,) = psutil.Process(client.pid).children()
    (waiting,) = [task for task in zygote.children() if task.pid != int(ready.read_text())]

    client.send_signal(signal.SIGSTOP)
    waiting.kill()
    until(lambda: not waiting.is_running(), "the zygote to reap it, and to tell")
    client.kill()
    client.communicate()  # that nothing is alive is asserted after every test


def test_a_stopped_zygote_does_not_outlive_its_supervisor(supervised: Supervised) -> None:
    """A zygote that is stopped when its supervisor is killed goes on, and kills what it holds and itself."""
    client = supervised.start_at("tool")
    (zygote,) = psutil.Process(client.pid).children()

    zygote.suspend()
    client.kill()
    client.communicate()

    assert await_none_alive() == []


def test_a_leftover_that_does_not_die_holds_up_one_task(supervised: Supervised, tmp_path: Path) -> None:
    """The task that left it waits for it; those that end after this do not."""
    ready, go = tmp_path / "ready", tmp_path / "go"
    crowd = ("hostile", {"step": "run", "act": "crowd", "count": 1, "ready": str(ready), "until": str(go)})
    client = supervised.start(job(crowd, *[("benign", {})] * 3), "--json")
    until(ready.exists, "the module to run")
    (leftover,) = [process for process in living() if process.name() == "sleep"]
    seize(leftover.pid)  # it cannot be reaped now
    go.touch()
    out, _ = client.communicate()
    os.waitpid(leftover.pid, 0)

    assert json.loads(out)["completed"]
    assert sum(task["seconds"] for task in json.loads(out)["tasks"][1:]) < PATIENCE


def test_processes_say_what_they_do_and_have_sessions(supervised: Supervised) -> None:
    """Their titles name job, zygote, task and step; Ctrl-C at a terminal reaches the supervisor's session alone."""
    client = supervised.start_at("quiet")
    (zygote,) = psutil.Process(client.pid).children()
    (task,) = zygote.children()
    pids = (client.pid, zygote.pid, task.pid)
    titles = [Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode() for pid in pids]
    sessions = {os.getsid(pid) for pid in pids}
    client.send_signal(signal.SIGINT)
    client.communicate()

    assert titles == [
        "sisyphus-client: supervisor, job j-1",
        "sisyphus-client: zygote",
        "sisyphus-client: task 0 hostile, run",
    ]
    assert len(sessions) == 3


def test_shared_memory_that_is_left_is_removed(supervised: Supervised, tmp_path: Path) -> None:
    """Python's resource tracker, which outlives a task for an instant, has the time to remove its shared memory."""
    supervised.configure(modules={"forgetful": "tests.support.modules.Forgetful"})
    record = supervised.record(job(("forgetful", {"out": str(tmp_path / "name")})))

    assert record["completed"], record
    assert "warnings" not in record["tasks"][0]
    assert not Path("/dev/shm", (tmp_path / "name").read_text()).exists()


def test_what_it_lacks_is_a_line(tmp_path: Path) -> None:
    """A package that cannot be imported, as after half an upgrade, is told to a person, and not as a traceback."""
    (tmp_path / "setproctitle.py").write_text("raise ImportError('of another Python')")
    command = [sys.executable, "-P", "-m", "child", "0"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)

    why = "a package that it needs cannot be imported: of another Python"
    assert (done.returncode, done.stderr) == (1, f"the zygote cannot start: {why}\n")
