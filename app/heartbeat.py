"""The heartbeat as a module sees it: the module reports its progress, and the supervisor sends it to the server.

Nothing here uses the network. `set_data` keeps the latest status and sends it to the supervisor at most a few times a
second, so a module may call it for every frame.
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
"""The least seconds between two statuses sent to the supervisor. Of those in between only the latest is sent."""


class Heartbeat:
    """Keeps the module's latest status and sends it to the supervisor.

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
        """Pass statuses, encoded as JSON, to `send` from now on. A fork of this process stays silent."""
        self.start_time = datetime.now(tz=Config.API_TIMEZONE)
        self.interval = Config.HEARTBEAT_INTERVAL
        self._owner = os.getpid()
        self._send = send

    @property
    def message(self) -> dict[str, Any]:
        """The status as the server will see it: the module's latest, completed by the client."""
        known = {
            "status": "in_progress" if self.job_id else "idle",
            "hostname": Config.HOSTNAME,
            "version": Config.VERSION,
            "online_at": datetime.now(tz=Config.API_TIMEZONE).isoformat(),
        }
        if self.job_id:
            known |= {"job_id": self.job_id, "job_title": self.job_title}
        latest = msgspec.json.decode(self._status)
        return known | latest if isinstance(latest, dict) else known

    def set_data(self, data: Mapping[str, Any]) -> None:
        """Report the status: `status`, `task`, and optionally `progress` (0 to 100) and `info`.

        A status that JSON cannot express is dropped with a warning: a report never makes a module fail.
        """
        try:
            # Encode now (0.3 µs): the module may change its object afterwards without reporting that.
            self._status = msgspec.json.encode(data, enc_hook=str)
        except Exception as error:  # noqa: BLE001 - the object and its __str__ are the module's
            logger.warning("The status could not be reported: {}: {}", type(error).__name__, error)
            return
        if self._unsent:
            return  # a timer will send the latest
        wait = self._sent_at + SEND_INTERVAL - time.monotonic()
        if wait <= 0:
            self._send_latest()
        elif self._send is not None and os.getpid() == self._owner:
            self._unsent = True
            timer = threading.Timer(wait, self.flush)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:  # no thread can be started: the next call tries again
                self._unsent = False

    def set_startup(self) -> None:
        """Report that the module starts."""
        self.set_data({"status": "startup"})

    def set_idle(self) -> None:
        """Report that the module does nothing."""
        self.set_data({"status": "idle"})

    def set_in_progress(self, job_id: str | None = None, job_title: str | None = None) -> None:
        """Report that the module works. The client knows the job; the arguments exist for old modules."""
        self.job_id = job_id or self.job_id
        self.job_title = job_title or self.job_title
        self.set_data({"status": "in_progress"})

    def flush(self) -> None:
        """Send the latest status now, unless it was sent; returns after sending it."""
        with self._lock:
            pending = self._unsent
        if pending:
            self._send_latest()

    def _send_latest(self) -> None:
        if self._send is None or os.getpid() != self._owner:
            return  # outside the client, or in a fork of the task process
        with self._lock:
            self._unsent = False
            self._sent_at = time.monotonic()
            self._send(self._status)


heartbeat = Heartbeat()
"""The heartbeat of this task process."""
