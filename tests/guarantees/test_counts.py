"""What the client costs in counts that do not depend on the machine: none grows unnoticed.

`counts.json` has them, for each version of Python. A count that is a tenth over the one that is kept there is an error.
Renew the file after a change that is meant to cost more, or costs less:

    RENEW_COUNTS=1 scripts/test --all -n 0 tests/guarantees/test_counts.py
"""

import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.isolation.zygote import Zygote
from tests.support.client import Client, await_verdicts
from tests.support.farm import Farm
from tests.support.media import make_clip
from tests.support.supervised import BENIGN, Supervised, job

pytestmark = pytest.mark.slow  # and so measured where continuous integration runs all tests, not on each other Debian

KEPT = Path(__file__).with_name("counts.json")
ALLOWED = 1.1
"""How much more than is kept a count may be: a tenth."""

EMPTY = {"empty": "modules.base.BaseModule"}
TASKS = 20

_PROCESS = re.compile(r"\d+ +(v?fork\(|clone3?\((?!.*CLONE_THREAD))")
"""The beginning of a line of strace about a call that makes a process."""

_CALL = re.compile(r"(\d+) +(\w+)\(")


def check(name: str, count: float) -> None:
    """Compare a count with the one that is kept, or keep it, if the tests are to renew them."""
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    kept = json.loads(KEPT.read_text())
    if os.environ.get("RENEW_COUNTS"):
        kept.setdefault(version, {})[name] = count
        KEPT.write_text(json.dumps(kept, indent=4, sort_keys=True) + "\n")
    before = kept.get(version, {}).get(name)
    if before is None:
        pytest.skip(f"no count of {name} is kept for {version}; RENEW_COUNTS=1 keeps it")

    how = "see the beginning of tests/guarantees/test_counts.py if that is meant"
    assert count <= before * ALLOWED, f"{name}: {count}, which is more than a tenth over {before} ({how})"


def empty_job(tasks: int = 1) -> dict[str, Any]:
    return job(*[("empty", {})] * tasks)


@pytest.mark.parametrize("command", ["--version", "validate", "run"])
def test_imports_of_a_command(command: str, supervised: Supervised) -> None:
    """The modules of Python that the supervisor imports."""
    supervised.configure(modules=EMPTY)
    supervised.launcher = [sys.executable, "-X", "importtime"]
    file = str(supervised.write_job(empty_job()))
    words = [command] if command == "--version" else [command, file, "--config", str(supervised.config)]
    done = supervised._end(supervised._start(words))

    assert done.returncode == 0, done.stderr
    check(f"imports of {command}", done.stderr.count("import time:"))


def test_page_faults_of_an_empty_task(supervised: Supervised) -> None:
    """The pages that a task process touches first, or copies from the zygote."""
    supervised.configure(modules=EMPTY)
    totals: list[int] = []

    def note(zygote: Zygote) -> None:
        fields = Path(f"/proc/{zygote.pid}/stat").read_text().rpartition(") ")[2].split()
        totals.append(int(fields[8]))  # cminflt, proc(5): of children that were waited for

    supervised.verdicts(*[empty_job()] * TASKS, between=note)

    each = [after - before for before, after in itertools.pairwise(totals)]
    check("page faults of an empty task", statistics.median(each))


def test_system_calls_and_processes_of_a_job(supervised: Supervised) -> None:
    """What a task process asks of the kernel, and the processes that are there for a job."""
    supervised.configure(modules=EMPTY)
    lines = traced(supervised, "all", empty_job(TASKS))
    calls: dict[str, list[str]] = {}
    for pid, call in _CALL.findall("\n".join(lines)):
        calls.setdefault(pid, []).append(call)
    tasks = [len(own) for own in calls.values() if "setsid" in own and "execve" not in own]

    assert len(tasks) == TASKS
    check("system calls of an empty task", statistics.median(tasks))
    check(f"processes of a job of {TASKS} empty tasks", processes(lines))


def test_processes_of_an_encode(supervised: Supervised, tmp_path: Path) -> None:
    """ffmpeg is asked nothing that is kept, and ffprobe looks at the source and at the output."""
    clip = make_clip(tmp_path / "clip.mkv", seconds=1)
    encode = {
        "sources": [str(clip)],
        "source_maps": [{"source": 0, "specifier": "v"}],
        "output_maps": [{"stream": 0, "options": {"codec": "libx264", "preset": "ultrafast"}}],
        "output_file": str(tmp_path / "out.mkv"),
        "overwrite": True,
    }
    assert supervised.record(job(("ffmpeg", encode)))["completed"]

    check("processes of a job of one encode", processes(traced(supervised, "process", job(("ffmpeg", encode)))))


def test_requests_of_a_worker(farm: Farm, client: Client, supervised: Supervised) -> None:
    """What a worker asks a server like the field's from its start to its last job's verdict."""
    supervised.configure(modules=EMPTY)
    for _ in range(TASKS):
        farm.post(empty_job())
    before = len(farm.requests)
    client.start(HEARTBEAT_INTERVAL="20", QUEUE_POLL_INTERVAL="60")
    await_verdicts(farm, TASKS)

    check(f"requests of a worker with {TASKS} jobs", len(farm.requests) - before)


def traced(supervised: Supervised, kind: str, document: dict[str, Any]) -> list[str]:
    """Run a job under strace; its lines about calls of this kind, of all processes."""
    if not shutil.which("strace") or subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"]).returncode:
        pytest.skip("strace may trace nothing here")
    supervised.record(BENIGN)  # what Python compiles at the first use is there
    trace = supervised.directory / "trace"
    supervised.launcher = ["strace", "-f", "-qq", "-s", "0", "-o", str(trace), "-e", f"trace={kind}"]
    done = supervised.run(document)
    assert done.returncode == 0, done.stderr
    return trace.read_text(errors="replace").splitlines()


def processes(lines: list[str]) -> int:
    """The processes that were there: the first, and those that others made."""
    return 1 + sum(bool(_PROCESS.match(line)) for line in lines)
