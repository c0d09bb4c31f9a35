"""Signals: a handler only passes the signal to the event loop, and the loop acts.

asyncio's handler writes a byte to a pipe that the loop reads. So nothing runs in the middle of other code, which may
hold a lock. The previous handlers are restored at the end, as trio does.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator


@contextlib.contextmanager
def handling(numbers: Iterable[signal.Signals], act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `act` in the event loop for each signal of `numbers` that arrives."""
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in numbers}
    for number in previous:
        loop.add_signal_handler(number, act, number)
    try:
        yield
    finally:
        for number, handler in previous.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
