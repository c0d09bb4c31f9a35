"""Runs a command where something is lacking: `python -m tests.support.lacking WHAT -- COMMAND…`.

`capabilities`: root is a user like any other, as far as the kernel asks for capabilities. `landlock`: the kernel says
that it has none. `seccomp`: nor filters of system calls.
"""

import ctypes
import errno
import os
import struct
import sys

from ipc import landlock

KILLS_ZYGOTE = "exception" if landlock.abi() >= landlock.SCOPES_ABI else "lost"
"""The reason on the record of a module that tries to kill the zygote: it can only where the kernel lets it."""

_LAST_CAPABILITY = 40
_PR_CAPBSET_DROP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 24, 22, 38
_LANDLOCK = 444
_SECCOMP = 317 if os.uname().machine == "x86_64" else 277

_libc = ctypes.CDLL(None, use_errno=True)


def launcher(*what: str) -> list[str]:
    """What to put before a command."""
    return [sys.executable, "-m", "tests.support.lacking", *what, "--"]


def capabilities() -> None:
    """Give up all capabilities, for the next program on. One who has none cannot, and need not."""
    for number in range(_LAST_CAPABILITY + 1):
        _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def _hide(call: int) -> None:
    """Fail a system call as kernels do that do not have it."""
    load, equals, done = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 0), (equals, 0, 1, call), (done, 0, 0, 0x50000 | errno.ENOSYS), (done, 0, 0, 0x7FFF0000)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
    described = struct.pack("@HP", len(code), ctypes.addressof(program))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if _libc.prctl(_PR_SET_SECCOMP, 2, described, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    words = sys.argv[1:]
    end = words.index("--")
    for what in words[:end]:
        {"capabilities": capabilities, "landlock": lambda: _hide(_LANDLOCK), "seccomp": lambda: _hide(_SECCOMP)}[what]()
    os.execvp(words[end + 1], words[end + 1 :])


if __name__ == "__main__":
    main()
