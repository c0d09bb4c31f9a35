"""Threads for blocking calls."""

import threading
from concurrent.futures import ThreadPoolExecutor


class Threads(ThreadPoolExecutor):
    """At most `number` threads. `ready` of them run at once, and the others start as they are needed.

    During a fork bomb no thread can be started. Then calls wait for one of the threads that there are.

    Raises:
        OSError: those that are to be ready cannot be started.
    """

    def __init__(self, number: int, name: str, ready: int = 1) -> None:
        super().__init__(number, thread_name_prefix=name)
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
        try:
            super()._adjust_thread_count()
        except RuntimeError:  # no thread can be started now
            if not self._threads:
                raise
