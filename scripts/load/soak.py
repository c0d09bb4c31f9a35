"""Runs thousands of jobs of all kinds through one worker, and shows that the worker ends as it began."""

import argparse
import itertools
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from bench_worker import Farm, await_that
from rich.console import Console
from rich.table import Table

from tests.support.media import make_clip

CONFIGURATION = """
[tool.client.modules]
paths = ["{checkout}"]

[tool.client.modules.enabled]
ffmpeg = "modules.ffmpeg.Ffmpeg"
mkvmerge = "modules.mkvmerge.Mkvmerge"
cleanup = "modules.cleanup.Cleanup"
benign = "tests.hostile.Benign"
clerk = "tests.hostile.Clerk"
hostile = "tests.hostile.Hostile"

[tool.client.limits]
memory = "300MB"
processes = 30
run_timeout = "60s"

[tool.client.limits.hostile]
run_timeout = "2s"
"""

LOOKS = 10
"""How often the client is looked at."""

SETTLED = 0.1
"""The share of the jobs after which the client has what it keeps: caches, pools, the journal's pages."""

GROWTH = 1.2
"""The most that a value may grow from the first look to the last: an allocator's pages come and go."""

Task = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """Jobs of one kind: their tasks, and a word of the message with which they fail. They complete without one."""

    tasks: list[Task]
    word: str = ""
    weight: int = 1


def task(module: str, **data: Any) -> Task:
    """A task of a job."""
    return {"module": module, "data": data}


def act(name: str, word: str, **data: Any) -> Kind:
    """Jobs whose module does a hostile thing."""
    return Kind([task("hostile", step="run", act=name, **data)], word)


def kinds(work: Path) -> dict[str, Kind]:
    """All kinds of jobs. Good ones come more often."""
    clip, out = str(work / "clip.mkv"), str(work / "out-{n}.mkv")
    encode = task(
        "ffmpeg",
        sources=[{"filename": clip}],
        source_maps=[{"source": 0, "specifier": "v", "stream": 0}],
        output_maps=[{"specifier": "v", "stream": 0, "options": {"codec": "libx264", "preset": "ultrafast"}}],
        output_file=out,
        overwrite=True,
    )
    remove = task("cleanup", delete=[out])
    broken = encode["data"] | {"sources": [{"filename": str(work / "none.mkv")}]}
    return {
        "empty": Kind([task("benign")], weight=6),
        "many tasks": Kind([task("benign")] * 5, weight=2),
        "encode, delete": Kind([encode, remove], weight=3),
        "server-side data": Kind([task("clerk", run=[["put", "x", {"a": 1}], ["get", "x"]], out=os.devnull)]),
        "no source": Kind([{"module": "ffmpeg", "data": broken}], "none.mkv"),
        "bad data": Kind([task("ffmpeg", sources=[])], "sources"),
        "own error": act("own_error", "pylons"),
        "exception": act("other_exception", "ZeroDivisionError"),
        "exit": act("os_exit", "status 7"),
        "crash": act("segfault", "SIGSEGV"),
        "killed": act("sigkill", "SIGKILL"),
        "hang": act("hold_gil", "did not end"),
        "daemon": Kind([task("hostile", step="run", act="daemon")]),
        "garbage": act("garbage", "announced a message"),
        "flood of progress": act("endless_heartbeats", "did not end"),
        "flood of output": act("flood_stdout", "", megabytes=2),
        "runaway tool": act("tool", "did not end"),
    }


def jobs(all_kinds: dict[str, Kind], count: int) -> Iterator[tuple[str, list[Task]]]:
    """`count` jobs, the kinds mixed: names and tasks."""
    mixed = [name for name, kind in all_kinds.items() for _ in range(kind.weight)]
    random.Random(1).shuffle(mixed)  # the same order each time
    for number, name in zip(range(count), itertools.cycle(mixed), strict=False):
        yield name, json.loads(json.dumps(all_kinds[name].tasks).replace("{n}", str(number)))


Look = dict[str, float]
"""What the client holds: megabytes of memory, else numbers."""


