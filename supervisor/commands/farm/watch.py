"""`watch`: submits a job for each media file that a directory gets.

A file is ready when it has not changed for a while and nobody has it open for writing. It is written down before its
job is submitted and again with the job's id, so that after a crash or a lost answer the server is asked whether it has
the job. Events (inotify) only say where to look: a look at the whole directory finds what they miss. Network file
systems have no events of other machines, so there is only the look.
"""

import contextlib
import fcntl
import itertools
import os
import re
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import psutil
from loguru import logger

from app.config import ConfigError
from app.database import Database
from supervisor.api.errors import SessionError, is_unreachable
from supervisor.commands import COMPLETED, job_files
from supervisor.commands.farm.client import ENDED, FarmClient, farm_command
from supervisor.commands.farm.submit import fill, job_body, job_options
from supervisor.commands.farm.tables import info_of
from supervisor.commands.farm.watched import (
    Version,
    forget,
    is_named,
    job_of,
    knows_job,
    last_job_of,
    open_memory,
    remember,
)
from supervisor.commands.logs import logging_to_stderr
from supervisor.commands.shared import level_options, read_settings, state_directory

MEDIA = (
    *("avi", "dv", "f4v", "flv", "m2ts", "m2v", "m4a", "m4v", "mk3d", "mka", "mkv", "mov", "mp4", "mpeg", "mpg", "mts"),
    *("mxf", "ogm", "ogv", "ts", "vob", "webm", "wmv", "y4m"),
)
"""Extensions of media files."""

TICK = 1.0
"""Seconds between two looks at files that may be ready."""

LOOK, POLL = 60.0, 10.0
"""Seconds between two looks at the whole directory, where events tell of changes and where nothing does."""

RETRY = 5.0
"""Seconds until the server is called again that has not taken a job."""

REFUSED = (400, 413, 422)
"""Statuses that a job would get each time: others must not wait behind it."""

WITHOUT_EVENTS = re.compile(r"nfs.*|cifs|smb.*|fuse\..*|9p|afs|ceph|glusterfs|lustre|beegfs|gpfs|vboxsf|virtiofs")
"""File systems that tell nothing, or not of what other machines change."""


@farm_command("watch")
@click.argument("directory", metavar="DIR", type=click.Path(resolve_path=True))
@click.option("--template", metavar="JOB.json", required=True, help="The job: {path}, {dir} and {stem} are the file's.")
@click.option(
    "--include", metavar="PATTERN", multiple=True, help="Only such files (default: media files by extension)."
)
@click.option("--exclude", metavar="PATTERN", multiple=True, help="No such files, such as 'done/*'; may be repeated.")
@click.option("--settle", type=click.FloatRange(0), default=10.0, show_default=True, help="Seconds without a change.")
@click.option("--poll", is_flag=True, help="Expect no events: for network file systems that are not known as such.")
@job_options
@level_options
def watch_command(
    farm: FarmClient,
    as_json: bool,
    directory: str,
    template: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    settle: float,
    poll: bool,
    level: str | None,
    **options: Any,
) -> int:
    """Each file is submitted once, when it has stopped growing: those that are there, and those that come. A PATTERN is
    for the name, or for the path below DIR. Until SIGTERM or Ctrl-C.
    """
    del as_json  # the log is all that there is
    if not os.path.isdir(directory):
        raise ConfigError(f"{directory}: is no directory")
    document = job_files.read_document(template)
    job_body(template, fill(document, "/x"), **options)  # what is wrong with it is told at once
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # comes if a file is opened while `_is_being_written` looks at it
    patterns = include or tuple(f"*.{extension}" for extension in MEDIA)
    with (
        logging_to_stderr(read_settings(level).log_level),
        contextlib.closing(open_memory(state_directory(), directory)) as memory,
    ):
        watch = FolderWatch(farm, memory, directory, patterns, exclude, settle)
        for places in _changes(directory, poll, stop):
            watch.look(places)
            for version in itertools.takewhile(lambda _: not stop.is_set(), watch.ready()):
                body = job_body(template, fill(document, version.path), title=Path(version.path).stem, **options)
                watch.submit(version, body)
        logger.info("Stopped")
    return COMPLETED


