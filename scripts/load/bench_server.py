"""Measures API servers as processes: SQLite beside PostgreSQL, one process beside two."""

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench_client import Bench, Report
from bench_worker import Farm, await_that
from postgresql import Cluster, running
from sqlalchemy import text

from server.storage.database import ServerDatabase
from server.storage.history import History, JobFilter

CONNECTIONS = 8

BEAT = {"status": "idle", "online_at": "2026-01-01 00:00:00+00:00", "hostname": "encoder01", "version": "1.4.0"}
SHARE = 0.02
"""Of the connections that are made at the same time: servers accept a few hundred at once."""

ROWS = """
INSERT INTO jobs (job_id, state, priority, position, title, document, need, attempts, added_at, started_at, ended_at,
                  worker_id, hostname, message, info)
WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {count})
SELECT 'job-' || i, CASE WHEN i > {count} - 100 THEN 'queued' WHEN i % 50 = 0 THEN 'failed' ELSE 'completed' END, 0, 0,
       'film ' || i, '{{"tasks":[]}}', 1 + i % 3, '[]', 1700000000000000 + i * 1000000,
       1700000001000000 + i * 1000000, CASE WHEN i <= {count} - 100 THEN 1700000002000000 + i * 1000000 END,
       'worker-' || i % 1000, 'encoder' || i % 100, CASE WHEN i % 50 = 0 THEN 'failed' END, '{{}}'
FROM n
"""
"""Jobs of a thousand workers, a second apart: one of 50 failed, and the last hundred are queued."""

NEEDS = """INSERT INTO needs (need, modules, tags) VALUES (1, '["ffmpeg"]', '[]'), (2, '["handbrake"]', '[]'),
    (3, '["cleanup","ffmpeg"]', '[]')"""


class Connection:
    """A connection to a server that is kept. A call takes a tenth of a server's time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """Connect to a server."""
        return cls(*await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port))

    async def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """Call the server; returns what it answers."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        _, _, rest = answer.partition(b"content-length: ")
        body = await self._reader.readexactly(int(rest.split()[0])) if rest else b""
        if answer.split()[1] not in (b"200", b"204", b"404"):
            raise SystemExit(f"{method} {path}: {answer.decode()}{body.decode()}")
        return json.loads(body) if body else None


