"""Measures what starting costs: commands, tasks beside other ways to have a process, jobs of many tasks, trees."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable
from pathlib import Path

import psutil
from bench_client import Bench, Report, in_turns, run
from bench_rivals import MISSING, RIVALS, cost_of

from supervisor.isolation.sampler import EXACT_EVERY, Sampler
from supervisor.jobs.task_run import SAMPLE_INTERVAL
from supervisor.jobs.task_state import JobObserver, TaskState

JOB = 200
"""Tasks in the job of which a task's costs are a part."""

Costs = tuple[list[float], float, int]
"""Seconds of each run; CPU seconds and page faults of all."""


async def commands(bench: Bench) -> list[Report]:
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
    taken = await in_turns(variants, bench.size.of(bench.size.runs // 10 * bench.size.rounds))
    goals = {"--version": "80 ms", "validate": "220 ms", "run": "200 ms"}
    return [Report("A command, with a job of one empty task", "ms", taken, goals)]


# --- a process per task ---


async def start(bench: Bench) -> list[Report]:
    """A task's start, four empty steps and end, and what others take for four empty calls in a fresh process."""
    count = bench.size.of(JOB)
    costs: defaultdict[str, list[Costs]] = defaultdict(list)
    missing: dict[str, str] = {}
    for _ in range(bench.size.rounds):
        costs[f"a task in a job of {count}"].append(await _costs(bench, _run_jobs(bench, 1, count)))
        costs["a job of one task"].append(await _costs(bench, _run_jobs(bench, count, 1)))
        for name, (what, runs, _) in RIVALS.items():
            if name not in missing:
                answer = _rival(name, bench.size.of(runs))
                if isinstance(answer, str):
                    missing[name] = f"{what}: {answer}"
                else:
                    costs[what].append(answer)
    notes = (
        "Goals: a task in a job of 200 takes 4 ms, 6 ms of CPU, 400 page faults; four bare forks of its image, and",
        "half of RQ's. CPU and page faults are those of all processes, the supervisor among them.",
        "Only this client's end includes that everything the task started is known to be gone.",
        "Pools and RQ call one function that makes four empty calls; the others are asked four times.",
        *missing.values(),
    )
    seconds = {what: [second for each in of for second in each[0]] for what, of in costs.items()}
    cpu = {f"CPU of {what}": [each[1] / len(each[0]) for each in of] for what, of in costs.items()}
    faults = {f"page faults of {what}": [each[2] / len(each[0]) for each in of] for what, of in costs.items()}
    title = "A process per task: start, four empty steps (init, validate, run, cleanup), end"
    return [Report(title, "ms", seconds), Report("Its CPU time", "ms", cpu), Report("Faults", "", faults, {}, notes)]


async def _costs(bench: Bench, measured: Awaitable[list[float]]) -> Costs:
    pids = os.getpid(), bench.runtime.zygote.pid
    cpu, faults = cost_of(*pids)
    seconds = await measured
    after = cost_of(*pids)
    return seconds, after[0] - cpu, after[1] - faults


async def _run_jobs(bench: Bench, jobs: int, tasks: int) -> list[float]:
    """The seconds of each task: of those of a job the same for all."""
    taken: list[float] = []
    for _ in range(jobs):
        began = time.perf_counter()
        await bench.job(*[("empty", {})] * tasks)
        taken += [(time.perf_counter() - began) / tasks] * tasks
    return taken


def _rival(name: str, count: int) -> Costs | str:
    """What the runs cost, or what is not installed."""
    argv = [sys.executable, str(Path(__file__).with_name("bench_rivals.py")), name, str(count)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == MISSING:
        return done.stderr.strip()
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    seconds, cpu, faults = json.loads(done.stdout)
    return seconds, cpu, faults


# --- many tasks ---


async def tasks(bench: Bench) -> list[Report]:
    """A task of a job of few and of many, in turns: what grows with their number."""
    variants = {
        f"a task in a job of {count}": lambda count=count: _run_jobs(bench, 1, count) for count in bench.size.tasks
    }
    taken = await in_turns(variants, bench.size.pairs)
    each = {
        name: [second / count for second in taken[name]] for name, count in zip(taken, bench.size.tasks, strict=True)
    }
    return [Report("A job of many tasks (linear: a ratio of 1.00 or less)", "ms", each)]


# --- the heartbeat ---


async def heartbeat(bench: Bench) -> list[Report]:
    """What a module pays that reports its status without end, and what the supervisor does."""
    file, calls = bench.directory / "report", bench.size.calls
    counted = _Counted()
    await bench.job(("empty", {}))  # what a first task makes the supervisor allocate is no part of this
    supervisor = psutil.Process()
    before = supervisor.memory_info().rss
    await bench.job(("talking", {"calls": calls, "report": str(file)}), observer=counted)
    memory = {"memory before": [before], "memory after": [supervisor.memory_info().rss]}
    taken = {"a call of heartbeat.set_data": [float(file.read_text(encoding="ascii")) / calls]}
    notes = [f"{counted.messages} messages travelled"]
    title = f"{calls:,} calls in one task"
    return [Report(title, "µs", taken, {}, notes), Report("The supervisor's memory", "MB", memory)]


class _Counted(JobObserver):
    messages = 0

    def on_status(self, run: TaskState) -> None:
        del run
        self.messages += 1


# --- watching ---


async def watch(bench: Bench) -> list[Report]:
    """What it costs to measure a tree at the client's interval."""
    taken = {}
    for count in (1, 10, 100):
        fork = f"import os, time\nfor _ in range({count - 1}):\n    if not os.fork(): time.sleep(600)\n"
        argv = [sys.executable, "-c", f"{fork}print(flush=True)\ntime.sleep(600)"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as root:
            assert root.stdout is not None
            root.stdout.readline()
            sampler = Sampler(root.pid)
            sampler.sample()  # the first looks up every process
            seconds = [_cpu_of_samples(sampler) for _ in range(bench.size.of(40))]
            os.killpg(root.pid, signal.SIGKILL)
        taken[f"a process of {count}"] = [each / count for each in seconds]
    shares = ", ".join(
        f"{statistics.median(taken[name]) * count / SAMPLE_INTERVAL:.3%}"
        for name, count in zip(taken, (1, 10, 100), strict=True)
    )
    notes = (
        f"The trees take {shares} of a processor, at one time each {SAMPLE_INTERVAL:g} s.",
        f"Memory is measured exactly every {EXACT_EVERY} times, and whenever it may be over its limit.",
    )
    return [Report("Measuring a task's tree once", "ms", taken, {}, notes)]


def _cpu_of_samples(sampler: Sampler) -> float:
    began = time.process_time()
    for _ in range(EXACT_EVERY):
        sampler.sample()
    return (time.process_time() - began) / EXACT_EVERY
