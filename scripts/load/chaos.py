"""Kills a farm's programs at random while jobs run, and shows that each job has exactly one verdict.

The farm is one PostgreSQL, two servers of two processes and eight workers. A proxy stands before the servers, one
before PostgreSQL. Jobs come over time; programs are killed, stopped and ended, connections are cut; what has ended is
started again. Then all is let alone until no job is left.

What is wrong otherwise:

- Of each job that the server has acknowledged there is one row, which has ended. A trigger in the database counts the
  verdicts that jobs get: it is one. A submission without an answer is not repeated but made anew, under another title:
  if it is in the database, the same holds for it.
- A job ends as its kind does, and a completed one has left its effect on the disk. One that fails because workers
  vanished with it, or went down while it ran, has had as many of them (five, three).
- A job begins once. It begins again only if its record tells an attempt that was lost or handed back, or if its worker
  was killed or ended meanwhile: that one resumes it. No attempt is lost before the servers' patience is over.
- Nothing runs that is not in the database. No program logs a traceback.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
from chaos_farm import VANISHED_AFTER, ChaosFarm, Program, nothing_left, until
from rich.console import Console
from rich.table import Table

from tests.support.media import make_clip

NOTES = """
CREATE TABLE chaos_notes (job_id text, state text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO chaos_notes (job_id, state) VALUES (NEW.job_id, NEW.state); RETURN NULL; END $$;
CREATE TRIGGER chaos_note AFTER UPDATE ON jobs FOR EACH ROW
WHEN (OLD.ended_at IS DISTINCT FROM NEW.ended_at OR OLD.info IS DISTINCT FROM NEW.info)
EXECUTE FUNCTION chaos_note();
"""

HARMS = {
    "server: KILL": 3,
    "server process: KILL": 3,
    "server: STOP": 3,
    "server: TERM": 2,
    "worker: KILL": 5,
    "worker: TERM": 2,
    "worker: QUIT": 2,
    "worker: STOP": 2,
    "PostgreSQL: KILL of a backend": 2,
    "PostgreSQL: QUIT": 2,
    "PostgreSQL: STOP": 1,
    "proxy of the servers: cut": 4,
    "proxy of PostgreSQL: cut": 4,
}
"""What is done, and how often beside the others."""

PATIENCE = 600.0
"""Seconds in which the queue must be empty once all is let alone."""

MAX_STARTS, MAX_TAKES = 3, 5
"""Crashes of a client, and workers that vanished, after which a job itself is held to be the cause and fails."""


@dataclass
class Story:
    """What chaos did, and what it asked for."""

    harms: Counter[str] = field(default_factory=Counter)
    interruptions: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When each worker was killed or ended."""
    submitted: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The data of each job's effect, by its title."""
    acknowledged: set[str] = field(default_factory=set)


class Chaos:
    """Jobs and harm for a farm."""

    def __init__(self, farm: ChaosFarm, seed: int) -> None:
        self.story = Story()
        self._farm = farm
        self._random = random.Random(seed)
        self._stops: set[asyncio.Task[None]] = set()
        (farm.directory / "effects").mkdir()
        self._clip = make_clip(farm.directory / "clip.mkv", seconds=0.5, audio=False)

    async def submit(self, count: int, seconds: float) -> None:
        """Submit so many jobs, evenly over the time."""
        began = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + seconds * number / count - time.monotonic()))
            for attempt in itertools.count():
                title = f"job {number}" + f", submission {attempt + 1}" * (attempt > 0)
                if await asyncio.to_thread(self._post, title, self._make_job(title)):
                    self.story.acknowledged.add(title)
                    break
                await asyncio.sleep(1)

    def _make_job(self, title: str) -> list[dict[str, Any]]:
        kind, name = self._random.random(), title.replace(" ", "-")
        effect = {"file": str(self._farm.directory / "effects" / name), "fails": kind < 0.1, "seconds": 3.0}
        tasks = [{"module": "effect", "data": effect}]
        if kind > 0.8:
            output = {"specifier": "v", "stream": 0, "options": {"codec": "libx264", "preset": "ultrafast"}}
            data = {
                "sources": [{"filename": str(self._clip)}],
                "source_maps": [{"source": 0, "specifier": "v", "stream": 0}],
                "output_maps": [output],
                "output_file": f"{effect['file']}.mkv",
                "overwrite": True,
            }
            tasks.insert(0, {"module": "ffmpeg", "data": data})
        self.story.submitted[title] = effect | {"outputs": [f"{effect['file']}.mkv"] * (kind > 0.8)}
        return tasks

    def _post(self, title: str, tasks: list[dict[str, Any]]) -> bool:
        try:
            answer = requests.post(f"{self._farm.url}/queue", json={"job_title": title, "tasks": tasks}, timeout=30)
        except requests.RequestException:
            return False
        return answer.status_code == requests.codes.ok

    async def harm(self, seconds: float, every: float) -> None:
        """Do harm at random instants, and undo what can be undone at the end."""
        deadline = time.monotonic() + seconds
        while (pause := self._random.expovariate(1 / every)) < deadline - time.monotonic():
            await asyncio.sleep(pause)
            self._farm.reap()
            (harm,) = self._random.choices(list(HARMS), list(HARMS.values()))
            if self._do(harm):
                self.story.harms[harm] += 1
        if self._stops:
            await asyncio.wait(self._stops)

    def _do(self, harm: str) -> bool:
        kind, _, act = harm.partition(": ")
        if act == "cut":
            (self._farm.to_database if "PostgreSQL" in kind else self._farm.to_servers).cut()
            return True
        program = self._random.choice(self._farm.kind(kind.removesuffix(" process")))
        tree = program.tree()
        if not tree:
            return False
        if act == "STOP":
            self._stop(program, tree if kind != "worker" else tree[:1])
            return True
        if kind == "worker":
            self.story.interruptions[program.name].append(time.time())
        is_below = kind.endswith("process") or act.endswith("backend")
        victim = self._random.choice(tree[1:] or tree) if is_below else tree[0]
        victim.send_signal(signal.Signals[f"SIG{act.partition(' ')[0]}"])
        return True

    def _stop(self, program: Program, tree: list[Any]) -> None:
        seconds = self._random.uniform(1, 10)
        if program.kind == "worker":  # longer than the servers' patience
            seconds += VANISHED_AFTER
        task = asyncio.create_task(program.stop_for(tree, seconds))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)


