"""Measures a supervised encode beside the bare command, and the copies of `cleanup` beside cp(1), in turns."""

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench_client import Bench, Report, in_turns, run
from bench_worker import Farm, await_that

Variants = dict[str, Callable[[], Awaitable[object]]]


async def encode(bench: Bench) -> list[Report]:
    """The same encode bare, with the whole command line, and by an idle worker from submission to verdict: of a clip,
    and of a film, which shows what grows with its length."""
    if shutil.which("ffmpeg") is None:
        raise SystemExit("ffmpeg is not installed: apt-get install ffmpeg")
    directory = bench.directory / "encode"
    directory.mkdir()
    reports = []
    with Farm(directory, bench.configuration).serving() as farm, farm.working(LOGURU_LEVEL="WARNING"):
        await_that(farm.has_workers, "the first heartbeat")
        for seconds in bench.size.video_seconds:
            of = f"of {seconds} s of video"
            taken = await in_turns(_variants(bench, farm, of, _task_data(bench, seconds)), bench.size.pairs)
            goals = {f"run {of}": "+0.35 s, 1.002", f"an idle worker {of}": "+0.2 s, 1.002"}
            reports.append(Report(f"A supervised encode {of}", "s", taken, goals))
    return [*reports, _slopes(*reports)]


def _slopes(clip: Report, film: Report) -> Report:
    """What a supervised encode takes more for each second that the bare command takes more, turn by turn."""
    short, long = ([values[:] for values in report.samples.values()] for report in (clip, film))
    slopes = {
        name: [
            (own - own_short) / (bare - bare_short)
            for own, own_short, bare, bare_short in zip(long[number], short[number], long[0], short[0], strict=True)
        ]
        for number, name in enumerate(("the bare command's slope", "the slope of run", "the slope of an idle worker"))
    }
    return Report("Seconds for a second of the bare command", "", slopes, dict.fromkeys([*slopes][1:], "1.002"))


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


def _variants(bench: Bench, farm: Farm, of: str, data: dict[str, Any]) -> Variants:
    task = {"module": "ffmpeg", "data": data}
    taken = 0.0
    bare = shlex.split(run(bench.command_line([task], "--dry-run")).splitlines()[0])
    probe = ["ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", "-i", data["sources"][0]]

    async def by_itself() -> None:
        nonlocal taken
        began = time.perf_counter()
        run(bare)
        taken = time.perf_counter() - began

    async def by_worker() -> None:
        job = farm.post_tasks([task])
        time.sleep(0.95 * taken)  # to ask the server again and again would take the encoder's time
        if farm.verdict(job)["failed"]:
            raise SystemExit("the worker's encode failed")

    async def by_command(argv: list[str]) -> None:
        run(argv)

    return {
        f"the bare command {of}": by_itself,
        f"run {of}": lambda: by_command(bench.command_line([task])),
        f"an idle worker {of}": by_worker,
        f"one of its two looks with ffprobe {of}": lambda: by_command(probe),
    }


async def copy(bench: Bench) -> list[Report]:
    """A large file, within a file system and to another, by `cleanup` and by cp(1) with sync(1)."""
    size, reports = bench.size.megabytes, []
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as shared:
        for where, place in (("within a file system", bench.directory), ("to another one", Path(shared))):
            source, target = place / "source", bench.directory / "copied"
            with source.open("wb") as file:
                for _ in range(size):
                    file.write(os.urandom(1 << 20))
            variants: Variants = {
                f"cp, sync {where}": lambda pair=(source, target): _cp(*pair),
                f"cleanup {where}": lambda pair=(source, target): _by_job(bench, *pair),
            }
            taken = await in_turns(variants, bench.size.pairs)
            reports.append(Report(f"A copy of {size} MB {where}, until it is on the disk", "s", taken))
    return reports


async def _cp(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    run(["cp", str(source), str(target)])
    run(["sync", str(target)])


async def _by_job(bench: Bench, source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    await bench.job(("cleanup", {"copy": [{"source": str(source), "destination": str(target)}]}))
