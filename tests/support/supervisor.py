"""A supervisor in the test's own process, for all tests of a file: starting one takes longer than most of them do."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from app.config import Client, load_settings
from supervisor.isolation.limits import load_limits
from supervisor.isolation.runtime import Runtime, start_runtime
from tests.support.processes import kept

Result = TypeVar("Result")


class Supervisor:
    """Starts when it is first used.

    Another one starts where the environment has changed, and after a test that failed in the middle of its work.
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
