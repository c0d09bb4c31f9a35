"""Scratch directories: places for tasks' temporary files. They are removed after the task, or at the next start."""

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
"""A file in each scratch directory: a name alone does not prove that a directory is ours to remove."""


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory for this supervisor alone, removed at the end.

    It is locked while it is in use. One that is not locked was left by a killed supervisor, and is removed here.
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
        os.close(descriptor)  # another supervisor removed it as stale before we had locked it


def remove(directory: Path) -> None:
    """Remove a directory with its contents, as far as possible."""
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():  # a module has removed its own permissions somewhere: restore them, once
        for path, names, _ in os.walk(directory):
            for name in names:  # before the walk enters them
                with contextlib.suppress(OSError):
                    os.chmod(os.path.join(path, name), 0o700)
        shutil.rmtree(directory, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    for directory in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                # If it belongs to another user, or is in use, opening or locking fails, and it stays.
                if os.fstat(descriptor).st_uid != os.getuid():
                    continue
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (directory / MARK).is_file():
                    remove(directory)
                    logger.info("Removed {}, which a killed client had left", directory)
                else:
                    directory.rmdir()  # a client may have been killed before it made the mark; fails if not empty
            finally:
                os.close(descriptor)
