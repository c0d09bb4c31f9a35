"""Ends transactions with a PostgreSQL that hangs: stopped, or on a machine whose disk does not answer.

No timeout of PostgreSQL or TCP helps there: the one is up to the process that is stopped, and the kernel goes on to
acknowledge packets. So a thread breaks the connections of transactions that take too long.

While PostgreSQL hangs, one call at a time waits for it, and the others fail at once: else each would hold a thread.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

from sqlalchemy.exc import OperationalError

INTERVAL = 0.5
"""Seconds between two looks at the transactions."""


class HangGuard:
    """Watches the transactions of one database. Any thread may use it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._begun: dict[object, tuple[int, float]] = {}  # descriptors, and since when
        self._is_hanging = False
        self._has_trial = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Let a call try the database.

        Raises:
            OperationalError: it hangs, and another call tries already.
        """
        with self._lock:
            is_trial = self._is_hanging
            if is_trial and self._has_trial:
                raise OperationalError("", None, TimeoutError("PostgreSQL does not answer"))
            self._has_trial = is_trial
        try:
            yield
        finally:
            if is_trial:
                with self._lock:
                    self._has_trial = False

    @contextlib.contextmanager
    def watching(self, descriptor: int) -> Iterator[None]:
        """Break a connection if the transaction inside takes too long."""
        key = object()
        with self._lock:
            self._begun[key] = descriptor, time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="database watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                # Broken transactions are gone from here already: this one has ended by itself.
                self._is_hanging = self._begun.pop(key, None) is None and self._is_hanging

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        if self._thread:
            self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(INTERVAL):
            with self._lock:
                overdue = time.monotonic() - self._seconds
                for key, (descriptor, since) in list(self._begun.items()):
                    if since < overdue:
                        del self._begun[key]
                        self._is_hanging = True
                        _break(descriptor)


def _break(descriptor: int) -> None:
    """Shut a connection down, whose owner waits for it. The lock is held: it is not closed meanwhile."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
