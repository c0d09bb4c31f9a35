"""Threads for blocking calls."""

import threading
from concurrent.futures import ThreadPoolExecutor


def started_threads(number: int, name: str) -> ThreadPoolExecutor:
    """Return an executor whose `number` threads run already: during a fork bomb no thread could be started."""
    executor = ThreadPoolExecutor(number, thread_name_prefix=name)
    all_started = threading.Barrier(number + 1)
    for _ in range(number):
        executor.submit(all_started.wait)
    all_started.wait()
    return executor
