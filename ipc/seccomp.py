"""A filter of system calls (seccomp(2)): a process and all that it starts can no longer set limits of other processes.

prlimit(2) lets a process set the limits of any process of its user. Under a limit of one second of CPU time, the kernel
kills the supervisor. Landlock does not cover prlimit.

The filter leaves setpriority, sched_setscheduler, sched_setaffinity and ioprio_set alone. They make the client slow,
but do not end it. And a filter sees only the number of a thread: it cannot tell a stranger's thread from the caller's
own, whose scheduling encoders set by number (SVT-AV1 does).

It takes 0.05 ms of the 6 ms of CPU time of an empty task (Linux 6.18, x86-64, busy).
"""

import ctypes
import errno
import os
import struct

_NUMBERS = {
    "x86_64": (0xC000003E, 302, 0x40000003, 340, 317),
    "aarch64": (0xC00000B7, 261, 0x40000028, 369, 277),
    "riscv64": (0xC00000F3, 261, 0x400000F3, 261, 277),
}
"""By `uname -m`: the architecture's number in linux/audit.h, and its call prlimit64; those of its 32-bit variant, which
any process can enter; and the call seccomp."""

_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SPEC_ALLOW = 4
"""Without it, kernels before 5.16 make every confined process slower, for fear of Spectre."""

_NUMBER, _ARCHITECTURE, _PID, _NEW_LIMIT = 0, 4, 16, 32
"""Offsets in struct seccomp_data. The new limit is a pointer, of two words; a null pointer only reads."""

_LOAD, _AND, _EQUALS, _RETURN = 0x20, 0x54, 0x15, 0x06  # instructions of classic BPF

_WITHOUT_X32 = 0xBFFFFFFF
"""The calls of x86's x32 variant have the same numbers, with one more bit."""

_libc = ctypes.CDLL(None, use_errno=True)


def is_available() -> bool:
    """True if this kernel and this architecture can have the filter."""
    numbers = _NUMBERS.get(os.uname().machine)
    action = ctypes.c_uint32(_ERRNO)
    return numbers is not None and _libc.syscall(numbers[-1], _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0


class Filter:
    """The filter, ready to be applied by a process and by those that are forked from it."""

    def __init__(self) -> None:
        architecture, prlimit, variant, variant_prlimit, self._seccomp = _NUMBERS[os.uname().machine]
        instructions = [  # (operation, instructions to skip if true, to skip if false, operand)
            (_LOAD, 0, 0, _ARCHITECTURE),
            (_EQUALS, 1, 0, architecture),
            (_EQUALS, 3, 11, variant),
            (_LOAD, 0, 0, _NUMBER),
            (_AND, 0, 0, _WITHOUT_X32),
            (_EQUALS, 2, 8, prlimit),
            (_LOAD, 0, 0, _NUMBER),
            (_EQUALS, 0, 6, variant_prlimit),
            (_LOAD, 0, 0, _PID),
            (_EQUALS, 4, 0, 0),  # the caller
            (_LOAD, 0, 0, _NEW_LIMIT),
            (_EQUALS, 0, 3, 0),
            (_LOAD, 0, 0, _NEW_LIMIT + 4),
            (_EQUALS, 0, 1, 0),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        ]
        self._code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in instructions))
        self._program = struct.pack("@HP", len(instructions), ctypes.addressof(self._code))

    def apply(self, flags: int = _SPEC_ALLOW) -> None:
        """Make prlimit(2) fail with EPERM from now on if it sets limits and names a process, be it the caller itself.

        Call `linux.forbid_new_privileges` first.

        Raises:
            OSError: The kernel refuses, as it does if `flags` is -1.
        """
        if _libc.syscall(self._seccomp, _SET_MODE_FILTER, flags, self._program) != 0:
            raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
