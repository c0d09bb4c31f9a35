"""Threads for blocking calls."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

PATIENCE = 0.5
"""Seconds that a call waits for one of the threads that there are, until another one is started: a thread stays, and
calls that are soon over need no more of them, however many come at once."""


class Threads(ThreadPoolExecutor):
    """At most `number` threads, for calls of an event loop. `ready` of them run at once, the others if calls wait.

    During a fork bomb no thread can be started. Then calls wait for one of the threads that there are.

    Raises:
        OSError: those that are to be ready cannot be started.
    """

    def __init__(self, number: int, name: str, ready: int = 1) -> None:
        super().__init__(number, thread_name_prefix=name)
        self._ready = ready
        all_started = threading.Event()
        try:
            for _ in range(ready):
                self.submit(all_started.wait)
        except RuntimeError as error:
            self.shutdown(wait=False)
            raise OSError("no thread can be started") from error
        finally:
            all_started.set()
        if len(self._threads) < ready:
            self.shutdown(wait=False)
            raise OSError("too few threads can be started")

    def _adjust_thread_count(self) -> None:
        if len(self._threads) < self._ready:
            super()._adjust_thread_count()
        elif not self._idle_semaphore.acquire(timeout=0) and len(self._threads) < self._max_workers:
            asyncio.get_running_loop().call_later(PATIENCE, self._start_another)

    def _start_another(self) -> None:
        if self._work_queue.qsize() and not self._shutdown:
            with contextlib.suppress(RuntimeError):  # no thread can be started now
                super()._adjust_thread_count()
