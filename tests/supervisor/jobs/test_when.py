"""Tasks that run after a failure, or only after one."""

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.jobs.model import JobError, read_job
from tests.support.supervised import Supervised, job
from tests.support.waiting import until

FAILS: dict[str, Any] = {"module": "hostile", "data": {"step": "run", "act": "own_error"}}
KINDS: dict[str, dict[str, Any]] = {
    "": {"module": "benign"},
    "fails": FAILS,
    "skips": {"module": "hostile", "data": {"step": "run", "act": "skip"}},
}


def tasks(*words: str) -> dict[str, Any]:
    """A job: `fails always` is a task that fails, with its `when`; `success` alone is one that does well."""
    made = []
    for each in words:
        kind, _, when = each.rpartition(" ")
        made.append(KINDS[kind] | {"when": when})
    return {"job_title": "test", "tasks": made}


@pytest.mark.parametrize(
    ("words", "results", "failed"),
    [
        (["success", "failure", "always"], ["completed", "skipped", "completed"], None),
        (["fails success", "success", "failure", "always"], ["failed", "not run", "completed", "completed"], 0),
        (["success", "fails success", "always", "success"], ["completed", "failed", "completed", "not run"], 1),
        (["failure", "fails success", "failure"], ["skipped", "failed", "completed"], 1),
        (["fails success", "fails always", "failure"], ["failed", "failed", "completed"], 0),
        (["fails always", "fails failure", "fails success"], ["failed", "failed", "not run"], 0),
        (["success", "fails failure"], ["completed", "skipped"], None),
        (["failure"], ["skipped"], None),
        (["skips success", "success", "always", "failure"], ["skipped", "skipped", "completed", "skipped"], None),
        (["failure", "success"], ["skipped", "completed"], None),
    ],
)
def test_when(supervised: Supervised, words: list[str], results: list[str], failed: int | None) -> None:
    """Tasks run as their `when` says, in their order, and the first failure stays the job's."""
    (verdict,) = supervised.verdicts(tasks(*words))
    told = verdict.info["tasks"]

    assert [task["result"] for task in told] == results
    assert (verdict.failure and verdict.failure.task) == failed
    assert verdict.info["completed"] == (failed is None)
    assert verdict.info.get("error", {}).get("task") == failed
    assert all(
        task.get("reason") == "no task before it has failed"
        for word, task in zip(words, told, strict=True)
        if task["result"] == "skipped" and word.endswith("failure")
    )
    later = [task for index, task in enumerate(told) if task["result"] == "failed" and index != failed]
    assert all("after the failure of the job, this too: Failed to run task" in task["warnings"][0] for task in later)


@pytest.mark.parametrize("step", ["init", "validate"])
def test_nothing_runs_of_a_job_that_is_wrong(supervised: Supervised, step: str) -> None:
    """A job whose data is wrong runs nothing: what it removes after a failure may be a source."""
    document = tasks("success", "always", "failure")
    document["tasks"].insert(1, {"module": "hostile", "data": {"step": step, "act": "own_error"}})
    (verdict,) = supervised.verdicts(document)

    assert [run.result for run in verdict.tasks] == ["not run", "failed", "not run", "not run"]


def test_what_earlier_tasks_would_have_done_is_not_certain(supervised: Supervised, tmp_path: Path) -> None:
    """One task moves the source away if all went well, and another one if not: neither is wrong."""
    (tmp_path / "film").write_text("x")

    def move(to: str) -> dict[str, Any]:
        return {"move": [{"source": str(tmp_path / "film"), "destination": str(tmp_path / to / "film")}]}

    document = job(("hostile", FAILS["data"]), ("cleanup", move("done")), ("cleanup", move("failed")))
    document["tasks"][2]["when"] = "failure"
    document["tasks"].append({"module": "cleanup", "data": {"delete": [str(tmp_path / "failed")]}})
    (verdict,) = supervised.verdicts(document)

    assert [run.result for run in verdict.tasks] == ["failed", "not run", "completed", "not run"]
    assert (tmp_path / "failed" / "film").exists()


@pytest.mark.parametrize("when", ["always", "failure"])
def test_a_job_that_is_stopped_begins_no_task(supervised: Supervised, when: str) -> None:
    """Stopped means stopped: no task runs after that, and a job that had failed before has still failed."""
    document = tasks("fails success", "always", when)
    document["tasks"][1] = {
        "module": "hostile",
        "when": "always",
        "data": {"step": "run", "act": "quiet", "ready": str(supervised.ready)},
    }
    results = []
    for held in (document, document | {"tasks": document["tasks"][1:]}):
        process = supervised.start(held, "--json")
        until(lambda: supervised.ready.exists() and supervised.ready.stat().st_size, "the module to be in its step")
        process.terminate()
        out, _ = process.communicate()
        supervised.ready.unlink()
        record = json.loads(out)
        results.append((record["error"]["reason"], [task["result"] for task in record["tasks"]]))

    assert results == [("exception", ["failed", "failed", "not run"]), ("cancelled", ["failed", "not run"])]


def test_dry_run_and_table(supervised: Supervised) -> None:
    """A dry run says when a task would run, and the table which one was skipped, and why."""
    document = tasks("success", "failure", "always")
    plan = supervised.run(document, "--dry-run").stdout.splitlines()
    table = supervised.run(document).stdout

    assert [plan[1], plan[3]] == ["# only after a failure:", "# after a failure, too:"]
    assert "skipped" in table
    assert "Skipped task 1:benign: no task before it has failed" in table


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "when",
            "allways",
            r"tasks\[0\].when: expected success, failure or always, got 'allways' \(did you mean 'always'",
        ),
        ("when", None, r"tasks\[0\].when: expected success, failure or always, got None"),
        ("when", ["always"], r"tasks\[0\].when: expected"),
        ("requires", "nvenc", r"tasks\[0\].requires: expected a list of tags"),
        ("requires", [""], r"tasks\[0\].requires: expected a list of tags"),
        ("wen", "always", r"tasks\[0\].wen: unknown key \(did you mean 'when'\?\)"),
    ],
)
@pytest.mark.parametrize("from_server", [False, True])
def test_keys_of_tasks(key: str, value: Any, words: str, from_server: bool) -> None:
    """A wrong value is an error wherever the job is from; an unknown key is a warning in one from a server."""
    document = {"job_title": "x", "tasks": [{"module": "benign", key: value}]}
    if from_server and key == "wen":
        assert "wen" in read_job(document, ["benign"], from_server=True).warnings[0]
        return
    with pytest.raises(JobError, match=words):
        read_job(document, ["benign"], from_server=from_server)