def look(processes: dict[str, psutil.Process], temporary: Path, state: Path) -> Look:
    """What these processes hold, and what lies where they leave files."""
    ours = re.compile(rf"/sisyphus_[^/]*{processes['supervisor'].pid}")
    found: Look = {f"memory of the {name}, MB": process.memory_info().rss / 1e6 for name, process in processes.items()}
    found |= {
        "files in /tmp": sum(len(names) for _, _, names in os.walk(temporary)),
        "names in /tmp": len(os.listdir(temporary)),
        "names in /dev/shm": len(os.listdir("/dev/shm")),
        # The logs of the last 200 jobs are kept.
        "files of state": sum(len(names) for path, _, names in os.walk(state) if Path(path).name != "logs"),
        # Not by a glob, which fails at one that is removed meanwhile.
        "cgroups": sum(bool(ours.search(path)) for path, _, _ in os.walk("/sys/fs/cgroup")),
    }
    for name, process in processes.items():
        found[f"descriptors of the {name}"] = process.num_fds()
        found[f"threads of the {name}"] = process.num_threads()
        found[f"processes under the {name}"] = len(process.children(recursive=True))
    return found


def soak(work: Path, count: int, slots: int) -> bool:
    """Run the jobs and print the tables. True if every job ended as its kind does, and nothing grew."""
    make_clip(work / "clip.mkv", seconds=0.5, audio=False)
    all_kinds = kinds(work)
    temporary, configuration = work / "tmp", work / "sisyphus.toml"
    temporary.mkdir()
    configuration.write_text(CONFIGURATION.format(checkout=Path.cwd()))
    ended: dict[str, Counter[str]] = {name: Counter() for name in all_kinds}
    looks: list[Look] = []
    with Farm(work, str(configuration)).serving() as farm:
        waiting = [(name, farm.post_tasks(tasks)) for name, tasks in jobs(all_kinds, count)]
        settings = {"WORKER_SLOTS": str(slots), "LOGURU_LEVEL": "ERROR", "TMPDIR": str(temporary)}
        with farm.working(**settings) as supervisor:
            (zygote,) = await_that(supervisor.children, "the zygote")
            processes = {"supervisor": supervisor, "zygote": zygote}
            first = int(count * SETTLED)
            began = time.monotonic()
            for number, (name, job_id) in enumerate(waiting):
                ended[name][outcome(farm.verdict(job_id), all_kinds[name])] += 1
                if number >= first and number % max(1, count // LOOKS) == first % max(1, count // LOOKS):
                    looks.append(look(processes, temporary, work / "state"))
                    print(f"{number} jobs in {time.monotonic() - began:.0f} s", file=sys.stderr)
            await_that(lambda: not zygote.children(), "the last task processes to be gone")
            looks.append(look(processes, temporary, work / "state"))
    return show_ends(ended) & show_looks(looks)


def outcome(verdict: Any, kind: Kind) -> str:
    """`as expected`, or how the job ended otherwise."""
    message = verdict["info"].get("message", "")
    is_good = kind.word in message if verdict["failed"] else not kind.word
    if verdict["failed"] and not kind.word and kind.tasks[0]["module"] != "hostile":
        is_good = False
    return "as expected" if is_good else f"{'failed' if verdict['failed'] else 'completed'}: {message}"[:100]


def show_ends(ended: dict[str, Counter[str]]) -> bool:
    """Print how the jobs of each kind ended. True if as expected."""
    table = Table("kind", "jobs", "as expected", "otherwise")
    for name, counter in ended.items():
        others = [f"{number}x {how}" for how, number in counter.items() if how != "as expected"]
        table.add_row(name, str(counter.total()), str(counter["as expected"]), "\n".join(others))
    Console(width=120).print(table)
    return all(set(counter) <= {"as expected"} for counter in ended.values())


def show_looks(looks: list[Look]) -> bool:
    """Print the client's first, largest and last values. True if nothing is more at the end than at the beginning."""
    table = Table("", "first", "most", "last", "")
    is_good = True
    for name in looks[0]:
        values = [each[name] for each in looks]
        # Tasks run at each look but the last: what they have is theirs. Threads are started as they are needed.
        grew = values[-1] > values[0] * GROWTH
        is_good &= not grew
        table.add_row(name, *(f"{value:g}" for value in (values[0], max(values), values[-1])), "grew" if grew else "")
    Console(width=120).print(table)
    return is_good


def main() -> int:
    """Parse the arguments and soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--slots", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as work:
        return 0 if soak(Path(work), arguments.jobs, arguments.slots) else 1


if __name__ == "__main__":
    sys.exit(main())
