"""Write a file beside its target, and give it its name when it is whole.

No incomplete file ever has the target's name: the work goes into a hidden file of the same directory, with the same
extension (tools choose the format by it), and a rename puts it in place. A temporary directory elsewhere would need a
copy at the end, which can itself be cut short.

A target that is a symbolic link stays one, unless the caller asks otherwise: the file that it points to is replaced.
"""

import contextlib
import errno
import fcntl
import os
import re
import shlex
import stat
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from loguru import logger

from app.exceptions import CleanupError, RunError
from app.heartbeat import heartbeat
from modules.attributes import Attributes, read_attributes
from modules.base import BaseModule

MAX_NAME = 255
"""Longest file name, in bytes, on Linux file systems."""

SPECIAL = "is no regular file (a device or a pipe): it is not replaced"
"""The problem of a target for which `is_special` is true, for a person."""

_MARK = ".sisyphus-part"
"""Marks our temporary files by their names. Any such file that no process has locked is removed."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BLOCK = 4096
"""Bytes that a tool may lose without noticing: the C library holds back as many until the file is closed."""

NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}
"""Errors that say that a file cannot be given a second name."""


def job_tag() -> str:
    """The job's part of temporary files' names: its id, the same for each attempt. Outside a job, the process's id."""
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
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        """`warn` is told of attributes of a replaced file that cannot be kept: its owner, mode and others."""
        self.target = os.path.realpath(target) if follow and os.path.islink(target) else target
        self._named = target
        self._overwrite = overwrite
        self._warn = warn
        self._replaced: Attributes | None = None
        self._directory, name = os.path.split(self.target)
        self._directory = self._directory or "."  # "./-x.mkv" is no option, and "./a:b.mkv" no protocol
        self._stem, self._extension = os.path.splitext(name)
        tag = job_tag() if tag is None else tag
        self._shorten(tag)
        self.temporary = os.path.join(self._directory, self._name(tag))
        self._descriptor = -1

    def __enter__(self) -> "Output":
        """Make the temporary file.

        Raises:
            RunError: The target cannot be written, or must not be overwritten.
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
            self._take_attributes()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the temporary file, unless `commit` has renamed it. If the disk is full, add that to the error.

        Raises:
            RunError: The disk is full, and the `with` statement ended with an `OSError` that says so.
        """
        if self._descriptor < 0:
            return  # `__enter__` made no file: one of that name is another process's
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
        """Rename the temporary file to the target. The result survives a power cut.

        Raises:
            RunError: The file cannot be renamed, or `overwrite` is false and the target has appeared meanwhile.
        """
        try:
            if self._replaced and (failed := self._replaced.apply(self.temporary)):
                self._warn(f"{self._named}: could not keep the replaced file's {' and '.join(failed)}")
            sync(self.temporary)
            if self._overwrite:
                os.rename(self.temporary, self.target)
            else:
                self._rename_to_new()
            sync(self._directory)
        except OSError as error:
            raise RunError(message=f"{self._named}: cannot be written: {error.strerror}") from error

    def commit_command(self) -> str:
        """A shell command that does the same as `commit`, for a module's `plan`."""
        return shlex.join(["mv", "--", self.temporary, self.target])

    def commit_link(self, text: str) -> None:
        """Put a symbolic link to `text` in the target's place, instead of the temporary file."""
        link = _link_beside(self.temporary)
        _unlink_link(link)  # one that a killed process left: we hold the lock
        os.symlink(text, link)
        os.rename(link, self.target)
        sync(self._directory)

    def find_no_space(self) -> str | None:
        """A message for a person if the file system is full, so that the file may lack its last bytes."""
        size = os.fstat(self._descriptor).st_size
        try:
            os.posix_fallocate(self._descriptor, size, _BLOCK)
        except OSError as error:
            return f"{self._named}: cannot be written: {error.strerror}" if error.errno in _NO_SPACE else None
        os.ftruncate(self._descriptor, size)
        return None

    def discard(self) -> None:
        """Remove the temporary file, even one that a killed process of this job left, unless a process uses it."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if self._descriptor < 0:
                _remove_unlocked(self.temporary)
            else:
                _unlink_link(_link_beside(self.temporary))
                os.unlink(self.temporary)

    def _name(self, tag: str) -> str:
        return f".{self._stem}.{tag}{_MARK}{self._extension}"

    def _shorten(self, tag: str) -> None:
        """Cut the temporary name to a length that can be. A hash keeps two long names that differ at the end apart."""
        if len(os.fsencode(self._name(tag))) < MAX_NAME:  # the name for a link has one more
            return
        import hashlib  # it takes 0.8 MB, and few names are as long as this

        whole = hashlib.sha256(os.fsencode(self._stem + self._extension)).hexdigest()[:8]
        stem = self._stem
        while len(os.fsencode(self._name(tag))) >= MAX_NAME:
            stem, self._extension = stem[:-1], self._extension[: None if stem else -1]
            self._stem = f"{stem}~{whole}"

    def _take_attributes(self) -> None:
        """Remember the old file's attributes. Nobody who must not read that one can read the new one meanwhile."""
        self._replaced = read_attributes(self.target) if self._overwrite else None
        if self._replaced:
            with contextlib.suppress(OSError):  # the tool has to open the file: its owner may read and write
                os.fchmod(self._descriptor, self._replaced.mode | 0o600)

    def _create(self) -> bool:
        """Make the file and lock it. False if another task has removed it in between, as a stale one."""
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
        """Rename without replacing: link(2) fails if the name is taken, and rename(2) would not."""
        try:
            os.link(self.temporary, self.target)
        except FileExistsError as error:
            raise self._exists() from error
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            if os.path.lexists(self.target):
                raise self._exists() from error
            os.rename(self.temporary, self.target)
        else:
            os.unlink(self.temporary)

    def _exists(self) -> RunError:
        return RunError(message=f"{self._named}: exists, and is not to be overwritten")

    def _remove_stale(self) -> None:
        """Remove temporary files that killed processes left for this target: nobody holds their locks any more."""
        ours = re.compile(re.escape(f".{self._stem}.") + r"[A-Za-z0-9_-]+" + re.escape(f"{_MARK}{self._extension}"))
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            stale = [entry.path for entry in entries if ours.fullmatch(entry.name)]
            for path in stale:
                with contextlib.suppress(OSError):
                    _remove_unlocked(path)


