"""A job's way through its steps."""

import json
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

    threads = "1 of its threads were still alive after it and were ended: run must wait for them"
    assert verdict.tasks[0].warnings == ["odd", threads]
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


TELLERS = {"teller": "tests.support.modules.Teller", "tidy": "tests.support.modules.TidyTeller"}


def test_later_tasks_read_results(supervised: Supervised, tmp_path: Path) -> None:
    """A task knows its job, and what each task before it came to; the results are on the record, also of one that
    failed."""
    supervised.configure(modules=TELLERS)
    seen = tmp_path / "seen"
    results = {"ssim": 0.98, "streams": [{"codec": "hevc"}]}
    document = job(
        ("teller", {"results": results}),
        ("benign", {}),
        ("teller", {"seen": str(seen), "results": {"late": "ü"}, "fail": "SSIM is too low"}),
        job_id="j-1",
    )

    (verdict,) = supervised.verdicts(document)

    assert json.loads(seen.read_text()) == [
        "j-1",
        "test",
        [["teller", "completed", "", results], ["benign", "completed", "", {}]],
    ]
    told = [task.get("results") for task in verdict.info["tasks"]]
    assert told == [results, None, {"late": "ü"}]
    assert verdict.info["message"] == "Failed to run task: SSIM is too low"


def test_a_skipped_task(supervised: Supervised, tmp_path: Path) -> None:
    """A task that finds nothing to do is neither completed nor failed. The tasks after it, which may be to delete its
    source, are skipped, too, and the job is completed."""
    supervised.configure(modules=TELLERS)
    film = tmp_path / "film.mkv"
    film.touch()
    document = job(
        ("teller", {"skip": "already HEVC", "results": {"codec": "hevc"}}), ("cleanup", {"delete": [str(film)]})
    )

    done = supervised.run(document)
    (verdict,) = supervised.verdicts(document)

    assert done.returncode == 0
    assert "Skipped task 0:teller: already HEVC\nResult of task 0:teller: codec = hevc\n" in done.stdout
    first, second = verdict.info["tasks"]
    assert (first["result"], first["reason"], first["results"]) == ("skipped", "already HEVC", {"codec": "hevc"})
    assert second == {
        "module": "cleanup",
        "result": "skipped",
        "reason": "task 0:teller was skipped: already HEVC",
    }
    assert verdict.info["completed"]
    assert film.exists()


@pytest.mark.parametrize(("module", "is_cleaned"), [("teller", False), ("tidy", True)])
def test_cleanup_of_a_skipped_task(supervised: Supervised, tmp_path: Path, module: str, is_cleaned: bool) -> None:
    """Only a module that can clean up after work that was not done has to."""
    supervised.configure(modules=TELLERS)

    (verdict,) = supervised.verdicts(job((module, {"skip": "", "cleaned": str(tmp_path / "cleaned")})))

    assert verdict.tasks[0].described() == "skipped: the module gives no reason"
    assert (tmp_path / "cleaned").exists() is is_cleaned


@pytest.mark.parametrize("step", ["init", "validate", "cleanup"])
def test_only_run_can_skip(supervised: Supervised, step: str) -> None:
    """Before it, nothing has decided; after it, the work is done."""
    cause = supervised.cause(job(("hostile", {"step": step, "act": "skip"})))

    assert cause.message == "only run can skip a task: nothing to do"


@pytest.mark.parametrize(
    "text", ["'['", "'{\"x\": NaN}'", "'{\"x\": \"' + 'x' * 100_000 + '\"}'", "'[' * 8000", "'\\x00'"]
)
def test_results_that_are_none(supervised: Supervised, text: str) -> None:
    """Whatever a task process sends as its results, the supervisor goes on."""
    task = {"step": "run", "act": "send_results", "text": text}

    bad, good = supervised.verdicts(job(("stubborn", task)), job(("benign", {})))

    assert bad.failure is not None
    assert (bad.failure.cause.reason, bad.failure.step) == ("protocol", "run")
    assert "results" not in bad.info["tasks"][0]
    assert good.failure is None


def test_a_reason_at_length(supervised: Supervised) -> None:
    """A module's reason is cut on its side, and refused where that was evaded: every task of the job may have it."""
    (bad,) = supervised.verdicts(job(("stubborn", {"step": "run", "act": "skip_at_length"}), ("benign", {})))

    assert bad.failure is not None
    assert bad.failure.cause.reason == "protocol"
