"""Threads for what blocks. They are there from the start: during a fork bomb there may be none to be had."""

import threading
from concurrent.futures import ThreadPoolExecutor


def started_threads(number: int, name: str) -> ThreadPoolExecutor:
    """An executor whose `number` threads run already."""
    executor = ThreadPoolExecutor(number, thread_name_prefix=name)
    all_started = threading.Barrier(number + 1)
    for _ in range(number):
        executor.submit(all_started.wait)
    all_started.wait()
    return executor