# --- what became of it ---


@dataclass
class Outcome:
    """What there is at the end."""

    rows: list[Any]
    notes: list[tuple[str, str, datetime]]
    effects: dict[str, list[tuple[str, float, str]]]
    """By the file's name: `began` or `ended`, when, and the worker."""

    @classmethod
    def read(cls, farm: ChaosFarm) -> "Outcome":
        """Read the database and the disk."""
        columns = "job_id, title, state, message, attempts, hostname, added_at, started_at, ended_at"
        with farm.cluster.connect("chaos") as db:
            rows = db.execute(f"SELECT {columns} FROM jobs").fetchall()
            names = [name.strip() for name in columns.split(",")]
            notes = db.execute("SELECT job_id, state, at FROM chaos_notes ORDER BY at").fetchall()
        effects = {}
        for file in (farm.directory / "effects").iterdir():
            if file.suffix != ".mkv":
                lines = (line.split() for line in file.read_text().splitlines())
                effects[file.name] = [(what, float(at), worker) for what, at, worker in lines]
        return cls([dict(zip(names, row, strict=True)) for row in rows], notes, effects)

    def find_wrong(self, story: Story) -> Iterator[str]:
        """Return what is wrong, a line each."""
        by_title = defaultdict(list)
        for row in self.rows:
            by_title[row["title"]].append(row)
        verdicts = Counter(job_id for job_id, _, _ in self.notes)
        for title, data in story.submitted.items():
            rows, effect = by_title[title], self.effects.pop(title.replace(" ", "-"), [])
            if not rows and not effect and title not in story.acknowledged:
                continue
            if len(rows) != 1:
                yield f"{title}: {len(rows)} rows, {[(row['job_id'], row['state']) for row in rows]}"
            elif (number := verdicts[rows[0]["job_id"]]) != 1:
                yield f"{title}: {number} verdicts"
            else:
                row = rows[0] | {"attempts": json.loads(rows[0]["attempts"])}
                yield from (f"{title} ({row['job_id']}): {wrong}" for wrong in _wrong_end(row, data, effect, story))
                yield from (f"{title} ({row['job_id']}): {wrong}" for wrong in _wrong_starts(row, effect, story))
        yield from (f"{name}: has effects and was never submitted" for name in self.effects)

    def longest_silence(self) -> float:
        """Return the longest time between two verdicts, in seconds."""
        times = [at.timestamp() for _, _, at in self.notes]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)


def _wrong_end(row: dict[str, Any], data: dict[str, Any], effect: list[Any], story: Story) -> Iterator[str]:
    whats = Counter(what for what, _, _ in effect)
    message = row["message"] or ""
    if "vanished" in message:
        if len(row["attempts"]) < MAX_TAKES - 1:
            yield f"failed after {len(row['attempts']) + 1} workers: {message}"
    elif "went down" in message:
        if len(_between(story, row["hostname"], row["added_at"] / 1e6, row["ended_at"] / 1e6)) < MAX_STARTS:
            yield f"failed, and its worker did not go down so often: {message}"
    elif row["state"] != ("failed" if data["fails"] else "completed") or ("on purpose" in message) != data["fails"]:
        yield f"{row['state']}: {message}"
    elif not whats["began" if data["fails"] else "ended"]:
        yield f"{row['state']}, and has left no effect"
    elif not all(os.path.isfile(output) for output in data["outputs"]):
        yield f"{row['state']}, and has left no output"


