"""What running jobs takes, the same for all of them: zygote, cgroups, scratch space, threads."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from app.config import Client, Settings
from supervisor import cgroup, kernel
from supervisor.cgroup import Cgroups
from supervisor.limits import Limits
from supervisor.scratch import scratch_directory
from supervisor.zygote import Zygote

THREADS = 4
"""For what blocks: measuring, removing directories, waiting for a lost zygote."""


@dataclass(frozen=True, slots=True)
class Means:
    """Made by `means`."""

    zygote: Zygote
    cgroups: Cgroups | None
    client: Client
    settings: Settings
    limits: dict[str, Limits]
    scratch: Path


@contextlib.asynccontextmanager
async def means(
    client: Client, settings: Settings, limits: dict[str, Limits], with_cgroups: bool = True
) -> AsyncIterator[Means]:
    """Make this process a supervisor, finish off what a killed predecessor left, and start the zygote."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would lose exit statuses
    kernel.become_subreaper()
    if survivors := kernel.kill_survivors():
        logger.warning("Killed {} processes that an earlier run had left behind", len(survivors))
    cgroups, words = cgroup.probe() if with_cgroups else (None, "no cgroups: not wanted")
    logger.debug("{}{}", words[0].upper(), words[1:])
    asyncio.get_running_loop().set_default_executor(_started_threads())
    zygote = Zygote(settings)
    zygote.start()
    try:
        with scratch_directory() as scratch:
            yield Means(zygote, cgroups, client, settings, limits, scratch)
    finally:
        await zygote.stop()
        if cgroups:
            cgroups.close()


def _started_threads() -> ThreadPoolExecutor:
    """Threads that are there already: during a fork bomb there may be none to be had."""
    executor = ThreadPoolExecutor(THREADS, thread_name_prefix="supervisor")
    all_started = threading.Barrier(THREADS + 1)
    for _ in range(THREADS):
        executor.submit(all_started.wait)
    all_started.wait()
    return executor