@contextlib.contextmanager
def servers(bench: Bench, directory: Path) -> Iterator[dict[str, Farm]]:
    """Run a server of each kind."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(running(directory / "postgresql"))
        options: dict[str, list[str]] = {"SQLite": []}
        for number in (1, 2):
            url = cluster.make_database(f"bench{number}")
            name = f"PostgreSQL, {number} process{'es' * (number > 1)}"
            options[name] = ["--database", url, "--processes", str(number)]
        found = {}
        for name, own in options.items():
            (place := directory / name).mkdir()
            found[name] = stack.enter_context(Farm(place, bench.configuration).serving(*own))
        yield found


# --- calls and jobs a second ---


async def calls(bench: Bench) -> list[Report]:
    """Heartbeats, and jobs that are submitted, taken and completed, over a few connections."""
    kinds = {
        "a heartbeat": (_beat, bench.size.jobs * 2),
        "a job (submitted, taken, completed)": (_job, bench.size.jobs),
    }
    taken: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with servers(bench, bench.directory / "calls") as farms:
        for _, (name, farm) in itertools.product(range(bench.size.rounds), farms.items()):
            for what, (one, count) in kinds.items():
                taken[what][f"{name}: {what}"].append(await _pace(farm.url, one, count))
    return [
        Report(f"An API server, {CONNECTIONS} connections: the time for {what}", "ms", each)
        for what, each in taken.items()
    ]


async def _pace(url: str, one: Callable[[Connection, str], Awaitable[None]], count: int) -> float:
    """Seconds that one takes, of many over all connections."""
    connections = [await Connection.open(url) for _ in range(CONNECTIONS)]

    async def work(connection: Connection, name: str) -> None:
        for _ in range(count // CONNECTIONS):
            await one(connection, name)

    began = time.perf_counter()
    await asyncio.gather(*(work(connection, f"w{number}") for number, connection in enumerate(connections)))
    return (time.perf_counter() - began) / (count // CONNECTIONS * CONNECTIONS)


async def _beat(call: Connection, name: str) -> None:
    await call("POST", f"/workers/{name}", BEAT)


async def _job(call: Connection, name: str) -> None:
    await call("POST", "/queue", _job_of({}))
    job = await call("GET", "/queue/poll")
    await call("PATCH", f"/jobs/{job['job_id']}/completed", {"failed": False, "info": {"worker": name}})


# --- latency ---


async def latency(bench: Bench) -> list[Report]:
    """From the submission of a job to an idle worker to its start, one after the other, with the default intervals."""
    starts: dict[str, list[float]] = {}
    ends: dict[str, list[float]] = {}
    with servers(bench, bench.directory / "latency") as farms:
        for name, farm in farms.items():
            taken, ended = (
                starts.setdefault(f"{name}: to its start", []),
                ends.setdefault(f"{name}: to its verdict", []),
            )
            with farm.working(LOGURU_LEVEL="WARNING"):
                await_that(farm.has_workers, "the first heartbeat")
                deadline = time.monotonic() + bench.size.seconds
                while len(taken) < bench.size.runs and (len(taken) < 3 or time.monotonic() < deadline):
                    time.sleep(random.uniform(0, 0.2))
                    submitted = time.time()
                    info = farm.verdict(farm.post("empty", {}))["info"]
                    ended.append(time.time() - submitted)
                    taken.append(datetime.fromisoformat(info["start_time"]).timestamp() - submitted)
    title = "From a job's submission to an idle worker"
    return [Report(title, "ms", starts), Report("And to its verdict", "ms", ends, dict.fromkeys(ends, "80 ms"))]


# --- a long history ---


async def history(bench: Bench) -> list[Report]:
    """`GET /jobs` with each filter, at few and at many jobs. Query plans are printed as notes."""
    reports = []
    with running(bench.directory / "history") as cluster:
        for rows, place in itertools.product(bench.size.rows, ("SQLite", "PostgreSQL")):
            of, taken, notes = f"{place}, {rows:,} jobs", {}, []
            with contextlib.closing(_filled(cluster, bench.directory, place, rows)) as database:
                for name, (wanted, tenths) in _filters().items():
                    cursor = tenths and tenths * rows // 10
                    taken[f"{of}: {name}"] = _time_page(database, wanted, cursor)
                    notes.append(f"{name}: {_plan(database, wanted, cursor)}")
            notes = notes if rows == max(bench.size.rows) else []
            reports.append(Report(f"GET /jobs, a page of 100: {of}", "ms", taken, {}, notes))
    return reports


def _filters() -> dict[str, tuple[JobFilter, int | None]]:
    """By a name for people: the filter, and tenths of the jobs at which the page begins."""
    early = datetime.fromtimestamp(1_700_005_000, UTC)
    states = {f"state={state}": JobFilter(state=state) for state in ("queued", "running", "completed", "failed")}
    named = {
        "no filter": JobFilter(),
        **states,
        "state=cancelled (none)": JobFilter(state="cancelled"),
        "module": JobFilter(module="handbrake"),
        "module (none)": JobFilter(module="mkvmerge"),
        "worker's id": JobFilter(worker="worker-7"),
        "worker's host name": JobFilter(worker="encoder7"),
        "worker (none)": JobFilter(worker="nobody"),
        "worker, state=failed": JobFilter(worker="encoder50", state="failed"),
        "worker, state=failed (none)": JobFilter(worker="encoder7", state="failed"),
        "module, state=failed": JobFilter(module="ffmpeg", state="failed"),
        "q": JobFilter(text="FILM 77"),
        "q (none)": JobFilter(text="no such title"),
        "since": JobFilter(since=early),
        "before": JobFilter(before=early),
        "before, state=failed": JobFilter(before=early, state="failed"),
    }
    return {name: (wanted, None) for name, wanted in named.items()} | {
        "cursor in the middle": (JobFilter(), 5),
        "state=failed, cursor": (JobFilter(state="failed"), 5),
    }


def _filled(cluster: Cluster, directory: Path, place: str, rows: int) -> ServerDatabase:
    name = f"history{rows}"
    database = ServerDatabase(cluster.make_database(name) if place == "PostgreSQL" else directory / f"{name}.sqlite3")
    with database.begin() as db:
        db.execute(text(NEEDS))
        if place == "SQLite":
            db.execute(text(ROWS.format(count=rows)))
    if place == "PostgreSQL":
        with cluster.connect(name) as connection:  # the server's have a timeout
            connection.execute(ROWS.format(count=rows))
            connection.execute("VACUUM ANALYZE jobs")  # as its autovacuum does within a minute
    return database


def _time_page(database: ServerDatabase, wanted: JobFilter, cursor: int | None) -> list[float]:
    seconds = []
    for _ in range(21):
        began = time.perf_counter()
        History(database).page(wanted, cursor, 100)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def _plan(database: ServerDatabase, wanted: JobFilter, cursor: int | None) -> str:
    with database.begin() as db:
        query = History(database)._select(db, wanted, cursor, 100)
        statement = query.compile(db.engine, compile_kwargs={"literal_binds": True, "render_postcompile": True})
        explain = "EXPLAIN (COSTS OFF)" if database.is_shared else "EXPLAIN QUERY PLAN"
        lines = db.exec_driver_sql(f"{explain} {statement}").all()
    return "; ".join(" ".join(str(line[-1]).split()) for line in lines)


# --- many workers ---


async def workers(bench: Bench) -> list[Report]:
    """Simulated workers: a heartbeat every 10 s and a waiting poll each, while a few jobs come."""
    units = {"CPU": "%", "RSS": "MB", "a heartbeat": "ms", "submission to start": "ms"}
    taken: dict[str, dict[str, list[float]]] = {what: {} for what in units}
    with servers(bench, bench.directory / "workers") as farms:
        for name, farm in farms.items():
            for what, values in zip(units, await _simulate(farm, bench.size.workers, bench.size.seconds), strict=True):
                taken[what][f"{name}: {what}"] = values
    title = f"{bench.size.workers} simulated workers, 10 jobs a second"
    return [Report(f"{title}: {what}", unit, taken[what]) for what, unit in units.items()]


async def _simulate(farm: Farm, count: int, seconds: float) -> tuple[list[float], ...]:
    """The shares of a processor and bytes that the server took; the seconds of heartbeats, and until jobs began."""
    beats: list[float] = []
    starts: list[float] = []
    gate = asyncio.Semaphore(max(1, round(count * SHARE)))
    names = [f"w{number}" for number in range(count)]
    tasks = [asyncio.create_task(_keep_beating(farm.url, name, gate, beats)) for name in names]
    tasks += [asyncio.create_task(_keep_polling(farm.url, name, gate, starts)) for name in names]
    call = await Connection.open(farm.url)
    await asyncio.sleep(min(10, seconds))  # all are connected, and have sent their first heartbeat
    beats.clear()
    cpu, began = farm.cpu_seconds(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        await call("POST", "/queue", _job_of({"at": time.perf_counter()}))
        await asyncio.sleep(0.1)
    used = (farm.cpu_seconds() - cpu) / (time.perf_counter() - began)
    memory = sum(process.memory_info().rss for process in farm.processes())
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    if broken := next((task.exception() for task in tasks if not task.cancelled()), None):
        raise broken
    return [used], [memory], beats, starts


async def _keep_beating(url: str, name: str, gate: asyncio.Semaphore, beats: list[float]) -> None:
    async with gate:
        call = await Connection.open(url)
    await asyncio.sleep(random.uniform(0, 10))
    while True:
        began = time.perf_counter()
        await call("POST", f"/workers/{name}", BEAT)
        beats.append(time.perf_counter() - began)
        await asyncio.sleep(random.uniform(8.5, 10))


async def _keep_polling(url: str, name: str, gate: asyncio.Semaphore, starts: list[float]) -> None:
    async with gate:
        call = await Connection.open(url)
    while True:
        if job := await call("GET", f"/queue/poll?worker_id={name}&modules=empty,ffmpeg&wait=30"):
            starts.append(time.perf_counter() - float(job["tasks"][0]["data"]["at"]))
            await call("PATCH", f"/jobs/{job['job_id']}/completed", {"failed": False, "info": {"worker_id": name}})


def _job_of(data: dict[str, Any]) -> dict[str, Any]:
    return {"job_title": "bench", "tasks": [{"module": "empty", "data": data}]}
