"""Cgroups, where they can be made; and what is said where they cannot."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from ipc import ownership
from ipc.messages import StepName
from supervisor.isolation.cgroup import PREFIX, SUPERVISOR, Cgroup, Cgroups, probe
from supervisor.jobs.task_state import JobObserver, TaskState
from tests.support.supervised import BENIGN, Supervised, job


@pytest.fixture
def cgroups() -> Cgroups:
    """The cgroups of this process."""
    found, words = probe()
    if found is None:
        pytest.skip(words)
    return found


def test_kill(cgroups: Cgroups) -> None:
    """What is in a task's cgroup is killed as one, sessions and forks of its own among it."""
    cgroup = cgroups.make(1)
    assert cgroup is not None
    ready = "(setsid sleep 1000 &) ; sleep 1000 & echo ready; read line; sleep 1000"
    with subprocess.Popen(
        ["sh", "-c", "read line; " + ready], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        cgroup.add(process.pid)
        process.stdin.write(b"go\n")
        process.stdin.flush()
        process.stdout.readline()
        cgroup.kill()
    cgroup.await_empty()
    empty = not cgroup._event("cgroup.events", "populated")
    cgroup.remove()
    cgroups.close()

    assert empty
    assert process.returncode == -9


def test_limits_of_the_kernel(cgroups: Cgroups) -> None:
    """memory.max and pids.max are set where those controllers are there."""
    cgroup = cgroups.make(1)
    assert cgroup is not None
    cgroup.limit(1 << 30, 10)
    found = {
        name: (cgroup._path / name).read_text().strip()
        for name in ("memory.max", "pids.max")
        if (cgroup._path / name).exists()
    }
    cgroup.remove()
    cgroups.close()
    if not cgroups.controllers:
        pytest.skip("there is no memory or pids controller in version 2 here")

    assert found == {
        name: value
        for name, value in {"memory.max": str(1 << 30), "pids.max": "1280"}.items()
        if name.split(".")[0] in cgroups.controllers
    }


def test_jobs_run_in_cgroups_and_leave_none(supervised: Supervised, cgroups: Cgroups) -> None:
    """A client with cgroups completes and fails jobs like one without, and removes its cgroups."""
    cgroups.close()
    supervised.with_cgroups = True
    acts = ("daemon", "hold_gil", "quiet")
    supervised.configure({"run_timeout": "1s"})

    class KillsZygote(JobObserver):
        def on_step_started(self, run: TaskState, step: StepName) -> None:
            if step == "run" and run.task.data and run.task.data.get("act") == "quiet":
                psutil.Process().children()[0].kill()

    jobs = [BENIGN, *(job(("hostile", {"step": "run", "act": act})) for act in acts), BENIGN]
    verdicts = supervised.verdicts(*jobs, observer=KillsZygote())

    reasons = [verdict.failure and verdict.failure.cause.reason for verdict in verdicts]
    assert reasons == [None, None, "timeout", "lost", None]
    assert not list(cgroups._base.parent.glob(f"{PREFIX}*-{os.getpid()}-*"))


def test_cgroups_of_a_killed_client_are_removed(supervised: Supervised, cgroups: Cgroups) -> None:
    """What a client killed with SIGKILL left is killed and removed by the next one."""
    cgroups.close()
    client = supervised.start_at("tool")
    left = list(cgroups._base.parent.glob(f"{PREFIX}*-{client.pid}-*"))  # while it lives, no other client removes them
    client.kill()
    client.communicate()
    again, _ = probe()
    assert again is not None
    again.close()

    assert left
    assert not left[0].exists()


FOREIGN = ["web-server", "supervisor", "1-1-1", f"{os.getpid()}-1-4026530000", "{dead}-web-server", "{elsewhere}"]
"""Ends of names: of other programs', of older clients', nearly ours, and of a dead client in other namespaces."""


def test_cgroups_of_others_are_left_alone(cgroups: Cgroups) -> None:
    """A cgroup is ours by its whole name; else it keeps its processes, whatever its name looks like."""
    own = cgroups._base.parent
    cgroups.close()
    with subprocess.Popen(["true"]) as process:
        dead = ownership.marker(process.pid)
    elsewhere = dead.replace(str(os.stat("/proc/self/ns/pid").st_ino), "4026530000")
    paths = [own / f"{PREFIX}{name.format(dead=dead, elsewhere=elsewhere)}" for name in FOREIGN]
    paths += [own / "sisyphus-web-server", own / f"x{PREFIX}{dead}"]
    ours = own / f"{PREFIX}{dead}"
    running = []
    for path in (*paths, ours / "task-1", ours / SUPERVISOR):
        path.mkdir(parents=True)
        running.append(subprocess.Popen(["sleep", "1000"]))
        Cgroup(path).add(running[-1].pid)
    found, words = probe()
    assert found is not None, words
    found.close()
    alive = [process.poll() is None for process in running]
    for process in running:
        process.kill()
        process.wait()
    there = [path.exists() for path in (*paths, ours / "task-1", ours)]
    for path in (*paths, ours):
        Cgroup(path).remove()

    assert alive == [True] * len(paths) + [False, True]  # in the last, a client that the dead one had started
    assert there == [True] * len(paths) + [False, True]


def test_a_cgroup_that_is_only_called_so(cgroups: Cgroups) -> None:
    """A client that somebody has put into a cgroup `supervisor` stays below it."""
    base = cgroups._base.parent / "somebody" / SUPERVISOR
    cgroups.close()
    base.mkdir(parents=True)
    found, words = probe(base)
    if found:
        found.close()
    Cgroup(base.parent).remove()

    assert found is not None, words
    assert found._base.parent == base


@pytest.mark.parametrize("what", ["read-only", "not mounted"])
def test_without_cgroups(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are none, that is said in one line, and is no error."""
    if what == "not mounted":
        monkeypatch.setattr("supervisor.isolation.cgroup._own_path", lambda: None)
        found, words = probe()
    else:
        found, words = probe(tmp_path / "nowhere")

    assert found is None
    assert words.startswith("no cgroups: ")
    assert "\n" not in words


def test_the_log_says_which(supervised: Supervised) -> None:
    """One log line at the start says what there is."""
    done = supervised.run(BENIGN, env=os.environ | {"LOGURU_LEVEL": "DEBUG"})

    assert len([line for line in done.stderr.splitlines() if "cgroup" in line]) == 1
