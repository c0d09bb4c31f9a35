"""The heartbeat as a module sees it: it says how the work is going, and the supervisor tells the server.

Nothing here talks to the network. `set_data` keeps the latest status and sends it to the supervisor at most a few
times a second, so a module may call it for every frame.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from loguru import logger

from app.config import Config

SEND_INTERVAL = 0.25
"""Seconds between two statuses sent to the supervisor; what comes faster is replaced by what comes after it."""


class Heartbeat:
    """Keeps what the module last said and passes it on.

    Attributes:
        job_id: The job's id, or an empty string outside a job.
        job_title: The job's title.
        interval: Seconds between two heartbeats of the client.
        start_time: When the task process was started, in the zone of `Config.API_TIMEZONE`.
    """

    def __init__(self) -> None:
        self.job_id = ""
        self.job_title = ""
        self.interval: float = Config.HEARTBEAT_INTERVAL
        self.start_time: datetime | None = None
        self._status = b"{}"
        self._send: Callable[[bytes], None] | None = None
        self._owner = 0
        self._unsent = False
        self._sent_at = float("-inf")
        self._lock = threading.Lock()

    def connect(self, send: Callable[[bytes], None]) -> None:
        """Pass statuses, encoded as JSON, to `send` from now on. Only this process does: a fork of it stays silent."""
        self.start_time = datetime.now(tz=Config.API_TIMEZONE)
        self.interval = Config.HEARTBEAT_INTERVAL
        self._owner = os.getpid()
        self._send = send

    @property
    def message(self) -> dict[str, Any]:
        """The status as the server will see it: what the module last said, and what the client adds."""
        known = {
            "status": "in_progress" if self.job_id else "idle",
            "hostname": Config.HOSTNAME,
            "version": Config.VERSION,
            "online_at": datetime.now(tz=Config.API_TIMEZONE).isoformat(),
        }
        if self.job_id:
            known |= {"job_id": self.job_id, "job_title": self.job_title}
        said = msgspec.json.decode(self._status)
        return known | said if isinstance(said, dict) else known

    def set_data(self, data: Mapping[str, Any]) -> None:
        """Report the status: `status`, `task`, and optionally `progress` (0 to 100) and `info`.

        What cannot be expressed in JSON is left out with a warning; a report never makes a module fail.
        """
        try:
            # A snapshot, so that what the module changes later without saying so is not reported: 0.3 µs.
            self._status = msgspec.json.encode(data, enc_hook=str)
        except Exception as error:  # noqa: BLE001 - the object and its __str__ are the module's
            logger.warning("The status could not be reported: {}: {}", type(error).__name__, error)
            return
        if self._unsent:
            return  # a timer that sends the latest is under way
        wait = self._sent_at + SEND_INTERVAL - time.monotonic()
        if wait <= 0:
            self._send_latest()
        elif self._send is not None and os.getpid() == self._owner:
            self._unsent = True
            timer = threading.Timer(wait, self.flush)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:  # no thread to be had: the next call tries again
                self._unsent = False

    def set_idle(self) -> None:
        """Report that nothing is under way."""
        self.set_data({"status": "idle"})

    def set_in_progress(self, job_id: str | None = None, job_title: str | None = None) -> None:
        """Report that work is under way. The client knows which job it is; the arguments are for old modules."""
        self.job_id = job_id or self.job_id
        self.job_title = job_title or self.job_title
        self.set_data({"status": "in_progress"})

    def flush(self) -> None:
        """Send the latest status now, if it has not been sent; returns when it has."""
        with self._lock:
            pending = self._unsent
        if pending:
            self._send_latest()

    def _send_latest(self) -> None:
        if self._send is None or os.getpid() != self._owner:
            return  # outside the client, or in a process the module forked: nobody there to tell
        with self._lock:
            self._unsent = False
            self._sent_at = time.monotonic()
            self._send(self._status)


heartbeat = Heartbeat()
"""The heartbeat of this task process."""
