"""The kernel calls that both sides need."""

import os
import subprocess

from ipc import linux


def test_children_are_found() -> None:
    """The children of a process are those that psutil finds too."""
    processes = [subprocess.Popen(["sleep", "99"]) for _ in range(3)]

    found = linux.children(os.getpid())
    for process in processes:
        process.kill()
        process.wait()

    assert set(found) >= {process.pid for process in processes}
    assert linux.children(processes[0].pid) == []
