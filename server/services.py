"""All that routes and the watch of one server work with."""

import time
from typing import Annotated

from fastapi import Depends, Request

from server.config import ServerSettings
from server.http.tokens import Tokens
from server.notify.targets import read_notify
from server.observe.events import Events
from server.observe.health import DatabaseHealth
from server.observe.metrics import Metrics
from server.storage.beats import BeatExchange
from server.storage.database import ServerDatabase
from server.storage.history import History
from server.storage.notices import Notices
from server.storage.settings import NamedData, Orders
from server.storage.store import Store
from server.storage.summary import Summary
from server.waiting import Waiting
from server.workers import AwakeClock, Workers

WORKER_TTL = 30.0
"""Seconds after its last heartbeat during which a worker is shown."""


class Services:
    """The parts of one server, on an open database."""

    def __init__(self, database: ServerDatabase, settings: ServerSettings) -> None:
        self.settings = settings
        self.tokens = Tokens(settings.token, settings.worker_token)
        self.look_every = min(1.0, settings.vanished_after / 4)
        self.database = database
        self.notify = read_notify(settings.notify)
        self.notices = Notices(database, self.notify)
        self.store = Store(database, self.notices)
        self.history = History(database)
        self.summary = Summary(database)
        self.data = NamedData(database)
        self.orders = Orders(database)
        clock = AwakeClock(longest_gap=2 * self.look_every)
        self.workers = Workers(WORKER_TTL, settings.vanished_after, clock)
        self.beats = BeatExchange(database, self.workers)
        self.waiting = Waiting(database)
        self.metrics = Metrics(self.summary, self.workers, self.orders)
        self.events = Events(database, self.workers, self.orders, self.waiting)
        self.health = DatabaseHealth()
        self.started_at = time.monotonic()

    def let_go(self) -> None:
        """End the calls that wait, for the server to stop."""
        self.waiting.close()
        self.events.close()


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Served = Annotated[Services, Depends(_services)]
"""The parameter by which a route gets the server's parts."""
