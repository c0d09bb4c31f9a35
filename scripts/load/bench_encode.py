"""Measures a supervised encode beside the bare command, in turns."""

import resource
import shlex
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench_client import Bench, Report, repeat, run

BARE = "the bare command, same arguments"

Taken = dict[str, list[tuple[float, float]]]
"""The wall and CPU seconds of each run, by what was run."""


async def encode(bench: Bench) -> Report:
    """The same encode bare, as a job in this process, and with the whole command line, in turns."""
    if shutil.which("ffmpeg") is None:
        return Report("A supervised encode", ("",), [("ffmpeg is not installed: apt-get install ffmpeg",)])
    source = _make_source(bench)
    taken = await _measure(bench, _task_data(bench, source))
    rows = _encode_rows(taken) + await _fixed_rows(bench, source)
    size = f"{bench.size.video_seconds} s of 720p video, libx264 veryfast"
    return Report(
        f"A supervised encode: {size} (expected: 1.01 or less)",
        ("", "runs", "median s", "least s", "more s", "ratio", "CPU s", "CPU ratio"),
        rows,
        ("Where the machine does other work too, the least and the CPU time (medians) say more than the median.",),
    )


def _task_data(bench: Bench, source: Path) -> dict[str, Any]:
    return {
        "sources": [str(source)],
        "source_maps": [{"source": 0, "specifier": "v"}],
        "output_maps": [{"specifier": "v", "stream": 0, "options": {"codec": "libx264", "preset": "veryfast"}}],
        "output_file": str(bench.directory / "encoded.mkv"),
        "overwrite": True,
    }


async def _measure(bench: Bench, data: dict[str, Any]) -> Taken:
    task = {"module": "ffmpeg", "data": data}
    bare = shlex.split(run(bench.command_line([task], "--dry-run")).splitlines()[0])

    async def job() -> float:
        own = time.process_time()
        verdict = await bench.job("ffmpeg", data)
        return verdict.tasks[0].cpu_seconds + time.process_time() - own

    variants: dict[str, Callable[[], Awaitable[float]]] = {
        BARE: lambda: _cpu_seconds(bare),
        "as a job (JobRun)": job,
        "sisyphus-client run": lambda: _cpu_seconds(bench.command_line([task])),
    }
    taken: Taken = {what: [] for what in variants}
    for turn in range(bench.size.encodes):
        order = list(variants.items())
        for what, one in order[turn % 3 :] + order[: turn % 3]:
            began = time.perf_counter()
            cpu = await one()
            taken[what].append((time.perf_counter() - began, cpu))
    return taken


async def _cpu_seconds(argv: list[str]) -> float:
    """Run a command; its CPU seconds, those of its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(argv)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _encode_rows(taken: Taken) -> list[tuple[str, ...]]:
    base = [statistics.median(column) for column in zip(*taken[BARE], strict=True)]
    rows = []
    for what, pairs in taken.items():
        walls, cpus = zip(*pairs, strict=True)
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        more = "" if what == BARE else f"{wall - base[0]:+.3f}"
        numbers = (f"{wall:.3f}", f"{min(walls):.3f}", more, f"{wall / base[0]:.4f}")
        rows.append((what, str(len(pairs)), *numbers, f"{cpu:.2f}", f"{cpu / base[1]:.4f}"))
    return rows


async def _fixed_rows(bench: Bench, source: Path) -> list[tuple[str, ...]]:
    """What does not grow with the length of the video."""
    fixed = {
        "of which: sisyphus-client run of an empty task": bench.command_line([{"module": "empty", "data": {}}]),
        "of which: ffprobe, which runs before and after": [
            *("ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", "-i", str(source))
        ],
        "of which: ffmpeg's list of encoders, for validation": ["ffmpeg", "-hide_banner", "-encoders"],
    }
    rows = []
    for what, argv in fixed.items():
        seconds = await repeat(lambda argv=argv: _cpu_seconds(argv), 5, 1)
        rows.append((what, "5", f"{statistics.median(seconds):.3f}", f"{min(seconds):.3f}"))
    return rows


def _make_source(bench: Bench) -> Path:
    file = bench.directory / "source.mkv"
    pattern = f"testsrc2=size=1280x720:rate=30:duration={bench.size.video_seconds}"
    options = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "18"]
    run(["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", pattern, *options, str(file)])
    return file
