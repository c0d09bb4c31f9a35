"""Heartbeats in the database: for the other servers that share it, and lost workers for the next start.

The heartbeats of a second are one transaction, which PostgreSQL writes to the disk when it likes. A file has only one
server, so it gets no heartbeats: only the workers that are lost, when one more or less is.
"""

import json
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, cast, delete, func, literal, select, type_coerce

from server.storage.database import ServerDatabase, insert
from server.storage.needs import Ability
from server.storage.tables import to_microseconds, to_text, workers
from server.workers import LISTED_FOR, Beat, Workers

OVERLAP = 5.0
"""Seconds of heartbeats that are read again: they do not become visible in the order of their times."""

STALE = 3.0
"""Seconds without an exchange after which too much was missed to judge other servers' workers."""


_time = type_coerce(workers.c.beat_at, BigInteger)


class BeatExchange:
    """Tells the database's other servers of this one's heartbeats, and the other way round."""

    def __init__(self, database: ServerDatabase, known: Workers) -> None:
        self._database = database
        self._workers = known
        self._exchanged_at: float | None = None
        self._saved: set[str] = set()

    def run(self) -> None:
        """Send and receive. What could not be sent is sent the next time."""
        now = time.monotonic()
        gap = LISTED_FOR if self._exchanged_at is None else now - self._exchanged_at
        if self._database.is_shared:
            self._exchange(gap)
            if self._exchanged_at is not None and gap > STALE:
                self._workers.excuse(gap)
        else:
            self._keep_lost()
        self._exchanged_at = now

    def _exchange(self, gap: float) -> None:
        unsent = self._workers.take_unsent()
        try:
            with self._database.begin() as db:
                db.exec_driver_sql("SET LOCAL synchronous_commit = off")
                clock = cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)
                self._write(db, unsent, clock)
                self._read(db, gap + OVERLAP, clock)
                db.execute(delete(workers).where(_time < clock - round(LISTED_FOR * 1e6)))
        except BaseException:
            self._workers.resend(unsent)
            raise

    def _keep_lost(self) -> None:
        if self._exchanged_at is None:
            with self._database.begin() as db:
                self._read(db, LISTED_FOR, literal(to_microseconds(datetime.now(UTC))))
        lost = self._workers.lost()
        if lost.keys() != self._saved:
            with self._database.begin() as db:
                db.execute(delete(workers))
                for name, beat in lost.items():
                    self._write(db, {name: beat}, literal(round(beat.seen_at * 1e6)))
            self._saved = set(lost)

    def _read(self, db: Connection, seconds: float, clock: Any) -> None:
        age = (clock - _time).label("age")
        recent = select(workers, age).where(_time > clock - round(seconds * 1e6))
        for row in db.execute(recent):
            ability = _read_ability(row.abilities)
            self._workers.merge(row.beat, row.worker_id, json.loads(row.status), ability, row.age / 1e6)

    def _write(self, db: Connection, beats: dict[str, Beat], clock: Any) -> None:
        """Write heartbeats. All servers do that in the same order, or two could wait for each other."""
        if not beats:
            return
        statement = insert(db.dialect.name, workers).values(beat_at=clock)
        changed = {name: statement.excluded[name] for name in ("beat", "beat_at", "status")}
        # A worker may send its heartbeats to one server and its polls to another.
        changed["abilities"] = func.coalesce(func.nullif(statement.excluded.abilities, ""), workers.c.abilities)
        rows = [
            {
                "worker_id": name,
                "beat": beat.number,
                "status": to_text(beat.status),
                "abilities": _write_ability(self._workers.abilities.get(name)),
            }
            for name, beat in sorted(beats.items())
        ]
        db.execute(statement.on_conflict_do_update(index_elements=["worker_id"], set_=changed), rows)


def _write_ability(ability: Ability | None) -> str:
    if ability is None:
        return ""
    return to_text([None if ability.modules is None else sorted(ability.modules), sorted(ability.tags)])


def _read_ability(text: str) -> Ability | None:
    if not text:
        return None
    modules, tags = json.loads(text)
    return Ability(None if modules is None else frozenset(modules), frozenset(tags))
