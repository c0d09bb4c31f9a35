"""What running jobs takes, the same for all of them: zygote, cgroups, scratch space, threads."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from app.config import Client, Settings
from ipc import linux
from ipc.threads import started_threads
from supervisor.isolation import cgroup
from supervisor.isolation.cgroup import Cgroups
from supervisor.isolation.limits import Limits
from supervisor.isolation.scratch import scratch_directory
from supervisor.isolation.zygote import Zygote

if TYPE_CHECKING:
    from supervisor.api.client import Session

THREADS = 4
"""For what blocks: measuring, removing directories, waiting for a lost zygote."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Made by `start_runtime`."""

    zygote: Zygote
    cgroups: Cgroups | None
    client: Client
    settings: Settings
    limits: dict[str, Limits]
    scratch: Path
    session: "LazySession"


class LazySession:
    """The session for the API, made when it is first wanted: importing `requests` takes 50 ms, which few jobs need."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None

    def __call__(self) -> "Session":
        from supervisor.api.client import Session

        self._session = self._session or Session(self._settings)
        return self._session

    def close(self) -> None:
        """Close it, if there is one."""
        if self._session:
            self._session.close()


@contextlib.asynccontextmanager
async def start_runtime(
    client: Client,
    settings: Settings,
    limits: dict[str, Limits],
    with_cgroups: bool = True,
) -> AsyncIterator[Runtime]:
    """Make this process a supervisor, finish off what a killed predecessor left, and start the zygote."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would lose exit statuses
    linux.become_subreaper()
    if survivors := linux.kill_survivors():
        logger.warning("Killed {} processes that an earlier run had left behind", len(survivors))
    cgroups, words = cgroup.probe() if with_cgroups else (None, "no cgroups: not wanted")
    logger.debug("{}{}", words[0].upper(), words[1:])
    asyncio.get_running_loop().set_default_executor(started_threads(THREADS, "supervisor"))
    session = LazySession(settings)
    zygote = Zygote(settings)
    zygote.start()
    try:
        with scratch_directory() as scratch:
            yield Runtime(zygote, cgroups, client, settings, limits, scratch, session)
    finally:
        session.close()
        await zygote.stop()
        if cgroups:
            cgroups.close()
