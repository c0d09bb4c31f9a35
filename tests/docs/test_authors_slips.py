"""Slips of authors of modules: what the record says of each leads to it."""

from pathlib import Path

import pytest

from app.testing import ModuleTester

pytest_plugins = ["app.testing"]

HEAD = """
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from app.exceptions import RunError
from modules import tool
from modules.base import BaseModule


class Slip(BaseModule):
    def run(self):
        """


@pytest.fixture
def run(sisyphus: ModuleTester, tmp_path: Path) -> "Runner":
    return Runner(sisyphus, tmp_path)


class Runner:
    def __init__(self, sisyphus: ModuleTester, place: Path) -> None:
        self.sisyphus, self.place = sisyphus, place
        sisyphus.enable("slip", "modules.slip.Slip", paths=[place])

    def __call__(self, code: str, *others: str) -> dict[str, object]:
        """The record of a task whose `run` is the first line of code; each other one is a member of its class."""
        (self.place / "slip.py").write_text("\n    ".join([HEAD + code, *others]) + "\n")
        record: dict[str, object] = self.sisyphus.run(("slip", {"path": "made"}))
        return record


@pytest.mark.parametrize("member", ["def find_problems(self): return 'all of it'", "tools = ('no-such-tool')"])
def test_a_text_for_a_list_of_one(run: Runner, member: str) -> None:
    """A text in the place of a list, as a tuple without its comma is, is no list of letters."""
    record = run("pass", member)

    message = "all of it" if "def" in member else "no-such-tool is not installed, or not on PATH (install no-such-tool)"
    assert record["message"] == f"Could not validate task data: {message}"


def test_a_text_for_a_list_of_problems_and_files(run: Runner) -> None:
    """The same of an error's problems, and of the files that a module tells: the record has the file."""
    record = run("open(self.task.path, 'w').close()", "def outputs(self): return self.task.path")
    failed = run("raise RunError(problems='all of it')")

    (task,) = record["tasks"]  # type: ignore[misc]
    assert [output["path"] for output in task["outputs"]] == [str(run.sisyphus.directory / "made")]
    assert failed["message"] == "Failed to run task: all of it"


def test_a_shells_line_for_a_list_of_arguments(run: Runner) -> None:
    """It is told as the module's mistake: as a program of one letter that is missing, the job went to other workers."""
    record = run("tool.run('ls -l').check()")

    assert record["error"]["reason"] == "exception"  # type: ignore[index]
    assert "takes a list of arguments, such as ['ls', '-l']" in str(record["message"])


def test_threads_that_nobody_waits_for(run: Runner) -> None:
    """A completed task has a warning if threads of it were still at work, and none if they had all done theirs."""
    record = run("threading.Thread(target=time.sleep, args=(1000,)).start()")
    daemon = "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"
    pool = run(f"{daemon}; self.pool = ThreadPoolExecutor(2); self.pool.submit(int).result()")
    busy = run("self.pool = ThreadPoolExecutor(2); self.pool.submit(time.sleep, 1000)")

    (pooled,) = pool["tasks"]  # type: ignore[misc]
    for each in (record, busy):
        (task,) = each["tasks"]  # type: ignore[misc]
        assert task["result"] == "completed"
        assert "1 of its threads were still alive after it and were ended" in task["warnings"][0]
    assert pooled["result"] == "completed"
    assert "warnings" not in pooled
