"""What the worker tells Prometheus, on METRICS_PORT.

The loop serves it, a few connections at a time and each for a few seconds: tasks reach a loopback address, and the
server of `prometheus_client` would start a thread for each of their connections.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from supervisor.worker.control import WorkerContext
from supervisor.worker.slot import Slot

MAX_CONNECTIONS = 8
TIMEOUT = 5.0
"""Seconds for a request and its answer."""

STATES = ("running", "paused", "idle", "disabled", "trouble")


class WorkerMetrics:
    """Collects the metrics. `context` returns `None` while the worker starts."""

    def __init__(self, context: Callable[[], WorkerContext | None], slots: Sequence[Slot]) -> None:
        self._context = context
        self._slots = slots
        self._connections = 0

    @contextlib.asynccontextmanager
    async def serving(self, address: str) -> AsyncIterator[None]:
        """Serve them at `HOST:PORT`; not at all if that is empty.

        Raises:
            OSError: nobody can listen there; the text names the setting.
        """
        if not address:
            yield
            return
        host, _, port = address.rpartition(":")
        try:
            server = await asyncio.start_server(self._serve, host.strip("[]"), int(port))
        except (OSError, UnicodeError) as error:  # a host name with two dots in a row
            reason = getattr(error, "strerror", None) or error
            raise OSError(f"METRICS_PORT: {address} cannot be listened on: {reason}") from error
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(TIMEOUT):
                    writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):  # TimeoutError is an OSError
            writer.transport.abort()
        finally:
            self._connections -= 1
            writer.close()

    def _answer(self, request: bytes) -> bytes:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest  # only if it is wanted

        if request.split(b" ")[:2] != [b"GET", b"/metrics"]:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        registry = CollectorRegistry()
        registry.register(self)
        body = generate_latest(registry)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\nContent-Length: {len(body)}"
        return f"{head}\r\nConnection: close\r\n\r\n".encode() + body

    def collect(self) -> Iterator[Any]:
        """Yield the metrics as they are now, as `prometheus_client` wants them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        context = self._context()
        if context is None:
            return
        states = [self._state(slot, context) for slot in self._slots]
        slots = GaugeMetricFamily("sisyphus_worker_slots", "Slots by state", labels=["state"])
        for state in STATES:
            slots.add_metric([state], states.count(state))
        yield slots
        memory = GaugeMetricFamily("sisyphus_worker_memory_bytes", "Memory, of all tasks together", labels=["part"])
        for part, size in self._memory(context).items():
            memory.add_metric([part], size)
        yield memory
        outbox = GaugeMetricFamily("sisyphus_worker_outbox", "Messages that the server has not got", labels=["kind"])
        outbox.add_metric(["verdict or return"], len(context.outbox))
        outbox.add_metric(["log"], len(context.log_outbox))
        yield outbox
        jobs = CounterMetricFamily("sisyphus_worker_jobs", "Jobs since the start, by result", labels=["result"])
        for result, count in context.results.items():
            jobs.add_metric([result], count)
        yield jobs
        in_trouble = int(bool(context.trouble.why))
        yield GaugeMetricFamily("sisyphus_worker_trouble", "1 while the worker itself is in trouble", in_trouble)

    def _state(self, slot: Slot, context: WorkerContext) -> str:
        if slot.standing.is_paused:
            return "paused"
        if slot.job:
            return "running"
        if context.trouble.why:
            return "trouble"
        return "idle" if slot.standing.may_take.is_set() else "disabled"

    def _memory(self, context: WorkerContext) -> dict[str, int]:
        import psutil  # slow to import, and only for this

        memory = {"supervisor": psutil.Process().memory_info().rss}
        with contextlib.suppress(psutil.Error):  # it is lost, and another one starts
            memory["zygote"] = psutil.Process(context.runtime.zygote.pid).memory_info().rss
        memory["tasks"] = sum(slot.observer.usage.memory for slot in self._slots if slot.job and slot.observer)
        return memory
