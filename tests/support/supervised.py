"""Runs jobs as users do, through the console script, or several in one supervisor, which is then this process."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from app.config import Client, load_client, load_settings
from app.formats import toml
from ipc.messages import Cause
from supervisor.isolation.limits import load_limits
from supervisor.isolation.runtime import Runtime, start_runtime
from supervisor.isolation.zygote import Zygote
from supervisor.jobs.job_run import JobRun, Verdict
from supervisor.jobs.model import read_job
from supervisor.jobs.task_state import JobObserver
from tests.support.processes import kept
from tests.support.waiting import until

Result = TypeVar("Result")

CLIENT = str(Path(sys.executable).with_name("sisyphus-client"))

MODULES = {
    "hostile": "tests.hostile.Hostile",
    "stubborn": "tests.hostile.Stubborn",
    "benign": "tests.hostile.Benign",
    "ffmpeg": "modules.ffmpeg.Ffmpeg",
    "cleanup": "modules.cleanup.Cleanup",
}

TOOLS = {
    "mkvmerge": "modules.mkvmerge.Mkvmerge",
    "mkvextract": "modules.mkvextract.Mkvextract",
    "handbrake": "modules.handbrake.Handbrake",
}
"""The other bundled modules, for `configure`."""

BENIGN = {"job_title": "benign", "tasks": [{"module": "benign"}]}


def job(*tasks: tuple[str, dict[str, Any]] | dict[str, Any], **more: Any) -> dict[str, Any]:
    """A job's document from tasks, or pairs of a module and its data."""
    made = [task if isinstance(task, dict) else {"module": task[0], "data": task[1]} for task in tasks]
    return {"job_title": "test", "tasks": made, **more}


def without_leftovers(log: str) -> str:
    """A log without the word that a start kills what a dead client of the same user has left: other tests kill some."""
    return "".join(line for line in log.splitlines(keepends=True) if "that an earlier run had left behind" not in line)


