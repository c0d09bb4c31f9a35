"""The tables of a farm's server, and what an SQLite file of version 1 had: jobs, and beside them verdicts."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables, and fill them with what was there before."""
    former = {"jobs", "verdicts", "data", "disabled"} & set(sa.inspect(op.get_bind()).get_table_names())
    for name in former:
        op.rename_table(name, f"former_{name}")
    _make_jobs()
    _make_indexes()
    _make_others()
    if former:
        _take_over()
        for name in former:
            op.drop_table(f"former_{name}")


def _make_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", NUMBER, primary_key=True),
        sa.Column("job_id", sa.Text, nullable=False, unique=True),
        *_texts("state", "title", "document", "attempts"),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("need", sa.Integer, nullable=False),
        sa.Column("added_at", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger) for name in ("started_at", "ended_at")),
        *(sa.Column(name, sa.Text) for name in ("former_id", "retry_of", "worker_id", "hostname", "cancelled_by")),
        *(sa.Column(name, sa.Text) for name in ("message", "info")),
    )


def _texts(*names: str, **options: Any) -> Iterator[Any]:
    return (sa.Column(name, sa.Text, nullable=False, **options) for name in names)


def _make_indexes() -> None:
    order: list[Any] = [sa.text("priority DESC"), "position", "number"]
    queued, running = sa.text("state = 'queued'"), sa.text("state = 'running'")
    ended = sa.text("ended_at IS NOT NULL")
    for name, columns, where in (
        ("jobs_queued", order, queued),
        ("jobs_queued_by_need", ["need", *order], queued),
        ("jobs_running", ["number"], running),
        ("jobs_ended", ["state", "number"], ended),
        ("jobs_by_end", ["state", "ended_at"], ended),
        ("jobs_by_need", ["need", "number"], None),
        ("jobs_by_worker", ["worker_id", "number"], None),
        ("jobs_by_hostname", ["hostname", "number"], None),
        ("jobs_by_submission", ["added_at", "number"], None),
        ("jobs_by_former_id", ["former_id"], sa.text("former_id IS NOT NULL")),
    ):
        op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)


def _make_others() -> None:
    op.create_table("needs", sa.Column("need", NUMBER, primary_key=True), *_texts("modules", "tags"))
    op.create_index("needs_unique", "needs", ["modules", "tags"], unique=True)
    op.create_table("logs", sa.Column("number", NUMBER, primary_key=True, autoincrement=False), *_texts("log"))
    op.create_table("data", *_texts("module", "name", primary_key=True), *_texts("id", "document"))
    op.create_table("orders", *_texts("kind", "id", primary_key=True))
    beat_at = sa.Column("beat_at", sa.BigInteger, nullable=False)
    op.create_table("workers", *_texts("worker_id", primary_key=True), *_texts("beat", "status", "abilities"), beat_at)


# --- version 1 ---


def _take_over() -> None:
    for module, name, data_id, document in _rows("SELECT module, name, id, document FROM former_data"):
        _insert("data", module=_escape(module), name=_escape(name), id=data_id, document=document)
    for what, name in _rows("SELECT what, id FROM former_disabled"):
        _insert("orders", kind=f"{what}_disabled", id=_escape(name))
    query = "SELECT job_id, document FROM former_verdicts ORDER BY json_extract(document, '$.completed_at')"
    verdicts = ((job_id, json.loads(text)) for job_id, text in _rows(query))
    known_twice = [
        (verdict["job_id"], job_id) for job_id, verdict in verdicts if not _take_over_verdict(job_id, verdict)
    ]
    for job_id, former_id in known_twice:
        change = sa.text("UPDATE jobs SET former_id = :former_id WHERE job_id = :job_id")
        op.get_bind().execute(change, {"former_id": former_id, "job_id": job_id})
    # Numbers follow the queue's order; new jobs come after all of these.
    query = "SELECT position, taken, document FROM former_jobs ORDER BY position IS NOT NULL, position, number"
    for position, taken, text in _rows(query):
        _take_over_job("running" if position is None else "queued", taken, text)


def _take_over_verdict(job_id: str, verdict: dict[str, Any]) -> bool:
    """Keep a verdict as a job whose tasks are not known, unless it is a copy under the id before a return."""
    if job_id != verdict["job_id"]:
        return False
    ended = _microseconds(verdict["completed_at"])
    job = {"job_id": job_id, "job_title": verdict["job_title"], "tasks": [], "added": verdict["completed_at"]}
    state = "failed" if verdict["failed"] else "completed"
    _insert_job(state, job, _text(job), ended_at=ended, info=_text(verdict["info"]))
    return True


def _take_over_job(state: str, taken: int, text: str) -> None:
    job = json.loads(text)
    former_id = None
    match job:
        case {"tasks": [{"handed_back": str(former)}, *_]}:
            former_id = _escape(former)
    attempts = _text([{"result": "lost"}] * (taken - (state == "running")))
    started_at = _microseconds(job["added"]) if taken else None
    _insert_job(state, job, text, former_id=former_id, started_at=started_at, attempts=attempts)


def _insert_job(state: str, job: dict[str, Any], document: str, **columns: Any) -> None:
    _insert(
        "jobs",
        state=state,
        job_id=job["job_id"],
        title=_escape(job["job_title"]),
        document=document,
        need=_need(_text(sorted({task["module"] for task in job["tasks"]}))),
        added_at=_microseconds(job["added"]),
        priority=0,
        position=0,
        **{"attempts": "[]"} | columns,
    )


def _need(modules: str) -> Any:
    find = sa.text("SELECT need FROM needs WHERE modules = :modules")
    found = op.get_bind().execute(find, {"modules": modules}).scalar()
    if found is None:
        _insert("needs", modules=modules, tags="[]")
        return _need(modules)
    return found


def _rows(query: str) -> Any:
    return op.get_bind().execute(sa.text(query)).yield_per(1000)


def _insert(table: str, **row: Any) -> None:
    op.get_bind().execute(sa.table(table, *map(sa.column, row)).insert().values(row))


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _escape(text: str) -> str:
    return json.dumps(text)[1:-1]


def _microseconds(text: str) -> int:
    instant = datetime.fromisoformat(text)
    return round(instant.replace(microsecond=0).timestamp()) * 10**6 + instant.microsecond
