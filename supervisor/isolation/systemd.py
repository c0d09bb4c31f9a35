"""Tells systemd how the service is: sd_notify(3), a datagram of lines to the socket that it names.

Written out: the client library is C, and the packages that do without it have had no release for years.
"""

import contextlib
import socket
from collections.abc import Mapping

VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
"""Not for tasks and their tools."""


class Notifier:
    """Tells it to whoever NOTIFY_SOCKET names, or nobody."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        # sd_notify(3): "@" stands for the NUL with which an abstract socket's name begins.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name

    def tell(self, *lines: str) -> None:
        """Send lines such as READY=1. That nobody takes them is no error, and never waited for."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.setblocking(False)
            to.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
