"""A job's way through its steps, and what the supervisor's smaller parts promise."""

import asyncio
import os
import random
import re
import resource
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.exceptions import ValidationError
from app.heartbeat import Heartbeat
from ipc import linux
from modules.base import BaseModule
from supervisor.isolation import scratch
from supervisor.isolation.failure import explain_status
from supervisor.isolation.line_pipe import LINES_BURST, LinePipe, printable
from supervisor.isolation.sampler import Sampler
from supervisor.jobs.status import Status, read_status
from tests.conftest import living
from tests.supervised import Supervised, job


def steps_of(log: Path) -> list[str]:
    return [line.split()[0] for line in log.read_text().splitlines()]


def test_all_are_validated_before_any_runs(supervised: Supervised, tmp_path: Path) -> None:
    """init of all tasks, then validate of all, then run and cleanup one task after the other."""
    log = str(tmp_path / "log")

    supervised.verdicts(job(*[("hostile", {"log": log})] * 3))

    assert steps_of(tmp_path / "log") == ["init"] * 3 + ["validate"] * 3 + ["run", "cleanup"] * 3


@pytest.mark.parametrize("step", ["init", "validate"])
def test_first_failure_in_task_order_decides(supervised: Supervised, tmp_path: Path, step: str) -> None:
    """However long the earlier task takes to fail, its failure is the job's, and nothing has run."""
    log = str(tmp_path / "log")
    supervised.configure({f"{step}_timeout": "500ms"})
    slow, quick = ({"step": step, "act": act, "log": log} for act in ("hold_gil", "own_error"))

    (verdict,) = supervised.verdicts(job(("hostile", {"log": log}), ("hostile", slow), ("hostile", quick)))

    assert verdict.failure is not None
    assert (verdict.failure.task, verdict.failure.reason) == (1, "timeout")
    assert [run.result for run in verdict.tasks] == ["not run", "failed", "not run"]
    assert "run" not in steps_of(tmp_path / "log")


def test_failure_does_not_wait_for_later_tasks(supervised: Supervised) -> None:
    """Once an earlier task has failed, later ones are not waited for."""
    supervised.configure({"validate_timeout": "1h", "grace": "1h"})
    tasks = [("hostile", {"step": "validate", "act": act}) for act in ("own_error", "ignore_everything")]

    (verdict,) = supervised.verdicts(job(*tasks))

    assert verdict.failure is not None
    assert verdict.failure.message == "Could not build additional pylons."


def test_prints_and_warnings_are_the_tasks_own(supervised: Supervised) -> None:
    """A warning goes on the record of the task that gave it; leftovers are one."""
    (verdict,) = supervised.verdicts(
        job(
            ("hostile", {"step": "run", "act": "warn_and_leave_threads"}), ("hostile", {"step": "run", "act": "daemon"})
        )
    )

    assert verdict.tasks[0].warnings == ["odd"]
    (warning,) = verdict.tasks[1].warnings  # of the shell, and of its sleep if it had got to it
    assert re.fullmatch(r"[12] of its processes were still alive after it and were killed", warning)


def test_many_tasks(supervised: Supervised) -> None:
    """A job of a hundred tasks has a hundred processes, and leaves none."""
    (verdict,) = supervised.verdicts(job(*[("benign", {})] * 100), between=lambda zygote: None)

    assert verdict.failure is None
    assert len(verdict.tasks) == 100


def test_more_tasks_than_descriptors(supervised: Supervised) -> None:
    """A usual limit of open files is enough for a large job, and the tasks still have that limit."""
    document = job(*[("benign", {})] * 99, ("hostile", {"step": "run", "act": "tell_open_files"}))

    done = supervised.run(
        document, "--json", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 4096))
    )

    assert done.returncode == 0, done.stderr
    assert "open files: (200, 4096)" in done.stderr


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


def test_scratch_directories_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor's scratch directory goes with it; one that a killed supervisor left goes at the next start.

    So does one that it had not marked yet, which is empty. What is not marked and holds something is somebody else's.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stale = tmp_path / f"{scratch.PREFIX}stale"
    (stale / "task" / "deep").mkdir(parents=True)
    (stale / scratch.MARK).touch()
    other = tmp_path / f"{scratch.PREFIX}of-somebody-else"
    other.mkdir()
    (other / "file").touch()
    unmarked = tmp_path / f"{scratch.PREFIX}unmarked"
    unmarked.mkdir()
    (stale / "task" / "deep").chmod(0)

    with scratch.scratch_directory() as first, scratch.scratch_directory() as second:
        assert not stale.exists()
        assert not unmarked.exists()
        assert first.exists()
        assert second.exists()
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("1", Status()),
        ("[]", Status()),
        ('{"progress": 43}', Status(43.0)),
        ('{"progress": 143.5}', Status(100.0)),
        ('{"progress": -1}', Status(0.0)),
        ('{"progress": "43"}', Status()),
        ('{"progress": true}', Status()),
        ('{"progress": null, "info": null}', Status()),
        ('{"progress": 1' + "0" * 400 + "}", Status()),
        ('{"info": {"fps": 1}, "spam": 2, "status": "x"}', Status(None, {"spam": 2, "fps": 1})),
        ('{"info": ' + "[" * 5000 + "]" * 5000 + "}", Status()),
    ],
)
def test_status_is_made_safe(said: str, status: Status) -> None:
    """Only what makes sense of a status is taken: finite progress from 0 to 100, unknown keys under info."""
    assert read_status(msgspec.Raw(said.encode())) == status


