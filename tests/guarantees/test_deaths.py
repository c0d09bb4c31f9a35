"""Every death explained: one table of ends, and what the record says of each."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.supervised import BENIGN, Supervised, job
from tests.support.waiting import until


def acts(act: str, step: str = "run", **data: Any) -> tuple[str, dict[str, Any]]:
    return ("hostile", {"step": step, "act": act, **data})


def tool(script: str) -> tuple[str, dict[str, Any]]:
    return acts("run_tool", argv=["sh", "-c", script])


ONCE = {"max_attempts": 1}

DEATHS: dict[str, tuple[dict[str, Any], tuple[str, dict[str, Any]], dict[str, Any], str]] = {
    # name: (limits, task, what the error holds, what the message says)
    "tool that ignores TERM at a timeout": (
        {"run_timeout": "500ms"}, tool("trap '' TERM; while :; do sleep 1; done"),
        {"reason": "timeout", "limit": "500ms"}, "did not end within 500ms",
    ),
    "stall": (
        {"stall_timeout": "1s"}, acts("quiet"),
        {"reason": "stall", "limit": "1s"}, "did nothing for 1s",
    ),
    "progress stands still": (
        {"progress_timeout": "1s"}, acts("repeat_progress"),
        {"reason": "stall", "limit": "1s", "progress": 43}, "stayed at 43 % for 1s",
    ),
    "memory of the module": (
        {"memory": "300MB"}, acts("leak"),
        {"reason": "memory", "limit": "300MB"}, r"used \d.* of memory, over the limit of 300MB",
    ),
    "memory of a tool": (
        {"memory": "300MB"}, acts("leak_in_a_tool"),
        {"reason": "memory", "limit": "300MB"}, r"used \d.* of memory, over the limit of 300MB",
    ),
    "too many processes": (
        {"processes": 10}, acts("crowd", count=20),
        {"reason": "processes", "limit": "10"}, r"had \d+ live processes, over the limit of 10",
    ),
    "tool not found": ({}, acts("run_tool", argv=["spam-and-eggs"]), {"reason": "unfit"}, "spam-and-eggs is not"),
    "tool exits with 3": (
        {}, tool("echo why >&2; exit 3"),
        {"reason": "exit", "exit_status": 3, "stderr": ("why",)}, "status 3: why;",
    ),
    "tool exits with 255": ({}, tool("exit 255"), {"reason": "exit", "exit_status": 255}, "exited with status 255"),
    "unreadable source": (
        {}, acts("run_tool", argv=["ffmpeg", "-nostdin", "-i", "/dev/null", "-f", "null", "-"]),
        {"reason": "exit"}, "ffmpeg exited with status",
    ),
} | {
    f"task process dies of {name}": (
        {}, acts("raise_signal", number=int(signal.Signals[name])),
        {"reason": "signal", "signal": name}, f"killed by {name}|ended by {name}",
    )
    for name in ("SIGBUS", "SIGFPE", "SIGILL", "SIGTERM", "SIGXCPU", "SIGSYS")
} | {
    f"tool dies of {name}": (
        ONCE, tool(f"kill -{name[3:]} $$"), {"reason": "signal", "signal": name}, rf"sh was killed by {name} \([a-z]",
    )
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGKILL", "SIGTERM", "SIGPIPE")
}  # fmt: skip


@pytest.mark.parametrize("name", DEATHS)
def test_death_is_explained(supervised: Supervised, name: str) -> None:
    """The reason, the step, the evidence and the message are right, and the next job runs."""
    limits, task, expected, message = DEATHS[name]
    supervised.configure(limits)

    failed, after = supervised.verdicts(job(task), BENIGN)

    error = failed.info["error"]
    assert expected.items() <= error.items()
    assert re.search(message, error["message"]), error["message"]
    assert error["step"] == task[1]["step"]
    assert None not in error.values()
    assert after.failure is None


def test_kernel_out_of_memory_kill_is_told_from_ours(supervised: Supervised, tmp_path: Path) -> None:
    """A kill by the kernel for want of memory is reason `memory`, without a limit of ours, and is not tried again."""
    group = small_cgroup(300 << 20)
    if group is None:
        pytest.skip("no memory cgroup can be made here")
    try:
        for act in ("leak", "leak_in_a_tool"):
            client = supervised.start(
                job(acts(act)), "--json", preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
            )
            out, err = client.communicate()
            error = json.loads(out)["error"]

            assert client.returncode == 1, err
            assert (error["reason"], error["signal"]) == ("memory", "SIGKILL")
            assert "limit" not in error
            assert "the kernel's out-of-memory killer took it" in error["message"]
            assert json.loads(out)["tasks"][0]["attempts"] == 1
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "the cgroup to be empty")
        group.rmdir()


def small_cgroup(size: int) -> Path | None:
    """A cgroup with a memory limit, of whichever version is at hand."""
    for base, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(base) / f"sisyphus-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / limit).exists():
            (group / limit).write_text(str(size))
            return group
        group.rmdir()
    return None


@pytest.mark.parametrize("step", ["init", "validate", "run", "cleanup"])
def test_lost_zygotes_cost_nobody_a_job(supervised: Supervised, tmp_path: Path, step: str) -> None:
    """The tasks that were under way or waited begin again, the first with `resumed`; and the record says why."""
    ready, until_file, log = (tmp_path / name for name in ("ready", "until", "steps"))
    names = [{"name": name, "log": str(log)} for name in "abc"]
    names[1] |= {"at": step, "ready": str(ready), "until": str(until_file)}
    supervised.configure(modules={"noter": "tests.support.modules.Noter"})
    client = supervised.start(job(*(("noter", data) for data in names)), "--json")
    for _ in range(2):
        until(ready.exists, "the module to be in its step")
        ready.unlink()
        psutil.Process(client.pid).children()[0].kill()
    until(ready.exists, "the module to be in its step again")
    until_file.touch()
    record, done = json.loads(client.communicate()[0]), log.read_text().splitlines()

    again = step in ("run", "cleanup")
    assert record["completed"]
    assert [task["attempts"] for task in record["tasks"]] == [1, 3 if again else 1, 1]
    assert len(record["tasks"][1].get("warnings", [])) == 2 * again
    assert done.count("a run") == done.count("c run") == 1
    assert {line for line in done if "resumed" in line} == (
        {f"b {each} resumed" for each in ("init", "validate", "run", "cleanup")} if again else set()
    )


def test_a_zygote_lost_too_often_is_explained(supervised: Supervised, tmp_path: Path) -> None:
    """A task that lost its zygote once more than `max_attempts` fails, and says so."""
    ready = tmp_path / "ready"
    client = supervised.start(job(acts("quiet", ready=str(ready))), "--json")
    for _ in range(3):
        until(ready.exists, "the module to run")
        ready.unlink()
        psutil.Process(client.pid).children()[0].kill()
    out, _ = client.communicate()

    assert json.loads(out)["error"]["reason"] == "lost"
