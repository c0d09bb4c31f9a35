"""Measures what the client costs, beside the alternatives. Prints tables, and asserts nothing.

The parts: `start` (a process per task), `encode` (a supervised encode beside the bare command), `memory`, `heartbeat`,
`watch` (measuring a task's process tree), `drain` (jobs a second from a server), `idle` (a client without work),
`restart` (from a killed task to the next job); of the API server `calls`, `latency` (from submission to start),
`history` (`GET /jobs`), `workers` (a thousand simulated ones).
All of a part is measured in one run, in turns, so that its ratios hold on a machine whose speed drifts.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_server
import bench_worker
import msgspec
import psutil
from bench_client import (
    CONFIGURATION,
    FULL,
    MODULES,
    QUICK,
    Bench,
    Report,
    Size,
    empty_task,
    ignore,
    ms,
    p95,
    repeat,
    run,
)
from bench_encode import encode
from bench_rivals import MISSING
from loguru import logger
from rich.console import Console
from rich.table import Table

from app.config import load_client, load_settings
from ipc.messages import Step
from supervisor.isolation.limits import load_limits
from supervisor.isolation.runtime import start_runtime
from supervisor.isolation.sampler import EXACT_EVERY, Sampler
from supervisor.jobs.task_run import SAMPLE_INTERVAL

RIVALS = {
    "fork": ("bare fork + _exit + waitpid, a small process", 200),
    "warm-fork": ("bare fork + _exit + waitpid, the zygote's imports", 200),
    "rq": ("RQ: one forked work horse a job, redis-server", 200),
    "forkserver": ("multiprocessing, forkserver", 200),
    "forkserver-imports": ("multiprocessing, forkserver, our imports preloaded", 200),
    "spawn": ("multiprocessing, spawn", 60),
    "executor": ("ProcessPoolExecutor(max_tasks_per_child=1)", 60),
    "pebble": ("pebble ProcessPool(max_tasks=1)", 40),
    "spawn-imports": ("multiprocessing, spawn, our imports", 20),
}
"""What it is, and how many runs of it: fewer where each is long."""


# --- a process per task ---


async def start(bench: Bench) -> Report:
    """A task's start, four empty steps and end, and what others take for four empty calls in a fresh process."""
    ours: dict[str, list[float]] = {"task": [], "job": []}
    rivals: dict[str, list[float]] = {name: [] for name in RIVALS}
    missing: dict[str, str] = {}
    for _ in range(bench.size.rounds):
        ours["task"] += await repeat(lambda: empty_task(bench), bench.size.of(200), bench.size.warm_up)
        ours["job"] += await repeat(lambda: bench.job("empty", {}), bench.size.of(200), bench.size.warm_up)
        for name, (_, runs) in RIVALS.items():
            if name not in missing:
                answer = _rival(name, bench.size.of(runs), bench.size.warm_up if runs == 200 else 3)
                if isinstance(answer, str):
                    missing[name] = answer
                else:
                    rivals[name] += answer
    base = statistics.median(ours["task"])

    def row(what: str, seconds: list[float]) -> tuple[str, ...]:
        median = statistics.median(seconds)
        return what, str(len(seconds)), ms(median), ms(p95(seconds)), f"{median / base:.2f}"

    rows = [
        row("this client: a task (expected: 5 ms or less)", ours["task"]),
        row("this client: a job of one task", ours["job"]),
        *(
            (what, "", "", "", missing[name]) if name in missing else row(what, rivals[name])
            for name, (what, _) in RIVALS.items()
        ),
    ]
    return Report(
        "A process per task: start, four empty steps (init, validate, run, cleanup), end",
        ("", "runs", "median ms", "p95 ms", "of a task's"),
        rows,
        (
            "Only this client's end includes that everything the task started is known to be gone.",
            "Pools and RQ call one function that makes four empty calls; the others are asked four times.",
        ),
    )


