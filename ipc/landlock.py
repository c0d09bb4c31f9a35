"""Landlock: a process confines itself and all that it starts, for good: landlock(7).

Each version (ABI) of Landlock adds something: 1 files and tracing (Linux 5.13), 2 renames between directories (5.19),
3 truncation (6.2), 5 ioctl on devices (6.10), 6 signals and abstract Unix sockets (6.12).

No version covers stat, chmod, chown, utime, Unix sockets with a path, open descriptors, prlimit and setpriority. Rules
on TCP there are, and other ways to have it: see `ipc.seccomp`.
"""

import ctypes
import os
import struct

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1
_SCOPES = 3  # abstract Unix sockets and signals

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _MAKE_CHAR, _MAKE_BLOCK = 1, 2, 4, 8, 1 << 6, 1 << 11
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_ALL = (1 << 16) - 1
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL

READ = _READ_FILE | _READ_DIR
RUN = READ | _EXECUTE
USE = READ | _WRITE_FILE | _IOCTL
"""Rights on a device."""
WRITE = _ALL & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL)
"""All rights but those on devices: root could make one that leads to a disk."""

FILES_ABI, SCOPES_ABI = 3, 6
"""The least version for each kind of rule. Before ABI 3, every file could be truncated, whatever the rules say."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def abi() -> int:
    """The kernel's version of Landlock; 0 if it has none, or it is switched off, or a container's filter hides it."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    except OSError:
        return 0


class Ruleset:
    """Rules that a process can put itself under. Close it.

    Attributes:
        descriptor: The kernel's handle, for `restrict_self`. It is not inherited over exec.
    """

    def __init__(self, *, files: bool = False, scopes: bool = False) -> None:
        """Make rules that forbid things.

        Args:
            files: Forbid all use of files except what `allow` permits.
            scopes: Forbid signals to processes outside of the domain, and connections to their abstract Unix sockets.

        Raises:
            OSError: This kernel's version of Landlock is too old.
        """
        version = abi()
        # Older versions know fewer rights, and refuse the others.
        self._files = _ALL if version >= 5 else _ALL & ~_IOCTL
        attributes = struct.pack("=QQQ", self._files * files, 0, _SCOPES * scopes)
        self.descriptor = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(24 if scopes else 8), 0)

    def allow(self, path: str, rights: int, real: bool = False) -> None:
        """Allow `rights` on a file, or on a directory and all below it. A path that cannot be reached is ignored.

        With `real`, so is one that leads through a link.

        The rule holds for the file itself: not for another that takes its name, nor for one mounted over it.
        """
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # there is nothing to allow
        try:
            if real and os.readlink(f"/proc/self/fd/{place}") != path:
                return
            allowed = rights & self._files & (_ALL if os.path.isdir(path) else _OF_FILES)
            _call(_ADD_RULE, self.descriptor, _PATH_BENEATH, struct.pack("=Qi", allowed, place), 0)
        finally:
            os.close(place)

    def close(self) -> None:
        """Close the descriptor. Processes that were restricted stay restricted."""
        os.close(self.descriptor)


def restrict_self(ruleset: int) -> None:
    """Put the calling thread, and all that it starts, under the rules for good. Each call makes a domain of its own.

    `ruleset` is a descriptor. Call `linux.forbid_new_privileges` first.

    Raises:
        OSError: The kernel refuses.
    """
    _call(_RESTRICT_SELF, ruleset, 0)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return result
