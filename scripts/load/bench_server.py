"""Measures API servers as processes: SQLite beside PostgreSQL, one process beside two, and another checkout's."""

import asyncio
import contextlib
import itertools
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench_client import Bench, Report, ms
from bench_worker import CLIENT, Farm, await_that
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

        def serve(name: str, *options: str, client: str = CLIENT) -> Farm:
            (own := directory / name).mkdir()
            return stack.enter_context(Farm(own, bench.configuration, client).serving(*options))

        found = {"SQLite": serve("sqlite")}
        for number in (1, 2):
            options = ["--database", cluster.make_database(f"bench{number}"), "--processes", str(number)]
            found[f"PostgreSQL, {number} process{'es' * (number > 1)}"] = serve(f"postgresql{number}", *options)
        if bench.beside:
            found[f"SQLite, {bench.beside.name}"] = serve(
                "beside", client=str(bench.beside / ".venv/bin/sisyphus-client")
            )
        yield found


# --- calls and jobs a second ---


async def calls(bench: Bench) -> Report:
    """Heartbeats a second, and jobs that are submitted, taken and completed, over a few connections."""
    with servers(bench, bench.directory / "calls") as farms:
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in farms}
        for _, (name, farm) in itertools.product(range(bench.size.rounds), farms.items()):
            beats = await _rate(farm.url, _beat, bench.size.jobs * 2)
            rates[name].append((beats, await _rate(farm.url, _job, bench.size.jobs)))
    rows = []
    base = [max(column) for column in zip(*rates["SQLite"], strict=True)]
    for name, measured in rates.items():
        best = [max(column) for column in zip(*measured, strict=True)]
        rows.append((name, *(f"{rate:.0f} ({rate / of:.2f})" for rate, of in zip(best, base, strict=True))))
    columns = ("", "heartbeats a second", "jobs a second (submitted, taken, completed)")
    return Report(
        f"An API server, {CONNECTIONS} connections", columns, rows, ("In brackets: beside this version's SQLite.",)
    )


async def _rate(url: str, one: Callable[[Connection, str], Awaitable[None]], count: int) -> float:
    connections = [await Connection.open(url) for _ in range(CONNECTIONS)]

    async def work(connection: Connection, name: str) -> None:
        for _ in range(count // CONNECTIONS):
            await one(connection, name)

    began = time.perf_counter()
    await asyncio.gather(*(work(connection, f"w{number}") for number, connection in enumerate(connections)))
    return count // CONNECTIONS * CONNECTIONS / (time.perf_counter() - began)


async def _beat(call: Connection, name: str) -> None:
    await call("POST", f"/workers/{name}", BEAT)


async def _job(call: Connection, name: str) -> None:
    await call("POST", "/queue", _job_of({}))
    job = await call("GET", "/queue/poll")
    await call("PATCH", f"/jobs/{job['job_id']}/completed", {"failed": False, "info": {"worker": name}})


# --- latency ---


async def latency(bench: Bench) -> Report:
    """From the submission of a job to an idle worker to its start, one after the other, with the default intervals."""
    rows = []
    samples: dict[str, list[float]] = {}
    with servers(bench, bench.directory / "latency") as farms:
        for name, farm in farms.items():
            taken: list[float] = []
            ended: list[float] = []
            with farm.working(LOGURU_LEVEL="WARNING"):
                await_that(farm.has_workers, "the first heartbeat")
                deadline = time.monotonic() + bench.size.seconds
                while len(taken) < bench.size.runs and (len(taken) < 3 or time.monotonic() < deadline):
                    time.sleep(random.uniform(0, 0.2))
                    submitted = time.time()
                    info = farm.verdict(farm.post("empty", {}))["info"]
                    ended.append(time.time() - submitted)
                    taken.append(datetime.fromisoformat(info["start_time"]).timestamp() - submitted)
            rows.append((name, str(len(taken)), _both(taken), _both(ended)))
            samples |= {f"{name}, submission to start": taken, f"{name}, submission to verdict": ended}
    columns = ("", "jobs", "to its start, ms: median, p99", "to its verdict (goal: 80 ms)")
    return Report("From a job's submission to an idle worker", columns, rows, (), samples)


# --- a long history ---


async def history(bench: Bench) -> Report:
    """`GET /jobs` with each filter, at few and at many jobs. Query plans are printed as notes."""
    filters = _filters()
    cells: dict[str, list[str]] = {name: [] for name in filters}
    columns, notes = [""], []
    with running(bench.directory / "history") as cluster:
        for rows, place in itertools.product(bench.size.rows, ("SQLite", "PostgreSQL")):
            with contextlib.closing(_filled(cluster, bench.directory, place, rows)) as database:
                columns.append(f"{place}, {rows:,} jobs")
                for name, (wanted, cursor) in filters.items():
                    cells[name].append(_time_page(database, wanted, cursor and cursor * rows // 10))
                    if rows == max(bench.size.rows):
                        notes.append(f"{place}, {name}: {_plan(database, wanted, cursor and cursor * rows // 10)}")
    made = [(name, *measured) for name, measured in cells.items()]
    return Report("GET /jobs, a page of 100: ms, median and worst of 20", tuple(columns), made, tuple(notes))


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


def _time_page(database: ServerDatabase, wanted: JobFilter, cursor: int | None) -> str:
    seconds = []
    for _ in range(21):
        began = time.perf_counter()
        History(database).page(wanted, cursor, 100)
        seconds.append(time.perf_counter() - began)
    return f"{ms(statistics.median(seconds[1:]))}, {ms(max(seconds[1:]))}"


def _plan(database: ServerDatabase, wanted: JobFilter, cursor: int | None) -> str:
    with database.begin() as db:
        query = History(database)._select(db, wanted, cursor, 100)
        statement = query.compile(db.engine, compile_kwargs={"literal_binds": True, "render_postcompile": True})
        explain = "EXPLAIN (COSTS OFF)" if database.is_shared else "EXPLAIN QUERY PLAN"
        lines = db.exec_driver_sql(f"{explain} {statement}").all()
    return "; ".join(" ".join(str(line[-1]).split()) for line in lines)


# --- many workers ---


async def workers(bench: Bench) -> Report:
    """Simulated workers: a heartbeat every 10 s and a waiting poll each, while a few jobs come."""
    rows = []
    with servers(bench, bench.directory / "workers") as farms:
        for name, farm in farms.items():
            if not bench.beside or bench.beside.name not in name:
                rows.append((name, *(await _simulate(farm, bench.size.workers, bench.size.seconds))))
    columns = ("", "CPU", "RSS MB", "heartbeat ms: median, p99", "submission to start ms: median, p99")
    return Report(f"{bench.size.workers} simulated workers, 10 jobs a second", columns, rows)


async def _simulate(farm: Farm, count: int, seconds: float) -> tuple[str, ...]:
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
    return f"{used:.1%}", f"{memory / 1e6:.0f}", _both(beats), _both(starts)


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


def _both(seconds: list[float]) -> str:
    return f"{ms(statistics.median(seconds))}, {ms(_p99(seconds))}"


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]
