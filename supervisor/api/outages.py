"""The outage log: one line when a route of the server begins to fail, and one when it works again."""

import asyncio
import re
import time

from loguru import logger

from supervisor.api.errors import SessionError, is_unreachable

_SERVER = ""
"""The key of an outage of the whole server, beside the routes."""

_ID_IN_PATH = re.compile(r"(?<=^/jobs)/[^/]+|(?<=^/workers)/[^/]+|(?<=^/data)/.*")


def route_of(method: str, path: str) -> str:
    """Return a call's route for a person, without ids: `GET /jobs/…`."""
    return f"{method} {_ID_IN_PATH.sub('/…', path.partition('?')[0])}"


class OutageLog:
    """Logs the beginning and the end of each outage. The calls that fail meanwhile are not logged.

    Attributes:
        reachable: Set while connections to the server come about.
    """

    def __init__(self, server: str) -> None:
        self.reachable = asyncio.Event()
        self.reachable.set()
        self._server = f"API server {server}"
        self._since: dict[str, float] = {}

    def note_failure(self, route: str | None, error: SessionError, began: float) -> None:
        """A call that began at this instant (monotonic) failed. Without a `route` only a server's outage is logged."""
        if is_unreachable(error.__cause__):
            self.reachable.clear()
            self._begin(_SERVER, f"{self._server} cannot be reached: {error}; retrying")
            return
        if error.status:
            self._note_reachable(began)
        if route:
            self._begin(route, f"{self._server}: {route} fails: {error}; retrying")

    def note_success(self, route: str | None, began: float) -> None:
        """A call that began at this instant (monotonic) succeeded."""
        self._note_reachable(began)
        if route:
            self._end(route, f"{self._server}: {route} works again")

    def _note_reachable(self, began: float) -> None:
        if began < self._since.get(_SERVER, began):
            return  # a server that goes down still answers the calls that it has taken
        self.reachable.set()
        self._end(_SERVER, f"{self._server} can be reached again")

    def _begin(self, outage: str, message: str) -> None:
        if outage not in self._since:
            self._since[outage] = time.monotonic()
            logger.warning("{}", message)

    def _end(self, outage: str, message: str) -> None:
        since = self._since.pop(outage, None)
        if since is not None:
            logger.info("{}, after {:.0f} s", message, time.monotonic() - since)
