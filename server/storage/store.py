"""Jobs and their ways: submitted, taken, put back, ended. It knows nothing of HTTP.

Every change is one transaction that is on the disk when the method returns, so an acknowledged change survives SIGKILL
and a power cut. A job is one row with a state, from its submission to the end of its retention, so it cannot be lost
between a queue and a record. Several servers may share the database: whoever changes a job's state locks its row, and
takers skip locked rows. Indexes keep every call at the same cost however many jobs there are.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, delete, select

from server.storage.database import ServerDatabase
from server.storage.needs import ANYTHING, MAX_FEW, Ability, Need, Needs
from server.storage.notices import Notices
from server.storage.rows import HEAD, INSERT, ORDER, UNFINISHED, WAS_STARTED, change, find, find_known
from server.storage.tables import ENDED, MAX_KEY, QUEUED, RUNNING, jobs, logs, needs, tasks_asked, to_text
from server.storage.totals import count_ended
from server.workers import Lost

MAX_TAKES = 5
"""How often a job is given to a worker that vanishes. Then the job itself is held to be the cause, and fails."""

_TOLD = (("hostname", "worker"), ("message", "message"))
"""What a notice tells of a record, and the record's keys."""

MAX_MESSAGE = 500
"""Characters of a record's message that lists show."""


MAX_WORKER = MAX_KEY // 12
"""Characters of a worker's id or host name by which a job is found. JSON writes some with twelve."""

_FIRST = select(jobs.c.number).where(QUEUED, jobs.c.need == needs.c.need).order_by(*ORDER).limit(1)
_HEADS = select(_FIRST.scalar_subquery()).where(needs.c.need.in_(bindparam("of_needs", expanding=True)))
"""The first job of each of some needs: one statement, however many they are."""


class Taken(NamedTuple):
    """A job that runs from now on."""

    number: int
    document: str
    started_at: datetime
    before: datetime | None
    """When it was taken the last time before."""


