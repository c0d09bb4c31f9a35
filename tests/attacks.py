"""A module that attacks processes which are not its own, and tells which attacks the kernel allowed.

The numbers of system calls are those of x86-64 and of aarch64.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import multiprocessing
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from app.exceptions import RunError
from modules.base import BaseModule

_X86 = os.uname().machine == "x86_64"
PTRACE, GETFD = (101 if _X86 else 117), 438
PROCESS_VM_READV, PROCESS_VM_WRITEV = (310, 311) if _X86 else (270, 271)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
IO_URING_SETUP = 425
SOCKETCALL, SOCKET = 102, 359  # of 32-bit x86
MPTCP = 262
F_SETSIG = 10
MAP_32BIT = 0x40 | mmap.MAP_ANONYMOUS

_libc = ctypes.CDLL(None, use_errno=True)


class Attacker(BaseModule):
    """Data: `victims`, process ids besides those of its zygote and supervisor; `attacks`, names of those below, or none
    for all; and `out`, a file for what it found.

    It writes a list of [attack, victim, whether it succeeded], and raises if nothing did.
    """

    def run(self) -> None:
        zygote = os.getppid()
        victims = [zygote, psutil.Process(zygote).ppid(), *self.task.victims]
        names = self.task.to_dict().get("attacks", ATTACKS)
        found = [[name, victim, _try(ATTACKS[name], victim)] for name in names for victim in victims]
        Path(self.task.out).write_text(json.dumps(found))
        if not any(succeeded for _, _, succeeded in found):
            raise RunError(message="every attack failed")


def _try(attack: Callable[[int], object], victim: int) -> bool:
    try:
        attack(victim)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _call(number: int, *arguments: int | bytes | None) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _kill(number: signal.Signals) -> Callable[[int], None]:
    return lambda victim: os.kill(victim, number)


def pause_often(victim: int) -> None:
    for _ in range(300):
        os.kill(victim, signal.SIGUSR2)


def kill_by_pidfd(victim: int) -> None:
    signal.pidfd_send_signal(os.pidfd_open(victim), signal.SIGKILL)


def kill_group(victim: int) -> None:
    os.killpg(os.getpgid(victim), signal.SIGKILL)


def kill_by_pipe(victim: int) -> None:
    """Has the kernel send the signal that tells of data in a pipe. It says nothing if it does not."""
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, victim)
    fcntl.fcntl(reader, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
    os.write(writer, b"x")
    raise OSError


def kill_from_a_tool(victim: int) -> None:
    subprocess.run(["sh", "-c", 'kill -KILL "$1"', "sh", str(victim)], check=True, stderr=subprocess.DEVNULL)


def attach(victim: int) -> None:
    _call(PTRACE, PTRACE_ATTACH, victim, None, None)


def seize(victim: int) -> None:
    _call(PTRACE, PTRACE_SEIZE, victim, None, None)


def read_memory(victim: int) -> None:
    own = ctypes.create_string_buffer(8)
    vector = struct.pack("PN", ctypes.addressof(own), 8)
    _call(PROCESS_VM_READV, victim, vector, 1, vector, 1, 0)


def open_memory(victim: int) -> None:
    os.close(os.open(f"/proc/{victim}/mem", os.O_RDWR))


def steal_descriptor(victim: int) -> None:
    os.close(_call(GETFD, os.pidfd_open(victim), 1, 0))


def open_descriptor(victim: int) -> None:
    os.close(os.open(f"/proc/{victim}/fd/1", os.O_WRONLY | os.O_NONBLOCK))


def limit(which: int, value: int) -> Callable[[int], None]:
    return lambda victim: resource.prlimit(victim, which, (value, value)) and None


def limit_from_a_tool(victim: int) -> None:
    code = "import resource, sys; resource.prlimit(int(sys.argv[1]), resource.RLIMIT_CPU, (1, 1))"
    subprocess.run([sys.executable, "-c", code, str(victim)], check=True, stderr=subprocess.DEVNULL)


def limit_by_32_bit_call(victim: int) -> None:
    """Sets the limit by the entry to the kernel that 32-bit programs of x86 use."""
    if not _X86:
        raise OSError
    code = bytes.fromhex("53 b854010000 89fb 89f1 31f6 cd80 5b c3")  # prlimit64(edi, esi, edx, 0)
    page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | MAP_32BIT, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page[: len(code)] = code
    page[2048:2064] = struct.pack("QQ", 1, 1)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    prlimit = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_uint)(address)
    if (result := prlimit(victim, resource.RLIMIT_CPU, address + 2048)) < 0:
        raise OSError(-result, os.strerror(-result))


def signal_all(victim: int) -> None:
    """Kills all that it may. The call succeeds whether there was one or not, so that only the victims tell."""
    for shielded in (1, victim):  # without Landlock, this would be the end of the tests and of much else
        with contextlib.suppress(PermissionError):
            os.kill(shielded, 0)
            return
    os.kill(-1, signal.SIGKILL)
    raise OSError


def connect_to_abstract_socket(victim: int) -> None:
    """A socket of the victim's, if it has one of this name."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{ABSTRACT}{victim}")


ABSTRACT = "\0sisyphus-tests-"

