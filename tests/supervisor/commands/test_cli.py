"""`sisyphus-client` as its users meet it: what it refuses, and in what words."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app import VERSION
from supervisor.commands.job_files import read_document, read_job_of
from supervisor.jobs.model import JobError
from tests.support.supervised import CLIENT, Supervised, job


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"tasks": [\n  {"module": }', "job.json: line 2, column 14: is not JSON: Expecting value"),
        ("", "job.json: line 1, column 1: is not JSON"),
        (b'{"job_title": "\xe4"}', "job.json: byte 15: is not JSON: not UTF-8"),
        ('{"tasks": [{"module": "benign", "data": {"x": NaN}}]}', "job.json: is not JSON: NaN is no number in JSON"),
        (
            '{"tasks": [{"module": "benign", "data": {"x": 1e999}}]}',
            "job.json: is not JSON: 1e999 is no number in JSON",
        ),
        ('{"tasks": [], "tasks": []}', "job.json: is not JSON: the key 'tasks' stands twice in one object"),
        ("[" * 100_000, "job.json: is nested too deeply"),
        ("9" * 5000, f"job.json: is not JSON: {60 * '9'}… is no number in JSON"),
        (
            '{"tasks": [{"module": "benign"}], "job_id": "a\\n\\u001b[31m"}',
            "job.json: job_id: expected letters, digits",
        ),
        ("[]", "job.json: a job is an object with the keys job_title and tasks"),
        ("{}", "job.json: tasks: the job has no tasks"),
        ('{"tasks": []}', "job.json: tasks: the job has no tasks"),
        ('{"tasks": "spam"}', "job.json: tasks: the job has no tasks"),
        ('{"tasks": [1]}', "job.json: tasks[0]: expected an object"),
        ('{"tasks": [{}]}', "job.json: tasks[0].module: a task needs the name of a module"),
        ('{"tasks": [{"module": "benign", "data": []}]}', "job.json: tasks[0].data: expected an object"),
        ('{"tasks": [{"module": "benign"}], "job_title": 5}', "job.json: job_title: the job has no title"),
        (
            '{"tasks": [{"module": "benign"}, {"module": "spam"}]}',
            "job.json: tasks[1].module: 'spam' is not enabled (enabled: benign, ffmpeg)",
        ),
    ],
)
def test_bad_job_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, complaint: str
) -> None:
    """A job that is not as it should be: one line that says where."""
    monkeypatch.chdir(tmp_path)
    Path("job.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(JobError) as refused:
        read_job_of("job.json", read_document("job.json"), ("ffmpeg", "benign"))

    assert str(refused.value).startswith(complaint)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["run", "."], ".: cannot be read: Is a directory"),
        (["run", "--config", "none.toml", "x.json"], "none.toml: cannot be read: No such file or directory"),
        (["run", "bad.json"], "bad.json: tasks: the job has no tasks (a list of at least one is needed)"),
        (["validate", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["validate", "none.json", "--config", "x"], "x: cannot be read: No such file or directory"),
        (["submit", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["modules", "--config", "none"], "none: cannot be read: No such file or directory"),
        (["config", "--config", "none"], "none: cannot be read: No such file or directory"),
        (["start", "--config", "none"], "none: cannot be read: No such file or directory"),
        (
            ["modules", "new", "bad", "--directory", "bad.json/x"],
            "{}/bad.json/x/bad.py: cannot be written: Not a directory",
        ),
    ],
)
def test_wrong_file_is_one_line(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    """A file that is not there, or is not what it should be: one line, status 2."""
    (tmp_path / "bad.json").write_text("{}")
    done = subprocess.run([CLIENT, *arguments], capture_output=True, text=True, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", complaint.format(tmp_path) + "\n")


@pytest.mark.parametrize(
    ("target", "source", "complaint"),
    [
        ("absent.Class", None, "cannot be imported: ModuleNotFoundError: No module named 'absent'"),
        ("broken.Class", "import spam", "cannot be imported: ModuleNotFoundError: No module named 'spam'"),
        ("broken.Class", "def", "cannot be imported: SyntaxError: "),
        ("broken.Class", "1/0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("broken.Class", "raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("broken.Class", "x = 1", "cannot be used: broken has no class Class"),
        ("broken.Class", "Class = 1", "cannot be used: broken has no class Class"),
    ],
)
def test_module_that_cannot_be_imported(
    supervised: Supervised, tmp_path: Path, target: str, source: str | None, complaint: str
) -> None:
    """An enabled module whose import fails is a mistake in the configuration."""
    supervised.configure(modules={"broken": target}, paths=(str(tmp_path),))
    if source is not None:
        (tmp_path / "broken.py").write_text(source)

    cause = supervised.cause(job(("broken", {})))

    assert cause.unusable
    assert cause.message.startswith(f"module 'broken' ({target}) {complaint}")


@pytest.mark.parametrize("option", ["--json", "--dry-run"])
def test_mistake_in_the_configuration_is_no_result(supervised: Supervised, option: str) -> None:
    """A module that cannot be imported is one line, status 2, and no record."""
    supervised.configure(modules={"broken": "absent.Class"})

    done = supervised.run(job(("broken", {})), option)

    assert (done.returncode, done.stdout) == (2, "")
    assert "job.json: tasks[0].module: module 'broken' (absent.Class) cannot be imported: Mod" in done.stderr
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
        "http://farm:5000", "Europe/Berlin", "encoder01", "u-1", VERSION,
        "tests.hostile.Curious", "j-1", "Awesome", 7.0,
    ]  # fmt: skip
    assert seen[9] == seen[10] != os.environ.get("TMPDIR")
    assert seen[11] is None
    assert seen[12]["job_title"] == "Awesome"
    assert seen[13:] == ["eggs", str(supervised.directory)]
    assert not os.path.exists(seen[9])


def test_version_and_help() -> None:
    """--version and --help work, as `python -m sisyphus_client` too, and a wrong option is status 2."""
    for program in ([CLIENT], [sys.executable, "-m", "sisyphus_client"]):
        done = subprocess.run([*program, "--version"], capture_output=True, text=True)
        assert done.stdout == f"sisyphus-client, version {VERSION}\n"
    assert "JOB.json" in subprocess.run([CLIENT, "run", "--help"], capture_output=True, text=True).stdout
    assert subprocess.run([CLIENT, "run", "--spam"], capture_output=True, text=True).returncode == 2


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        ("sys.platform = 'darwin'", "it needs Linux, and this is darwin"),
        ("sys.platform = 'win32'; sys.modules['resource'] = None", "it needs Linux, and this is win32"),
        (
            "sys.version_info = (3, 10, 9); sys.version = '3.10.9 (main)'",
            "it needs Python 3.11 or newer, and this is 3.10.9",
        ),
        (
            "sys.modules['click'] = None",
            "a package that it needs cannot be imported: import of click halted; None in sys.modules",
        ),
    ],
    ids=["macOS", "Windows", "an old Python", "no package"],
)
def test_elsewhere(machine: str, why: str) -> None:
    """On a machine that the client is not for, it ends with one line that says why."""
    code = f"import sys; {machine}; from supervisor.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"sisyphus-client cannot work here: {why}\n"


@pytest.mark.parametrize("command", ["start", "run job.json", "jobs", "--version"])
@pytest.mark.parametrize("package", ["app", "supervisor.launch", "click"])
def test_interrupted_early(tmp_path: Path, command: str, package: str) -> None:
    """Ctrl-C before a command is even imported ends the program without a traceback."""
    code = f"""
import os, signal, sys

class Interrupter:
    def find_spec(self, name, *_):
        if name == {package!r}:
            os.kill(os.getpid(), signal.SIGINT)

from supervisor.__main__ import main
sys.meta_path.insert(0, Interrupter())
main()
"""
    words = [sys.executable, "-c", code, *command.split()]
    environ = os.environ | {"SISYPHUS_STATE_DIR": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environ, timeout=60)

    reached = package == "app" or command != "--version"
    assert (done.returncode, done.stderr) == ((130, "\n") if reached else (0, "")), done