class Store:
    """The jobs of a database. Any thread may call the methods.

    Every method raises `SQLAlchemyError` if the database fails; then nothing was changed, unless the connection broke
    in the instant of the commit.
    """

    def __init__(self, database: ServerDatabase, notices: Notices | None = None) -> None:
        """`notices` are told of the jobs that end."""
        self._database = database
        self._notices = notices
        self._needs = Needs()

    # --- the queue ---

    def submit(
        self,
        title: str,
        tasks: Sequence[Any],
        priority: int = 0,
        requires: Iterable[str] = (),
        retry_of: str | None = None,
    ) -> str:
        """Append a job to the queue; returns its id.

        A job that a worker hands back, under a new id, keeps its place, its priority and the tags that it requires. It
        replaces its former row; one that is to be cancelled ends instead. Handed back again, it is not queued twice.

        Raises:
            LookupError: the job that is handed back was completed or deleted meanwhile.
        """
        job_id, now = str(uuid.uuid4()), datetime.now(UTC)
        job = {"job_id": job_id, "job_title": title, "tasks": tasks, "added": now.isoformat()}
        former_id = _former_id(tasks)
        with self._database.begin() as db:
            need = self._needs.number(db, (task["module"] for task in tasks), requires)
            row = {"priority": priority, "position": 0, "need": need, "attempts": "[]", "retry_of": retry_of}
            former = find(db, former_id, UNFINISHED) if former_id else None
            if former:
                row |= _inherited(db, former, now)
            elif former_id:
                return _handed_back(db, former_id)
            first_id = former.former_id or former_id if former else None  # the only one that its submitter knows
            row |= {"title": title, "document": to_text(job), "former_id": first_id}
            db.execute(INSERT, {"job_id": job_id, "state": "queued", "added_at": now, **row})
            if former:
                _replace(db, former, job_id)
        return job_id

    def returns(self, tasks: Sequence[Any]) -> bool:
        """Return whether a job with these tasks is one that was running and comes back."""
        former_id = _former_id(tasks)
        if former_id is None:
            return False
        with self._database.begin() as db:
            return find_known(db, former_id, select(jobs.c.job_id)) is not None

    def take(self, ability: Ability = ANYTHING, worker_id: str | None = None) -> Taken | None:
        """Take the first job of the queue that a worker can do, if there is one: it runs from now on."""
        with self._database.begin() as db:
            head = self._head(db, self._needs.suitable(db, ability))
            if head is None:
                return None
            taken = Taken(head.number, head.document, datetime.now(UTC), head.started_at)
            changed = {"state": "running", "started_at": taken.started_at, "worker_id": worker_id, "hostname": None}
            change(db, head, changed)
        return taken

    def untake(self, taken: Taken) -> None:
        """Put a job back to its place, of which no worker has heard."""
        with self._database.begin() as db:
            ours = (jobs.c.number == taken.number, jobs.c.started_at == taken.started_at, RUNNING)
            job = db.execute(select(jobs).where(*ours).with_for_update()).first()
            if job and job.cancelled_by is not None:
                _end_cancelled(db, job, job.cancelled_by)
            elif job:
                changed = {"state": "queued", "started_at": taken.before, "worker_id": None}
                change(db, taken, changed)

    def _head(self, db: Connection, suitable: Sequence[int] | None) -> Any:
        """The first job with one of these needs, or any; locked, where several servers share the database."""
        if suitable is None:
            return db.execute(HEAD).first()
        # A look at the head of each need costs the same however many other jobs come before it.
        parts = (suitable[start : start + MAX_FEW] for start in range(0, len(suitable), MAX_FEW))
        heads = [head for part in parts for head in db.execute(_HEADS, {"of_needs": part}).scalars() if head]
        if not heads:
            return None
        head = db.execute(HEAD.where(jobs.c.number.in_(heads))).first()
        return head or db.execute(HEAD.where(jobs.c.need.in_(suitable))).first()  # others were taking all of those

    def queue(self) -> list[str]:
        """Return the documents of all queued jobs, the head first."""
        return self._texts(select(jobs.c.document).where(QUEUED).order_by(*ORDER))

    def clear(self) -> int:
        """Delete all queued and running jobs; returns how many there were."""
        with self._database.begin() as db:
            return _delete(db, UNFINISHED)

    # --- jobs ---

    def job(self, job_id: str) -> str | None:
        """Return the document of a queued or running job."""
        found = self._texts(select(jobs.c.document).where(jobs.c.job_id == job_id, UNFINISHED))
        return next(iter(found), None)

    def delete_job(self, job_id: str) -> bool:
        """Delete a queued or running job; returns whether there was such a job."""
        with self._database.begin() as db:
            return _delete(db, jobs.c.job_id == job_id, UNFINISHED) > 0

    def complete(self, job_id: str, failed: bool, info: dict[str, Any]) -> bool:
        """Keep the verdict of a job, which runs or went back to the queue.

        Returns whether there was such a job: of two verdicts for one job, the first stands.
        """
        with self._database.begin() as db:
            job = find(db, job_id, UNFINISHED)
            if job is None:
                return False
            state = ("failed" if job.cancelled_by is None else "cancelled") if failed else "completed"
            self._note_end(db, job, state, info)
            _end(db, job, state, info)
        return True

    def verdict(self, job_id: str) -> str | None:
        """Return the verdict of a job that has ended, as JSON.

        The submitter of a job that a worker handed back knows only its former id: the verdict is found under both.
        """
        columns = (jobs.c.job_id, jobs.c.title, jobs.c.state, jobs.c.info, jobs.c.ended_at)
        with self._database.begin() as db:
            row = find_known(db, job_id, select(*columns).where(ENDED))
        if row is None:
            return None
        verdict = {
            "job_id": row.job_id,
            "job_title": row.title,
            "failed": row.state != "completed",
            "completed_at": row.ended_at.isoformat(),
        }
        return f'{to_text(verdict)[:-1]},"info":{row.info}}}'

    def retry(self, job_id: str) -> str | None:
        """Append a copy of a job that has ended to the queue; returns its id, `None` if there is no such job.

        Raises:
            LookupError: its tasks are not known: an older version of this program kept only its verdict.
        """
        with self._database.begin() as db:
            job = find_known(db, job_id, select(jobs).where(ENDED))
            tags = self._needs.read(db)[job.need].tags if job else frozenset()
        if job is None:
            return None
        tasks = tasks_asked(job.document)
        if not tasks:
            raise LookupError
        return self.submit(job.title, tasks, job.priority, tags, job.job_id)

    def cancel(self, job_id: str, by: str) -> str | None:
        """Cancel a job: a queued one ends, a running one when its worker hears of it.

        Returns the state that it had, `None` if it is neither queued nor running.
        """
        with self._database.begin() as db:
            job = find_known(db, job_id, select(jobs).where(UNFINISHED).with_for_update())
            if job is None:
                return None
            change(db, job, {"cancelled_by": by})
            if job.state == "queued":
                _end_cancelled(db, job, by)
            return str(job.state)

    def prioritise(self, job_id: str, priority: int | None) -> str | None:
        """Give a queued job another priority, or with `None` the head of the queue.

        Returns its id, which is another one if a worker handed it back; `None` if it is not queued.
        """
        with self._database.begin() as db:
            job = find_known(db, job_id, select(jobs).where(QUEUED).with_for_update())
            if job is None:
                return None
            if priority is None:
                highest = db.execute(select(jobs.c.priority).where(QUEUED).order_by(*ORDER).limit(1)).scalar_one()
                changed = {"priority": highest, "position": _position_of_head(db, highest)}
            else:
                changed = {"priority": priority}
            change(db, job, changed)
        return str(job.job_id)

    def need(self, job_id: str) -> Need | None:
        """Return what a queued job needs of a worker."""
        with self._database.begin() as db:
            number = db.execute(select(jobs.c.need).where(jobs.c.job_id == job_id, QUEUED)).scalar()
            return None if number is None else self._needs.read(db)[number]

    def running(self) -> dict[str, datetime | None]:
        """Return the ids of all running jobs, in the order of their submission, and when each was taken."""
        query = select(jobs.c.job_id, jobs.c.started_at).where(RUNNING).order_by(jobs.c.number)
        with self._database.begin() as db:
            return {row.job_id: row.started_at for row in db.execute(query)}

    def put_back(self, lost: Mapping[str, Lost]) -> dict[str, str]:
        """Put running jobs back at the head of the queue, the first one first; returns the states of those that ran.

        A job that is to be cancelled ends instead, and so does one that too many workers have lost. One server at a
        time does this; the others return nothing. Whoever comes later may find that a job was put back and given to
        another worker meanwhile, and leaves it to him.
        """
        done = {}
        with self._database.begin() as db:
            if self._database.is_watch(db):
                for job_id in lost:  # all rows first: who ends a job locks it, and then the totals
                    find(db, job_id, RUNNING)
                for job_id, found in reversed(list(lost.items())):
                    if state := _put_back(db, job_id, found):
                        done[job_id] = state
                    if state == "failed":
                        self._note_end(db, find(db, job_id), state, {"message": found.reason})
        return dict(reversed(done.items()))

    def take_again(self, job_ids: Sequence[str]) -> list[str]:
        """Take jobs that were put back out of the queue again; returns those that were queued."""
        done = []
        with self._database.begin() as db:
            for job_id in sorted(job_ids):
                if job := find(db, job_id, QUEUED, WAS_STARTED):
                    attempts = to_text(json.loads(job.attempts)[:-1])
                    change(db, job, {"state": "running", "attempts": attempts})
                    done.append(job_id)
        return done

    def _note_end(self, db: Connection, job: Any, state: str, info: Mapping[str, Any]) -> None:
        if self._notices and state != "cancelled":  # those who cancel a job know of it
            texts = {name: str(info.get(key, ""))[:MAX_MESSAGE] for name, key in _TOLD}
            self._notices.add(db, state, job.job_id, job_id=job.job_id, job_title=job.title, **texts)  # type: ignore[arg-type]  # an `Event`

    def _texts(self, query: Select[Any]) -> list[str]:
        with self._database.begin() as db:
            return list(db.execute(query).scalars())