def _rival(name: str, count: int, warm_up: int) -> list[float] | str:
    """The seconds of each run, or what is not installed."""
    argv = [sys.executable, str(Path(__file__).with_name("bench_rivals.py")), name, str(count), str(warm_up)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == MISSING:
        return done.stderr.strip()
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    return json.loads(done.stdout)


# --- memory ---


async def memory(bench: Bench) -> Report:
    """What the processes take while nothing is done."""
    async with bench.initialized("empty", {}, ignore) as task:
        zygote = psutil.Process(task.pid).parent()
    assert zygote is not None
    rows = [_memory_row("zygote, no task", [zygote])]
    for count in (1, 8):
        async with contextlib.AsyncExitStack() as stack:
            tasks = [await stack.enter_async_context(bench.initialized("empty", {}, ignore)) for _ in range(count)]
            processes = [psutil.Process(task.pid) for task in tasks]
            what = "task process, idle" if count == 1 else f"task process, idle, {count} at once (median)"
            rows += [_memory_row(what, processes), _memory_row(f"zygote, {count} idle", [zygote])]
    rows.append(_memory_row("supervisor (sisyphus-client run, 8 tasks)", [], _supervisor_memory(bench)))
    return Report(
        "Memory of one process, MB (RSS: with all that is shared; PSS: its share of that; USS: its own alone)",
        ("", "RSS", "PSS", "USS"),
        rows,
    )


def _memory_row(what: str, processes: list[psutil.Process], known: Any = None) -> tuple[str, ...]:
    infos = [known] if known else [process.memory_full_info() for process in processes]
    return what, *(
        f"{statistics.median(getattr(info, kind) for info in infos) / 1e6:.1f}" for kind in ("rss", "pss", "uss")
    )


def _supervisor_memory(bench: Bench) -> Any:
    started = bench.directory / "started"
    task = {"module": "waiting", "data": {"started": str(started)}}
    argv = bench.command_line([task] * 8)
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as client:
        try:
            deadline = time.monotonic() + 30
            while not started.exists():
                if client.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{shlex.join(argv)} did not run its first task")
                time.sleep(0.05)
            return psutil.Process(client.pid).memory_full_info()
        finally:
            client.terminate()
            client.wait()


# --- the heartbeat ---


async def heartbeat(bench: Bench) -> Report:
    """What a module pays that reports its status without end, and what the supervisor does."""
    report = bench.directory / "report"
    data = {"calls": bench.size.calls, "report": str(report)}
    received = 0

    def said(status: msgspec.Raw) -> None:
        del status
        nonlocal received
        received += 1

    await empty_task(bench)  # what a first task makes the supervisor allocate is no part of this
    supervisor = psutil.Process()
    before = supervisor.memory_info().rss
    async with bench.initialized("talking", data, said) as process:
        await bench.step(process, Step("run"))
    after = supervisor.memory_info().rss
    seconds = float(report.read_text(encoding="ascii"))
    return Report(
        f"{bench.size.calls:,} calls of heartbeat.set_data in one task",
        ("", ""),
        [
            ("a call", f"{seconds / bench.size.calls * 1e6:.2f} µs"),
            ("all calls", f"{seconds:.2f} s"),
            ("messages that travelled", str(received)),
            ("supervisor's RSS before", f"{before / 1e6:.1f} MB"),
            ("supervisor's RSS after", f"{after / 1e6:.1f} MB ({(after - before) / 1e3:+.0f} kB)"),
        ],
    )


# --- watching ---


async def watch(bench: Bench) -> Report:
    """What it costs to measure a tree at the client's interval."""
    rows = []
    for count in (1, 10, 100):
        fork = f"import os, time\nfor _ in range({count - 1}):\n    if not os.fork(): time.sleep(600)\n"
        argv = [sys.executable, "-c", f"{fork}print(flush=True)\ntime.sleep(600)"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as root:
            assert root.stdout is not None
            root.stdout.readline()
            sampler = Sampler(root.pid)
            sampler.sample()  # the first looks up every process
            began, times = time.process_time(), EXACT_EVERY * bench.size.of(40)
            for _ in range(times):
                sampler.sample()
            seconds = (time.process_time() - began) / times
            os.killpg(root.pid, signal.SIGKILL)
        share = seconds / SAMPLE_INTERVAL
        rows.append((str(count), ms(seconds), f"{share * 100:.3f} %"))
    return Report(
        f"Measuring a task's tree, every {SAMPLE_INTERVAL:g} s",
        ("processes", "CPU ms a time", "of a processor"),
        rows,
        (f"Memory is measured exactly every {EXACT_EVERY} times, and whenever it may be over its limit.",),
    )


# --- the daemon ---


async def drain(bench: Bench) -> Report:
    """Empty jobs a second from an API server: few and many, with one slot and with four."""
    rows = []
    for jobs, slots in ((bench.size.jobs // 10, 1), (bench.size.jobs, 1), (bench.size.jobs, 4)):
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            seconds = bench_worker.drain(Path(name), bench.configuration, jobs, slots)
        rows.append((f"{jobs} jobs of one task, {slots} slots", f"{jobs / seconds:.1f}", ms(seconds / jobs)))
    return Report("Draining the queue of an API server on the same machine", ("", "jobs a second", "ms a job"), rows)


async def idle(bench: Bench) -> Report:
    """What a client without work takes, with the default intervals."""
    seconds = bench.size.idle_seconds
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        cpu, memory = bench_worker.idle(Path(name), bench.configuration, seconds)
    rows = [(f"CPU of supervisor and zygote in {seconds:g} s", f"{cpu:.2f} s", f"{cpu / seconds:.2%} of a processor")]
    rows += [
        (f"memory of the {name}: USS, RSS", f"{uss / 1e6:.1f} MB", f"{rss / 1e6:.1f} MB") for name, uss, rss in memory
    ]
    return Report("An idle client", ("", "", ""), rows)


async def restart(bench: Bench) -> Report:
    """From SIGKILL of a task process until the next job runs: explained, reported, the next one taken."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        taken = bench_worker.restart(Path(name), bench.configuration, bench.size.kills)
    row = (
        "from SIGKILL of a task process to the next job's run",
        str(len(taken)),
        ms(statistics.median(taken)),
        ms(p95(taken)),
    )
    return Report("After a crash", ("", "runs", "median ms", "p95 ms"), [row])


# --- the rest ---


PARTS = {
    "start": start,
    "encode": encode,
    "memory": memory,
    "heartbeat": heartbeat,
    "watch": watch,
    "drain": drain,
    "idle": idle,
    "restart": restart,
    "calls": bench_server.calls,
    "latency": bench_server.latency,
    "history": bench_server.history,
    "workers": bench_server.workers,
}


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "processors": f"{len(os.sched_getaffinity(0))} x {_processor()}",
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}{_byte_code()}",
        "ffmpeg": _ffmpeg_version(),
        "load": f"{os.getloadavg()[0]:.2f} (the minute before)",
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _byte_code() -> str:
    """Without byte code on the disk, each task process compiles its module."""
    return " (PYTHONDONTWRITEBYTECODE is set)" if sys.dont_write_bytecode else ""


def _ffmpeg_version() -> str:
    if shutil.which("ffmpeg") is None:
        return "not installed"
    return run(["ffmpeg", "-version"]).split()[2]


def show(console: Console, report: Report) -> None:
    """Print one table."""
    console.print(report.title, style="bold")
    table = Table(show_header=any(report.columns))
    for place, column in enumerate(report.columns):
        table.add_column(column, justify="left" if place == 0 else "right", overflow="fold")
    for row in report.rows:
        table.add_row(*row)
    console.print(table)
    for note in report.notes:
        console.print(note)
    console.print()


async def measure(size: Size, parts: list[str], beside: Path | None, done: Callable[[Report], None]) -> None:
    """Measure `parts` with a client of its own, and hand each table to `done`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL runs as another user where this one is root
        (directory / "bench_modules.py").write_text(MODULES, encoding="utf-8")
        configuration = directory / "pyproject.toml"
        configuration.write_text(CONFIGURATION, encoding="utf-8")
        os.environ["SISYPHUS_STATE_DIR"] = name
        client = load_client(str(configuration), os.environ)
        async with start_runtime(client, load_settings(os.environ, directory), load_limits(client)) as shared:
            bench = Bench(size, directory, shared, beside)
            for part in (PARTS[name] for name in PARTS if name in parts):
                done(await part(bench))


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few runs: whether it works, rather than how fast")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="another checkout, with its .venv: its server, too")
    arguments = parser.parse_args()
    logger.remove()
    console = Console(highlight=False, quiet=arguments.json, width=None if sys.stdout.isatty() else 120)
    facts = machine()
    for name, value in facts.items():
        console.print(f"{name:<11} {value}")
    console.print()
    reports: list[Report] = []

    def done(report: Report) -> None:
        reports.append(report)
        show(console, report)

    began = time.monotonic()
    asyncio.run(measure(QUICK if arguments.quick else FULL, arguments.only or list(PARTS), arguments.beside, done))
    seconds = time.monotonic() - began
    console.print(f"{seconds:.0f} s in all")
    if arguments.json:
        print(json.dumps({"machine": facts, "seconds": round(seconds, 1), "tables": [_plain(r) for r in reports]}))


def _plain(report: Report) -> dict[str, Any]:
    columns = [column or ("value" if place else "what") for place, column in enumerate(report.columns)]
    return {"title": report.title, "rows": [dict(zip(columns, row, strict=False)) for row in report.rows]}


if __name__ == "__main__":
    main()
