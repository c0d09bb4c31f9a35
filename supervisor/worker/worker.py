"""The worker: `sisyphus-client start`. Runs the slots, beats for each, and does what signals order.

Signals, and what they make of it (`Stage`):

    TERM, INT    the first drains, the second cancels, the third kills
    QUIT         cancels; once more, kills
    HUP          reads the configuration again before the next job
    USR1         logs a snapshot
    USR2         pauses, or resumes
"""

import asyncio
import collections
import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from loguru import logger

from app.config import VERSION, Client, ConfigError, Settings, shown_url
from supervisor.api.client import Session
from supervisor.isolation import signals
from supervisor.isolation.limits import Limits
from supervisor.isolation.runtime import Runtime, start_runtime
from supervisor.isolation.systemd import Notifier
from supervisor.worker.control import Control, DisabledFlags, Stage, WorkerContext
from supervisor.worker.heartbeat import Heartbeat
from supervisor.worker.journal import Journal, JournalError
from supervisor.worker.outbox import Outbox
from supervisor.worker.slot import Slot

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

FLUSH_TIMEOUT = 10.0
"""Seconds that the end waits for the server to take what it is owed. What it does not take, the journal keeps."""

Configuration = tuple[Client, dict[str, Limits]]


class Worker:
    """One run of the client. `read_again` reads the configuration once more; it raises `ConfigError`."""

    def __init__(
        self,
        settings: Settings,
        configuration: Configuration,
        read_again: Callable[[], Configuration],
        journal: Journal,
    ) -> None:
        self._settings = settings
        self._client, self._limits = configuration
        self._read_again = read_again
        self._journal = journal
        self._notifier = Notifier(os.environ)
        self._control = Control()
        self._killed_by: signal.Signals | None = None
        self._doing: set[asyncio.Task[None]] = set()
        self._context: WorkerContext | None = None
        self._slots: list[Slot] = []
        self._finishing: asyncio.Task[None] | None = None
        self._is_ready = False

    async def main(self) -> int:
        """Work until told to stop; returns the exit status."""
        with signals.handling(SIGNALS, self._on_signal):
            async with start_runtime(self._client, self._settings, self._limits) as runtime:
                with contextlib.closing(Session(self._settings)) as session:
                    await self._work(await self._build_context(runtime, session))
        return 128 + self._killed_by if self._killed_by else 0

    async def _build_context(self, runtime: Runtime, session: Session) -> WorkerContext:
        settings, journal = self._settings, self._journal
        workers = worker_ids(settings)
        ours = await journal.remember_workers(workers)
        outbox = Outbox(session, journal, ours, settings.network_retry_interval)
        for item in await journal.outbox_items():
            outbox.add(item)
        flags = DisabledFlags(session, settings.queue_poll_interval)
        unfinished = collections.deque(await journal.unfinished())
        in_hand = {entry.job_id for entry in unfinished}
        runtime = replace(runtime, client=self._client, limits=self._limits)  # SIGHUP may have come meanwhile
        return WorkerContext(
            session, journal, outbox, self._control, flags, runtime, settings, unfinished, in_hand, workers, ours
        )

    async def _work(self, context: WorkerContext) -> None:
        self._context = context
        hearts = [Heartbeat(context.session, self._settings, worker, self._on_accepted) for worker in context.workers]
        self._slots = [Slot(context, heart.worker_id, heart) for heart in hearts]
        self._log_start(context)
        beating = [asyncio.create_task(heart.keep_beating()) for heart in hearts]
        sending = asyncio.create_task(context.outbox.keep_sending())
        self._finishing = asyncio.create_task(self._run_slots(context))
        try:
            tasks = [self._finishing, sending, *beating]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled():
                    task.result()  # a defect of ours is not to go on in silence
        finally:
            await _cancelled([self._finishing, *beating, sending])
            with contextlib.suppress(JournalError):  # what is acknowledged will be asked for once more
                await context.journal.flush()

    async def _run_slots(self, context: WorkerContext) -> None:
        """Let all slots come to their end, and tell the server what is left to tell. Cancelled, it kills."""
        working = [asyncio.create_task(slot.work()) for slot in self._slots]
        try:
            done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            await context.outbox.flush(FLUSH_TIMEOUT)
        finally:
            await _cancelled(working)

    # --- what signals order ---

    def _on_signal(self, number: signal.Signals) -> None:
        stage = self._control.stage
        match number:
            case signal.SIGTERM | signal.SIGINT:
                self._stop(Stage(min(stage + 1, Stage.KILL)), number)
            case signal.SIGQUIT:
                self._stop(Stage.CANCEL if stage < Stage.CANCEL else Stage.KILL, number)
            case signal.SIGHUP:
                self._reload()
            case signal.SIGUSR1:
                self._do(self._log_snapshot())
            case signal.SIGUSR2 if stage >= Stage.CANCEL:
                logger.info("SIGUSR2: there is nothing to pause, the jobs are being stopped")
            case signal.SIGUSR2:
                self._pause(self._control.going.is_set())

    def _stop(self, stage: Stage, number: signal.Signals | None = None) -> None:
        if stage <= self._control.stage:
            return
        cause = number.name if number else f"SHUTDOWN_GRACE of {self._settings.shutdown_grace:g} s is over"
        logger.warning("{}: {}", cause, _WORDS[stage])
        self._notifier.tell("STOPPING=1", f"STATUS={_WORDS[stage]}")
        self._control.stage = stage
        self._control.stopping.set()
        if not self._control.going.is_set():
            self._pause(False)
        match stage:
            case Stage.DRAIN if self._settings.shutdown_grace:
                loop = asyncio.get_running_loop()
                loop.call_later(self._settings.shutdown_grace, self._stop, Stage.CANCEL)
            case Stage.CANCEL:
                for slot in self._slots:
                    slot.stop()
            case Stage.KILL:
                self._killed_by = number
                if self._finishing:
                    self._finishing.cancel()

    def _pause(self, paused: bool) -> None:
        logger.info("{}", "Paused; SIGUSR2 again to go on" if paused else "Going on after a pause")
        self._notifier.tell(f"STATUS={'paused' if paused else 'working'}")
        if paused:
            self._control.going.clear()
        else:
            self._control.going.set()
        for slot in self._slots:
            self._do(slot.pause(paused))

    def _reload(self) -> None:
        """Take the configuration as it is now, for the jobs that begin from now on; a wrong one is not taken."""
        try:
            self._client, self._limits = self._read_again()
        except ConfigError as error:
            logger.error("SIGHUP: the configuration is left as it was: {}", error)
            return
        if self._context:
            self._context.runtime = replace(self._context.runtime, client=self._client, limits=self._limits)
        logger.info("SIGHUP: read {} again; modules: {}", self._client.file, ", ".join(self._client.modules) or "none")

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """Have the loop do it, and keep it until it is done, or it could be collected half-way."""
        task = asyncio.create_task(work)
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    def _on_accepted(self) -> None:
        """The server has taken a heartbeat."""
        ready = () if self._is_ready else ("READY=1", "STATUS=working")
        self._is_ready = True
        self._notifier.tell(*ready, "WATCHDOG=1")

    # --- what it says ---

    def _log_start(self, context: WorkerContext) -> None:
        settings = self._settings
        logger.info(
            "sisyphus-client {} on {}: server {}, {}, workers {}, modules {}, state in {}",
            VERSION,
            settings.hostname,
            shown_url(settings.api_url),
            "1 slot" if len(context.workers) == 1 else f"{len(context.workers)} slots",
            ", ".join(context.workers),
            ", ".join(self._client.modules) or "none",
            settings.state_directory,
        )
        if context.outbox or context.unfinished:
            logger.info(
                "From before: {} messages for the server, {} unfinished jobs",
                len(context.outbox),
                len(context.unfinished),
            )

    async def _log_snapshot(self) -> None:
        if self._context is None:
            return
        zygote = self._context.runtime.zygote.pid
        state = self._control.stage.name.lower() if self._control.going.is_set() else "paused"
        logger.info("Snapshot: {}, {} messages in the outbox, zygote {}", state, len(self._context.outbox), zygote)
        for slot in self._slots:
            for line in await asyncio.to_thread(slot.describe):
                logger.info("Snapshot: worker {}: {}", slot.worker_id, line)


_WORDS = {
    Stage.DRAIN: "taking no more jobs, finishing those in hand; again to stop them",
    Stage.CANCEL: "stopping the jobs in hand, which go back to the queue; again to kill them",
    Stage.KILL: "killing everything; the next start goes on with the jobs",
}


def worker_ids(settings: Settings) -> tuple[str, ...]:
    """The ids of the slots' workers: the first has HOST_UUID, the others ids that follow from it."""
    first = settings.host_uuid
    others = (str(uuid.uuid5(uuid.NAMESPACE_OID, f"{first}/{n}")) for n in range(2, settings.worker_slots + 1))
    return (first, *others)


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
