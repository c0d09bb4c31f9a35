"""Write a file beside its target, and give it its name when it is whole.

Nothing incomplete ever stands under the target's name: the work goes into a hidden file of the same directory, with the
same extension (tools choose the format by it), and a rename puts it in place. A temporary directory elsewhere would
need a copy at the end, which can itself be cut short.

A target that is a symbolic link stays one: the file it points to is replaced, as writing through the link would have
done, unless the caller asks otherwise.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
from types import TracebackType

from loguru import logger

from app.exceptions import RunError
from app.heartbeat import heartbeat

MAX_NAME = 255
"""Bytes in a file's name that Linux file systems take."""

SPECIAL = "is no regular file (a device or a pipe): it is not replaced"
"""What to tell a person of a target for which `is_special`."""

_MARK = ".sisyphus-part"
"""In the name of each temporary file, and in no other's: what bears it is removed when nobody holds it."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BLOCK = 4096
"""Bytes that a tool may lose without a word: what the C library holds back until a file is closed."""

_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}


def job_tag() -> str:
    """What marks the temporary files of this job: its id, or outside a job the process's. The same for each attempt."""
    return re.sub(r"[^A-Za-z0-9-]", "_", heartbeat.job_id)[:64] or f"pid{os.getpid()}"


class Output:
    """The file at `target`, being written. Use it in a `with` statement and call `commit` when the file is whole.

    Attributes:
        target: The file's final path.
        temporary: Where to write until then. It exists, empty and locked, inside the `with` statement.
    """

    def __init__(
        self,
        target: str,
        *,
        overwrite: bool = False,
        tag: str | None = None,
        follow: bool = True,
        keep_mode: bool = True,
    ) -> None:
        self.target = os.path.realpath(target) if follow and os.path.islink(target) else target
        self._named = target
        self._overwrite = overwrite
        self._keep_mode = keep_mode and overwrite
        self._mode: int | None = None
        self._directory, name = os.path.split(self.target)
        self._directory = self._directory or "."  # "./-x.mkv" is no option, and "./a:b.mkv" no protocol
        self._stem, self._extension = os.path.splitext(name)
        tag = job_tag() if tag is None else tag
        while len(os.fsencode(self._name(tag))) >= MAX_NAME:  # the name for a link has one more
            self._stem, self._extension = self._stem[:-1], self._extension[: None if self._stem else -1]
        self.temporary = os.path.join(self._directory, self._name(tag))
        self._descriptor = -1

    def __enter__(self) -> "Output":
        """Make the temporary file.

        Raises:
            RunError: the target cannot be written, or must not be.
        """
        if os.path.isdir(self.target):
            raise RunError(message=f"{self._named}: is a directory")
        if is_special(self.target):
            raise RunError(message=f"{self._named}: {SPECIAL}")
        if not self._overwrite and os.path.lexists(self._named):
            raise self._exists()
        if not os.path.isdir(self._directory):
            raise RunError(message=f"{self._named}: there is no directory {self._directory}")
        self._remove_stale()
        try:
            while not self._create():
                pass
            self._take_mode()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the temporary file, unless `commit` has given it its name. If the disk is full, the error says so.

        Raises:
            RunError: for an `OSError` of a full disk.
        """
        if self._descriptor < 0:
            return  # the file, if there is one, is another's
        try:
            problem = self.find_no_space() if isinstance(error, RunError | OSError) else None
        finally:
            self.discard()
            self._close()
        if problem and isinstance(error, RunError) and "cannot be written: " not in error.message:
            error.message = f"{problem}; {error.message}"
            error.args = (error.message,)
        elif problem and isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise RunError(message=problem) from error

    def commit(self) -> None:
        """Give the file its name, safe from a power cut.

        Raises:
            RunError: it cannot, or `overwrite` is false and the target has appeared meanwhile.
        """
        try:
            if self._mode is not None:
                os.chmod(self.temporary, self._mode)
            sync(self.temporary)
            if self._overwrite:
                os.rename(self.temporary, self.target)
            else:
                self._rename_to_new()
            sync(self._directory)
        except OSError as error:
            raise RunError(message=f"{self._named}: cannot be written: {error.strerror}") from error

    def commit_link(self, text: str) -> None:
        """Put a symbolic link to `text` in the target's place. What was written goes with the `with` statement."""
        link = _link_beside(self.temporary)
        _unlink_link(link)  # a killed process's: ours is the lock
        os.symlink(text, link)
        os.rename(link, self.target)
        sync(self._directory)

    def find_no_space(self) -> str | None:
        """What to tell a person if the file system is full: there is no room for what may be missing at the end."""
        size = os.fstat(self._descriptor).st_size
        try:
            os.posix_fallocate(self._descriptor, size, _BLOCK)
        except OSError as error:
            return f"{self._named}: cannot be written: {error.strerror}" if error.errno in _NO_SPACE else None
        os.ftruncate(self._descriptor, size)
        return None

    def discard(self) -> None:
        """Remove the temporary file, also one that a killed process left for this job, but none that is in use."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if self._descriptor < 0:
                _remove_unlocked(self.temporary)
            else:
                _unlink_link(_link_beside(self.temporary))
                os.unlink(self.temporary)

    def _name(self, tag: str) -> str:
        return f".{self._stem}.{tag}{_MARK}{self._extension}"

    def _take_mode(self) -> None:
        """Let nobody read the new file who must not read the old one. `commit` sets the mode to the letter."""
        with contextlib.suppress(OSError):
            if self._keep_mode:
                mode = stat.S_IMODE(os.stat(self.target).st_mode) & 0o777
                os.fchmod(self._descriptor, mode | 0o600)  # the tool has to open it
                self._mode = mode

    def _create(self) -> bool:
        """Make the file and lock it; false if another task took it for a stale one in between."""
        try:
            self._descriptor = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError as error:
            raise RunError(message=f"{self.temporary}: another task is writing it") from error
        except OSError as error:
            raise RunError(message=f"{self._named}: cannot be written: {error.strerror}") from error
        _lock(self._descriptor)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self.temporary)):
                return True
        self._close()
        return False

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def _rename_to_new(self) -> None:
        """Rename without replacing: a link fails where the name is taken, while a rename would not."""
        try:
            os.link(self.temporary, self.target)
        except FileExistsError as error:
            raise self._exists() from error
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if os.path.lexists(self.target):
                raise self._exists() from error
            os.rename(self.temporary, self.target)
        else:
            os.unlink(self.temporary)

    def _exists(self) -> RunError:
        return RunError(message=f"{self._named}: exists, and is not to be overwritten")

    def _remove_stale(self) -> None:
        """Remove what a killed process left of this target: a lock ends with the process that holds it."""
        ours = re.compile(re.escape(f".{self._stem}.") + r"[A-Za-z0-9_-]+" + re.escape(f"{_MARK}{self._extension}"))
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            stale = [entry.path for entry in entries if ours.fullmatch(entry.name)]
            for path in stale:
                with contextlib.suppress(OSError):
                    _remove_unlocked(path)


def is_special(path: str) -> bool:
    """Whether `path` is there, or leads to something, that is neither a regular file nor a directory."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def sync(path: str) -> None:
    """Have the kernel write the file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot do it for directories
            raise
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another process, or a file system without locks: nothing is stale there
        return False
    return True


def _remove_unlocked(path: str) -> None:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, os.O_RDWR | flags)  # some network file systems lock only what can be written
    except PermissionError:  # it has its target's mode already
        descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        if _lock(descriptor) and os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            _unlink_link(_link_beside(path))
            os.unlink(path)
            logger.info("Removed {}, which a killed task left", path)
    finally:
        os.close(descriptor)


def _link_beside(temporary: str) -> str:
    """Where a link is made that is to replace the target. It is there only while the temporary file is."""
    directory, name = os.path.split(temporary)
    return os.path.join(directory, f".{name}")


def _unlink_link(path: str) -> None:
    if os.path.islink(path):
        os.unlink(path)
