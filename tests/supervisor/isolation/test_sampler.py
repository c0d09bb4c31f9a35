"""What a tree of processes uses; freezing and thawing it."""

import os
import subprocess
import sys

from ipc import linux
from supervisor.isolation import sampler
from supervisor.isolation.sampler import Sampler
from tests.support.processes import living
from tests.support.supervised import Supervised, job
from tests.support.waiting import until

EXIT = 60 if os.uname().machine == "x86_64" else 93
"""The number of exit(2), which ends the calling thread alone."""


def test_cpu_time_of_tools_is_counted(supervised: Supervised) -> None:
    """The CPU time on the record is that of the whole tree, tools that were killed among it."""
    spin = [
        sys.executable,
        "-c",
        "import time\nwhile time.process_time() < .5: pass\nprint(flush=True)\ntime.sleep(99)",
    ]
    (verdict,) = supervised.verdicts(job(("hostile", {"step": "run", "act": "abandon", "argv": spin})))

    assert verdict.failure is None
    assert verdict.tasks[0].cpu_seconds >= 0.5


def test_measure_counts_shared_pages_once() -> None:
    """The memory of a tree is not that of its processes added up: forks share their pages."""
    code = (
        "import os, sys\nx = b'x' * 50_000_000\nfor _ in range(4):\n    if not os.fork(): os.read(0, 1); os._exit(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code + "print(flush=True); os.read(0, 1)"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        usage = Sampler(process.pid).sample()
        for child in living():
            child.kill()

    assert usage.processes == 5
    assert 50_000_000 < usage.memory < 100_000_000


def test_a_process_without_its_first_thread() -> None:
    """Its memory is counted, and it is stopped, as long as one of its threads is alive."""
    code = (
        "import ctypes, os, threading\nx = b'x' * 50_000_000\n"
        "def rest():\n    while open('/proc/self/stat').read().split()[2] != 'Z': pass\n"
        "    print(flush=True); os.read(0, 1)\n"
        f"threading.Thread(target=rest).start(); ctypes.CDLL(None).syscall({EXIT}, 0)"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        usage = Sampler(process.pid).sample()
        frozen = sampler.freeze(process.pid)
        state = linux.state(linux.living_thread(process.pid))
        process.kill()

    assert (usage.processes, usage.threads) == (1, 2)
    assert usage.memory > 50_000_000
    assert frozen == [process.pid]
    assert state == "T"


def test_measure_of_a_process_that_is_gone() -> None:
    """A tree that has ended uses nothing."""
    process = subprocess.Popen(["true"])
    process.wait()

    assert Sampler(process.pid).sample().processes == 0


def test_freeze_leaves_alone_what_was_stopped_before() -> None:
    """What a module had stopped itself stays stopped when the tree is resumed."""
    script = "sleep 1000 & kill -STOP $!; sleep 1000 & wait"
    with subprocess.Popen(["sh", "-c", script]) as process:
        until(lambda: [linux.state(pid) for pid in linux.descendants(process.pid)] == ["T", "S"], "its children")
        frozen = sampler.freeze(process.pid)
        all_stopped = {linux.state(child.pid) for child in living()} == {"T"}
        sampler.thaw(frozen)
        until(lambda: [linux.state(pid) for pid in linux.descendants(process.pid)] == ["T", "S"], "the second to go on")
        for child in living():
            child.kill()

    assert all_stopped
