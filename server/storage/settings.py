"""Named data, and the operator's orders that hold until they are taken back."""

import json
import uuid
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import Select, delete, select
from sqlalchemy.exc import SQLAlchemyError

from server.errors import StoreError
from server.storage.database import ServerDatabase, insert, reason
from server.storage.tables import RUNNING, data, jobs, orders, to_text

OrderKind = Literal["queue_disabled", "worker_disabled", "worker_paused"]
"""A worker that is paused also pauses the job that it runs."""


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
            statement = insert(db.dialect.name, data).values(row)
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
        """Read the orders: a server that starts would give jobs to the disabled, and wake the paused, for a second.

        Raises:
            StoreError: the database cannot be used.
        """
        self._database = database
        try:
            self.standing = self.refresh()
        except SQLAlchemyError as error:
            raise StoreError(f"{database.name}: the database cannot be used: {reason(error)}") from error

    def refresh(self) -> Standing:
        """Read the orders, and return them."""
        with self._database.begin() as db:
            ids: dict[str, set[str]] = {kind: set() for kind in get_args(OrderKind)}
            for row in db.execute(select(orders)):
                ids[row.kind].add(row.id)
            cancelled = select(jobs.c.job_id).where(RUNNING, jobs.c.cancelled_by.is_not(None))
            self.standing = Standing(
                frozenset(ids["queue_disabled"] | ids["worker_disabled"]),
                frozenset(ids["worker_paused"]),
                frozenset(db.execute(cancelled).scalars()),
            )
        return self.standing

    def give(self, kind: OrderKind, holds: bool, worker_id: str = "") -> None:
        """Give an order, or take it back; for a worker, known or not."""
        with self._database.begin() as db:
            if holds:
                db.execute(insert(db.dialect.name, orders).values(kind=kind, id=worker_id).on_conflict_do_nothing())
            else:
                db.execute(delete(orders).where(orders.c.kind == kind, orders.c.id == worker_id))
        self.refresh()
