"""Limits: read from the configuration, and applied by the kernel."""

import ctypes
import json
import os
import resource
from pathlib import Path

import psutil
import pytest

from app.config import load_client
from supervisor.isolation.limits import Duration, IoPriority, Size, Space, load_limits
from tests.support.supervised import BENIGN, ENABLED, Supervised, job


def test_limits_of_one_module(tmp_path: Path) -> None:
    """A module's own limits lie over the general ones, and those over the defaults."""
    file = tmp_path / "c.toml"
    file.write_text(
        ENABLED
        + 'cleanup = "modules.cleanup.Cleanup"\n[tool.client.limits]\nrun_timeout = "1.5h"\ninit_timeout = 7\n'
        + '[tool.client.limits.ffmpeg]\nrun_timeout = "2d"\n'
    )

    limits = load_limits(load_client(str(file), {}))

    assert limits["ffmpeg"].run_timeout == Duration(172800.0, "2d")
    assert limits["cleanup"].run_timeout == Duration(5400.0, "1.5h")
    assert limits["ffmpeg"].init_timeout == Duration(7.0, "7s")
    assert limits["ffmpeg"].cleanup_timeout == Duration(300.0, "5m")


@pytest.mark.parametrize(
    ("text", "limit", "value"),
    [
        ('memory = "8GiB"', "memory", Size(8 << 30, "8GiB")),
        ('memory = "500 MB"', "memory", Size(500_000_000, "500 MB")),
        ("memory = 1000000", "memory", Size(1_000_000, "1000000B")),
        ('memory = "80%"', "memory", Size(int(psutil.virtual_memory().total * 0.8), "80%")),
        ('memory = "off"', "memory", None),
        ('stall_timeout = "off"', "stall_timeout", None),
        ('progress_timeout = "1.5h"', "progress_timeout", Duration(5400.0, "1.5h")),
        ("processes = 64", "processes", 64),
        ('ionice = "idle"', "ionice", IoPriority("idle", None)),
        ('ionice = "best-effort:7"', "ionice", IoPriority("best-effort", 7)),
        ('cpus = "0"', "cpus", (0,)),
        ("cpus = [0]", "cpus", (0,)),
        ("cpus = 0", "cpus", (0,)),
        ("nice = -5", "nice", -5),
        ('free_space = "20GiB"', "free_space", Space(0.0, 20 << 30, "20GiB")),
        ('free_space = "off"', "free_space", None),
    ],
)
def test_limits_in_human_units(tmp_path: Path, text: str, limit: str, value: object) -> None:
    """Limits are read in the units that people write, and "off" takes one away."""
    file = tmp_path / "c.toml"
    file.write_text(f"{ENABLED}[tool.client.limits]\n{text}\n")

    assert getattr(load_limits(load_client(str(file), {}))["ffmpeg"], limit) == value


@pytest.mark.parametrize("core", [0, 4096])
def test_kernel_limits_hold_for_module_and_tools(supervised: Supervised, tmp_path: Path, core: int) -> None:
    """nice, ionice, cpus, open_files and core_files are set before the module's first line, and hold for its tools."""
    out = tmp_path / "out"
    cpu = min(os.sched_getaffinity(0))
    supervised.configure({"nice": 7, "ionice": "idle", "cpus": str(cpu), "open_files": 99, "core_files": core > 0})

    def allow_core_files() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))

    document = job(("hostile", {"step": "init", "act": "tell_limits", "out": str(out)}))
    done = supervised.run(document, preexec_fn=allow_core_files)

    assert done.returncode == 0, done.stderr
    module, tool = json.loads(out.read_text())
    assert module == tool == [7, int(psutil.IOPRIO_CLASS_IDLE), [cpu], [99, 99], core, 500]


def test_the_kernel_takes_tasks_first(supervised: Supervised) -> None:
    """Supervisor and zygote keep their out-of-memory score; without limits, tasks have a raised one all the same."""
    client = supervised.start_at("tool")
    (zygote,) = psutil.Process(client.pid).children()
    task = psutil.Process(int(supervised.ready.read_text()))

    scores = [
        int(Path(f"/proc/{pid}/oom_score_adj").read_text())
        for pid in (client.pid, zygote.pid, task.pid, task.children()[0].pid)
    ]
    client.terminate()
    client.communicate()

    assert scores == [0, 0, 500, 500]


def test_limit_that_cannot_be_applied(supervised: Supervised) -> None:
    """A limit that the system refuses is an error that names it, before anything of the module runs."""
    supervised.configure({"open_files": 1000})

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
        ctypes.CDLL(None).prctl(24, 24, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_SYS_RESOURCE: root may not raise it either

    done = supervised.run(BENIGN, "--json", preexec_fn=restrict)

    assert done.returncode == 1, done.stderr
    message = "Could not initialize task: tool.client.limits.open_files cannot be applied: "
    assert json.loads(done.stdout)["message"].startswith(message)
