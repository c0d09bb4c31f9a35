"""The journal, opened and read."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from supervisor.worker.journal import Journal, OutboxItem, UnfinishedJob

ROOT = Path(__file__).parent.parent.parent

NOON = "2026-01-01T12:00:00+00:00"


@contextlib.contextmanager
def opened(state: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(state)) as journal:
        yield journal


def written(state: Path) -> tuple[list[UnfinishedJob], list[tuple[Any, ...]]]:
    """What is in the journal for one that opens it: the unfinished jobs, and the debts but for their numbers."""

    async def read(journal: Journal) -> tuple[list[UnfinishedJob], list[OutboxItem]]:
        return await journal.unfinished(), await journal.outbox_items()

    with opened(state) as journal:
        entries, debts = asyncio.run(read(journal))
    return entries, [(debt.job_id, debt.kind, debt.body, debt.doubtful, debt.new_id) for debt in debts]


def run_script(script: str, *arguments: object) -> "subprocess.Popen[str]":
    lines = script.splitlines()[1:]
    indent = len(lines[0]) - len(lines[0].lstrip())
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(line[indent:] for line in lines), *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
