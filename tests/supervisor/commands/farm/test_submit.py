"""`submit`: jobs from files, directories and templates; all of them, or none."""

import json
import signal
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from tests.supervisor.commands.farm.conftest import GOOD, Operator
from tests.support.supervised import job
from tests.support.waiting import until

COPY = job(("cleanup", {"copy": [{"source": "{path}", "destination": "{dir}/{stem}.done"}]}), job_title="copy {stem}")


def submitted(operator: Operator, stdout: str) -> list[dict[str, Any]]:
    """The jobs whose ids were printed."""
    return [operator.api("GET", f"/jobs/{job_id}/record").json() for job_id in stdout.split()]


def test_files(operator: Operator) -> None:
    """Files, a directory's *.json and standard input are submitted in their order, with changes, priority and tags."""
    inside = operator.directory / "jobs"
    inside.mkdir()
    for name in ("b", "a"):
        operator.write(f"jobs/{name}.json", GOOD | {"job_title": name})
    last = operator.write("last.json", GOOD | {"job_title": "last"})
    options = ["--set", "tasks[0].data.x.y=[1]", "--set", "job_title=1 title", "--priority", "4", "--requires", "gpu"]

    done = operator("submit", "jobs", str(last), "-", input=json.dumps(GOOD))
    changed = operator("submit", "-", *options, input=json.dumps(GOOD))
    titles = [each["job_title"] for each in submitted(operator, done.stdout)]
    (found,) = submitted(operator, changed.stdout)

    assert titles == ["a", "b", "last", "a good one"]
    assert (found["job_title"], found["priority"], found["requires"]) == ("1 title", 4, ["gpu"])
    assert found["tasks"][0]["data"] == {"x": {"y": [1]}}


def test_template(operator: Operator, tmp_path: Path) -> None:
    """A template is submitted for each file, whatever its name, with its path, directory and stem; --wait waits."""
    names = ["a.mkv", "b {path} %s.mkv", "sub/c'd\\\"e.mkv"]
    (tmp_path / "sub").mkdir()
    for name in names:
        (tmp_path / name).write_text("x")
    template = operator.write("template.json", COPY)

    done = operator("submit", "--template", str(template), "--each", f"{tmp_path}/**/*.mkv", "--wait")

    assert done.returncode == 0, done.stderr
    assert all((tmp_path / name).with_suffix(".done").exists() for name in names)
    assert {f"copy {Path(name).stem}" for name in names} <= set(done.stdout.splitlines())


def test_ids_are_told_after_an_interrupt(operator: Operator) -> None:
    """Whoever stops waiting still learns which jobs are in the queue, but for one that was just being submitted."""
    job = str(operator.write("waiting.json", GOOD | {"job_title": "for nobody"}))
    submit = operator.start("submit", "--json", "--wait", "--requires", "none has this", job, job, stdout=PIPE)
    first, _ = until(lambda: len(ids := queued(operator)) == 2 and ids, "the jobs to be in the queue")

    submit.send_signal(signal.SIGINT)
    told, _ = submit.communicate()

    assert submit.returncode == 130
    assert json.loads(told)[0] == {"job_id": first}
    operator("cancel", *queued(operator))


def queued(operator: Operator) -> list[str]:
    """The ids of the jobs that wait for a worker that there is not."""
    jobs = operator.api("GET", "/queue").json()["queue"]
    return [each["job_id"] for each in jobs if each["job_title"] == "for nobody"]


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        ("good.json bad.json", 2, "bad.json: tasks: the job has no tasks"),
        ("good.json none.json", 2, "none.json: cannot be read"),
        ("empty", 2, "empty: has no *.json"),
        ("good.json --set tasks[9].x=1", 2, "--set tasks[9].x: the job has no such place"),
        ("good.json --set [0]=1", 2, "--set [0]: the job has no such place"),
        ("good.json --set tasks[0]..data=1", 2, "--set tasks[0]..data: the job has no such place"),
        ("good.json --set tasks[0].data[0]=1", 2, "--set tasks[0].data[0]: the job has no such place"),
        ("good.json --set tasks", 2, "--set tasks: expected PATH=VALUE"),
        ("--template good.json --each *.none", 1, "No file matches *.none."),
        ("--template good.json", 2, "name job files, or a template with --template and its files with --each"),
        ("", 2, "name job files"),
    ],
)
def test_refused(operator: Operator, words: str, status: int, complaint: str) -> None:
    """What is wrong is told in a sentence, and then no job is submitted."""
    operator.write("good.json", GOOD)
    operator.write("bad.json", {"tasks": []})
    (operator.directory / "empty").mkdir(exist_ok=True)

    done = operator("submit", *words.split())

    assert (done.returncode, done.stdout) == (status, "")
    assert complaint in done.stderr
