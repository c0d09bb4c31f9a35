"""Scratch directories: a place for a task's temporary files that is gone when the task is, or at the next start."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

PREFIX = ".sisyphus-scratch-"

MARK = ".made-by-sisyphus-client"
"""A file in each of them: a name alone is no proof that a directory is ours to remove."""


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory of this supervisor's own, removed at the end.

    It is locked while it is in use, so that what a killed supervisor left is told from another's and removed here.
    """
    _remove_stale(Path(tempfile.gettempdir()))
    directory, descriptor = _make_locked()
    try:
        yield directory
    finally:
        remove(directory)
        os.close(descriptor)


def _make_locked() -> tuple[Path, int]:
    while True:
        directory = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # as below
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            (directory / MARK).touch()
        if os.fstat(descriptor).st_nlink > 0:
            return directory, descriptor
        os.close(descriptor)  # another supervisor took it for stale before it was locked, and removed it


def remove(directory: Path) -> None:
    """Remove a directory with all that is in it, as far as that can be done."""
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():  # a module took away its own right to read or write there: give it back, once
        for path, names, _ in os.walk(directory):
            for name in names:  # before the walk looks into them
                with contextlib.suppress(OSError):
                    os.chmod(os.path.join(path, name), 0o700)
        shutil.rmtree(directory, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    for directory in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                # Another user's, or one in use: opening or locking fails, and it stays.
                if os.fstat(descriptor).st_uid != os.getuid():
                    continue
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (directory / MARK).is_file():
                    remove(directory)
                    logger.info("Removed {}, which a killed client had left", directory)
                else:
                    directory.rmdir()  # fails if it is not empty: a client may be killed before it has marked its own
            finally:
                os.close(descriptor)
