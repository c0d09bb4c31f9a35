"""Modules that do what a test tells them to, and note or report it. The hostile ones are in `tests/hostile.py`."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

from loguru import logger

import modules.tool
from app.exceptions import RunError, Skipped
from modules.base import BaseModule


class EachStep(BaseModule):
    """Calls `do` in each of its steps."""

    def __init__(self, task: dict[str, Any]) -> None:
        super().__init__(task)
        self.do("init")

    def validate(self) -> Any:
        return self.do("validate")

    def run(self) -> Any:
        return self.do("run")

    def cleanup(self) -> Any:
        return self.do("cleanup")

    def do(self, step: str) -> Any:
        raise NotImplementedError


class Reporter(EachStep):
    """Says in each step what its task's data has for it, says when it is ready, and waits for a file."""

    def run(self) -> None:
        super().run()
        if "seen" in self.task:
            Path(self.task.seen).write_text(json.dumps([self.task.to_dict(), self.resumed]))
        if "ready" in self.task:
            Path(self.task.ready).touch()
        while "until" in self.task and not Path(self.task.until).exists():
            time.sleep(0.01)

    def do(self, step: str) -> None:
        if step in self.task:
            self.heartbeat.set_data(eval(self.task[step], {"nan": float("nan"), "inf": float("inf")}))


class Noter(EachStep):
    """Notes its steps under its name, and whether it is resumed; in the step `at`, waits for a file."""

    def do(self, step: str) -> None:
        if self.task.get("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with Path(self.task.log).open("a") as log:
            log.write(f"{self.task.name} {step}{' resumed' * self.resumed}\n")
        if self.task.get("at") == step:
            Path(self.task.ready).touch()
            while not Path(self.task.until).exists():
                time.sleep(0.01)


class Waiter(EachStep):
    """Notes its steps, and in the step `at` runs a tool until there is a file. If it is `deaf`, asking is no use."""

    cleanup_on_failure = True

    tool = """
        trap 'echo tool asked >> "$3"; exit 1' TERM
        [ -z "$4" ] || trap '' TERM
        touch "$1"
        until [ -e "$2" ]; do sleep 0.02; done
    """

    def run(self) -> None:
        self.heartbeat.set_data({"status": "in_progress", "task": "waiter", "progress": 43.1})
        super().run()

    def do(self, step: str) -> None:
        with Path(self.task.log).open("a") as log:
            log.write(f"{step}\n")
        if self.task.get("at") != step:
            return
        argv = ["sh", "-c", self.tool, "sh", self.task.ready, self.task.until, self.task.log, "deaf" * self.task.deaf]
        if self.task.deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.run(argv, check=True)
        else:
            modules.tool.run(argv).check()


class Forgetful(BaseModule):
    """Makes shared memory, says its name, and leaves it behind."""

    def run(self) -> None:
        memory = shared_memory.SharedMemory(create=True, size=1 << 20)
        Path(self.task.out).write_text(memory.name)


class Sharing(BaseModule):
    """Uses the two parts of `multiprocessing` that make a socket in TMPDIR."""

    def run(self) -> None:
        with multiprocessing.Manager() as manager:
            assert list(manager.list([1])) == [1]
        process = multiprocessing.get_context("forkserver").Process(target=len, args=("spam",))
        process.start()
        process.join()
        assert process.exitcode == 0


class Picky(BaseModule):
    """Needs the tools that TOOLBOX names, and one that nobody has if it names none."""

    tools = tuple(os.environ.get("TOOLBOX", "").split()) or ("no-such-tool",)

    def run(self) -> None:
        self.set_start_time()


class Teller(BaseModule):
    """Has the results of its data, writes down what it knows of its job, and skips or fails its task if told so."""

    def run(self) -> None:
        self.results.update(self.task.get("results", {}))
        if "seen" in self.task:
            tasks = [[each.module, each.result, each.reason, dict(each.results)] for each in self.job.tasks]
            Path(self.task.seen).write_text(json.dumps([self.job.id, self.job.title, tasks]))
        if "skip" in self.task:
            raise Skipped(self.task.skip)
        if "fail" in self.task:
            raise RunError(message=self.task.fail)

    def cleanup(self) -> None:
        if "cleaned" in self.task:
            Path(self.task.cleaned).touch()


class TidyTeller(Teller):
    """Wants its cleanup also when the work was not done."""

    cleanup_on_failure = True


class Leaky(BaseModule):
    """Says its settings wherever a module can say something."""

    cleanup_on_failure = True

    def run(self) -> None:
        text = f"<{self.settings.to_dict()}>"
        logger.info("logged {}", text)
        print("printed", text, flush=True)
        os.write(2, f"written {text}\n".encode())
        self.warn(f"warned {text}")
        self.results["token"] = self.settings.token
        self.report(50, {"phase": f"told {text}"})
        raise RunError(message=f"failed {text}", stderr=[f"stderr {text}"], problems=[text, text])

    def plan(self) -> list[str]:
        return [f"curl -H 'Authorization: {self.settings.token}'"]

    def cleanup(self) -> None:
        raise Skipped(f"skipped {self.settings}")


class Peeker(BaseModule):
    """Looks for others' secrets."""

    def run(self) -> None:
        self.results["settings"] = self.settings.to_dict()
        self.results["environment"] = [name for name in os.environ if name.startswith("MODULE_")]


class Asynchronous(BaseModule):
    """Logs from a coroutine, to a sink that is one, and keeps what came, what box makes of YAML, and what was there."""

    def run(self) -> None:
        self.results["before"] = sorted({"asyncio", "yaml"} & sys.modules.keys())
        self.results["yaml"] = [type(self.task).from_yaml("codec: x264").to_dict(), self.task.to_yaml()]
        import asyncio

        lines: list[str] = []

        async def sink(line: str) -> None:
            lines.append(line.rstrip("\n"))

        async def log() -> None:
            logger.add(sink, format="{message}")
            logger.info("from a coroutine")
            await logger.complete()

        asyncio.run(log())
        self.results["lines"] = lines