def _handed_back(db: Connection, former_id: str) -> str:
    """Return the new id of a job that was handed back already.

    Raises:
        LookupError: there is none.
    """
    copy = find_known(db, former_id, select(jobs.c.job_id).where(jobs.c.job_id != former_id))
    if copy is None:
        raise LookupError
    return str(copy.job_id)


def _replace(db: Connection, former: Any, job_id: str) -> None:
    """Let a job that is handed back take the place of its former row."""
    # At once, and not when the worker deletes that: an order to cancel it would be lost until then, and a worker that
    # dies before would leave two jobs.
    _delete(db, jobs.c.number == former.number)
    if former.cancelled_by is not None:
        _end_cancelled(db, find(db, job_id), former.cancelled_by)


def _delete(db: Connection, *conditions: Any) -> int:
    """Delete jobs and their logs; returns how many."""
    # The logs first, or a new job might get the number of a deleted one (SQLite), and its log.
    db.execute(delete(logs).where(logs.c.number.in_(select(jobs.c.number).where(*conditions))))
    return db.execute(delete(jobs).where(*conditions)).rowcount


def _inherited(db: Connection, former: Any, now: datetime) -> dict[str, Any]:
    """What a job that is handed back has of its former row."""
    return {
        "priority": former.priority,
        "need": former.need,
        "attempts": _with_attempt(former, "handed back", now),
        "retry_of": former.retry_of,
        "cancelled_by": former.cancelled_by,
        "position": _position_of_head(db, former.priority),
    }


