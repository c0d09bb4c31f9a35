"""A filter of system calls (seccomp(2)): a process and all that it starts can no longer set limits of other processes,
and, if that is wanted, has no network.

prlimit(2) lets a process set the limits of any process of its user. Under a limit of one second of CPU time, the kernel
kills the supervisor. Landlock does not cover prlimit.

The filter leaves setpriority, sched_setscheduler, sched_setaffinity and ioprio_set alone. They make the client slow,
but do not end it. And a filter sees only the number of a thread: it cannot tell a stranger's thread from the caller's
own, whose scheduling encoders set by number (SVT-AV1 does).

Landlock forbids TCP only as far as connect(2) and bind(2) go: MPTCP, TCP fast open and listen(2) without a bind pass by
it (seen on Linux 6.18). So the filter forbids to make sockets, but for Unix sockets and netlink, which tells programs
the addresses of this machine; and io_uring, whose calls no filter sees.

It takes 0.05 ms of the 6 ms of CPU time of an empty task (Linux 6.18, x86-64, busy).
"""

import ctypes
import errno
import os
import socket
import struct

_NUMBERS = {
    "x86_64": (0xC000003E, 302, 41, 0x40000003, 340, 359, 317),
    "aarch64": (0xC00000B7, 261, 198, 0x40000028, 369, 281, 277),
    "riscv64": (0xC00000F3, 261, 198, 0x400000F3, 261, 198, 277),
}
"""By `uname -m`: the architecture's number in linux/audit.h, and its calls prlimit64 and socket; those of its 32-bit
variant, which any process can enter; and the call seccomp."""

_SOCKETCALL, _IO_URING_SETUP = 102, 425
"""32-bit x86's call of many; and one that has the same number everywhere."""

_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SPEC_ALLOW = 4
"""Without it, kernels before 5.16 make every confined process slower, for fear of Spectre."""

_NUMBER, _ARCHITECTURE, _FIRST, _NEW_LIMIT = 0, 4, 16, 32
"""Offsets in struct seccomp_data. `_FIRST` is the call's first argument. The new limit of prlimit is a pointer, of two
words; a null pointer only reads."""

_LOAD, _AND, _EQUALS, _RETURN = 0x20, 0x54, 0x15, 0x06  # instructions of classic BPF

_WITHOUT_X32 = 0xBFFFFFFF
"""The calls of x86's x32 variant have the same numbers, with one more bit."""

_Code = list[tuple[int, int, int, int]]
"""Instructions: the operation, how many to skip if it is true, how many if it is false, and the operand."""

_LIMIT_OF_OTHERS: _Code = [
    (_LOAD, 0, 0, _FIRST),
    (_EQUALS, 4, 0, 0),  # the caller
    (_LOAD, 0, 0, _NEW_LIMIT),
    (_EQUALS, 0, 3, 0),
    (_LOAD, 0, 0, _NEW_LIMIT + 4),
    (_EQUALS, 0, 1, 0),
    (_RETURN, 0, 0, _ALLOW),
    (_RETURN, 0, 0, _ERRNO | errno.EPERM),
]
_DENY: _Code = [(_RETURN, 0, 0, _ERRNO | errno.EACCES)]
_SOCKET: _Code = [
    (_LOAD, 0, 0, _FIRST),
    (_EQUALS, 1, 0, socket.AF_UNIX),
    (_EQUALS, 0, 1, socket.AF_NETLINK),
    (_RETURN, 0, 0, _ALLOW),
    *_DENY,
]
_SOCKETCALL_SOCKET: _Code = [(_LOAD, 0, 0, _FIRST), (_EQUALS, 0, 1, 1), *_DENY, (_RETURN, 0, 0, _ALLOW)]
"""The address family is out of a filter's sight there: such a program uses the call socket instead, or has none."""

_libc = ctypes.CDLL(None, use_errno=True)


def is_available() -> bool:
    """True if this kernel and this architecture can have the filter."""
    numbers = _NUMBERS.get(os.uname().machine)
    action = ctypes.c_uint32(_ERRNO)
    return numbers is not None and _libc.syscall(numbers[-1], _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0


class Filter:
    """The filter, ready to be applied by a process and by those that are forked from it."""

    def __init__(self, *, network: bool = True) -> None:
        """Without `network`, io_uring_setup(2) fails with EACCES, and socket(2) but for Unix sockets and netlink."""
        architecture, prlimit, make, variant, variant_prlimit, variant_make, self._seccomp = _NUMBERS[
            os.uname().machine
        ]
        checks = [(prlimit, _LIMIT_OF_OTHERS)]
        variant_checks = [(variant_prlimit, _LIMIT_OF_OTHERS)]
        if not network:
            checks += [(make, _SOCKET), (_IO_URING_SETUP, _DENY)]
            variant_checks += [(variant_make, _SOCKET), (_IO_URING_SETUP, _DENY), (_SOCKETCALL, _SOCKETCALL_SOCKET)]
        native = [(_LOAD, 0, 0, _NUMBER), (_AND, 0, 0, _WITHOUT_X32), *_on_calls(checks)]
        other = [(_LOAD, 0, 0, _NUMBER), *_on_calls(variant_checks)]
        code = [
            (_LOAD, 0, 0, _ARCHITECTURE),
            (_EQUALS, 0, len(native), architecture),
            *native,
            (_EQUALS, 0, len(other), variant),
            *other,
            (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        ]
        self._code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
        self._program = struct.pack("@HP", len(code), ctypes.addressof(self._code))

    def apply(self, flags: int = _SPEC_ALLOW) -> None:
        """Make prlimit(2) fail with EPERM from now on if it sets limits and names a process, be it the caller itself.

        Call `linux.forbid_new_privileges` first.

        Raises:
            OSError: The kernel refuses, as it does if `flags` is -1.
        """
        if _libc.syscall(self._seccomp, _SET_MODE_FILTER, flags, self._program) != 0:
            raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def _on_calls(checks: list[tuple[int, _Code]]) -> _Code:
    """Instructions, after the call's number was loaded: the check for that call, or else allow it."""
    code: _Code = []
    for number, check in checks:
        code += [(_EQUALS, 0, len(check), number), *check]
    return [*code, (_RETURN, 0, 0, _ALLOW)]
