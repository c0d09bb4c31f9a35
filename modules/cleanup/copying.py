"""Copy a file's bytes, in the kernel where it can."""

import contextlib
import errno
import os
from collections.abc import Callable

from modules.checks import standing_directory
from modules.cleanup.actions import Action

CHUNK = 4 << 20
"""Bytes copied between two reports of progress."""

_NO_COPY_IN_KERNEL = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}


def copy_bytes(source: int, destination: int, on_copied: Callable[[int], None]) -> None:
    """Copy all bytes between two descriptors. `on_copied` is told how many each time."""
    copy = _copy_in_kernel
    while True:
        try:
            count = copy(source, destination)
        except OSError as error:
            if copy is _copy_here or error.errno not in _NO_COPY_IN_KERNEL:
                raise
            count = 0
        if not count:
            if copy is _copy_here:
                return
            copy = _copy_here  # some file systems return 0 if they cannot copy: read on, to see if it is the end
            continue
        on_copied(count)


def _copy_in_kernel(source: int, destination: int) -> int:
    """Let the kernel copy: some file systems share the blocks, and a file server copies on its own disk."""
    return os.copy_file_range(source, destination, CHUNK)


def _copy_here(source: int, destination: int) -> int:
    data = os.read(source, CHUNK)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(destination, rest) :]
    return len(data)


def bytes_to_copy(action: Action) -> int:
    """The file's size if its bytes must be copied; 0 if they need not be, or if it does not exist yet."""
    with contextlib.suppress(OSError):
        if action.verb == "copy":
            return os.stat(action.source).st_size
        if action.verb == "move" and os.lstat(action.source).st_dev != device(action.target):
            return os.lstat(action.source).st_size
    return 0


def device(path: str) -> int:
    """The number of the file system that `path` will be on."""
    return os.stat(standing_directory(os.path.dirname(os.path.abspath(path)))).st_dev