def _position_of_head(db: Connection, priority: int) -> int:
    """A position before all queued jobs of a priority."""
    first = select(jobs.c.position).where(QUEUED, jobs.c.priority == priority).order_by(jobs.c.position).limit(1)
    return min(0, db.execute(first).scalar() or 0) - 1


def _put_back(db: Connection, job_id: str, lost: Lost) -> str:
    job = find(db, job_id, RUNNING)
    if job is None or job.started_at != lost.taken_at:
        return ""
    if job.cancelled_by is not None:
        _end_cancelled(db, job, job.cancelled_by)
        return "cancelled"
    if len(json.loads(job.attempts)) + 1 >= MAX_TAKES:
        message = f"the job was given to {MAX_TAKES} workers, and each of them vanished; the last: {lost.reason}"
        error = {"type": "RunError", "reason": "lost", "message": message}
        _end(db, job, "failed", {"completed": False, "message": message, "error": error, "tasks": []})
        return "failed"
    changed = {
        "state": "queued",
        "position": _position_of_head(db, job.priority),
        "attempts": _with_attempt(job, "lost", datetime.now(UTC), lost.worker_id),
        "worker_id": None,
    }
    change(db, job, changed)
    return "queued"


def _with_attempt(job: Any, result: str, now: datetime, worker_id: str | None = None) -> str:
    """The attempts of a running job, and the one that ends now, as JSON."""
    attempt = {"started_at": (job.started_at or now).isoformat(), "ended_at": now.isoformat(), "result": result}
    if worker := worker_id or job.worker_id:
        attempt["worker_id"] = worker
    return to_text([*json.loads(job.attempts), attempt])


def _end(db: Connection, job: Any, state: str, info: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    changed = {"state": state, "ended_at": now, "info": to_text(info)}
    for column, key, length in (
        ("worker_id", "worker_id", MAX_WORKER),
        ("hostname", "worker", MAX_WORKER),
        ("message", "message", MAX_MESSAGE),
    ):
        if isinstance(value := info.get(key), str):
            changed[column] = value[:length]
    change(db, job, changed)
    count_ended(db, job.need, state, job.started_at, now)


def _end_cancelled(db: Connection, job: Any, by: str) -> None:
    """End a job that no worker has, by order of an operator."""
    message = f"Cancelled by {by}" if by else "Cancelled"
    error = {"type": "RunError", "reason": "cancelled", "message": message}
    _end(db, job, "cancelled", {"completed": False, "message": message, "error": error})


def _former_id(tasks: Sequence[Any]) -> str | None:
    """The id that a job had before it was handed back, if it was: workers leave it in the first task."""
    match tasks:
        case [{"handed_back": str(former)}, *_]:
            return former
    return None
