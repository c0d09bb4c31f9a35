"""Scratch directories: places for tasks' temporary files. They are removed after the task, or at the next start."""

import asyncio
import contextlib
import errno
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

PREFIX = ".sisyphus-scratch-"

MARK = ".made-by-sisyphus-client"
"""A file in each scratch directory: a name alone does not prove that a directory is ours to remove."""


MIN_ROOM = 1 << 20
"""Bytes that must be free for temporary files. With less, a task would fail at its first one."""

PATIENCE = 5.0
"""Seconds for which a removal is waited for. ext4 may take 2 ms for a directory."""

MAX_PATH = 60
"""Bytes in the path of the scratch directory. A Unix socket's path ends at 107 (unix(7)), and to this one up to 45 are
added: the task's own directory, the one of `multiprocessing` in there, and the socket's name."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

LINK_PREFIX = ".sisyphus-link-"

LINK_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a link of an unpredictable name, which no one else can replace


class ScratchError(OSError):
    """No temporary directory can be made; the text is one line that says why."""


class Scratch:
    """The directory of this supervisor alone for its tasks' temporary files. Close it at the end.

    It is locked while it is in use. One that is not locked was left by a killed supervisor, and is removed here.
    """

    def __init__(self) -> None:
        """Make the directory.

        Raises:
            ScratchError: it cannot be made.
        """
        self._renewing = threading.Lock()
        self._descriptor: int | None = None
        self._parent = Path(os.path.realpath(tempfile.gettempdir()))  # a link may lead to a directory that is removed
        _remove_stale(self._parent)
        with self._explained():
            self._open()

    @property
    def directory(self) -> Path:
        """Its path, which is a link's where the real one is too long for a socket's name."""
        return self._link or self._directory

    def make(self, task: int) -> Path:
        """Make the temporary directory of a task with this index.

        Raises:
            ScratchError: it cannot be made, or there is no room for files in it.
        """
        with self._explained():
            try:
                made = self._make(task)
            except (FileNotFoundError, NotADirectoryError):
                with self._renewing:
                    made = self._renew(task)
            except PermissionError:  # something has taken ours away
                self._directory.chmod(0o700)
                made = self._make(task)
            if not _has_room(made):
                made.rmdir()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return made

    def check(self) -> None:
        """Raise `ScratchError` where `make` would."""
        self.make(0).rmdir()

    def close(self) -> None:
        """Remove it with all that is in it."""
        if self._link:
            self._link.unlink(missing_ok=True)
        remove(self._directory)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:  # else it could not be made anew, and the number may be another file's by now
            os.close(descriptor)

    def _renew(self, task: int) -> Path:
        """Make both directories anew: somebody has removed or replaced ours, or removed even the one above it."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self._make(task)  # another thread was quicker
        self.close()
        self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()
        return self._make(task)

    def _open(self) -> None:
        self._directory, self._descriptor = _make_locked(self._parent)
        self._link = _link_to(self._directory) if len(os.fsencode(self._directory)) > MAX_PATH else None

    def _make(self, task: int) -> Path:
        return Path(tempfile.mkdtemp(dir=self.directory, prefix=f"{task}-"))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = f"{self._parent}: no temporary directory can be made: {error.strerror} (TMPDIR names another place)"
            raise ScratchError(why) from error


def _has_room(directory: Path) -> bool:
    status = os.statvfs(directory)
    free = status.f_bavail if os.geteuid() else status.f_bfree  # root may use what is reserved
    return free * status.f_frsize >= MIN_ROOM or not status.f_blocks  # a file system may count nothing at all


def _make_locked(parent: Path) -> tuple[Path, int]:
    while True:
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # as below
        except OSError:
            directory.rmdir()
            raise
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):  # without the mark, it is removed if it is empty
            (directory / MARK).touch()
        if os.fstat(descriptor).st_nlink > 0:
            return directory, descriptor
        os.close(descriptor)  # another supervisor removed it as stale before we had locked it


