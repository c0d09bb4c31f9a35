"""The guarantees: no module takes the client down, nothing survives, every death is explained."""

import json
import os
import re
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.lacking import KILLS_ZYGOTE
from tests.support.processes import await_none_alive, living, none_below
from tests.support.supervised import BENIGN, Supervised, job
from tests.support.waiting import until

STEPS = {"init": "InitializationError", "validate": "ValidationError", "run": "RunError", "cleanup": "CleanupError"}

FAILURES = {
    # act: (reason, what else the error holds; of the message, a pattern)
    "own_error": ("exception", {"message": r"Could not build additional pylons\."}),
    "fork_and_fail": ("exception", {"message": r"Could not build additional pylons\."}),
    "other_exception": ("exception", {"message": "ZeroDivisionError: not one of the four"}),
    "unprintable_exception": ("exception", {}),
    "huge_error": ("exception", {}),
    "system_exit": ("exit", {"exit_status": 7, "message": "called sys.exit"}),
    "os_exit": ("exit", {"exit_status": 7, "message": "exited with status 7"}),
    "abort": ("signal", {"signal": "SIGABRT", "message": "killed by SIGABRT"}),
    "segfault": ("signal", {"signal": "SIGSEGV", "message": "killed by SIGSEGV"}),
    "sigkill": ("signal", {"signal": "SIGKILL", "message": "killed by SIGKILL"}),
    "hold_gil": ("timeout", {"limit": "500ms", "message": "did not end within 500ms"}),
    "block_in_c": ("timeout", {"limit": "500ms"}),
    "endless_heartbeats": ("timeout", {"limit": "500ms"}),
    "endless_log": ("timeout", {"limit": "500ms"}),
    "ignore_everything": ("timeout", {"limit": "500ms"}),
    "garbage": ("protocol", {"message": "the task process "}),
    "half_frame": ("protocol", {}),
    "huge_frame": ("protocol", {}),
    "nested_frame": ("protocol", {}),
    "flood": ("protocol", {}),
    "close_queue": ("protocol", {}),
    "unasked_answer": ("protocol", {}),
    "foreign_reason": ("protocol", {}),
    "kill_zygote": (KILLS_ZYGOTE, {}),
}

HARMLESS = [
    "flood_stdout",
    "endless_line",
    "daemon",
    "huge_status",
    "warn_and_leave_threads",
    "link_for_scratch",
    "lock_scratch",
]

SHORT = {f"{step}_timeout": "500ms" for step in STEPS}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("act", FAILURES)
def test_failure_is_explained_and_contained(supervised: Supervised, step: str, act: str) -> None:
    """Whatever a module does in a step: the right error, nothing left alive, and the next job runs."""
    # Those that do not depend on a timeout get a long one, so that a slow machine does not turn one into the other.
    supervised.configure(SHORT if FAILURES[act][0] == "timeout" else {})

    failed, after = supervised.verdicts(job(("hostile", {"step": step, "act": act})), BENIGN, between=none_below)

    error = failed.info["error"]
    reason, evidence = FAILURES[act]
    assert (error["type"], error["reason"], error["step"]) == (STEPS[step], reason, step)
    assert evidence.items() - {("message", evidence.get("message"))} <= error.items()
    assert re.search(str(evidence.get("message", "")), error["message"])
    assert None not in error.values()
    assert error["module"] == "hostile"
    assert not failed.info["completed"]
    assert after.failure is None