def _wrong_starts(row: dict[str, Any], effect: list[Any], story: Story) -> Iterator[str]:
    starts = [(at, worker) for what, at, worker in effect if what == "began"]
    resumed = 0
    for number, (at, worker) in enumerate(starts):
        earlier = [before for before, other in starts[:number] if other == worker]
        resumed += bool(earlier and _between(story, worker, earlier[-1], at))
    if len(starts) - resumed > 1 + len(row["attempts"]):
        yield f"began too often: {starts}, attempts {row['attempts']}"
    for attempt in row["attempts"]:
        begin, end = (datetime.fromisoformat(attempt[key]) for key in ("started_at", "ended_at"))
        if attempt["result"] == "lost" and (end - begin).total_seconds() < VANISHED_AFTER - 1:
            yield f"was held to be lost too early: {attempt}"


def _between(story: Story, worker: str, earlier: float, later: float) -> list[float]:
    return [at for at in story.interruptions[worker] if earlier <= at <= later]


def _wrong_programs(farm: ChaosFarm) -> Iterator[str]:
    for program in farm.programs:
        if number := program.read_log().count(b"Traceback (most recent call last)"):
            yield f"{program.name}: {number} tracebacks in its log"


def show(farm: ChaosFarm, story: Story, outcome: Outcome, seconds: float, wrong: list[str]) -> None:
    """Print what was done, and what came of it."""
    statuses = [(program.kind, status) for program in farm.programs for status in program.ends.elements()]
    ends = Counter(f"{kind}: ended with {signal.Signals(-end).name if end < 0 else end}" for kind, end in statuses)
    unanswered = story.submitted.keys() - story.acknowledged
    messages = [row["message"] or "" for row in outcome.rows]
    attempts = [each for row in outcome.rows for each in json.loads(row["attempts"])]
    figures = {
        **{harm: story.harms[harm] for harm in HARMS},
        **dict(sorted(ends.items())),
        "jobs submitted and acknowledged": len(story.acknowledged),
        "jobs submitted without an answer": len(unanswered),
        "of these, in the database": len(unanswered & {row["title"] for row in outcome.rows}),
        **Counter(f"jobs {row['state']}" for row in outcome.rows),
        "of the failed, because workers vanished or went down": sum(
            "vanished" in message or "went down" in message for message in messages
        ),
        **Counter(f"attempts that were {each['result']}" for each in attempts),
        "verdicts": len(outcome.notes),
        "seconds between two verdicts, at most": round(outcome.longest_silence(), 1),
        "seconds from the last harm to the empty queue": round(seconds, 1),
    }
    table = Table("", "number")
    for name, number in figures.items():
        table.add_row(name, str(number))
    console = Console(width=120, highlight=False)
    console.print(table)
    console.print(f"{len(wrong)} things are wrong" if wrong else "Nothing is wrong", *wrong[:50], sep="\n")


async def run(directory: Path, arguments: argparse.Namespace) -> bool:
    """Run the farm; returns whether all is as it should be."""
    main = asyncio.current_task()
    assert main
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, main.cancel)
    directory.chmod(0o711)  # PostgreSQL runs as another user where this one is root
    farm = ChaosFarm(directory)
    try:
        return await _run(farm, arguments)
    finally:
        farm.to_servers.close()
        farm.to_database.close()


async def _run(farm: ChaosFarm, arguments: argparse.Namespace) -> bool:
    await farm.start()
    with farm.cluster.connect("chaos") as db:
        db.execute(NOTES)
    chaos = Chaos(farm, arguments.seed)
    seconds = arguments.minutes * 60
    await asyncio.gather(chaos.submit(arguments.jobs, seconds * 0.9), chaos.harm(seconds, arguments.every))
    let_alone, wrong = time.monotonic(), []

    def is_done() -> bool:
        with farm.cluster.connect("chaos") as db:
            return db.execute("SELECT count(*) FROM jobs WHERE ended_at IS NULL").fetchone() == (0,)

    try:
        await until(farm.cluster.is_up, "PostgreSQL")
        await until(is_done, "the end of all jobs", PATIENCE)
    except SystemExit as error:
        wrong = [str(error)]
    taken = time.monotonic() - let_alone
    outcome = Outcome.read(farm)
    wrong += [*outcome.find_wrong(chaos.story), *_wrong_programs(farm)]
    show(farm, chaos.story, outcome, taken, wrong)
    return not wrong


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of harm")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two harms, on average")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", metavar="DIR", type=Path, help="leave logs and data in DIR, which is not there yet")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as name, nothing_left():
        directory = Path(name)
        if arguments.keep:
            directory = arguments.keep.absolute()
            directory.mkdir(parents=True)
        try:
            return 0 if asyncio.run(run(directory, arguments)) else 1
        except (asyncio.CancelledError, KeyboardInterrupt):
            return 130


if __name__ == "__main__":
    sys.exit(main())
