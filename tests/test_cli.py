"""`sisyphus-client run` as its users meet it."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.supervised import BENIGN, CLIENT, Supervised, job, until


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
        ("[" * 100_000, "job.json: is not JSON: maximum recursion"),
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


def test_record_of_a_completed_job(supervised: Supervised) -> None:
    """--json prints the record and nothing else on standard output."""
    done = supervised.run(job(("benign", {}), ("benign", {})), "--json")
    record = json.loads(done.stdout)

    assert done.returncode == 0
    assert record.keys() == {
        "start_time", "end_time", "runtime", "worker", "worker_id", "version", "completed", "tasks",
    }  # fmt: skip
    assert record["completed"] is True
    for task in record["tasks"]:
        assert task.keys() == {"module", "result", "seconds", "cpu_seconds", "peak_memory", "attempts", "warnings"}
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


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("init", "Could not initialize task: Could not build additional pylons."),
        ("validate", "Could not validate task data: Could not build additional pylons."),
        ("run", "Failed to run task: Could not build additional pylons."),
        ("cleanup", "Failed to cleanup task: Could not build additional pylons."),
    ],
)
def test_message_names_the_step(supervised: Supervised, step: str, message: str) -> None:
    """The message for a person says which step failed, in the words the field knows."""
    assert supervised.record(job(("hostile", {"step": step, "act": "own_error"})))["message"] == message


def test_lines_where_there_is_no_terminal(supervised: Supervised) -> None:
    """Without a terminal: plain log lines marked with job, task and pid, then the table on standard output."""
    done = supervised.run(job(("hostile", {"step": "run", "act": "warn_and_leave_threads"}), job_id="j-1"))

    assert done.returncode == 0
    (printed,) = [line for line in done.stderr.splitlines() if line.endswith(" printed")]
    assert " job=j-1 task=0:hostile pid=" in printed
    assert "\x1b" not in done.stderr + done.stdout
    for word in ("task", "result", "wall time", "CPU time", "peak memory", "0:hostile", "completed"):
        assert word in done.stdout
    assert "Warning of task 0:hostile: odd" in done.stdout


def test_output_is_shown_where_it_is(supervised: Supervised, tmp_path: Path) -> None:
    """The table is followed by the files that were made, where the last task left them."""
    made, moved = tmp_path / "made file.txt", tmp_path / "done" / "moved.txt"
    document = job(
        ("benign", {"make": str(made)}), ("cleanup", {"move": [{"source": str(made), "destination": str(moved)}]})
    )

    done = supervised.run(document)

    assert done.returncode == 0, done.stderr
    assert f"Output: {moved} (4 bytes)" in done.stdout
    assert str(made) not in done.stdout


def test_colour_and_control_characters_of_a_module_are_harmless(supervised: Supervised, tmp_path: Path) -> None:
    """What a module prints cannot steer the operator's terminal."""
    (tmp_path / "rude.py").write_text(
        "from modules.base import BaseModule\nclass Rude(BaseModule):\n    def run(self):\n"
        "        print('\\x1b[2J[bold]{x}\\x07')\n"
    )
    supervised.configure(modules={"rude": "rude.Rude"}, paths=(str(tmp_path),))

    done = supervised.run(job(("rude", {})))

    assert "\\x1b[2J[bold]{x}\\x07" in done.stderr
    assert "\x1b" not in done.stderr


def test_bars_on_a_terminal(supervised: Supervised, tmp_path: Path) -> None:
    """On a terminal: a live bar per task with percent and memory, and log lines above it."""
    ours, theirs = os.openpty()
    ready = tmp_path / "ready"
    client = supervised.start(
        job(("benign", {}), ("hostile", {"step": "run", "act": "quiet", "ready": str(ready)})),
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = b""

    def saw(text: bytes) -> bool:
        nonlocal shown
        shown += os.read(ours, 1 << 16)
        return text in shown

    until(ready.exists, "the second task to run")
    until(lambda: saw(b"MB"), "the memory to be shown")
    client.send_signal(signal.SIGINT)
    until(lambda: saw(b"again to kill it"), "the interrupt to be taken")
    out, _ = client.communicate()
    os.close(ours)

    assert client.returncode == 130
    for text in (b"0:benign", b"1:hostile", b"100%", b"step run"):
        assert text in shown
    assert "cancelled by SIGINT" in out


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


@pytest.mark.parametrize("redirection", [">&- 2>&-", ">&- 2>&- <&-", "2>/dev/full", "2>&1 | head -c 1", "> /dev/full"])
def test_nobody_listens(supervised: Supervised, tmp_path: Path, redirection: str) -> None:
    """A job goes on to its end, whoever has stopped reading what is said about it."""
    made = tmp_path / "made"
    file = supervised.write_job(
        job(("benign", {"make": str(made)}), ("hostile", {"step": "run", "act": "flood_stdout"}))
    )
    command = f"{CLIENT} run --config {supervised.config} {file} {redirection}"

    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert made.exists()


def test_record_that_cannot_be_written(supervised: Supervised) -> None:
    """A record that nobody can have got is no success."""
    command = f"{CLIENT} run --json --config {supervised.config} {supervised.write_job(BENIGN)} > /dev/full"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr.endswith("the record cannot be written: No space left on device\n")


def test_title_that_is_not_unicode(supervised: Supervised) -> None:
    """A title with a lone surrogate, which no message can carry, is shown escaped and harms nothing."""
    assert supervised.record({"job_title": "a\ud800b", "tasks": [{"module": "benign"}]})["completed"]


@pytest.mark.parametrize(("name", "status"), [("SIGHUP", 129), ("SIGQUIT", 131)])
def test_lost_terminal_stops_the_job(supervised: Supervised, tmp_path: Path, name: str, status: int) -> None:
    """A terminal that goes away, or Ctrl-\\, stops the job like the first Ctrl-C."""
    ready = tmp_path / "ready"
    client = supervised.start(job(("hostile", {"step": "run", "act": "quiet", "ready": str(ready)})), "--json")
    until(ready.exists, "the module to run")

    client.send_signal(signal.Signals[name])
    out, _ = client.communicate()

    assert client.returncode == status
    assert json.loads(out)["error"]["reason"] == "cancelled"


def test_version_and_help() -> None:
    """--version and --help work, and a wrong option is status 2."""
    assert "1.4.0" in subprocess.run([CLIENT, "--version"], capture_output=True, text=True).stdout
    assert "JOB.json" in subprocess.run([CLIENT, "run", "--help"], capture_output=True, text=True).stdout
    assert subprocess.run([CLIENT, "run", "--spam"], capture_output=True, text=True).returncode == 2
