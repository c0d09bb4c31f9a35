"""The worker: `sisyphus-client start`. It runs the slots, sends their heartbeats, and obeys signals.

Signals, and their effect (`Stage`):

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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from loguru import logger

from app.config import VERSION, Client, ConfigError, Settings, shown_url
from app.hours import WorkHours
from app.installed import path_warnings
from supervisor.api.client import Session
from supervisor.isolation import landlock, scratch, signals
from supervisor.isolation.limits import Limits
from supervisor.isolation.runtime import Runtime, start_runtime
from supervisor.isolation.systemd import Notifier
from supervisor.jobs.record import now
from supervisor.worker.control import Control, DisabledFlags, PollTurn, Stage, WorkerContext
from supervisor.worker.heartbeat import WorkerHeartbeat
from supervisor.worker.job_logs import JobLogs
from supervisor.worker.journal import Journal, JournalError
from supervisor.worker.metrics import WorkerMetrics
from supervisor.worker.outbox import Outbox
from supervisor.worker.slot import Slot
from supervisor.worker.trouble import Trouble

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

HOURS_LOOK = 1.0
"""Seconds between two looks at the clock for WORK_HOURS: it may be set, and the machine may sleep."""

FLUSH_TIMEOUT = 10.0
"""Seconds for sending the outbox at the end. The journal keeps the rest for the next start."""

Configuration = tuple[Client, dict[str, Limits]]


class Worker:
    """One run of the client. `read_again` reads the configuration anew; it raises `ConfigError`."""

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
        self._logs = JobLogs(Path(settings.state_directory, "logs"))
        self._notifier = Notifier(os.environ)
        self._hours = WorkHours(settings.work_hours)
        self._control = Control()
        self._control.pauses_when_closed = settings.work_hours_pause
        self._context: WorkerContext | None = None
        self._heartbeats: list[WorkerHeartbeat] = []
        self._slots: list[Slot] = []
        self._slots_running: asyncio.Task[None] | None = None
        self._killed_by: signal.Signals | None = None

    async def main(self) -> int:
        """Work until told to stop; returns the exit status."""
        with self._logs.collecting(self._settings.log_level), signals.handling(SIGNALS, self._on_signal):
            jobs = Path(self._settings.state_directory, "jobs")
            async with (
                WorkerMetrics(lambda: self._context, self._slots).serving(self._settings.metrics_port),
                start_runtime(self._client, self._settings, self._limits, jobs=jobs) as runtime,
            ):
                with contextlib.closing(Session(self._settings)) as session:
                    context = self._context = await self._build_context(runtime, session)
                    self._look_at_clock()
                    self._make_slots(context)
                    self._log_start(context)
                    await self._work(context)
        return 128 + self._killed_by if self._killed_by else 0

    async def _build_context(self, runtime: Runtime, session: Session) -> WorkerContext:
        settings, journal = self._settings, self._journal
        workers = worker_ids(settings)
        ours = await journal.remember_workers(workers)
        trouble = Trouble(self._glance, self._examine, settings.network_retry_interval)
        outbox, log_outbox = (
            Outbox(session, journal, self._logs, ours, settings.network_retry_interval) for _ in range(2)
        )
        for item in await journal.outbox_items():
            (log_outbox if item.kind == "log" else outbox).add(item)
        flags = DisabledFlags(session, settings.queue_poll_interval)
        unfinished = collections.deque(await journal.unfinished())
        in_hand = {job.job_id for job in unfinished}
        for directory in runtime.jobs.glob("job-*"):
            if directory.name.removeprefix("job-") not in in_hand:
                scratch.remove(directory)
        runtime = replace(runtime, client=self._client, limits=self._limits)  # a SIGHUP may have come meanwhile
        return WorkerContext(
            session=session,
            journal=journal,
            outbox=outbox,
            log_outbox=log_outbox,
            results=collections.Counter(),
            control=self._control,
            flags=flags,
            trouble=trouble,
            turn=PollTurn(),
            runtime=runtime,
            settings=settings,
            unfinished=unfinished,
            in_hand=in_hand,
            workers=workers,
            ours=ours,
        )

    async def _glance(self) -> None:
        if self._context:
            # At once: each takes a thread, and a slot asks between two jobs.
            await asyncio.gather(self._journal.check(), asyncio.to_thread(self._context.runtime.scratch.check))

    async def _examine(self) -> None:
        """Try all that a job needs of this worker."""
        if self._context:
            await self._journal.probe()
            await asyncio.to_thread(self._context.runtime.scratch.check)
            await self._context.runtime.zygote.check()

    def _make_slots(self, context: WorkerContext) -> None:
        for worker_id in context.workers:
            heartbeat = WorkerHeartbeat(context.session, self._settings, worker_id, context.trouble)
            self._heartbeats.append(heartbeat)
            self._slots.append(Slot(context, worker_id, heartbeat))

    async def _work(self, context: WorkerContext) -> None:
        """Run the slots to their end; heartbeats and the outbox go on until then."""
        beating = [asyncio.create_task(heartbeat.keep_beating()) for heartbeat in self._heartbeats]
        sending = [context.outbox.keep_sending(), context.log_outbox.keep_sending()]
        others = [*sending, context.trouble.keep_looking()]
        if self._settings.work_hours:
            others.append(self._keep_hours())
        if self._notifier.is_wanted:
            others.append(self._tell_systemd(context))
        self._slots_running = asyncio.create_task(self._run_slots(context))
        tasks = [self._slots_running, *beating, *map(asyncio.create_task, others)]
        try:
            await _first_to_end(tasks, asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(tasks)
            with contextlib.suppress(JournalError):  # then the next start asks the server about acknowledged items
                await context.journal.flush()

    async def _run_slots(self, context: WorkerContext) -> None:
        """Run all slots to their end, then send what is in the outbox. Cancelling this kills the jobs."""
        working = [asyncio.create_task(slot.work()) for slot in self._slots]
        try:
            await _first_to_end(working, asyncio.FIRST_EXCEPTION)
            await asyncio.gather(context.outbox.flush(FLUSH_TIMEOUT), context.log_outbox.flush(FLUSH_TIMEOUT))
        finally:
            await _cancel(working)

    # --- hours ---

    def _look_at_clock(self) -> None:
        hours, before = self._settings.work_hours, self._control.closed
        self._control.closed = "" if self._hours.include(now(self._settings)) else f"outside of WORK_HOURS ({hours})"
        if self._control.closed == before:
            return
        effect = "no job is taken" + (", and jobs stand still" if self._settings.work_hours_pause else "")
        logger.info("{}", f"It is {self._control.closed}: {effect}" if self._control.closed else "WORK_HOURS begin")
        for slot in self._slots:
            self._control.start_task(slot.adjust())

    async def _keep_hours(self) -> None:
        while True:
            await asyncio.sleep(HOURS_LOOK)
            self._look_at_clock()

    # --- signals ---

    def _on_signal(self, number: signal.Signals) -> None:
        stage = self._control.stage
        match number:
            case signal.SIGTERM | signal.SIGINT:
                self._stop(Stage(min(stage + 1, Stage.KILL)), number)
            case signal.SIGQUIT:
                self._stop(Stage.CANCEL if stage < Stage.CANCEL else Stage.KILL, number)
            case signal.SIGHUP:
                self._control.start_task(self._reload())
            case signal.SIGUSR1:
                self._control.start_task(self._log_snapshot())
            case signal.SIGUSR2 if stage >= Stage.CANCEL:
                logger.info("SIGUSR2: not paused, because the jobs are being stopped")
            case signal.SIGUSR2:
                self._pause(self._control.going.is_set())

    def _stop(self, stage: Stage, number: signal.Signals | None = None) -> None:
        if stage <= self._control.stage:
            return
        trigger = number.name if number else f"SHUTDOWN_GRACE of {self._settings.shutdown_grace:g} s is over"
        logger.warning("{}: {}", trigger, _EFFECTS[stage])
        self._notifier.tell("STOPPING=1", f"STATUS={_EFFECTS[stage]}")
        self._control.stage = stage
        self._control.stopping.set()
        for slot in self._slots:
            self._control.start_task(slot.spare())
            self._control.start_task(slot.adjust())
        if not self._control.going.is_set():
            self._pause(False)  # a paused job could neither finish nor clean up
        match stage:
            case Stage.DRAIN if self._settings.shutdown_grace:
                loop = asyncio.get_running_loop()
                loop.call_later(self._settings.shutdown_grace, self._stop, Stage.CANCEL)
            case Stage.CANCEL:
                for slot in self._slots:
                    slot.stop()
            case Stage.KILL:
                self._killed_by = number
                if self._slots_running:
                    self._slots_running.cancel()

    def _pause(self, paused: bool) -> None:
        logger.info("{}", "Paused; SIGUSR2 again resumes" if paused else "Resumed after a pause")
        if paused:
            self._control.going.clear()
        else:
            self._control.going.set()
        for slot in self._slots:
            self._control.start_task(slot.adjust())

    async def _reload(self) -> None:
        """Read the configuration again, for jobs that begin from now on. A wrong one changes nothing."""
        try:
            self._client, self._limits = await asyncio.to_thread(self._read_file_again)
        except ConfigError as error:
            logger.error("SIGHUP: the configuration stays as it was: {}", error)
            return
        if self._context:
            self._context.runtime = replace(self._context.runtime, client=self._client, limits=self._limits)
            for slot in self._slots:
                await slot.adjust()  # the poll that waits at the server names the former modules
        logger.info("SIGHUP: read {} again; modules: {}", self._client.file, ", ".join(self._client.modules) or "none")

    def _read_file_again(self) -> Configuration:
        file = self._client.file
        if file.exists() and not file.is_file():  # reading a pipe would wait for somebody to write to it
            raise ConfigError(f"{file}: is no regular file, which alone can be read again")
        return self._read_again()

    async def _tell_systemd(self, context: WorkerContext) -> None:
        """Tell systemd that the loop runs, and what it waits for, until cancelled. The server need not be there."""
        self._notifier.tell("READY=1")
        told = ""
        while True:
            status = self._status(context)
            self._notifier.tell("WATCHDOG=1", *([f"STATUS={status}"] if status != told else []))
            told = status
            await asyncio.sleep(self._notifier.interval)

    def _status(self, context: WorkerContext) -> str:
        if self._control.stage > Stage.WORK:
            return _EFFECTS[self._control.stage]
        if not self._control.going.is_set():
            return "paused"
        if self._control.closed:
            return self._control.closed
        if context.trouble.why:
            return f"in trouble: {context.trouble.why}"
        if not context.session.reachable.is_set():
            return f"working; the server {shown_url(self._settings.api_url)} cannot be reached"
        return "working"

    # --- the log ---

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
        for warning in (*filter(None, [landlock.find_lacking()]), *path_warnings(self._client.paths)):
            logger.warning("{}", warning)
        if context.outbox or context.unfinished:
            logger.info(
                "From an earlier run: {} messages for the server, {} unfinished jobs",
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


_EFFECTS = {
    Stage.DRAIN: "taking no more jobs, finishing those in hand; another signal stops them",
    Stage.CANCEL: "stopping the jobs in hand, which go back to the queue; another signal kills them",
    Stage.KILL: "killing everything; the next start goes on with the jobs",
}


def worker_ids(settings: Settings) -> tuple[str, ...]:
    """Return the worker id of each slot: HOST_UUID for the first, ids derived from it for the others."""
    first = settings.host_uuid
    others = (str(uuid.uuid5(uuid.NAMESPACE_OID, f"{first}/{n}")) for n in range(2, settings.worker_slots + 1))
    return (first, *others)


async def _first_to_end(tasks: list[asyncio.Task[None]], when: str) -> None:
    """Wait for tasks as `asyncio.wait` does. An exception of one that has ended is raised: it is a defect of ours."""
    done, _ = await asyncio.wait(tasks, return_when=when)
    for task in done:
        if not task.cancelled():
            task.result()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
