"""Notifications to systemd: sd_notify(3), a datagram of lines to the socket that systemd names.

Written here because systemd's own library is C, and the Python packages without it have had no release for years.
"""

import contextlib
import socket
from collections.abc import Mapping

VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
"""Environment variables that are for the supervisor alone, not for tasks and their tools."""


INTERVAL = 1.0
"""Seconds between two words about the state, at most; a watchdog that wants to hear more often hears more often."""


class Notifier:
    """Sends notifications to the socket in NOTIFY_SOCKET; without one, it does nothing.

    Attributes:
        interval: Seconds between two of them.
        is_wanted: There is such a socket.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        # sd_notify(3): "@" stands for the NUL with which an abstract socket's name begins.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self.is_wanted = bool(name)
        watchdog = environ.get("WATCHDOG_USEC", "")
        patience = int(watchdog) / 1e6 if watchdog.isascii() and watchdog.isdigit() else 0.0
        self.interval = min(INTERVAL, patience / 3) if patience else INTERVAL

    def tell(self, *lines: str) -> None:
        """Send lines such as READY=1. It does not wait, and if nobody takes them, that is no error."""
        if not self.is_wanted:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.setblocking(False)
            to.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