def _link_to(directory: Path) -> Path | None:
    """A link with a short path to a directory; `None` where none can be made."""
    for place in LINK_PLACES:
        link = Path(place, LINK_PREFIX + os.urandom(4).hex())
        with contextlib.suppress(OSError):
            link.symlink_to(directory)
            return link
    return None


async def discard(directory: Path) -> None:
    """Remove a directory as `remove` does, without keeping the event loop waiting. It need not exist."""
    try:
        directory.rmdir()  # most tasks leave theirs empty: two threads for that would take 0.3 ms
    except FileNotFoundError:
        pass
    except OSError:  # there is something in it, or it is none any more
        await asyncio.to_thread(remove, directory)


def remove(directory: Path) -> None:
    """Remove a directory with its contents, as far as possible; not if a module has mounted something in it.

    After `PATIENCE` this returns, and the removal goes on until the client ends: a module can make more directories
    than a file system removes in minutes.
    """
    removal = threading.Thread(target=_remove, args=(directory,), name="removal", daemon=True)
    try:
        removal.start()
    except RuntimeError:  # no thread can be started now
        _remove(directory)
    else:
        removal.join(PATIENCE)
    if removal.is_alive():
        logger.info("{} takes long to remove: that goes on beside the work", directory)


def _remove(directory: Path) -> None:
    with contextlib.suppress(OSError):
        if mounts := _mounts_below(directory):
            logger.warning("{} stays, because there is something mounted in it: {}", directory, ", ".join(mounts))
        elif directory.is_symlink():  # a module has put it there, and may have made it lead anywhere
            directory.unlink()
        else:
            directory.chmod(0o700)
            _empty(directory)
            (directory / MARK).unlink(missing_ok=True)  # last: without it, a directory that is not empty would stay
            directory.rmdir()


def _empty(top: Path) -> None:
    """Remove all in `top` but the mark, as far as possible.

    Directories move up into `top` before they are emptied: a module can make a tree that is deeper than any path is
    long, and than recursion goes. They get their permissions back, which it may have removed.
    """
    pending = ["."]
    root = os.open(top, _DIRECTORY)
    try:
        while pending:
            with contextlib.suppress(OSError):
                pending += _clear(name := pending.pop(), root)
                os.rmdir(name, dir_fd=root)
    finally:
        os.close(root)


def _clear(name: str, root: int) -> list[str]:
    """Remove the files of a directory in `root`, and move its directories into `root`. Returns their new names."""
    moved = []
    directory = os.open(name, _DIRECTORY, dir_fd=root)
    try:
        with os.scandir(directory) as entries:
            found = list(entries)  # all of them, before any is moved
        for entry in found:
            with contextlib.suppress(OSError):
                is_directory = entry.is_dir(follow_symlinks=False)
                if name == "." and entry.name == MARK and not is_directory:
                    continue
                if is_directory:
                    os.chmod(entry.name, 0o700, dir_fd=directory)
                    os.rename(entry.name, free := os.urandom(8).hex(), src_dir_fd=directory, dst_dir_fd=root)
                    moved.append(free)
                else:
                    os.unlink(entry.name, dir_fd=directory)
    finally:
        os.close(directory)
    return moved


def _mounts_below(directory: Path) -> list[str]:
    """The mount points below a directory, in the form of proc(5): removing the files there would remove others'."""
    path = os.path.join(os.path.realpath(directory.parent), directory.name)
    prefix = os.fsencode(path).replace(b"\\", rb"\134").replace(b" ", rb"\040") + b"/"
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    return [os.fsdecode(point) for point in (line.split()[4] for line in lines) if point.startswith(prefix)]


def _remove_stale(parent: Path) -> None:
    for link in (link for place in LINK_PLACES for link in Path(place).glob(f"{LINK_PREFIX}*")):
        with contextlib.suppress(OSError):
            if link.lstat().st_uid == os.getuid() and not link.exists():
                link.unlink()
    for directory in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(directory, _DIRECTORY)
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
