"""Process 1 of a container: a parent of the program that passes signals on to it, and reaps.

To process 1, a signal without a handler does nothing, such as SIGTERM while the program starts; and all orphans of the
container fall to it, such as those of `docker exec`. The supervisor kills children that it does not know, so that it
must not be the one.
"""

import os
import signal

_PASSED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}


def fork_program() -> None:
    """Return in a child, which is to be the program. The parent, process 1, ends as the child does."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would lose the status
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *_PASSED_ON})
    child = os.fork()
    if child:
        os._exit(_watch(child))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(child: int) -> int:
    """Return the exit status of `child`, as a shell would tell it."""
    while True:
        arrived = signal.sigwaitinfo({signal.SIGCHLD, *_PASSED_ON})
        # What the terminal sends, such as Ctrl-C, the kernel has given to the child, too.
        if arrived.si_signo != signal.SIGCHLD and arrived.si_code <= 0:
            os.kill(child, arrived.si_signo)
        pid, status = os.waitpid(-1, os.WNOHANG)
        while pid:
            if pid == child:
                return abs(code) + 128 if (code := os.waitstatus_to_exitcode(status)) < 0 else code
            pid, status = os.waitpid(-1, os.WNOHANG)