class Supervisor:
    """A supervisor in this process, for all tests of a file: to start one takes longer than most of them do.

    It starts when it is first used. Another one starts where the environment has changed, and after a test that failed
    in the middle of its work.
    """

    def __init__(self, state: Path, with_cgroups: bool = False) -> None:
        self._state = state
        self._with_cgroups = with_cgroups
        self._stack = contextlib.ExitStack()
        self._runner: asyncio.Runner | None = None
        self._environment: dict[str, str] = {}
        self._runtime: Runtime

    def run(self, main: Callable[[Runtime], Coroutine[Any, Any, Result]], client: Client) -> Result:
        """Run a coroutine with the runtime, which has this configuration."""
        if self._environment != _environment():
            self.close()
        try:
            runner = self._runner or self._start(client)
            return runner.run(main(replace(self._runtime, client=client, limits=load_limits(client))))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop it, if it runs."""
        self._runner = None
        self._stack.close()

    def _start(self, client: Client) -> asyncio.Runner:
        self._environment = _environment()
        settings = load_settings(os.environ, self._state)
        runner = self._runner = self._stack.enter_context(asyncio.Runner())
        runtime = start_runtime(client, settings, load_limits(client), self._with_cgroups)
        self._runtime = runner.run(runtime.__aenter__())
        self._stack.callback(lambda: runner.run(runtime.__aexit__(None, None, None)))
        self._stack.enter_context(kept(lambda: {self._runtime.zygote.pid}))
        return runner


def _environment() -> dict[str, str]:
    """The environment but for what is different in each test, and means nothing to a module."""
    of_the_test = {"PYTEST_CURRENT_TEST", "SISYPHUS_STATE_DIR"}
    return {name: value for name, value in os.environ.items() if name not in of_the_test}


class Supervised:
    """A configuration file of its own, and the ways to run a job with it."""

    def __init__(self, directory: Path, supervisor: Supervisor | None = None) -> None:
        self.directory = directory
        self.config = directory / "client.toml"
        self.ready = directory / "ready"
        """Where a module says that it is in its step, with its process id."""
        self.with_cgroups = False
        self.supervisor = supervisor or Supervisor(directory / "state")
        self.launcher: list[str] = []  # put before the command
        self._started: list[subprocess.Popen[str]] = []
        self.configure()

    def configure(
        self, limits: dict[str, Any] | None = None, modules: dict[str, str] | None = None, paths: tuple[str, ...] = ()
    ) -> None:
        """Write the configuration: limits over short ones, modules besides those of the tests.

        A limit's value may be a dict: limits of the module of that name.
        """
        root = str(Path(__file__).parent.parent.parent)
        table = {"grace": "200ms"} | (limits or {})
        self.config.write_text(
            f"[tool.client.modules]\npaths = {json.dumps([root, *paths])}\n"
            "[tool.client.modules.enabled]\n"
            + "".join(f"{name} = {json.dumps(target)}\n" for name, target in (MODULES | (modules or {})).items())
            + "[tool.client.limits]\n"
            + "".join(f"{name} = {toml(value)}\n" for name, value in table.items())
        )

    def write_job(self, document: Any, name: str = "job.json") -> Path:
        """Write a job file; text goes into it as it is."""
        file = self.directory / name
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        return file

    def start(self, document: Any, *options: str, **popen: Any) -> "subprocess.Popen[str]":
        """Start the console script on a job."""
        return self.start_on(self.write_job(document), *options, **popen)

    def start_on(self, job_file: Path, *options: str, **popen: Any) -> "subprocess.Popen[str]":
        """Start the console script on a job's file."""
        return self._start(["run", "--config", str(self.config), *options, str(job_file)], **popen)

    def _start(self, words: Sequence[str], **popen: Any) -> "subprocess.Popen[str]":
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([*self.launcher, CLIENT, *words], **(pipes | {"cwd": self.directory} | popen))
        self._started.append(process)
        return process

    def _end(self, process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, without_leftovers(err or ""))

    def start_at(self, act: str, *options: str, module: str = "hostile", **data: Any) -> "subprocess.Popen[str]":
        """Start the console script on a job of one hostile task, and wait until that is in its step."""
        task = {"step": "run", "act": act, "ready": str(self.ready), **data}
        process = self.start(job((module, task), job_id="j-1"), *options)
        until(lambda: self.ready.exists() and self.ready.stat().st_size, "the module to be in its step")
        return process

    def command(self, *words: str, **popen: Any) -> "subprocess.CompletedProcess[str]":
        """Run another command of the console script to its end, with the configuration."""
        return self._end(self._start([*words, "--config", str(self.config)], **popen))

    def close(self) -> None:
        """End what a test that failed has left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()

    def run(self, document: Any, *options: str, **popen: Any) -> "subprocess.CompletedProcess[str]":
        """Run the console script on a job to its end."""
        return self._end(self.start(document, *options, **popen))

    def record(self, document: Any, *options: str) -> dict[str, Any]:
        """Run the console script on a job, and return the record that it prints."""
        done = self.run(document, "--json", *options)
        assert done.returncode in (0, 1), done.stderr
        record: dict[str, Any] = json.loads(done.stdout)
        return record

    def cause(self, document: dict[str, Any]) -> Cause:
        """Run a job that fails; returns why."""
        (verdict,) = self.verdicts(document)
        assert verdict.failure is not None
        return verdict.failure.cause

    def verdicts(
        self,
        *documents: dict[str, Any],
        between: Callable[[Zygote], None] | None = None,
        observer: JobObserver | None = None,
    ) -> list[Verdict]:
        """Run jobs one after the other in the supervisor that the tests of a file share, or, with cgroups, in one of
        their own. `between` is called after each."""
        client = load_client(str(self.config), os.environ)

        async def run(runtime: Runtime) -> list[Verdict]:
            verdicts = []
            for document in documents:
                run = JobRun(read_job(document, client.modules), runtime, observer or JobObserver())
                verdicts.append(await run.run())
                if between:
                    between(runtime.zygote)
            return verdicts

        if not self.with_cgroups:
            return self.supervisor.run(run, client)
        with contextlib.closing(Supervisor(self.directory / "state", with_cgroups=True)) as supervisor:
            return supervisor.run(run, client)


ENABLED = '[tool.client.modules.enabled]\nffmpeg = "modules.ffmpeg.Ffmpeg"\n'


def hostile(act: str, **data: Any) -> dict[str, Any]:
    return job(("hostile", {"step": "run", "act": act, **data}))
