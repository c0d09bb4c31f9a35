"""Measures a supervised encode beside the bare command, and the copies of `cleanup` beside cp(1), in turns."""

import os
import shlex
import shutil
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench_client import Bench, Report, beside, in_turns, run
from bench_worker import Farm, await_that

BARE = "the bare command"


# --- encodes ---


async def encode(bench: Bench) -> Report:
    """The same encode bare, with the whole command line, and by an idle worker from submission to verdict: of a clip,
    and of a film, which shows what grows with its length."""
    if shutil.which("ffmpeg") is None:
        return Report("A supervised encode", ("",), [("ffmpeg is not installed: apt-get install ffmpeg",)])
    taken: dict[str, list[float]] = {}
    directory = bench.directory / "encode"
    directory.mkdir()
    with Farm(directory, bench.configuration).serving() as farm, farm.working(LOGURU_LEVEL="WARNING"):
        await_that(farm.has_workers, "the first heartbeat")
        for seconds in bench.size.video_seconds:
            variants = _variants(bench, farm, _task_data(bench, seconds))
            await in_turns(variants, 1)
            measured = await in_turns(variants, bench.size.pairs)
            taken |= {f"{seconds} s of video: {name}": values for name, values in measured.items()}
    reports = [
        beside(
            "", f"{seconds} s of video: {BARE}", {name: of for name, of in taken.items() if name.startswith(start)}, {}
        )
        for seconds in bench.size.video_seconds
        if (start := f"{seconds} s of video: ")
    ]
    rows = [(*row[:-1], _goal(row[0])) for report in reports for row in report.rows]
    notes = (f"of which ffprobe, which looks at the source and at the output: {await _probes(bench):.3f} s each",)
    return Report(f"A supervised encode, {bench.size.pairs} pairs", reports[0].columns, rows, notes, taken)


def _goal(name: str) -> str:
    return "+0.35 s, 1.002" if name.endswith("run") else "+0.2 s, 1.002" if "worker" in name else ""


def _task_data(bench: Bench, seconds: int) -> dict[str, Any]:
    source = bench.directory / f"source{seconds}.mkv"
    pattern = f"testsrc2=size=320x180:rate=25:duration={seconds}"
    options = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "18"]
    run(["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", pattern, *options, str(source)])
    return {
        "sources": [str(source)],
        "source_maps": [{"source": 0, "specifier": "v"}],
        "output_maps": [{"specifier": "v", "stream": 0, "options": {"codec": "libx264", "preset": "veryfast"}}],
        "output_file": str(bench.directory / f"encoded{seconds}.mkv"),
        "overwrite": True,
    }


def _variants(bench: Bench, farm: Farm, data: dict[str, Any]) -> dict[str, Callable[[], Awaitable[object]]]:
    task = {"module": "ffmpeg", "data": data}
    bare = shlex.split(run(bench.command_line([task], "--dry-run")).splitlines()[0])

    async def by_worker() -> None:
        if farm.verdict(farm.post_tasks([task]))["failed"]:
            raise SystemExit("the worker's encode failed")

    async def by_command(argv: list[str]) -> None:
        run(argv)

    return {
        BARE: lambda: by_command(bare),
        "sisyphus-client run": lambda: by_command(bench.command_line([task])),
        "an idle worker": by_worker,
    }


async def _probes(bench: Bench) -> float:
    source = str(bench.directory / f"source{bench.size.video_seconds[0]}.mkv")

    async def probe() -> None:
        run(["ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", "-i", source])

    return statistics.median((await in_turns({"": probe}, bench.size.pairs))[""])


# --- copies ---


async def copy(bench: Bench) -> Report:
    """A large file, within a file system and to another, by `cleanup` and by cp(1) with sync(1)."""
    size = bench.size.megabytes
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as shared:
        places = {"within a file system": bench.directory, "to another one": Path(shared)}
        variants: dict[str, Callable[[], Awaitable[object]]] = {}
        for where, place in places.items():
            source, target = place / "source", bench.directory / "copied"
            with source.open("wb") as file:
                for _ in range(size):
                    file.write(os.urandom(1 << 20))
            variants[f"{where}: cp, sync"] = lambda pair=(source, target): _cp(*pair)
            variants[f"{where}: cleanup"] = lambda pair=(source, target): _by_job(bench, *pair)
        await in_turns(variants, 1)
        taken = await in_turns(variants, bench.size.pairs)
    rows = []
    for where in places:
        pair = {name: seconds for name, seconds in taken.items() if name.startswith(where)}
        rows += beside("", f"{where}: cp, sync", pair, {}).rows
    columns = beside("", "", {"": [1.0]}, {}).columns
    return Report(f"A copy of {size} MB, until it is on the disk", columns, rows, (), taken)


async def _cp(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    run(["cp", str(source), str(target)])
    run(["sync", str(target)])


async def _by_job(bench: Bench, source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    await bench.job(("cleanup", {"copy": [{"source": str(source), "destination": str(target)}]}))
