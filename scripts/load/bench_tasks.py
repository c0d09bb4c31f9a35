"""Measures what starting costs: commands, tasks beside other ways to have a process, jobs of many tasks, trees."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import psutil
from bench_client import Bench, Report, beside, empty_task, in_turns, ms, p95, repeat, run
from bench_rivals import MISSING, cost_of

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
JOB = 200
"""Tasks in the job of which a task's costs are a part."""

Costs = tuple[list[float], float, int]
"""Seconds of each run; CPU seconds and page faults of all."""


# --- commands ---


async def commands(bench: Bench) -> Report:
    """Whole processes, beside an interpreter that does nothing."""
    client, *job = bench.command_line([{"module": "empty", "data": {}}])
    argvs = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "--version": [client, "--version"],
        "validate": [client, "validate", *job[1:]],
        "run": [client, *job],
    }

    async def start(argv: list[str]) -> None:
        run(argv)

    variants = {name: lambda argv=argv: start(argv) for name, argv in argvs.items()}
    await in_turns(variants, 1)  # what is compiled or read for the first time is there
    taken = await in_turns(variants, bench.size.of(bench.size.runs // 10 * bench.size.rounds))
    goals = {"--version": "0.08 s", "validate": "0.22 s", "run": "0.20 s"}
    return beside("A command, with a job of one empty task", "python -c pass", taken, goals)


# --- a process per task ---


async def start(bench: Bench) -> Report:
    """A task's start, four empty steps and end, and what others take for four empty calls in a fresh process."""
    count, warm_up = bench.size.of(JOB), bench.size.warm_up
    ours: dict[str, list[Costs]] = {"a task": [], f"a task in a job of {count}": []}
    rivals: dict[str, list[Costs]] = {name: [] for name in RIVALS}
    missing: dict[str, str] = {}
    for _ in range(bench.size.rounds):
        ours["a task"].append(await _costs(bench, lambda: repeat(lambda: empty_task(bench), count, warm_up)))
        ours[f"a task in a job of {count}"].append(await _costs(bench, lambda: _job_of(bench, count)))
        for name, (_, runs) in RIVALS.items():
            if name not in missing:
                answer = _rival(name, bench.size.of(runs), warm_up if runs == 200 else 3)
                if isinstance(answer, str):
                    missing[name] = answer
                else:
                    rivals[name].append(answer)
    base = _per_run(ours["a task"])[0]
    rows = [_row(f"this client: {what}", costs, base) for what, costs in ours.items()]
    for name, (what, _) in RIVALS.items():
        rows.append((what, *[""] * 5, missing[name]) if name in missing else _row(what, rivals[name], base))
    return Report(
        "A process per task: start, four empty steps (init, validate, run, cleanup), end",
        ("", "runs", "median ms", "p95 ms", "CPU ms", "page faults", "of a task's"),
        rows,
        (
            "Goals: a task in a job of 200 takes 4 ms, 6 ms of CPU, 400 page faults; four bare forks of its image, and",
            "half of RQ's. CPU and page faults are those of all processes, the supervisor among them.",
            "Only this client's end includes that everything the task started is known to be gone.",
            "Pools and RQ call one function that makes four empty calls; the others are asked four times.",
        ),
        {
            f"{what}, {kind}": values
            for what, costs in ours.items()
            for kind, values in (
                ("seconds", [second for seconds, _, _ in costs for second in seconds]),
                ("CPU seconds", [cpu / len(seconds) for seconds, cpu, _ in costs]),
                ("page faults", [faults / len(seconds) for seconds, _, faults in costs]),
            )
        },
    )


async def _costs(bench: Bench, measure: Callable[[], Awaitable[list[float]]]) -> Costs:
    pids = os.getpid(), bench.runtime.zygote.pid
    cpu, faults = cost_of(*pids)
    seconds = await measure()
    after = cost_of(*pids)
    return seconds, after[0] - cpu, after[1] - faults


async def _job_of(bench: Bench, tasks: int) -> list[float]:
    """The seconds of each task of a job of so many: the same for all."""
    began = time.perf_counter()
    await bench.job(*[("empty", {})] * tasks)
    return [(time.perf_counter() - began) / tasks] * tasks


def _per_run(costs: list[Costs]) -> tuple[float, float, float]:
    """The median of the seconds; means of the CPU seconds and page faults."""
    seconds = [second for each, _, _ in costs for second in each]
    cpu, faults = (sum(each[place] for each in costs) / len(seconds) for place in (1, 2))
    return statistics.median(seconds), cpu, faults


def _row(what: str, costs: list[Costs], base: float) -> tuple[str, ...]:
    median, cpu, faults = _per_run(costs)
    seconds = [second for each, _, _ in costs for second in each]
    return what, str(len(seconds)), ms(median), ms(p95(seconds)), ms(cpu), f"{faults:.0f}", f"{median / base:.2f}"


def _rival(name: str, count: int, warm_up: int) -> Costs | str:
    """What the runs cost, or what is not installed."""
    argv = [sys.executable, str(Path(__file__).with_name("bench_rivals.py")), name, str(count), str(warm_up)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == MISSING:
        return done.stderr.strip()
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    seconds, cpu, faults = json.loads(done.stdout)
    return seconds, cpu, faults


# --- many tasks ---


async def tasks(bench: Bench) -> Report:
    """A task of a job of few and of many, in turns: what grows with their number."""
    taken: dict[int, list[float]] = {count: [] for count in bench.size.tasks}
    await _job_of(bench, bench.size.tasks[0])  # what a first job makes the supervisor read is no part of this
    for _ in range(bench.size.pairs):
        for count, seconds in taken.items():
            seconds.append((await _job_of(bench, count))[0])
    base = statistics.median(taken[bench.size.tasks[0]])
    rows = [
        (f"{count} empty tasks", ms(median := statistics.median(seconds)), f"{median / base:.2f}")
        for count, seconds in taken.items()
    ]
    samples = {f"a task in a job of {count}": seconds for count, seconds in taken.items()}
    return Report("A job of many tasks (linear: 1.00 or less)", ("", "ms a task", "slope"), rows, (), samples)


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
    rows: list[tuple[str, ...]] = []
    base = 0.0
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
        base = base or seconds
        rows.append((str(count), ms(seconds), f"{share * 100:.3f} %", f"{seconds / count / base:.2f}"))
    return Report(
        f"Measuring a task's tree, every {SAMPLE_INTERVAL:g} s",
        ("processes", "CPU ms a time", "of a processor", "slope"),
        rows,
        (f"Memory is measured exactly every {EXACT_EVERY} times, and whenever it may be over its limit.",),
    )
