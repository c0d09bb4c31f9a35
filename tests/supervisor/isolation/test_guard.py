"""Limits that hold, and hangs that end."""

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.isolation.clock import Clock
from supervisor.isolation.guard import Guard
from supervisor.isolation.limits import Duration, Limits
from supervisor.isolation.sampler import Usage
from supervisor.jobs.task_state import JobObserver, TaskState
from tests.support.client import Client
from tests.support.clock import HandClock, WallClock
from tests.support.farm import Farm
from tests.support.supervised import BENIGN, Supervised, hostile, job
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("step", "act"), [("validate", "leak"), ("cleanup", "leak"), ("run", "leak_without_first_thread")]
)
def test_leak_is_ended(supervised: Supervised, step: str, act: str) -> None:
    """A tree over its memory limit is killed in any step; the record says how far over it was, and siblings stay."""
    supervised.configure({"memory": "300MiB"})

    failed, after = supervised.verdicts(job(("benign", {}), ("hostile", {"step": step, "act": act})), BENIGN)

    error = failed.info["error"]
    assert (error["reason"], error["step"], error["task"]) == ("memory", step, 1)
    assert error["limit"] == "300MiB"
    assert failed.tasks[1].peak_memory > 300 << 20
    assert error["value"].endswith("MB")
    assert failed.tasks[0].result == ("not run" if step == "validate" else "completed")
    assert after.failure is None


def test_shared_memory_counts_once(supervised: Supervised) -> None:
    """Eight processes that share 500 MB live under a limit of 1 GB, and the peak on the record says so."""
    supervised.configure({"memory": "1GB"})

    (verdict,) = supervised.verdicts(hostile("share"))

    assert verdict.failure is None, verdict.failure
    assert 500_000_000 < verdict.tasks[0].peak_memory < 1_000_000_000


def test_too_many_processes(supervised: Supervised, tmp_path: Path) -> None:
    """More live processes than allowed end the task; as many as allowed do not."""
    supervised.configure({"processes": 20})
    end = tmp_path / "end"
    counted: list[int] = []

    class Counter(JobObserver):
        def on_usage(self, run: TaskState, usage: Usage) -> None:
            counted.append(usage.processes)
            if counted.count(20) == 4:
                end.touch()

    cause = supervised.cause(hostile("crowd", count=30))
    (allowed,) = supervised.verdicts(hostile("crowd", count=19, until=str(end)), observer=Counter())

    assert (cause.reason, cause.limit) == ("processes", "20")
    assert allowed.failure is None
    assert counted.count(20) >= 4


def test_too_many_threads(supervised: Supervised) -> None:
    """A process has 128 threads on average; more end the task."""
    supervised.configure({"processes": 1})

    cause = supervised.cause(hostile("threads", count=128))

    assert cause.reason == "processes"
    assert cause.message == "it had 129 threads, over 128 for each process of the limit of 1"


