"""The outbox: sends verdicts and returned jobs to the server, in order, for as long as it takes. Logs have one, too.

Each item is in the journal before it is here, so a restart changes nothing. The server has no route to give a job back:
the client posts the job again and then deletes the old record. A crash or a lost response can leave it open whether
the job was posted; so what is posted carries a mark, by which it is found.
"""

import asyncio
import contextlib
import json
from collections.abc import Collection
from typing import Any

import requests
from loguru import logger

from supervisor.api.client import LOGS, PolledJob, Session
from supervisor.api.errors import SessionError
from supervisor.worker.job_logs import JobLogs
from supervisor.worker.journal import Journal, JournalError, OutboxItem

MARK = "handed_back"
"""Key added to the first task of a re-posted job (the server accepts unknown keys); holds the old job id."""

PATIENCE = 5
"""How often the server may refuse an item before the item itself is held to be the cause, and not the server."""

MAX_MESSAGE = 1000
"""Characters of `message` in a shortened record."""

_REFUSED = {requests.codes.bad_request, requests.codes.request_entity_too_large, requests.codes.unprocessable_entity}


class Outbox:
    """Holds the items that the server must still get, and sends them. `ours` are the ids of this client's workers."""

    def __init__(
        self, session: Session, journal: Journal, logs: JobLogs, ours: Collection[str], retry_interval: float
    ) -> None:
        self._session = session
        self._journal = journal
        self._logs = logs
        self._ours = ours
        self._retry_interval = retry_interval
        self._items: list[OutboxItem] = []
        self._refusals: dict[OutboxItem, int] = {}  # of each item that failed: how often the server responded
        self._filled = asyncio.Event()
        self._sending = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: OutboxItem) -> None:
        """Send this item, too, after all others."""
        self._items.append(item)
        self._filled.set()

    def holds(self, job_id: str) -> bool:
        """Return whether an item about this job is unsent."""
        return any(item.job_id == job_id for item in self._items)

    async def recognize(self, polled: PolledJob) -> None:
        """Note the new id of a returned job if it is `polled`: then it was posted, though no response said so.

        Raises:
            JournalError: the new id could not be written down.
        """
        doubtful = [item for item in self._items if item.kind == "return" and item.doubtful and not item.new_id]
        if not doubtful:
            return
        old_id = _mark(_tasks(polled.document))
        for item in doubtful:
            if item.job_id == old_id:
                await self._note_new_id(item, polled.job_id)

    async def keep_sending(self) -> None:
        """Send all items, old and new, until cancelled."""
        while True:
            await self._filled.wait()
            if not await self._send_all():
                await self._rest()

    async def flush(self, seconds: float) -> None:
        """Try once to send everything, for at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._send_all()
        if self._items:
            logger.warning("{} messages to the API server are kept for the next start", len(self._items))

    async def _rest(self) -> None:
        """Sleep until the retry interval is over, or the server can be reached again."""
        is_away = not self._session.reachable.is_set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._retry_interval):
                await (self._session.reachable.wait() if is_away else asyncio.Event().wait())

    async def _send_all(self) -> bool:
        """Send all items; returns whether none failed."""
        async with self._sending:
            failed = False
            for item in list(self._items):
                try:
                    await self._send(item)
                except (SessionError, JournalError) as error:
                    failed = True
                    self._note_failure(item, error)
                    if self._refusals[item] < PATIENCE:
                        break  # to keep the order, later items wait; but not for ever for one that the server refuses
                else:
                    self._items.remove(item)
                    self._refusals.pop(item, None)
                    self._journal.acknowledge(item)
            if not self._items:
                self._filled.clear()
            return not failed

    def _note_failure(self, item: OutboxItem, error: SessionError | JournalError) -> None:
        if item not in self._refusals:
            self._refusals[item] = 0
            kind = "return to the queue" if item.kind == "return" else item.kind
            logger.bind(job=item.job_id).warning("The server has not taken the job's {}: {}; retrying", kind, error)
        if isinstance(error, SessionError) and error.status:
            self._refusals[item] += 1

    async def _send(self, item: OutboxItem) -> None:
        match item.kind:
            case "verdict":
                await self._send_verdict(item)
            case "return":
                await self._send_return(item)
            case "log":
                await self._send_log(item)

    async def _send_log(self, item: OutboxItem) -> None:
        await self._session.asked.wait()
        if LOGS in self._session.offers and (log := await self._logs.read(item.job_id)):
            await self._session.put_log(item.job_id, log)

    # --- verdicts ---

    async def _send_verdict(self, item: OutboxItem) -> None:
        if item.doubtful and await self._is_recorded(item):
            return
        verdict = json.loads(item.body)
        try:
            await self._session.complete(item.job_id, verdict)
        except SessionError as error:
            if error.status in _REFUSED:
                await self._send_short(item, verdict)
                return
            item.doubtful = True
            if await self._is_recorded(item):
                return
            if error.status != requests.codes.server_error or self._refusals.get(item, 0) < PATIENCE:
                raise
            await self._send_short(item, verdict)

    async def _is_recorded(self, item: OutboxItem) -> bool:
        """Ask the server whether it has a verdict: a job with a verdict is neither queued nor running."""
        if await self._session.job(item.job_id) is None:
            return True
        item.doubtful = False
        return False

    async def _send_short(self, item: OutboxItem, verdict: dict[str, Any]) -> None:
        """Send a verdict without the parts of the record that the server may be unable to store."""
        await self._session.complete(item.job_id, _shortened(verdict))
        logger.bind(job=item.job_id).warning("The server refused the job's record and has taken a shortened one")

    # --- returned jobs ---

    async def _send_return(self, item: OutboxItem) -> None:
        new_id = item.new_id or (await find_posted(self._session, item.job_id) if item.doubtful else None)
        if new_id is None:
            if why := await why_not_ours(self._session, item.job_id, self._ours):
                logger.bind(job=item.job_id).info("Not returned to the queue: {}", why)
                return
            await self._mark_doubtful(item)
            new_id = await self._session.post(_to_post(item))
        await self._note_new_id(item, new_id)
        await self._session.delete(item.job_id)
        logger.bind(job=item.job_id).info("Returned to the queue, as {}", new_id)

    async def _mark_doubtful(self, item: OutboxItem) -> None:
        if item.number is not None:
            await self._journal.mark_doubtful(item)
        item.doubtful = True

    async def _note_new_id(self, item: OutboxItem, new_id: str) -> None:
        if item.number is not None:
            await self._journal.note_new_id(item, new_id)
        item.new_id = new_id


async def find_posted(session: Session, old_id: str) -> str | None:
    """Return the new id of a job that may have been posted again: it is in the queue, or a worker runs it.

    Raises:
        SessionError: the server does not tell.
    """
    for queued in await session.queued():
        if _mark(queued.tasks) == old_id:
            return queued.job_id
    for worker in await session.workers():
        response = await session.job(worker.job_id) if worker.job_id else None
        if response and _mark(_tasks(response.body)) == old_id:
            return worker.job_id
    return None


async def why_not_ours(session: Session, job_id: str, ours: Collection[str]) -> str | None:
    """Return why a job that was begun here is not this client's any more, for a person; `None` if it is.

    Raises:
        SessionError: the server does not tell.
    """
    if await session.job(job_id) is None:
        return "it was completed or deleted meanwhile"
    if any(queued.job_id == job_id for queued in await session.queued()):
        return "it is in the queue again"
    for worker in await session.workers():
        if worker.job_id == job_id and worker.worker_id not in ours:
            return f"worker {worker.worker_id} has it now"
    return None


def _to_post(item: OutboxItem) -> dict[str, Any]:
    document = json.loads(item.body)
    title = document.get("job_title", document.get("job_name"))
    tasks = [dict(task) if isinstance(task, dict) else task for task in document.get("tasks") or ()]
    if tasks and isinstance(tasks[0], dict):
        tasks[0][MARK] = item.job_id
    return {"job_title": title, "tasks": tasks}


def _tasks(document: str | bytes) -> object:
    try:
        decoded = json.loads(document)
    except (ValueError, RecursionError):
        return None
    return decoded.get("tasks") if isinstance(decoded, dict) else None


def _mark(tasks: object) -> object:
    match tasks:
        case [{**first}, *_]:
            return first.get(MARK)
    return None


def _shortened(verdict: dict[str, Any]) -> dict[str, Any]:
    info = {key: value for key, value in verdict["info"].items() if not isinstance(value, dict | list)}
    if "message" in info:
        info["message"] = info["message"][:MAX_MESSAGE].encode("ascii", "replace").decode()
    return {"failed": verdict["failed"], "info": info}
