"""`sisyphus-client run`: its record and its dry run."""

import json
from pathlib import Path

from tests.support.supervised import BENIGN, Supervised, job


def test_record_of_a_completed_job(supervised: Supervised) -> None:
    """--json prints the record and nothing else on standard output."""
    done = supervised.run(job(("benign", {}), ("benign", {})), "--json")
    record = json.loads(done.stdout)

    assert done.returncode == 0
    assert record.keys() == {
        "start_time", "end_time", "runtime", "seconds", "worker", "worker_id", "version", "completed", "tasks",
    }  # fmt: skip
    assert record["completed"] is True
    for task in record["tasks"]:
        assert task.keys() == {"module", "result", "seconds", "cpu_seconds", "peak_memory", "attempts"}
        assert (task["module"], task["result"], task["attempts"]) == ("benign", "completed", 1)
        assert task["peak_memory"] > 1 << 20
    assert record["worker_id"] == supervised.record(BENIGN)["worker_id"]


def test_record_of_a_failed_job(supervised: Supervised) -> None:
    """The record names the failed task, its module, how far it was, and what was not run."""
    done = supervised.run(job(("benign", {}), ("hostile", {"step": "run", "act": "os_exit"}), ("benign", {})), "--json")
    record = json.loads(done.stdout)

    assert done.returncode == 1
    assert record["completed"] is False
    assert record["module"] == "hostile"
    assert record["message"] == "Failed to run task: the task process exited with status 7 in the middle of the step"
    assert record["error"]["task"] == 1
    assert [task["result"] for task in record["tasks"]] == ["completed", "failed", "not run"]
    assert "step run" in record["error"]["log"]
    assert "null" not in done.stdout
    assert not [value for part in (record["error"], *record["tasks"]) for value in part.values() if value in ("", [])]


def test_dry_run_runs_nothing(supervised: Supervised, tmp_path: Path) -> None:
    """--dry-run validates, prints what would be run, and runs nothing."""
    made = tmp_path / "made"

    done = supervised.run(
        job(("benign", {"make": str(made)}), ("cleanup", {"move": [{"source": str(made), "destination": "x y"}]})),
        "--dry-run",
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"# benign: no command line; it works in its own process\nmv -- {made} 'x y'\n"
    assert not made.exists()


def test_dry_run_of_a_wrong_job(supervised: Supervised) -> None:
    """--dry-run of a job that does not validate says why, status 1."""
    done = supervised.run(job(("hostile", {"step": "validate", "act": "own_error"})), "--dry-run")

    assert (done.returncode, done.stdout) == (1, "")
    assert "Could not validate task data: Could not build additional pylons." in done.stderr
