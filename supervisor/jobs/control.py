"""The operator's orders for one job: pause, resume, stop."""

import asyncio

from supervisor.isolation.clock import Clock
from supervisor.isolation.failure import StopOrder


class JobControl:
    """The operator's orders for one job."""

    def __init__(self) -> None:
        self.clock = Clock()
        """Stands still while the job is paused."""
        self.going = asyncio.Event()
        """Cleared while the job is paused."""
        self.going.set()
        self.order: StopOrder | None = None
        """The order to stop, once there is one."""

    def stop(self, order: StopOrder) -> None:
        """Only the first order is kept, unless a later one is to kill. A paused job continues, in order to stop."""
        if self.order is None or order.now:
            self.order = order
        self.resume()

    def pause(self) -> None:
        self.clock.pause()
        self.going.clear()

    def resume(self) -> None:
        self.clock.resume()
        self.going.set()
