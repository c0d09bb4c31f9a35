"""Measures what the client costs, beside the alternatives. Prints tables, and asserts nothing.

The parts: `start` (a process per task), `encode` (a supervised encode beside the bare command), `memory`, `heartbeat`,
`watch` (measuring a task's process tree), `drain` (jobs a second from a server), `idle` (a client without work),
`restart` (from a killed task to the next job).
All of a part is measured in one run, in turns, so that its ratios hold on a machine whose speed drifts.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_parts
import psutil
from bench_client import CONFIGURATION, FULL, MODULES, QUICK, Bench, Report, Size, run_program
from loguru import logger
from rich.console import Console
from rich.table import Table

from app.config import load_client, load_settings
from supervisor.isolation.limits import load_limits
from supervisor.isolation.runtime import start_runtime

PARTS = ("start", "encode", "memory", "heartbeat", "watch", "drain", "idle", "restart")


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
    return run_program(["ffmpeg", "-version"]).split()[2]


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


async def measure(size: Size, parts: list[str], done: Callable[[Report], None]) -> None:
    """Measure `parts` with a client of its own, and hand each table to `done`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        (directory / "bench_modules.py").write_text(MODULES, encoding="utf-8")
        configuration = directory / "pyproject.toml"
        configuration.write_text(CONFIGURATION, encoding="utf-8")
        os.environ["SISYPHUS_STATE_DIR"] = name
        client = load_client(str(configuration), os.environ)
        async with start_runtime(client, load_settings(os.environ, directory), load_limits(client)) as shared:
            bench = Bench(size, directory, shared)
            for part in PARTS:
                if part in parts:
                    done(await getattr(bench_parts, part)(bench))


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few runs: whether it works, rather than how fast")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
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
    asyncio.run(measure(QUICK if arguments.quick else FULL, arguments.only or list(PARTS), done))
    seconds = time.monotonic() - began
    console.print(f"{seconds:.0f} s in all")
    if arguments.json:
        print(json.dumps({"machine": facts, "seconds": round(seconds, 1), "tables": [_plain(r) for r in reports]}))


def _plain(report: Report) -> dict[str, Any]:
    columns = [column or ("value" if place else "what") for place, column in enumerate(report.columns)]
    return {"title": report.title, "rows": [dict(zip(columns, row, strict=False)) for row in report.rows]}


if __name__ == "__main__":
    main()
