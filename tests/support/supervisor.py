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
    """Starts when it is first used; after a test that failed in the middle of its work, another one starts.

    Its zygote has the environment of the first test that used it.
    """

    def __init__(self, state: Path, with_cgroups: bool = False) -> None:
        self._state = state
        self._with_cgroups = with_cgroups
        self._stack = contextlib.ExitStack()
        self._runner: asyncio.Runner | None = None
        self._runtime: Runtime

    def run(self, main: Callable[[Runtime], Coroutine[Any, Any, Result]], client: Client) -> Result:
        """Run a coroutine with the runtime, which has this configuration."""
        runner = self._runner or self._start(client)
        try:
            return runner.run(main(replace(self._runtime, client=client, limits=load_limits(client))))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop it, if it runs."""
        self._runner = None
        self._stack.close()

    def _start(self, client: Client) -> asyncio.Runner:
        settings = load_settings(os.environ, self._state)
        runner = self._runner = self._stack.enter_context(asyncio.Runner())
        runtime = start_runtime(client, settings, load_limits(client), self._with_cgroups)
        self._runtime = runner.run(runtime.__aenter__())
        self._stack.callback(lambda: runner.run(runtime.__aexit__(None, None, None)))
        self._stack.enter_context(kept(lambda: {self._runtime.zygote.pid}))
        return runner
