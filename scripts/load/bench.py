"""Measures what the client costs, beside the alternatives. Prints tables; with `--compare`, tells what became slower.

The parts: `commands` (whole processes), `start` (a process per task), `tasks` (a job of many), `encode` (a supervised
encode beside the bare command), `copy` (beside cp), `heartbeat`, `watch` (measuring a task's process tree), `drain`
(jobs a second from a server), `idle` (a client without work), `restart` (from a killed task to the next job); of the
API server `calls`, `latency` (from submission to start and verdict), `history` (`GET /jobs`), `workers` (a thousand
simulated ones).
All of a part is measured in one run, in turns, so that its ratios hold on a machine whose speed drifts.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import bench_encode
import bench_server
import bench_tasks
import bench_worker
import psutil
from bench_client import CONFIGURATION, FULL, MODULES, QUICK, Bench, Report, Size, ms, p95, run
from loguru import logger
from rich.console import Console
from rich.table import Table

from app.config import load_client, load_settings
from supervisor.isolation.limits import load_limits
from supervisor.isolation.runtime import start_runtime

LEAST = 0.05
"""The share by which a cost must have grown to be told, however little it varied."""

UNKNOWN = 0.1
"""The share by which a cost of which fewer than three were measured is taken to vary."""

# --- the daemon ---


async def drain(bench: Bench) -> Report:
    """Empty jobs from an API server: a few, many, with several slots, and with a long queue behind them."""
    size, goals = bench.size, {15: "0.5 s"}
    rows, samples, base = [], {}, 0.0
    for jobs, slots, queued in ((15, 1, 0), (size.jobs, 1, 0), (size.jobs, 4, 0), (size.jobs, 1, size.queue)):
        taken = []
        for _ in range(3 if jobs == 15 else 1):
            with tempfile.TemporaryDirectory(prefix="bench-") as name:
                taken.append(bench_worker.drain(Path(name), bench.configuration, jobs, slots, queued))
        seconds = statistics.median(taken)
        base = base or seconds / jobs
        what = f"{jobs} jobs of one task, {slots} slots" + f", of {queued} queued" * bool(queued)
        slope = f"{seconds / jobs / base:.2f}"
        rows.append((what, f"{seconds:.2f}", ms(seconds / jobs), slope, goals.get(jobs, "")))
        samples[what] = [each / jobs for each in taken]
    columns = ("", "seconds", "ms a job", "slope", "goal")
    return Report("Draining the queue of an API server on the same machine", columns, rows, (), samples)


async def idle(bench: Bench) -> Report:
    """What a client without work takes, with the default intervals, with one slot and with several."""
    seconds, more = bench.size.idle_seconds, 9
    found = {}
    for slots in (1, more):
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            found[slots] = bench_worker.idle(Path(name), bench.configuration, seconds, slots)
    one, many = found[1], found[more]
    pss = {slots: of.supervisor + of.zygote for slots, of in found.items()}
    rows = [
        (f"CPU in {seconds:g} s, of a processor", f"{statistics.median(one.cpu):.2%}", "0.1 %"),
        ("PSS of supervisor and zygote", f"{pss[1] / 1e6:.1f} MB", "45 MB"),
        ("  supervisor, zygote", f"{one.supervisor / 1e6:.1f} MB, {one.zygote / 1e6:.1f} MB", ""),
        ("a slot more: PSS", f"{(pss[more] - pss[1]) / (more - 1) / 1e6:.2f} MB", "1 MB"),
        ("a slot more: threads", f"{(many.threads - one.threads) / (more - 1):.1f}", "0"),
    ]
    samples = {"CPU": one.cpu, "PSS": [pss[1]], "PSS of several slots": [pss[more]]}
    return Report("An idle client", ("", "", "goal"), rows, (), samples)


async def restart(bench: Bench) -> Report:
    """From SIGKILL of a task process until the next job runs: explained, reported, the next one taken."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        taken = bench_worker.restart(Path(name), bench.configuration, bench.size.kills)
    what = "from SIGKILL of a task process to the next job's run"
    row = (what, str(len(taken)), ms(statistics.median(taken)), ms(p95(taken)))
    return Report("After a crash", ("", "runs", "median ms", "p95 ms"), [row], (), {what: taken})


