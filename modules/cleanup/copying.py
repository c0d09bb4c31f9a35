"""Copy a file's bytes at the speed of the disk: share the blocks, else copy in the kernel, else copy here."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable

from modules.checks import standing_directory
from modules.cleanup.actions import Action

CHUNK = 4 << 20
"""Bytes copied between two reports of progress."""

_BUFFER = 128 << 10
"""Bytes that are read at once, as cp(1) does. 256 KiB take half as long again, 512 KiB three times as long: from tmpfs
to ext4, Linux 6.18."""

_FICLONE = 0x40049409
"""ioctl_ficlone(2): the file gets the blocks of another one, which are copied when somebody writes to them."""

_CANNOT = {
    *(errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY),
    *(errno.EBADF, errno.EPERM, errno.EACCES, errno.ETXTBSY),
}
"""Errors that say that a file system, or a pair of them, cannot share blocks or copy by itself."""


def copy_bytes(source: int, destination: int, on_copied: Callable[[int], None]) -> None:
    """Copy all bytes between two descriptors of files, to an empty one. `on_copied` is told how many each time.

    A file with fewer blocks than bytes keeps its holes, as with cp(1).
    """
    if _share_blocks(source, destination):
        on_copied(os.fstat(destination).st_size)
        return
    found = os.fstat(source)
    has_holes = found.st_blocks * 512 < found.st_size
    if has_holes:
        with contextlib.suppress(OSError):
            os.fsync(source)  # OpenZFS up to 2.2.1 may take for a hole what is not on the disk yet
    # Some file systems return 0 if they cannot copy: read on, to see if it is the end.
    for copy in (_copy_in_kernel, _Reader()):
        while True:
            skipped, most = _skip_hole(source, destination) if has_holes else (0, CHUNK)
            if not (count := skipped + copy(source, destination, most)):
                break
            on_copied(count)


def _skip_hole(source: int, destination: int) -> tuple[int, int]:
    """Go to the next data in both files. Returns the bytes of the hole before it, and how many to copy at once."""
    here = os.lseek(source, 0, os.SEEK_CUR)
    try:
        begin = os.lseek(source, here, os.SEEK_DATA)
        most = min(os.lseek(source, begin, os.SEEK_HOLE) - begin, CHUNK)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a file system that knows of no holes
            os.lseek(source, here, os.SEEK_SET)
            return 0, CHUNK
        begin, most = os.lseek(source, 0, os.SEEK_END), CHUNK
        os.ftruncate(destination, begin)
    os.lseek(source, begin, os.SEEK_SET)
    os.lseek(destination, begin, os.SEEK_SET)
    return begin - here, most


def _share_blocks(source: int, destination: int) -> bool:
    try:
        fcntl.ioctl(destination, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _copy_in_kernel(source: int, destination: int, most: int) -> int:
    """Let the kernel copy a part: a file server does so on its own disk. Returns 0 at the end, or if it cannot."""
    try:
        return os.copy_file_range(source, destination, most)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return 0


class _Reader:
    """Copies a part by reading and writing. One buffer is used for all: the kernel would have to clear new ones, which
    takes five times as long as the copy."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER))

    def __call__(self, source: int, destination: int, most: int) -> int:
        """Returns the number of bytes that were copied, 0 at the end."""
        copied = 0
        while copied < most and (count := os.readv(source, [self._buffer[: most - copied]])):
            rest = self._buffer[:count]
            while rest:
                rest = rest[os.write(destination, rest) :]
            copied += count
        return copied


def bytes_to_copy(action: Action) -> int:
    """The file's size if its bytes must be copied; 0 if they need not be, or if it does not exist yet."""
    with contextlib.suppress(OSError):
        if action.verb == "copy":
            return os.stat(action.source).st_size
        if action.verb in ("move", "replace") and os.lstat(action.source).st_dev != device(action.target):
            return os.lstat(action.source).st_size
    return 0


def device(path: str) -> int:
    """The number of the file system that `path` will be on."""
    return os.stat(standing_directory(os.path.dirname(os.path.abspath(path)))).st_dev
