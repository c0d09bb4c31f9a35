"""Copy a file's bytes at the speed of the disk: a file system or a server copies if it can, else the kernel."""

import contextlib
import errno
import os
from collections.abc import Callable

from modules.checks import standing_directory
from modules.cleanup.actions import Action

CHUNK = 4 << 20
"""Bytes copied between two reports of progress."""

_CANNOT = {
    *(errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP),
    *(errno.EBADF, errno.EPERM, errno.EACCES, errno.ETXTBSY),
}
"""Errors that say that a pair of file systems cannot copy by itself."""


def copy_bytes(source: int, destination: int, on_copied: Callable[[int], None]) -> None:
    """Copy all bytes between two descriptors of files, to an empty one. `on_copied` is told how many each time."""
    # Some file systems return 0 if they cannot copy: go on, to see if it is the end.
    for copy in (_copy_range, _send):
        while count := copy(source, destination):
            on_copied(count)


def _copy_range(source: int, destination: int) -> int:
    """Let a file system copy a part: it shares the blocks if it can, and a file server copies on its own disk.

    Returns 0 at the end, or if it cannot.
    """
    try:
        return os.copy_file_range(source, destination, CHUNK)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return 0


def _send(source: int, destination: int) -> int:
    return os.sendfile(destination, source, None, CHUNK)


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