# --- the rest ---


PARTS = {
    "commands": bench_tasks.commands,
    "start": bench_tasks.start,
    "tasks": bench_tasks.tasks,
    "encode": bench_encode.encode,
    "copy": bench_encode.copy,
    "heartbeat": bench_tasks.heartbeat,
    "watch": bench_tasks.watch,
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
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "ffmpeg": _ffmpeg_version(),
        "load": f"{os.getloadavg()[0]:.2f} (the minute before)",
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


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


async def measure(size: Size, parts: list[str], beside: Path | None, done: Callable[[str, Report], None]) -> None:
    """Measure `parts` with a client of its own, and hand the name and table of each to `done`."""
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
            for name in PARTS:
                if name in parts:
                    done(name, await PARTS[name](bench))


# --- beside an earlier run ---


def compare(before: Mapping[str, list[float]], after: Mapping[str, list[float]]) -> Report:
    """What has become slower since `before`: by more than the medians vary, and by more than `LEAST`."""
    rows = []
    for name in before.keys() & after.keys():
        (old, old_noise), (new, new_noise) = map(_median_and_noise, (before[name], after[name]))
        noise = old_noise + new_noise
        if new - old > max(noise, LEAST * old):
            rows.append(
                (name, f"{old:.4g}", f"{new:.4g}", f"{(new - old) / (old or 1):+.1%}", f"{noise / (old or 1):.1%}")
            )
    return Report("Slower than before", ("", "before", "now", "more", "noise"), sorted(rows))


def _median_and_noise(values: list[float]) -> tuple[float, float]:
    """The median, and half of the range in which the middle half of the values lies."""
    median = statistics.median(values)
    if len(values) < 3:
        return median, UNKNOWN * median / 2
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, (high - low) / 2


def _samples_of(file: str) -> dict[str, list[float]]:
    try:
        return dict(json.loads(Path(file).read_text(encoding="utf-8"))["samples"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{file} is not what scripts/bench --json has written: {error!r}") from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few runs: whether it works, rather than how fast")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="another checkout, with its .venv: its server, too")
    parser.add_argument(
        "--compare", type=_samples_of, metavar="FILE", help="what --json has printed: tell what is slower; then exit 1"
    )
    arguments = parser.parse_args()
    logger.remove()
    console = Console(highlight=False, quiet=arguments.json, width=None if sys.stdout.isatty() else 120)
    facts = machine()
    for name, value in facts.items():
        console.print(f"{name:<11} {value}")
    console.print()
    tables: list[dict[str, Any]] = []
    samples: dict[str, list[float]] = {}

    def done(part: str, report: Report) -> None:
        tables.append(_plain(report))
        samples.update({f"{part}: {name}": values for name, values in report.samples.items()})
        show(console, report)

    began = time.monotonic()
    asyncio.run(measure(QUICK if arguments.quick else FULL, arguments.only or list(PARTS), arguments.beside, done))
    seconds = round(time.monotonic() - began, 1)
    load = f"{os.getloadavg()[0]:.2f} (the last minute)"
    console.print(f"{seconds:.0f} s in all; load {load}")
    if arguments.json:
        facts |= {"load at the end": load}
        print(json.dumps({"machine": facts, "seconds": seconds, "tables": tables, "samples": samples}))
    if arguments.compare:
        slower = compare(arguments.compare, samples)
        show(Console(highlight=False, stderr=arguments.json), slower)
        sys.exit(bool(slower.rows))


def _plain(report: Report) -> dict[str, Any]:
    columns = [column or ("value" if place else "what") for place, column in enumerate(report.columns)]
    return {"title": report.title, "rows": [dict(zip(columns, row, strict=False)) for row in report.rows]}


if __name__ == "__main__":
    main()