class WritingModule(BaseModule):
    """A module that writes files, and whose failed or killed runs leave no part of them."""

    cleanup_on_failure = True

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self.report()
        logger.debug("Data: {}", self.task)

    def cleanup(self) -> None:
        """Remove the temporary files that a killed process of this job may have left."""
        for output in self._possible_outputs():
            try:
                output.discard()
            except OSError as error:
                raise CleanupError(message=f"temporary file of {output.target}: {error.strerror}") from error

    def _possible_outputs(self) -> list[Output]:
        """All files that `run` may write, whatever the sources contain."""
        return [self.output(name) for name in self.outputs()]

    def output(self, name: str) -> Output:
        """A file that replaces what is there."""
        return Output(name, overwrite=True, warn=self.warn)

    def warn_of_loss(self, target: str) -> None:
        if os.path.lexists(target):
            self.warn(f"{target} was there already: it is replaced")


def is_special(path: str) -> bool:
    """True if `path` exists, links followed, and is neither a regular file nor a directory."""
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
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a directory
            raise
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another process, or a file system without locks: then nothing counts as stale
        return False
    return True


def _remove_unlocked(path: str) -> None:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, os.O_RDWR | flags)  # some network file systems lock only files open for writing
    except PermissionError:  # `commit` has set the target's mode already
        descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        if _lock(descriptor) and os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            _unlink_link(_link_beside(path))
            os.unlink(path)
            logger.info("Removed {}, which a killed task left", path)
    finally:
        os.close(descriptor)


def _link_beside(temporary: str) -> str:
    """The path at which `commit_link` makes its link. A link there never outlives the temporary file."""
    directory, name = os.path.split(temporary)
    return os.path.join(directory, f".{name}")


def _unlink_link(path: str) -> None:
    if os.path.islink(path):
        os.unlink(path)