ATTACKS: dict[str, Callable[[int], Any]] = {
    "TERM": _kill(signal.SIGTERM),
    "INT": _kill(signal.SIGINT),
    "QUIT": _kill(signal.SIGQUIT),
    "STOP": _kill(signal.SIGSTOP),
    "KILL": _kill(signal.SIGKILL),
    "USR2": pause_often,
    "KILL by pidfd": kill_by_pidfd,
    "KILL of the group": kill_group,
    "KILL by a pipe": kill_by_pipe,
    "KILL from a tool": kill_from_a_tool,
    "ptrace attach": attach,
    "ptrace seize": seize,
    "process_vm_readv": read_memory,
    "/proc/PID/mem": open_memory,
    "pidfd_getfd": steal_descriptor,
    "/proc/PID/fd": open_descriptor,
    "limit of CPU time": limit(resource.RLIMIT_CPU, 1),
    "limit of open files": limit(resource.RLIMIT_NOFILE, 0),
    "limit of memory": limit(resource.RLIMIT_AS, 0),
    "limit by a 32-bit call": limit_by_32_bit_call,
    "limit from a tool": limit_from_a_tool,
    "abstract socket": connect_to_abstract_socket,
    "KILL of all": signal_all,
}
"""Each takes a process id, and raises `OSError` if the kernel does not let it."""


class Hoarder(BaseModule):
    """Sends descriptors that nobody receives, as many as the kernel takes, and keeps them on their way.

    Data: `ready`, a file that it writes then, and `until`, a file for which it waits.
    """

    def run(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        pairs = []
        with contextlib.suppress(OSError):  # ETOOMANYREFS, or EMFILE
            while True:
                pairs.append(socket.socketpair())
                pairs[-1][0].setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        socket.send_fds(pairs[-1][0], [b"x"], [0] * 250)
        Path(self.task.ready).touch()
        while not Path(self.task.until).exists():
            time.sleep(0.01)


class Modest(BaseModule):
    """Sets limits that are its own business."""

    def run(self) -> None:
        files = resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, files[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        subprocess.run(["sh", "-c", "ulimit -n 50"], check=True)


class Explorer(BaseModule):
    """Data: `tries`, a list of [what, argument…], and `out`, a file.

    It writes what became of each: nothing, or the error's name.
    """

    def run(self) -> None:
        tries = self.task.to_dict()["tries"]
        Path(self.task.out).write_text(json.dumps([_outcome(what, arguments) for what, *arguments in tries]))


def _outcome(what: str, arguments: list[Any]) -> str:
    try:
        TRIES[what](*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except subprocess.CalledProcessError:
        return "status"
    return ""


def _write(path: str) -> None:
    with open(path, "a") as file:
        file.write("spam")


def _connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 5).close()


def _replace_by_link(path: str, target: str) -> None:
    os.rename(path, f"{path}-before")
    os.symlink(target, path)


def _listen(bound: bool = True, protocol: int = 0) -> None:
    with socket.socket(proto=protocol) as server:
        if bound:
            server.bind(("127.0.0.1", 0))
        server.listen()


def _connect_fast(port: int) -> None:
    """Without connect(2)."""
    with socket.socket() as client:
        client.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", port))


def _connect_by(protocol: int, port: int) -> None:
    with socket.socket(proto=protocol) as client:
        client.connect(("127.0.0.1", port))


def _send_datagram(port: int) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("127.0.0.1", port))


def _set_up_ring() -> None:
    """io_uring makes sockets out of a filter's sight."""
    os.close(_call(IO_URING_SETUP, 2, bytes(120)))


def _make_socket_by_32_bit_call(number: int) -> None:
    """Makes a socket by the entry to the kernel that 32-bit programs of x86 use: socket(2), or socketcall(2)."""
    page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | MAP_32BIT, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code = bytes.fromhex("53 89f8 89f3 89d1 31d2 cd80 5b c3")  # edi(esi, edx, 0)
    page[: len(code)] = code
    page[2048:2060] = struct.pack("III", socket.AF_INET, socket.SOCK_STREAM, 0)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)(address)
    arguments = (1, address + 2048) if number == SOCKETCALL else (socket.AF_INET, socket.SOCK_STREAM)
    if (result := call(number, *arguments)) < 0:
        raise OSError(-result, os.strerror(-result))


def _use_pool() -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(abs, [1, 2])


TRIES: dict[str, Callable[..., Any]] = {
    "read": lambda path: open(path, "rb").close(),
    "write": _write,
    "truncate": lambda path: os.truncate(path, 0),
    "list": os.listdir,
    "mkdir": os.mkdir,
    "unlink": os.unlink,
    "rename": os.rename,
    "link": os.link,
    "symlink": os.symlink,
    "replace by a link": _replace_by_link,
    "run": lambda *argv: subprocess.run(argv, check=True, capture_output=True),
    "connect": _connect,
    "connect fast": _connect_fast,
    "connect by": _connect_by,
    "listen": _listen,
    "send a datagram": _send_datagram,
    "set up a ring": _set_up_ring,
    "make a socket by the 32-bit call": _make_socket_by_32_bit_call,
    "make a Unix socket": lambda: [each.close() for each in (*socket.socketpair(), socket.socket(socket.AF_UNIX))],
    "write a temporary file": lambda: tempfile.TemporaryFile().close(),
    "use a pool": _use_pool,
}
"""What a module may try with files and the network."""
