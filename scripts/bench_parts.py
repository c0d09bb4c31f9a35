"""The parts of the benchmark: each function measures what its docstring says, and returns a table of it."""

import contextlib
import json
import os
import resource
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import bench_worker
import msgspec
import psutil
from bench_client import STEPS, Bench, Report, ignore_status, milliseconds, p95, repeat, run_program
from bench_rivals import MISSING

from ipc.messages import Step
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

BARE = "the bare command, same arguments"


# --- a process per task ---


async def start(bench: Bench) -> Report:
    """A task's start, four empty steps and end, and what others take for four empty calls in a fresh process."""
    ours: dict[str, list[float]] = {"task": [], "job": []}
    rivals: dict[str, list[float]] = {name: [] for name in RIVALS}
    missing: dict[str, str] = {}
    for _ in range(bench.size.rounds):
        ours["task"] += await repeat(lambda: _empty_task(bench), bench.size.of(200), bench.size.warm_up)
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
        return what, str(len(seconds)), milliseconds(median), milliseconds(p95(seconds)), f"{median / base:.2f}"

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


async def _empty_task(bench: Bench) -> None:
    async with bench.initialized("empty", {}, ignore_status) as process:
        for step in STEPS:
            await bench.step(process, step)


def _rival(name: str, count: int, warm_up: int) -> list[float] | str:
    """The seconds of each run, or what is not installed."""
    argv = [sys.executable, str(Path(__file__).with_name("bench_rivals.py")), name, str(count), str(warm_up)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == MISSING:
        return done.stderr.strip()
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    return json.loads(done.stdout)


# --- a supervised encode ---


async def encode(bench: Bench) -> Report:
    """The same encode bare, as a job in this process, and with the whole command line, in turns."""
    if shutil.which("ffmpeg") is None:
        return Report("A supervised encode", ("",), [("ffmpeg is not installed: apt-get install ffmpeg",)])
    source = _make_source(bench)
    taken = await _encode_in_turns(bench, source)
    base_wall, base_cpu = (statistics.median(column) for column in zip(*taken[BARE], strict=True))
    rows = []
    for what, pairs in taken.items():
        walls, cpus = zip(*pairs, strict=True)
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        more = "" if what == BARE else f"{wall - base_wall:+.3f}"
        ratios = f"{wall / base_wall:.4f}", f"{cpu:.2f}", f"{cpu / base_cpu:.4f}"
        rows.append((what, str(len(pairs)), f"{wall:.3f}", f"{min(walls):.3f}", more, *ratios))
    for what, argv in _fixed_costs(bench, source).items():
        seconds = await repeat(lambda argv=argv: _command(argv), 5, 1)
        rows.append((what, "5", f"{statistics.median(seconds):.3f}", f"{min(seconds):.3f}"))
    size = f"{bench.size.video_seconds} s of 720p video, libx264 veryfast"
    return Report(
        f"A supervised encode: {size} (expected: 1.01 or less)",
        ("", "runs", "median s", "least s", "more s", "ratio", "CPU s", "CPU ratio"),
        rows,
        ("Where the machine does other work too, the least and the CPU time (medians) say more than the median.",),
    )


async def _encode_in_turns(bench: Bench, source: Path) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each encode, by variant. The variants take turns at being first."""
    data = {
        "sources": [str(source)],
        "source_maps": [{"source": 0, "specifier": "v"}],
        "output_maps": [{"specifier": "v", "stream": 0, "options": {"codec": "libx264", "preset": "veryfast"}}],
        "output_file": str(bench.directory / "encoded.mkv"),
        "overwrite": True,
    }
    task = {"module": "ffmpeg", "data": data}
    bare = shlex.split(run_program(bench.command_line([task], "--dry-run")).splitlines()[0])

    async def job() -> float:
        own = time.process_time()
        verdict = await bench.job("ffmpeg", data)
        return verdict.tasks[0].cpu_seconds + time.process_time() - own

    variants: dict[str, Callable[[], Awaitable[float]]] = {
        BARE: lambda: _command(bare),
        "as a job (JobRun)": job,
        "sisyphus-client run": lambda: _command(bench.command_line([task])),
    }
    taken: dict[str, list[tuple[float, float]]] = {what: [] for what in variants}
    for turn in range(bench.size.encodes):
        order = list(variants.items())
        for what, one in order[turn % 3 :] + order[: turn % 3]:
            began = time.perf_counter()
            cpu = await one()
            taken[what].append((time.perf_counter() - began, cpu))
    return taken


def _fixed_costs(bench: Bench, source: Path) -> dict[str, list[str]]:
    """The commands that an encode costs besides the encode, however long it is."""
    return {
        "of which: sisyphus-client run of an empty task": bench.command_line([{"module": "empty", "data": {}}]),
        "of which: ffprobe, which runs before and after": [
            *("ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", "-i", str(source))
        ],
        "of which: ffmpeg's list of encoders, for validation": ["ffmpeg", "-hide_banner", "-encoders"],
    }


async def _command(argv: list[str]) -> float:
    """Run a program to its end; returns the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_program(argv)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _make_source(bench: Bench) -> Path:
    file = bench.directory / "source.mkv"
    pattern = f"testsrc2=size=1280x720:rate=30:duration={bench.size.video_seconds}"
    options = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "18"]
    run_program(["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", pattern, *options, str(file)])
    return file


# --- memory ---


async def memory(bench: Bench) -> Report:
    """What the processes take while nothing is done."""
    async with bench.initialized("empty", {}, ignore_status) as task:
        zygote = psutil.Process(task.pid).parent()
    assert zygote is not None
    rows = [_memory_row("zygote, no task", [zygote])]
    for count in (1, 8):
        async with contextlib.AsyncExitStack() as stack:
            tasks = [
                await stack.enter_async_context(bench.initialized("empty", {}, ignore_status)) for _ in range(count)
            ]
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

    await _empty_task(bench)  # what a first task makes the supervisor allocate is no part of this
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
        rows.append((str(count), milliseconds(seconds), f"{share * 100:.3f} %"))
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
        rows.append((f"{jobs} jobs of one task, {slots} slots", f"{jobs / seconds:.1f}", milliseconds(seconds / jobs)))
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
        milliseconds(statistics.median(taken)),
        milliseconds(p95(taken)),
    )
    return Report("After a crash", ("", "runs", "median ms", "p95 ms"), [row])
