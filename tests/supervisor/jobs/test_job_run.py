"""A job's way through its steps."""

import re
import resource
from pathlib import Path

import pytest

from tests.support.supervised import Supervised, job


def steps_of(log: Path) -> list[str]:
    return [line.split()[0] for line in log.read_text().splitlines()]


def test_all_are_validated_before_any_runs(supervised: Supervised, tmp_path: Path) -> None:
    """init of all tasks, then validate of all, then run and cleanup one task after the other."""
    log = str(tmp_path / "log")

    supervised.verdicts(job(*[("hostile", {"log": log})] * 3))

    assert steps_of(tmp_path / "log") == ["init"] * 3 + ["validate"] * 3 + ["run", "cleanup"] * 3


@pytest.mark.parametrize("step", ["init", "validate"])
def test_first_failure_in_task_order_decides(supervised: Supervised, tmp_path: Path, step: str) -> None:
    """However long the earlier task takes to fail, its failure is the job's, and nothing has run."""
    log = str(tmp_path / "log")
    supervised.configure({f"{step}_timeout": "500ms"})
    slow, quick = ({"step": step, "act": act, "log": log} for act in ("hold_gil", "own_error"))

    (verdict,) = supervised.verdicts(job(("hostile", {"log": log}), ("hostile", slow), ("hostile", quick)))

    assert verdict.failure is not None
    assert (verdict.failure.task, verdict.failure.cause.reason) == (1, "timeout")
    assert [run.result for run in verdict.tasks] == ["not run", "failed", "not run"]
    assert "run" not in steps_of(tmp_path / "log")


def test_failure_does_not_wait_for_later_tasks(supervised: Supervised) -> None:
    """Once an earlier task has failed, later ones are not waited for."""
    supervised.configure({"validate_timeout": "1h", "grace": "1h"})
    tasks = [("hostile", {"step": "validate", "act": act}) for act in ("own_error", "ignore_everything")]

    (verdict,) = supervised.verdicts(job(*tasks))

    assert verdict.failure is not None
    assert verdict.failure.cause.message == "Could not build additional pylons."


def test_prints_and_warnings_are_the_tasks_own(supervised: Supervised) -> None:
    """A warning goes on the record of the task that gave it; leftovers are one."""
    (verdict,) = supervised.verdicts(
        job(
            ("hostile", {"step": "run", "act": "warn_and_leave_threads"}), ("hostile", {"step": "run", "act": "daemon"})
        )
    )

    assert verdict.tasks[0].warnings == ["odd"]
    (warning,) = verdict.tasks[1].warnings  # of the shell, and of its sleep if it had got to it
    assert re.fullmatch(r"[12] of its processes were still alive after it and were killed", warning)


def test_more_tasks_than_descriptors(supervised: Supervised) -> None:
    """A usual limit of open files is enough for a hundred tasks, who still have that limit, or a little less."""
    document = job(*[("benign", {})] * 99, ("hostile", {"step": "run", "act": "tell_open_files"}))

    done = supervised.run(
        document, "--json", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 4096))
    )

    assert done.returncode == 0, done.stderr
    assert "open files: (200, 3072)" in done.stderr
