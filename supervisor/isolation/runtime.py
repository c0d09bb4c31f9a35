"""Runtime shared by all jobs: zygote, cgroups, scratch space and threads."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from app.config import Client, Settings
from ipc import linux, ownership
from ipc.threads import Threads
from supervisor.isolation import cgroup, landlock
from supervisor.isolation.cgroup import Cgroups
from supervisor.isolation.limits import Limits
from supervisor.isolation.scratch import Scratch
from supervisor.isolation.zygote import Zygote
from supervisor.launch import take_early

THREADS, READY = 4, 2
"""Threads for calls that block: measuring a process tree, removing directories, waiting for a lost zygote."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Made by `start_runtime`. `limits` are those of each enabled module."""

    zygote: Zygote
    cgroups: Cgroups | None
    client: Client
    settings: Settings
    limits: dict[str, Limits]
    scratch: Scratch
    jobs: Path
    """Holds a directory for each job, if its tasks make it. A worker's outlive its crash, as its jobs do."""


@contextlib.asynccontextmanager
async def start_runtime(
    client: Client,
    settings: Settings,
    limits: dict[str, Limits],
    with_cgroups: bool = True,
    jobs: Path | None = None,
) -> AsyncIterator[Runtime]:
    """Make this process a supervisor, kill processes left over from one that was killed, and start the zygote.

    Without `jobs`, the jobs' directories are scratch directories, too.
    """
    ownership.require_own_proc()
    linux.become_subreaper()
    linux.set_dumpable(False)
    if survivors := ownership.kill_survivors():
        logger.warning("Killed {} processes that an earlier run had left behind", len(survivors))
    launched = take_early()
    pid = launched.process.pid if launched else 0
    cgroups, words = cgroup.probe(zygote=pid) if with_cgroups else (None, "no cgroups: not wanted")
    logger.debug("{}{}", words[0].upper(), words[1:])
    if lacking := landlock.find_lacking():
        logger.debug("{}", lacking)
    asyncio.get_running_loop().set_default_executor(Threads(THREADS, "supervisor", READY))
    zygote = Zygote(settings, launched)
    zygote.start()
    try:
        with contextlib.closing(Scratch()) as scratch:
            yield Runtime(zygote, cgroups, client, settings, limits, scratch, jobs or scratch.directory)
    finally:
        await zygote.stop()
        if cgroups:
            cgroups.close()
