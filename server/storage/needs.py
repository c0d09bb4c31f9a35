"""What a job needs of a worker: modules, and tags that its submitter requires.

The needs of all jobs are a small table. Its rows never change, so each server keeps those that it has seen.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from server.storage.database import insert
from server.storage.tables import needs, to_text


@dataclass(frozen=True, slots=True)
class Ability:
    """Modules and tags of a worker; `None` for modules that it does not tell."""

    modules: frozenset[str] | None
    tags: frozenset[str]

    def suffices(self, need: "Need") -> bool:
        """This worker can do such a job."""
        return need.tags <= self.tags and (self.modules is None or need.modules <= self.modules)


@dataclass(frozen=True, slots=True)
class Need:
    """The modules that a job names, and the tags that it requires."""

    modules: frozenset[str]
    tags: frozenset[str]


ANYTHING = Ability(None, frozenset())
"""The ability of a worker that tells nothing: it is given what requires no tags, and fails what it cannot do."""


MAX_FEW = 1000
"""Rows that are asked for one by one: SQLite takes 32 766 values."""

_NUMBERS = select(needs.c.need)


class Needs:
    """The rows of the table `needs`."""

    def __init__(self) -> None:
        self._rows: dict[int, Need] = {}
        self._numbers: dict[Need, int] = {}

    def number(self, db: Connection, modules: Iterable[str], tags: Iterable[str]) -> int:
        """Return the number of a need; it is made if it is new."""
        need = Need(frozenset(modules), frozenset(tags))
        if known := self._numbers.get(need):
            return known
        row = {"modules": to_text(sorted(need.modules)), "tags": to_text(sorted(need.tags))}
        query = select(needs.c.need).where(needs.c.modules == row["modules"], needs.c.tags == row["tags"])
        found = db.execute(query).scalar()
        if found is None:
            db.execute(insert(db.dialect.name, needs).values(row).on_conflict_do_nothing())
            found = db.execute(query).scalar_one()
        return int(found)

    def read(self, db: Connection) -> dict[int, Need]:
        """Return all needs, by their numbers."""
        # Rows may become visible in another order than that of their numbers, so all numbers are compared.
        numbers = set(db.execute(_NUMBERS).scalars()) - self._rows.keys()
        is_few = len(numbers) <= MAX_FEW
        query = select(needs).where(needs.c.need.in_(numbers)) if is_few else select(needs)
        for row in db.execute(query) if numbers else ():
            need = Need(frozenset(json.loads(row.modules)), frozenset(json.loads(row.tags)))
            self._rows[row.need], self._numbers[need] = need, row.need
        return dict(self._rows)  # while the caller goes through them, another thread may read more

    def suitable(self, db: Connection, ability: Ability) -> Sequence[int] | None:
        """Return the needs that a worker fulfils; `None` for all that there are."""
        known = self.read(db)
        suitable = [number for number, need in known.items() if ability.suffices(need)]
        return None if len(suitable) == len(known) else suitable
