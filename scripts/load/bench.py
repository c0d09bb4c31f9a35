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

import bench_encode
import bench_server
import bench_tasks
import bench_worker
import psutil
from bench_client import CONFIGURATION, FULL, MODULES, QUICK, Bench, Report, Size, run
from loguru import logger
from rich.console import Console
from rich.table import Column, Table

from app.config import load_client, load_settings
from supervisor.isolation.limits import load_limits
from supervisor.isolation.runtime import start_runtime

COLUMNS = ("runs", "median", "p95", "p99", "more", "ratio", "goal")

LEAST = 0.05
"""The share by which a cost must have grown to be told, however little it varied."""

UNKNOWN = 0.1
"""The share by which a cost of which fewer than three were measured is taken to vary."""

PARTS = {
    "commands": bench_tasks.commands,
    "start": bench_tasks.start,
    "tasks": bench_tasks.tasks,
    "encode": bench_encode.encode,
    "copy": bench_encode.copy,
    "heartbeat": bench_tasks.heartbeat,
    "watch": bench_tasks.watch,
    "drain": bench_worker.drain,
    "idle": bench_worker.idle,
    "restart": bench_worker.restart,
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
    console.print(f"{report.title}{report.unit and f', {report.unit}'}", style="bold")
    table = Table("", *(Column(name, justify="right") for name in COLUMNS))
    for row in report.rows():
        table.add_row(*row)
    console.print(table, *report.notes, "", sep="\n")


async def measure(size: Size, parts: list[str], done: Callable[[str, Report], None]) -> None:
    """Measure `parts` with a client of its own, and hand the name and each table of each to `done`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL runs as another user where this one is root
        (directory / "bench_modules.py").write_text(MODULES, encoding="utf-8")
        configuration = directory / "pyproject.toml"
        configuration.write_text(CONFIGURATION, encoding="utf-8")
        os.environ["SISYPHUS_STATE_DIR"] = name
        client = load_client(str(configuration), os.environ)
        async with start_runtime(client, load_settings(os.environ, directory), load_limits(client)) as shared:
            bench = Bench(size, directory, shared)
            for part in (name for name in PARTS if name in parts):
                for report in await PARTS[part](bench):
                    done(part, report)


# --- beside an earlier run ---


def compare(before: Mapping[str, list[float]], after: Mapping[str, list[float]]) -> list[tuple[str, ...]]:
    """What has become slower since `before`: by more than the medians vary, and by more than `LEAST`."""
    rows = []
    for name in before.keys() & after.keys():
        (old, old_noise), (new, new_noise) = map(_median_and_noise, (before[name], after[name]))
        noise = old_noise + new_noise
        if new - old > max(noise, LEAST * old):
            rows.append(
                (name, f"{old:.4g}", f"{new:.4g}", f"{(new - old) / (old or 1):+.1%}", f"{noise / (old or 1):.1%}")
            )
    return sorted(rows)


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
    samples: dict[str, list[float]] = {}

    def done(part: str, report: Report) -> None:
        samples.update({f"{part}: {name}": list(values) for name, values in report.samples.items()})
        show(console, report)

    began = time.monotonic()
    asyncio.run(measure(QUICK if arguments.quick else FULL, arguments.only or list(PARTS), done))
    seconds = round(time.monotonic() - began, 1)
    load = f"{os.getloadavg()[0]:.2f} (the last minute)"
    console.print(f"{seconds:.0f} s in all; load {load}")
    if arguments.json:
        facts |= {"load at the end": load}
        print(json.dumps({"machine": facts, "seconds": seconds, "samples": samples}))
    if arguments.compare:
        table = Table("Slower than before", "before", "now", "more", "noise")
        slower = compare(arguments.compare, samples)
        for row in slower:
            table.add_row(*row)
        Console(highlight=False, stderr=arguments.json).print(table)
        sys.exit(bool(slower))


if __name__ == "__main__":
    main()
