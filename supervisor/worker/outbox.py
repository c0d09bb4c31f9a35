"""The outbox: what the server is still to be told, in order, for as long as it takes.

Verdicts, and jobs that go back to the queue. Both are in the journal before they are here, so a restart changes
nothing. The server has no route that gives a job back: it is posted again, and then its old record is deleted. What
was posted bears a mark, for a crash or a lost answer can leave it open whether it was.
"""

import asyncio
import collections
import json
from collections.abc import Collection
from typing import Any

import requests
from loguru import logger

from supervisor.api.client import PolledJob, Session
from supervisor.api.errors import SessionError
from supervisor.worker.journal import Journal, JournalError, OutboxItem

MARK = "handed_back"
"""The key in the first task of a job that was posted again, which the server takes; its value is the job's old id."""

PATIENCE = 5
"""How often something may be refused before it alone is held to be the trouble, and not the server."""

_REFUSED = {requests.codes.bad_request, requests.codes.request_entity_too_large, requests.codes.unprocessable_entity}


class Outbox:
    """Holds what the server is owed, and sends it. `ours` are the ids of this client's workers."""

    def __init__(self, session: Session, journal: Journal, ours: Collection[str], retry_interval: float) -> None:
        self._session = session
        self._journal = journal
        self._ours = ours
        self._retry_interval = retry_interval
        self._items: list[OutboxItem] = []
        self._refusals: collections.Counter[int | None] = collections.Counter()
        self._filled = asyncio.Event()
        self._sending = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: OutboxItem) -> None:
        """Owe this too."""
        self._items.append(item)
        self._filled.set()

    def holds(self, job_id: str) -> bool:
        """Whether something about this job is still to be told."""
        return any(item.job_id == job_id for item in self._items)

    async def recognize(self, given: PolledJob) -> None:
        """See whether a job that the server gives is one that was posted, while it was not known whether it was.

        Raises:
            JournalError: that could not be written down.
        """
        doubtful = [item for item in self._items if item.kind == "return" and item.posting and not item.new_id]
        if not doubtful:
            return
        mark = _mark(_tasks(given.document))
        for item in doubtful:
            if item.job_id == mark:
                await self._note(item, given.job_id)

    async def keep_sending(self) -> None:
        """Send what there is and what comes, until cancelled."""
        while True:
            await self._filled.wait()
            if not await self._send_all():
                await self._rest()

    async def flush(self, seconds: float) -> None:
        """Try once to send everything, for at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._send_all()
        except TimeoutError:
            pass
        if self._items:
            logger.warning("{} messages to the API server are kept for the next start", len(self._items))

    async def _rest(self) -> None:
        """Until the retry interval is over, or the server can be reached again."""
        back = not self._session.reachable.is_set()
        try:
            async with asyncio.timeout(self._retry_interval):
                await (self._session.reachable.wait() if back else asyncio.Event().wait())
        except TimeoutError:
            pass

    async def _send_all(self) -> bool:
        """Send what there is now; returns whether nothing was refused."""
        async with self._sending:
            refused = False
            for item in list(self._items):
                try:
                    await self._send(item)
                except (SessionError, JournalError) as error:
                    refused = True
                    self._note_refusal(item, error)
                    if self._refusals[item.number] < PATIENCE:
                        break  # those after it wait, for order's sake
                else:
                    self._items.remove(item)
                    self._journal.acknowledge(item)
            if not self._items:
                self._filled.clear()
            return not refused

    def _note_refusal(self, item: OutboxItem, error: SessionError | JournalError) -> None:
        if item.number not in self._refusals:
            self._refusals[item.number] = 0
            what = "verdict" if item.kind == "verdict" else "return to the queue"
            logger.bind(job=item.job_id).warning("The job's {} is not taken: {}; trying until it is", what, error)
        if isinstance(error, SessionError) and error.status:
            self._refusals[item.number] += 1

    async def _send(self, item: OutboxItem) -> None:
        if item.kind == "verdict":
            await self._send_verdict(item)
        else:
            await self._send_return(item)

    async def _send_verdict(self, item: OutboxItem) -> None:
        if item.posting and await self._was_heard(item):
            return
        verdict = json.loads(item.body)
        try:
            await self._session.complete(item.job_id, verdict)
        except SessionError as error:
            if error.status in _REFUSED:
                await self._send_short(item, verdict)
                return
            item.posting = True
            if await self._was_heard(item):
                return
            if error.status != requests.codes.server_error or self._refusals[item.number] < PATIENCE:
                raise
            await self._send_short(item, verdict)

    async def _was_heard(self, item: OutboxItem) -> bool:
        """Whether the server has recorded a verdict whose answer was lost or doubtful: then it has the job no more."""
        if await self._session.job(item.job_id) is None:
            return True
        item.posting = False
        return False

    async def _send_short(self, item: OutboxItem, verdict: dict[str, Any]) -> None:
        """Leave out what the server may fail at, and only then."""
        await self._session.complete(item.job_id, _shortened(verdict))
        logger.bind(job=item.job_id).warning("The server took a short record in place of the full one")

    async def _send_return(self, item: OutboxItem) -> None:
        new_id = item.new_id or (await self._find_posted(item.job_id) if item.posting else None)
        if new_id is None:
            if gone := await why_not_ours(self._session, item.job_id, self._ours):
                logger.bind(job=item.job_id).info("Not returned to the queue: {}", gone)
                return
            await self._note(item, None)
            new_id = await self._session.post(_to_post(item))
        await self._note(item, new_id)
        await self._session.delete(item.job_id)
        logger.bind(job=item.job_id).info("Returned to the queue, as {}", new_id)

    async def _note(self, item: OutboxItem, new_id: str | None) -> None:
        """Write down how far a return has come, before the next call to the server."""
        if item.number is not None:
            await (self._journal.has_posted(item, new_id) if new_id else self._journal.begin_posting(item))
        item.posting, item.new_id = True, new_id

    async def _find_posted(self, job_id: str) -> str | None:
        """The new id of a job that may have been posted: it is in the queue, or a worker is at it."""
        for queued in await self._session.queued():
            if _mark(queued.tasks) == job_id:
                return queued.job_id
        for worker in await self._session.workers():
            answer = await self._session.job(worker.job_id) if worker.job_id else None
            if answer and _mark(_tasks(answer.body)) == job_id:
                return worker.job_id
        return None


async def why_not_ours(session: Session, job_id: str, ours: Collection[str]) -> str | None:
    """Why a job that was begun here is not this client's any more, in words; `None` if it is.

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
        info["message"] = info["message"][:1000].encode("ascii", "replace").decode()
    return {"failed": verdict["failed"], "info": info}
