"""Named data, and the operator's orders that hold until they are taken back."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, select

from server.storage.database import ServerDatabase, insert
from server.storage.tables import RUNNING, data, jobs, orders, to_text


class NamedData:
    """Objects that modules store under names. Any thread may call the methods."""

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database

    def get(self, module: str, name: str) -> dict[str, Any] | None:
        """Return the object stored under a name, plus `_id` and `name`."""
        query = select(data.c.id, data.c.document).where(data.c.module == module, data.c.name == name)
        with self._database.begin() as db:
            row = db.execute(query).first()
        return None if row is None else {**json.loads(row.document), "_id": row.id, "name": name}

    def put(self, module: str, name: str, document: dict[str, Any]) -> None:
        """Store an object under a name; it replaces the former one."""
        row = {"module": module, "name": name, "id": str(uuid.uuid4()), "document": to_text(document)}
        with self._database.begin() as db:
            statement = insert(db, data).values(row)
            changed = {"document": statement.excluded.document}
            db.execute(statement.on_conflict_do_update(index_elements=["module", "name"], set_=changed))

    def delete(self, module: str, name: str) -> bool:
        """Delete the object stored under a name; returns whether there was one."""
        with self._database.begin() as db:
            return db.execute(delete(data).where(data.c.module == module, data.c.name == name)).rowcount > 0

    def modules(self) -> list[str]:
        """Return the names of the modules for which something is stored."""
        return self._names(select(data.c.module).distinct())

    def names(self, module: str) -> list[str]:
        """Return the names under which something is stored for a module."""
        return self._names(select(data.c.name).where(data.c.module == module))

    def _names(self, query: Select[Any]) -> list[str]:
        with self._database.begin() as db:
            return sorted(db.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class Standing:
    """The orders that hold, as last read: heartbeats and polls are answered from memory."""

    disabled: frozenset[str] = frozenset()
    """Workers, and "" for the queue."""
    paused: frozenset[str] = frozenset()
    cancelled: frozenset[str] = frozenset()
    """Running jobs whose workers shall end them."""


class Orders:
    """The operator's orders to the queue and to workers. Any thread may call the methods.

    Attributes:
        standing: The orders, at most as old as the last look of the watch.
    """

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self.standing = Standing()

    def refresh(self) -> Standing:
        """Read the orders, and return them."""
        with self._database.begin() as db:
            ids: dict[str, set[str]] = {"queue_disabled": set(), "worker_disabled": set(), "worker_paused": set()}
            for row in db.execute(select(orders)):
                ids[row.kind].add(row.id)
            cancelled = select(jobs.c.job_id).where(RUNNING, jobs.c.cancelled_by.is_not(None))
            self.standing = Standing(
                frozenset(ids["queue_disabled"] | ids["worker_disabled"]),
                frozenset(ids["worker_paused"]),
                frozenset(db.execute(cancelled).scalars()),
            )
        return self.standing

    def disable_queue(self, disabled: bool) -> None:
        """Disable or enable the queue."""
        self._set("queue_disabled", "", disabled)

    def disable_worker(self, worker_id: str, disabled: bool) -> None:
        """Disable or enable a worker, known or not."""
        self._set("worker_disabled", worker_id, disabled)

    def pause_worker(self, worker_id: str, paused: bool) -> None:
        """Pause or resume the job that a worker runs, and give it no other meanwhile."""
        self._set("worker_paused", worker_id, paused)

    def _set(self, kind: str, name: str, holds: bool) -> None:
        with self._database.begin() as db:
            if holds:
                db.execute(insert(db, orders).values(kind=kind, id=name).on_conflict_do_nothing())
            else:
                db.execute(delete(orders).where(orders.c.kind == kind, orders.c.id == name))
        self.refresh()