class FolderWatch:
    """The files of a directory that are not submitted yet, and the way of each to its job."""

    def __init__(
        self,
        farm: FarmClient,
        memory: Database,
        directory: str,
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        settle: float,
    ) -> None:
        self._farm, self._memory, self._directory = farm, memory, directory
        self._include, self._exclude, self._settle = include, exclude, settle
        self._waiting: dict[str, tuple[Version | None, float]] = {}
        self._unreadable: set[str] = set()
        self._refused: set[Version] = set()
        self._is_away = False
        self._retry_at = 0.0

    def look(self, places: set[str]) -> None:
        """Look for files at these places: files, and directories with all that is in them."""
        for place in places:
            is_directory = place == self._directory or os.path.isdir(place)  # if it is gone, that is told
            for path in _walk(place, self._tell_unreadable) if is_directory else [place]:
                if self._is_wanted(path):
                    self._waiting.setdefault(path, (None, 0.0))

    def _is_wanted(self, path: str) -> bool:
        names = os.path.basename(path), os.path.relpath(path, self._directory)
        if any(part.startswith(".") for part in Path(names[1]).parts):  # hidden, as unfinished outputs are
            return False
        wanted = any(fnmatch(name.lower(), pattern.lower()) for name in names for pattern in self._include)
        return wanted and not any(fnmatch(name, pattern) for name in names for pattern in self._exclude)

    def ready(self) -> Iterator[Version]:
        """Yield the files that have stopped growing and have no job."""
        for path, (before, since) in list(self._waiting.items()):
            now = time.monotonic()
            version = _version(path)
            if (
                version is None
                or version in self._refused
                or job_of(self._memory, version)
                or is_named(self._memory, path)
            ):
                del self._waiting[path]
            elif version != before:
                self._waiting[path] = (version, now)
            elif now - since >= self._settle and now >= self._retry_at and not _is_being_written(path):
                yield version

    def submit(self, version: Version, body: dict[str, Any]) -> None:
        """Submit the job of a file, unless its own job has changed it. After an error, the next call tries again."""
        try:
            former = last_job_of(self._memory, version.path)
            if former and (wait := self._is_own_output(version, former)) is not False:
                if wait:
                    remember(self._memory, version, former)
                return
            in_doubt = job_of(self._memory, version) == ""
            job_id = self._find_posted(body) if in_doubt else None
            job_id = job_id or self._post(version, body, in_doubt)
        except SessionError as error:
            if error.status in REFUSED:
                logger.error("{!r}: the API server refuses its job: {}", version.path, error)
                self._refused.add(version)
                return
            self._retry_at = time.monotonic() + RETRY
            if not self._is_away:
                logger.warning("API server {} takes no job; trying again: {}", self._farm.url, error)
            self._is_away = True
            return
        remember(self._memory, version, job_id)
        self._waiting.pop(version.path, None)
        self._is_away = False
        logger.info("Job {} is submitted: {!r}", job_id, version.path)

    def _post(self, version: Version, body: dict[str, Any], in_doubt: bool) -> str:
        if not in_doubt:
            remember(self._memory, version, "", body["tasks"])
        try:
            return self._farm.post(body)
        except SessionError as error:
            if not in_doubt and is_unreachable(error.__cause__):
                forget(self._memory, version)  # the server cannot have it
            raise

    def _is_own_output(self, version: Version, job_id: str) -> bool | None:
        """Whether the job of a file has written its present version; `None` while that job has not ended."""
        if not self._farm.is_ours:
            return True  # it tells nothing of ended jobs, and one encode too few is better than one after the other
        record = self._farm.record(job_id)
        if record is None:
            return False
        if record["state"] not in ENDED:
            return None
        outputs = [output for task in info_of(record)["tasks"] for output in task["outputs"]]
        return any((output["path"], output["bytes"]) == (version.path, version.size) for output in outputs)

    def _find_posted(self, body: dict[str, Any]) -> str | None:
        """Return the id of a job that was posted, though no answer told so."""
        for job in self._farm.jobs(q=body["job_title"]):
            if not knows_job(self._memory, job["job_id"]) and "retry_of" not in job:
                record = self._farm.record(job["job_id"])
                if record and record["tasks"] == body["tasks"]:
                    return str(job["job_id"])
        return None

    def _tell_unreadable(self, error: OSError) -> None:
        if error.filename not in self._unreadable:
            logger.warning("{!r}: cannot be read: {}", error.filename, error.strerror)
        self._unreadable.add(error.filename)


def _walk(place: str, tell: Callable[[OSError], None]) -> Iterator[str]:
    for directory, _, names in os.walk(place, onerror=tell):
        yield from (os.path.join(directory, name) for name in names)


def _version(path: str) -> Version | None:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode) and found.st_size:
            return Version(path, found.st_size, found.st_mtime_ns, found.st_ino)
    return None


def _is_being_written(path: str) -> bool:
    """Return whether any process has the file open for writing, as far as the kernel tells.

    It grants a read lease only if there is no writer: fcntl(2), F_SETLEASE. For other users' files it takes CAP_LEASE.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # the worker may be able to read it
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        pass  # another user's file, or a file system without leases: that it has not changed must do
    finally:
        os.close(descriptor)
    return False


def _changes(directory: str, poll: bool, stop: threading.Event) -> Iterator[set[str]]:
    """Yield the places where something may have changed, every `TICK`: first, and every now and then, the directory."""
    poll = poll or bool(WITHOUT_EVENTS.fullmatch(_file_system(directory)))
    logger.info("Watching {} {}", directory, "by polling" if poll else "by events")
    looked_at = float("-inf")
    for events in _ticks(stop) if poll else _events(directory, stop):
        if time.monotonic() - looked_at >= (POLL if poll else LOOK):
            looked_at = time.monotonic()
            events = {directory}
        yield events


def _ticks(stop: threading.Event) -> Iterator[set[str]]:
    yield set()
    while not stop.wait(TICK):
        yield set()


def _events(directory: str, stop: threading.Event) -> Iterator[set[str]]:
    import watchfiles
    from watchfiles._rust_notify import WatchfilesRustInternalError

    while not stop.wait(TICK):
        try:
            for changes in watchfiles.watch(
                directory,
                watch_filter=None,
                stop_event=stop,
                rust_timeout=int(1000 * TICK),
                yield_on_timeout=True,
                ignore_permission_denied=True,
            ):
                yield {path for _, path in changes}
        except WatchfilesRustInternalError:
            yield {directory}  # it ends at a name that is not UTF-8
        except OSError as error:
            logger.warning("There are no events (fs.inotify.max_user_watches may be too small): polling: {}", error)
            yield from _ticks(stop)


def _file_system(directory: str) -> str:
    """The type of the file system that a directory is on."""
    mounts = psutil.disk_partitions(all=True)
    above = [mount for mount in mounts if f"{directory}/".startswith(f"{mount.mountpoint.rstrip('/')}/")]
    return max(reversed(above), key=lambda mount: len(mount.mountpoint)).fstype  # the last one hides others there