@pytest.mark.parametrize("step", ["validate", "run", "cleanup"])
@pytest.mark.parametrize("act", ["generate", "wait"])
def test_a_step_of_which_nothing_runs_is_an_error(supervised: Supervised, step: str, act: str) -> None:
    """A step with `yield` or `async` has done nothing when it returns, and is not told as done."""
    (failed,) = supervised.verdicts(job(("hostile", {"step": step, "act": act})))

    error = failed.info["error"]
    assert (error["type"], error["reason"]) == (STEPS[step], "exception")
    assert "of which nothing has run" in error["message"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("act", HARMLESS)
def test_harmless_excess_completes(supervised: Supervised, step: str, act: str) -> None:
    """Floods of output, oversize statuses and daemons left behind harm nobody, and nothing of them is left."""
    done, after = supervised.verdicts(job(("hostile", {"step": step, "act": act})), BENIGN, between=none_below)

    assert done.failure is None
    assert after.failure is None


def test_supervisor_does_not_grow(supervised: Supervised) -> None:
    """Neither a gigabyte in one message nor a hundred megabytes of output cost the supervisor memory."""
    acts = ("huge_frame", "flood_stdout", "endless_line")
    floods = [job(("hostile", {"step": "run", "act": act, "megabytes": 100})) for act in acts]
    supervised.verdicts(floods[0])
    before = psutil.Process().memory_info().rss

    supervised.verdicts(*floods)

    assert psutil.Process().memory_info().rss - before < 16 << 20


@pytest.mark.parametrize(
    ("step", "act"), [*((step, "tool") for step in STEPS), ("run", "resign_and_hide"), ("run", "ignore_everything")]
)
@pytest.mark.parametrize("victim", ["supervisor", "zygote"])
def test_nothing_survives_a_lost_parent(
    supervised: Supervised, tmp_path: Path, step: str, act: str, victim: str
) -> None:
    """SIGKILL of the supervisor or of the zygote in any step: no task process and no tool is alive 2 s later."""
    ready = tmp_path / "ready"
    supervised.configure({"max_attempts": 1})
    client = supervised.start(job(("hostile", {"step": step, "act": act, "ready": str(ready)})), "--json")
    for _ in range(2 if victim == "zygote" else 1):  # after the first loss, the task begins again
        until(ready.exists, "the module to be in its step")
        ready.unlink()
        zygote = psutil.Process(client.pid).children()[0]
        assert len(living()) >= 3
        os.kill(client.pid if victim == "supervisor" else zygote.pid, signal.SIGKILL)
    out, _ = client.communicate()

    assert await_none_alive() == []
    if victim == "zygote":
        assert client.returncode == 1
        assert '"reason": "lost"' in out


def test_survivors_of_both_are_killed_at_the_next_start(supervised: Supervised, tmp_path: Path) -> None:
    """What outlives supervisor and zygote, killed at one instant, is found by its marker and killed by the next run."""
    ready = tmp_path / "ready"
    # It resigned from dying with its parent, so that only the marker is left to find it by.
    act = {"step": "run", "act": "resign_and_hide", "ready": str(ready)}
    client = supervised.start(job(("hostile", act)))
    until(lambda: ready.exists() and ready.read_text(), "the module to be in its step")
    (zygote,) = psutil.Process(client.pid).children()
    task_process = psutil.Process(int(ready.read_text()))
    client.send_signal(signal.SIGSTOP)
    zygote.suspend()
    client.kill()
    zygote.kill()
    # Any client on this machine that starts now may be the one that kills it. This one needs nothing more but its job.
    os.mkfifo(tmp_path / "next.json")
    following = supervised.start_on(tmp_path / "next.json")
    with (tmp_path / "next.json").open("w") as job_file:
        client.communicate()  # until its status is taken, it does not count as dead
        assert task_process.is_running()
        json.dump(BENIGN, job_file)
    _, err = following.communicate()

    assert following.returncode == 0
    assert "an earlier run had left behind" in err
    until(lambda: not task_process.is_running() or task_process.status() == psutil.STATUS_ZOMBIE, "its end", 2)
    for process in living():  # the daemon with the empty environment: nothing tells whose it was
        assert process.cmdline()[0] in ("sh", "sleep")
        process.kill()


@pytest.mark.parametrize(
    ("step", "name"),
    [*((step, "SIGINT") for step in STEPS), *(("run", name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT"))],
)
def test_interrupt_cancels(supervised: Supervised, step: str, name: str) -> None:
    """The first signal stops the job in any step; the record and the exit status say which it was."""
    client = supervised.start_at("tool", "--json", step=step)

    client.send_signal(signal.Signals[name])
    out, _ = client.communicate()
    error = json.loads(out)["error"]

    assert client.returncode == 128 + signal.Signals[name]
    assert (error["reason"], error["message"], error["step"]) == ("cancelled", f"cancelled by {name}", step)