def test_heartbeat_takes_anything() -> None:
    """A report never makes a module fail, whatever it is given."""
    heartbeat = Heartbeat()
    sent: list[bytes] = []
    heartbeat.connect(sent.append)
    loop: dict[str, Any] = {}
    loop["loop"] = loop

    class BadStr:
        def __str__(self) -> str:
            raise RuntimeError

    for odd in ({"a": float("nan")}, {"a": Path("/x")}, loop, {"a": BadStr()}, {"a": "\udcff"}, {1: {2}}, 5, None):
        heartbeat.set_data(odd)  # type: ignore[arg-type]

    assert heartbeat.message["status"] == "idle"


def test_heartbeat_coalesces() -> None:
    """Of a hundred thousand statuses few travel, and the last of them does."""
    heartbeat = Heartbeat()
    sent: list[bytes] = []
    arrived = threading.Event()

    def send(status: bytes) -> None:
        sent.append(status)
        if b"99999" in status:
            arrived.set()

    heartbeat.connect(send)
    for number in range(100_000):
        heartbeat.set_data({"progress": number})

    assert arrived.wait(10)
    assert len(sent) < 100


def test_line_pipe_bounds_what_is_logged() -> None:
    """A flood of lines is cut and counted; the last lines are kept; control characters are shown, not obeyed."""
    emitted: list[str] = []

    async def main() -> LinePipe:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        pipe = LinePipe(reader, emitted.append)
        flood = asyncio.to_thread(
            _write_and_close, writer, b"".join(b"%d\n" % n for n in range(100_000)) + b"\x1b[2Jend"
        )
        await flood
        await asyncio.sleep(0)
        pipe.close()
        return pipe

    pipe = asyncio.run(main())

    assert emitted[:3] == ["0", "1", "2"]
    assert LINES_BURST <= len(emitted) < 2 * LINES_BURST
    assert "more lines were not logged" in "".join(emitted)
    assert pipe.last_lines()[-2:] == ("99999", "\\x1b[2Jend")


def test_line_pipe_takes_any_bytes() -> None:
    """Random bytes in random pieces: no exception, lines of bearable length, bounded memory."""
    chance = random.Random(1)
    emitted: list[str] = []

    async def main() -> None:
        for _ in range(200):
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            pipe = LinePipe(reader, emitted.append)
            for _ in range(chance.randrange(5)):
                os.write(writer, chance.choice([chance.randbytes(500), b"x" * 9000, b"\n" * 3000, b"\r\n\xff"]))
                pipe.drain()
                assert len(pipe._partial) <= 4096
            os.close(writer)
            pipe.close()

    asyncio.run(main())

    assert all(len(line) <= 4 * 4096 for line in emitted)
    assert not [c for line in emitted for c in line if unicodedata.category(c) == "Cc" and c != "	"]


def _write_and_close(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


@pytest.mark.parametrize(
    ("line", "shown"),
    [(b"a\r", "a"), (b"a\tb", "a\tb"), (b"\xff\x00\x9b", "\\xff\\x00\\x9b"), ("ä\x9b".encode(), "ä\\x9b")],
)
def test_printable(line: bytes, shown: str) -> None:
    """A line of a task is text that is safe to print."""
    assert printable(line) == shown


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


def test_measure_of_a_process_that_is_gone() -> None:
    """A tree that has ended uses nothing."""
    process = subprocess.Popen(["true"])
    process.wait()

    assert Sampler(process.pid).sample().processes == 0


def test_explain_status() -> None:
    """A wait status in words: a signal with its name, an exit with its status, a real-time signal too."""
    assert explain_status(9).message == "the task process was killed by SIGKILL (killed)"
    assert explain_status(40).signal == "signal 40"
    assert explain_status(3 << 8).exit_status == 3


def test_children_are_found() -> None:
    """The children of a process are those that psutil finds too."""
    processes = [subprocess.Popen(["sleep", "99"]) for _ in range(3)]

    found = linux.children(os.getpid())
    for process in processes:
        process.kill()
        process.wait()

    assert set(found) >= {process.pid for process in processes}
    assert linux.children(processes[0].pid) == []


def test_base_module_outside_the_client(tmp_path: Path) -> None:
    """An author's test can use a module without a client: schema, files, duration."""

    class Picky(BaseModule):
        schema = {"type": "object", "required": ["x"], "additionalProperties": False, "properties": {"x": {}}}

    with pytest.raises(ValidationError, match="'x'"):
        Picky({}).validate()
    module = Picky({"x": 1})
    module.validate()
    module.run()
    module.cleanup()

    assert module.get_duration().total_seconds() >= 0
    assert not module.will_exist(str(tmp_path / "none"))
    assert module.will_exist(str(tmp_path))
