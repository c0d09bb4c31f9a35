"""The log of each job, in a file of the state directory: the client's lines about the job, and what its tasks print.

Lines come from the loop, and a thread writes them, because disks are slow at times. Logs are a help for people: what
cannot be written is left out, and no job waits for it.
"""

import asyncio
import contextlib
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from loguru import logger

from ipc.threads import Threads

if TYPE_CHECKING:
    from loguru import Message, Record

MAX_LOG = 1 << 20
"""Bytes of a job's log. Of a longer one, the middle is left out."""

SLACK = MAX_LOG // 4
"""Bytes by which a file may be longer until it is cut."""

MAX_FILES, MAX_AGE = 200, 7 * 86400.0
"""Logs that are kept here, and seconds for which they are."""

SWEEP_EVERY = 50
"""Logs that are read between two looks for those that are too many or too old."""

MAX_WAITING = 1 << 20
"""Characters that wait for a slow disk. Further lines are left out."""

MAX_NAME = 200
"""Characters of a file's name, but for its end."""

PATIENCE = 2.0
"""Seconds to wait at the end until the last lines are written."""

CUT = b"\n(the middle of this log was left out)\n"


class JobLogs:
    """Keeps the logs in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread: ThreadPoolExecutor = Threads(1, "job logs")
        self._waiting: dict[str, list[str]] = {}
        self._size = 0
        self._is_failing = False
        self._reads = itertools.count()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def collecting(self, level: str) -> Iterator[None]:
        """Take the lines of the log about jobs, of `level`; those for operators in any case."""
        level = min(level, "INFO", key=lambda name: logger.level(name).no)
        handler = logger.add(
            self._take, level=level, format=_format, filter=lambda record: "job" in record["extra"], diagnose=False
        )
        self._thread.submit(self._sweep)
        try:
            yield
        finally:
            logger.remove(handler)
            with contextlib.suppress(TimeoutError, RuntimeError):  # a disk that hangs, no thread to be had
                self._thread.submit(self._write).result(PATIENCE)
            self._thread.shutdown(wait=False)

    async def read(self, job_id: str) -> bytes:
        """Return the log of a job as far as it goes; nothing if there is none."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, job_id)

    def _take(self, message: "Message") -> None:
        line = str(message)
        with self._lock:
            if self._size + len(line) > MAX_WAITING:
                return
            is_first = not self._waiting
            self._waiting.setdefault(message.record["extra"]["job"], []).append(line)
            self._size += len(line)
        if is_first:
            with contextlib.suppress(RuntimeError):  # no thread can be started, or the client has ended
                self._thread.submit(self._write)

    # --- in the thread ---

    def _write(self) -> None:
        with self._lock:
            waiting, self._waiting, self._size = self._waiting, {}, 0
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for job_id, lines in waiting.items():
                self._append(self._file(job_id), "".join(lines).encode("utf-8", "backslashreplace"))
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                logger.warning("{}: the logs of jobs cannot be kept: {}", self._directory, error.strerror)
            self._is_failing = True

    def _append(self, path: Path, data: bytes) -> None:
        with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
            size = file.tell()
        if size > MAX_LOG + SLACK:
            fresh = path.with_suffix(".new")
            fresh.touch(0o600)
            fresh.write_bytes(_cut(path.read_bytes()))
            fresh.replace(path)

    def _read(self, job_id: str) -> bytes:
        self._write()
        if next(self._reads) % SWEEP_EVERY == 0:
            self._sweep()
        try:
            return _cut(self._file(job_id).read_bytes())
        except OSError:  # too old to be kept, or never written, which was said then
            return b""

    def _sweep(self) -> None:
        """Delete logs that are old, or too many."""
        with contextlib.suppress(OSError):
            files = sorted(self._directory.glob("*"), key=lambda file: file.stat().st_mtime, reverse=True)
            for number, file in enumerate(files):
                if number >= MAX_FILES or time.time() - file.stat().st_mtime > MAX_AGE:
                    file.unlink()

    def _file(self, job_id: str) -> Path:
        name = quote(job_id, safe="", errors="surrogatepass")
        if len(name) > MAX_NAME:
            name = hashlib.sha256(name.encode()).hexdigest()
        return self._directory / f"{name}.log"


def _cut(log: bytes) -> bytes:
    """A log without its middle, if it is too long."""
    if len(log) <= MAX_LOG:
        return log
    half = (MAX_LOG - len(CUT)) // 2
    return log[:half].rpartition(b"\n")[0] + CUT + log[-half:].partition(b"\n")[2]


def _format(record: "Record") -> str:
    task = " {extra[task]}" if "task" in record["extra"] else ""
    return f"{{time:YYYY-MM-DD HH:mm:ss.SSS}} {{level:<7}}{task} {{message}}\n{{exception}}"
