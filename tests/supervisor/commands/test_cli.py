"""`sisyphus-client` as its users meet it: what it refuses, and in what words."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.supervised import CLIENT, Supervised, job


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"tasks": [\n  {"module": }', "job.json: line 2, column 14: is not JSON: Expecting value"),
        ("", "job.json: line 1, column 1: is not JSON"),
        ('{"tasks": [{"module": "benign", "data": {"x": NaN}}]}', "job.json: is not JSON: NaN is no number in JSON"),
        ('{"tasks": [], "tasks": []}', "job.json: is not JSON: the key 'tasks' stands twice in one object"),
        (
            '{"tasks": [{"module": "benign"}], "job_id": "a\\n\\u001b[31m"}',
            "job.json: job_id: expected letters, digits",
        ),
        ("[" * 100_000, "job.json: is not JSON: "),
        ("[]", "job.json: a job is an object with the keys job_title and tasks"),
        ("{}", "job.json: tasks: the job has no tasks"),
        ('{"tasks": []}', "job.json: tasks: the job has no tasks"),
        ('{"tasks": [1]}', "job.json: tasks[0]: expected an object"),
        ('{"tasks": [{}]}', "job.json: tasks[0].module: a task needs the name of a module"),
        ('{"tasks": [{"module": "benign", "data": []}]}', "job.json: tasks[0].data: expected an object"),
        ('{"tasks": [{"module": "benign"}], "job_title": 5}', "job.json: job_title: the job has no title"),
        (
            '{"tasks": [{"module": "benign"}, {"module": "spam"}]}',
            "job.json: tasks[1].module: 'spam' is not enabled (enabled: benign, cleanup, ffmpeg, hostile, stubborn)",
        ),
    ],
)
def test_bad_job_is_one_line(supervised: Supervised, text: str, complaint: str) -> None:
    """A job that is not as it should be: one line on stderr that says where, status 2."""
    supervised.write_job(text)

    done = subprocess.run(
        [CLIENT, "run", "--config", supervised.config, "job.json"],
        capture_output=True,
        text=True,
        cwd=supervised.directory,
    )

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(complaint)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["run", "."], ".: cannot be read: Is a directory"),
        (["run", "--config", "none.toml", "x.json"], "none.toml: cannot be read: No such file or directory"),
    ],
)
def test_missing_file_is_one_line(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    """A file that is not there, or is none: one line, status 2."""
    done = subprocess.run([CLIENT, *arguments], capture_output=True, text=True, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", complaint + "\n")


def test_job_that_is_not_utf8(supervised: Supervised) -> None:
    """A job file in another encoding is one line, status 2."""
    file = supervised.write_job("")
    file.write_bytes(b'{"job_title": "\xe4"}')

    done = subprocess.run(
        [CLIENT, "run", "--config", supervised.config, "job.json"],
        capture_output=True,
        text=True,
        cwd=supervised.directory,
    )

    assert (done.returncode, done.stderr) == (2, "job.json: byte 15: is not JSON: not UTF-8\n")


@pytest.mark.parametrize(
    ("target", "source", "complaint"),
    [
        ("absent.Class", None, "cannot be imported: ModuleNotFoundError: No module named 'absent'"),
        (
            "broken.Class",
            "import spam_and_eggs",
            "cannot be imported: ModuleNotFoundError: No module named 'spam_and_eggs'",
        ),
        ("broken.Class", "def", "cannot be imported: SyntaxError: "),
        ("broken.Class", "1/0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("broken.Class", "raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("broken.Class", "x = 1", "cannot be used: broken has no class Class"),
        ("broken.Class", "Class = 1", "cannot be used: broken has no class Class"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"], ["--dry-run"]])
def test_module_that_cannot_be_imported(
    supervised: Supervised, tmp_path: Path, target: str, source: str | None, complaint: str, options: list[str]
) -> None:
    """An enabled module whose import fails: its error on stderr, status 2, and no record."""
    supervised.configure(modules={"broken": target}, paths=(str(tmp_path),))
    if source is not None:
        (tmp_path / "broken.py").write_text(source)

    done = supervised.run({"job_title": "x", "tasks": [{"module": "broken"}]}, *options)

    assert done.returncode == 2
    assert done.stdout == ""
    assert f"job.json: tasks[0].module: module 'broken' ({target}) {complaint}" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_reach_modules(supervised: Supervised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules see the settings in Config, the job in the heartbeat, a scratch directory in TMPDIR, and no secrets."""
    supervised.configure(modules={"curious": "tests.hostile.Curious"})
    for name, value in {
        "API_URL": "http://farm:5000/", "API_TIMEZONE": "Europe/Berlin", "HOSTNAME_OVERRIDE": "encoder01",
        "HOST_UUID": "u-1", "API_TOKEN": "secret", "HEARTBEAT_INTERVAL": "7", "SPAM": "eggs",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    done = supervised.run(job(("curious", {"out": str(tmp_path / "out")}), job_id="j-1", job_title="Awesome"))
    seen: list[Any] = json.loads((tmp_path / "out").read_text())

    assert done.returncode == 0, done.stderr
    assert seen[:9] == [
        "http://farm:5000", "Europe/Berlin", "encoder01", "u-1", "1.4.0",
        "tests.hostile.Curious", "j-1", "Awesome", 7.0,
    ]  # fmt: skip
    assert seen[9] == seen[10] != os.environ.get("TMPDIR")
    assert seen[11] is None
    assert seen[12]["job_title"] == "Awesome"
    assert seen[13:] == ["eggs", str(supervised.directory)]
    assert not os.path.exists(seen[9])


def test_version_and_help() -> None:
    """--version and --help work, and a wrong option is status 2."""
    assert "1.4.0" in subprocess.run([CLIENT, "--version"], capture_output=True, text=True).stdout
    assert "JOB.json" in subprocess.run([CLIENT, "run", "--help"], capture_output=True, text=True).stdout
    assert subprocess.run([CLIENT, "run", "--spam"], capture_output=True, text=True).returncode == 2
