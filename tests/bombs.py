"""Programs that will not die quietly, each started by a hostile module. Run as `python bombs.py NAME`."""

import os
import signal
import sys
import time


def hydra(heads: int) -> None:
    """Processes that each fork their successor and end at once, so that no process id is any good for long."""
    for _ in range(heads):
        if os.fork() == 0:
            os.setsid()
            while True:
                if os.fork():
                    os._exit(0)


def bomb() -> None:
    """Every process forks for as long as it can."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.001)


def crowd(size: int) -> None:
    """Many processes, each hiding in its own way, some of them stopped."""
    for number in range(size):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if number % 2:
                os.setsid()
            if number % 3 == 0 and os.fork():
                os._exit(0)
            if number % 5 == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
            os.execve("/bin/sleep", ["sleep", "1000"], {})


if __name__ == "__main__":
    globals()[sys.argv[1]](*map(int, sys.argv[2:]))
