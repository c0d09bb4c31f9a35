"""Signals: a handler only hands the signal to the loop, which acts.

asyncio's handler writes a byte to a pipe that the loop reads, so nothing runs between two lines of other code, and no
lock can be held by what was interrupted. The previous handlers are put back at the end (trio does the same).
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator


@contextlib.contextmanager
def handling(numbers: Iterable[signal.Signals], act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `act` from the loop for each of `numbers` that arrives."""
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