def test_the_watch_goes_on_after_a_lack_of_descriptors(
    farm: Farm, client: Client, supervised: Supervised, tmp_path: Path
) -> None:
    """While a tree cannot be measured, the client says so; a limit that is exceeded then ends the task after it."""
    supervised.configure({"memory": "300MB"})
    ready, go = tmp_path / "ready", tmp_path / "go"
    job_id = farm.post(hostile("leak", ready=str(ready), until=str(go)))
    client.start()
    until(ready.exists, "the module to run")
    before = resource.prlimit(client.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(client.process.pid, resource.RLIMIT_NOFILE, (0, before[1]))
    until(lambda: any("cannot be watched" in line for line in client.log), "the worker to be in trouble")
    go.touch()
    resource.prlimit(client.process.pid, resource.RLIMIT_NOFILE, before)

    assert farm.await_verdict(job_id).info["error"]["reason"] == "memory"


def test_fork_bomb_in_a_cgroup(supervised: Supervised) -> None:
    """A fork bomb is ended, all of it, and the next job runs."""
    supervised.with_cgroups = True
    supervised.configure({"processes": 50})

    failed, after = supervised.verdicts(hostile("bomb", argv=["bomb"]), BENIGN)

    assert failed.failure is not None
    assert failed.failure.cause.reason == "processes"
    assert after.failure is None


# --- hangs ---


def test_stopped_tool_is_a_stall(supervised: Supervised) -> None:
    """A tool that does nothing at all, here because it was stopped, is a stall."""
    supervised.configure({"stall_timeout": "1500ms"})
    client = supervised.start_at("run_tool", "--json", argv=["sh", "-c", "while :; do :; done"])

    def tool() -> psutil.Process | None:
        return next((p for p in psutil.Process(client.pid).children(recursive=True) if p.name() == "sh"), None)

    until(tool, "the tool to run").suspend()
    out, _ = client.communicate()
    error = json.loads(out)["error"]

    assert (error["reason"], error["limit"], error["type"]) == ("stall", "1500ms", "RunError")
    assert "did nothing for 1500ms" in error["message"]


@pytest.mark.slow
@pytest.mark.parametrize("act", ["work_in_silence", "copy_slowly"])
def test_silent_work_is_no_stall(supervised: Supervised, act: str) -> None:
    """A module that computes or moves bytes, however slowly, and reports nothing, is let work."""
    supervised.configure({"stall_timeout": "1500ms"})

    (verdict,) = supervised.verdicts(hostile(act, seconds=4))

    assert verdict.failure is None, verdict.failure


@pytest.mark.parametrize(
    ("limit", "document"),
    [("stall_timeout", hostile("spin")), ("progress_timeout", hostile("repeat_progress", progress=99.9))],
    ids=["busy", "nearly done"],
)
def test_what_is_no_standstill_ends_at_the_run_timeout(
    supervised: Supervised, limit: str, document: dict[str, Any]
) -> None:
    """Neither a busy loop is one, nor a module at 99.9 %, which waits for the end: its prediction was too short."""
    supervised.configure({limit: "1s", "run_timeout": "3s"})
    cause = supervised.cause(document)

    assert (cause.reason, cause.limit) == ("timeout", "3s")


def test_tools_are_asked_before_they_are_killed(supervised: Supervised, tmp_path: Path) -> None:
    """At a timeout the tool gets its asking signal; that it then exits 0 does not make a success of it."""
    note = tmp_path / "note"
    supervised.configure({"run_timeout": "1s", "grace": "20s"})

    cause = supervised.cause(hostile("ask_about_term", note=str(note)))

    assert note.read_text() == "asked\n"
    assert cause.reason == "timeout"


@pytest.mark.parametrize("step", [86400.0, -86400.0], ids=["forward", "back"])
def test_wall_clock_does_not_matter(supervised: Supervised, tmp_path: Path, step: float) -> None:
    """The wall clock stepped by a day either way ends nothing early and keeps nothing alive."""
    clock, ready = WallClock(tmp_path / "clock"), tmp_path / "ready"
    supervised.configure({"run_timeout": "3s", "stall_timeout": "1h"})
    began = time.monotonic()
    client = supervised.start(hostile("tool", ready=str(ready)), "--json", env=os.environ | clock.environment)
    until(ready.exists, "the module to run")
    clock.step(step)
    out, _ = client.communicate(timeout=60)
    record = json.loads(out)

    assert record["error"]["reason"] == "timeout"
    assert time.monotonic() - began >= 3
    assert 3 <= record["seconds"] < 60


# --- the guard, without processes ---


def test_idle_polling_is_a_stall_and_a_hundredth_is_not() -> None:
    """A tree that only looks about now and then counts as doing nothing; one that uses 1 % of a processor does not."""
    for share, stalls in ((0.0005, True), (0.01, False)):
        now = HandClock()
        guard = Guard(Limits(stall_timeout=Duration(900.0, "15m")), Clock(now))
        orders = []
        for tick in range(4000):
            now.time = tick * 0.5
            # The kernel counts in hundredths.
            orders.append(guard.judge(Usage(cpu_seconds=round(now.time * share, 2)), 0, None))
        assert any(orders) is stalls


def test_paused_time_does_not_count() -> None:
    """A guard's times stand still while its clock does."""
    now = HandClock()
    clock = Clock(now)
    guard = Guard(Limits(stall_timeout=Duration(10.0, "10s")), clock)
    now.time = 9
    clock.pause()
    clock.pause()
    now.time = 1000

    assert guard.judge(Usage(), 0, None) is None
    clock.resume()
    clock.resume()
    now.time = 1000.9
    assert guard.judge(Usage(), 0, None) is None
    now.time = 1001.1
    order = guard.judge(Usage(), 0, None)
    assert order is not None
    assert order.cause.reason == "stall"


def test_any_report_is_a_sign_of_life() -> None:
    """A report puts off the stall, whatever it says."""
    now = HandClock()
    guard = Guard(Limits(stall_timeout=Duration(10.0, "10s")), Clock(now))

    for tick in range(100):
        now.time = tick * 5.0
        assert guard.judge(Usage(), tick, 43.0) is None
