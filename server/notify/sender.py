"""Sends the notices of a database, in a thread of its own: a target that hangs is in the way of other targets at most.

Every server does this, and the database tells them apart: one of them sends. A message is sent again until its target
takes it. It arrives twice only if a server dies, or loses its database, between its answer and writing that down.
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError

from server.notify.sending import send
from server.notify.targets import NotifySettings, Target
from server.storage.database import reason
from server.storage.notices import GIVE_UP, Bundle, Notices

INTERVAL = 1.0
"""Seconds between two looks for something to send."""

MOST = 20.0
"""Seconds for one message: a target whose answer comes byte by byte would be in the way of the others for ever."""

EXPIRE_EVERY = 60
"""Looks from one deletion of old notices to the next."""

STOP_PATIENCE = 6.0
"""Seconds for a message under way when the server stops. Another server sends it again, or the next start does."""


class NoticeSender:
    """Sends to all targets."""

    def __init__(self, notices: Notices, settings: NotifySettings) -> None:
        self._notices, self._targets = notices, settings.targets
        self._stopped = threading.Event()
        self._failing = set[str]()
        self._under_way: dict[str, threading.Thread] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send, if there are targets."""
        thread = threading.Thread(target=self._run, name="notify", daemon=True)
        if self._targets:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            if self._targets:
                await asyncio.to_thread(thread.join, STOP_PATIENCE)

    def _run(self) -> None:
        for look in itertools.count():
            if self._stopped.wait(INTERVAL):
                return
            try:
                for target in self._targets:
                    self._send(target)
                if look % EXPIRE_EVERY == 0:
                    self._expire()
            except SQLAlchemyError as error:  # an outage, which ends by itself
                self._tell("", f"Nobody is told of events, since the database failed: {reason(error)}")
            except Exception as error:  # noqa: BLE001 - the thread's outermost frame, and it must go on
                logger.opt(exception=error).error("Telling of events failed")
            else:
                self._tell("", "")

    def _send(self, target: Target) -> None:
        if self._stopped.is_set() or not (bundle := self._notices.take(target)):
            return
        why = self._send_in_time(target, bundle)
        retry = self._notices.settle(bundle, is_sent=not why) - datetime.now(UTC)
        events = "1 event" if bundle.count == 1 else f"{bundle.count} events"
        words = f"notify target {target.name!a} could not be told of {events}: {why}; next try in {retry.seconds} s"
        self._tell(target.name, words if why else "")
        if not why:
            logger.info("notify target {!a} is told of {}", target.name, events)

    def _send_in_time(self, target: Target, bundle: Bundle) -> str:
        """Send a message; returns why that failed. A thread that hangs is left, and the target waits for its end."""
        if target.name in self._under_way and self._under_way[target.name].is_alive():
            return "it still answers the message before"
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(send(target, bundle)), name="message", daemon=True)
        self._under_way[target.name] = thread
        thread.start()
        thread.join(MOST)
        return answers[0] if answers else f"no answer in {MOST:g} s"

    def _expire(self) -> None:
        if dropped := self._notices.expire():
            logger.error("{} notices are dropped: their targets could not be told for {}", dropped, GIVE_UP)

    def _tell(self, name: str, why: str) -> None:
        """Log that something begins to fail: once, and not at each attempt."""
        if why and name not in self._failing and not self._stopped.is_set():
            logger.warning("{}", why)
        if why:
            self._failing.add(name)
        else:
            self._failing.discard(name)
