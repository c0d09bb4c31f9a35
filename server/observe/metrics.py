"""`GET /metrics`, for Prometheus.

What concerns jobs and workers is read from the database and from the heartbeats, so each server of a database tells the
same: scrape one of them, or take the maximum. What concerns HTTP is each server's own. The processes of one
`serve --processes N` share a directory for it (`PROMETHEUS_MULTIPROC_DIR`, set by their parent), so that any of them
tells the sum; what a process that died had counted stays.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import prometheus_client
from loguru import logger
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config import VERSION
from server.storage.database import reason
from server.storage.settings import Orders
from server.storage.summary import Summary
from server.storage.totals import BOUNDS, Ended
from server.workers import Workers, describe_workers

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

MAX_MODULES = 100
"""Sets of modules that have a label of their own; the others share one: a stranger's jobs may name anything."""

BUCKETS = (*(str(float(bound)) for bound in BOUNDS), "+Inf")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one server."""

    def __init__(self, summary: Summary, workers: Workers, orders: Orders) -> None:
        self._summary, self._workers, self._orders = summary, workers, orders
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "sisyphus_http_requests_total",
            "Requests that were answered.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._durations = prometheus_client.Histogram(
            "sisyphus_http_request_duration_seconds",
            "Time until the last byte of the answer was sent; polls with `wait` and /events wait long.",
            ["route", "method"],
            registry=self._registry,
        )

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        registry = self._registry
        if os.environ.get(DIRECTORY):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        farm = CollectorRegistry()
        farm.register(self)
        return generate_latest(farm) + generate_latest(registry)

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        method = method if method in METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._durations.labels(route, method).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the farm: prometheus-client calls this."""
        yield _gauge("sisyphus_info", "The version of the server.", ["version"], {(VERSION,): 1})
        yield from self._collect_workers()
        is_online = 1
        try:
            yield from self._collect_jobs()
        except SQLAlchemyError as error:
            is_online = 0
            logger.warning("Metrics lack the jobs: the database failed: {}", reason(error))
        yield _gauge("sisyphus_database_online", "1 if the database answers, else 0.", [], {(): is_online})

    def _collect_jobs(self) -> Iterator[Metric]:
        totals = self._summary.totals()
        unfinished, names = Counter[tuple[str, ...]](), _Names()
        ended: dict[tuple[str, ...], Ended] = {}
        for modules in totals.modules:  # the first ones keep their labels: else counters would go back
            names.of(modules)
        for (state, modules), count in totals.unfinished.items():
            unfinished[state, names.of(modules)] += count
        durations = HistogramMetricFamily(
            "sisyphus_job_duration_seconds",
            "Ended jobs, from the last start to the end.",
            labels=["state", "modules"],
        )
        for (state, modules), kind in totals.ended.items():
            ended.setdefault((state, names.of(modules)), Ended()).add(kind)
        family = CounterMetricFamily("sisyphus_jobs_ended_total", "Jobs that have ended.", labels=["state", "modules"])
        for labels, kind in ended.items():
            family.add_metric(labels, kind.count)
            durations.add_metric(labels, list(zip(BUCKETS, accumulate(kind.buckets), strict=True)), kind.seconds)
        yield _gauge("sisyphus_jobs", "Jobs that have not ended.", ["state", "modules"], unfinished)
        yield family
        yield durations
        queued = sum(count for (state, _), count in unfinished.items() if state == "queued")
        yield _gauge("sisyphus_queue_length", "Jobs in the queue.", [], {(): queued})
        head = totals.head_added_at
        age = max(0.0, (datetime.now(UTC) - head).total_seconds()) if head else 0.0
        yield _gauge("sisyphus_queue_head_age_seconds", "Time since the submission of the next job.", [], {(): age})

    def _collect_workers(self) -> Iterator[Metric]:
        live, lost = describe_workers(self._workers, self._orders.standing)
        states = Counter[tuple[str, ...]]({("idle",): 0, ("in_progress",): 0, ("lost",): len(lost)})
        speeds: dict[str, dict[tuple[str], float]] = {"speed": {}, "fps": {}}
        names = _Names()
        for worker in live:
            states[_state(worker),] += 1
            for name, sums in speeds.items():
                value = (worker.get("info") or {}).get(name)
                if worker["status"] == "in_progress" and isinstance(value, int | float):
                    module = (names.of([worker.get("task", "")]),)
                    sums[module] = sums.get(module, 0) + value
        yield _gauge("sisyphus_workers", "Workers; `lost` ones vanished in the last day.", ["state"], states)
        yield _gauge(
            "sisyphus_encode_speed_ratio", "Sum over running tasks; 1 is real time.", ["module"], speeds["speed"]
        )
        yield _gauge("sisyphus_encode_frames_per_second", "Sum over running tasks.", ["module"], speeds["fps"])


def _state(worker: dict[str, Any]) -> str:
    attributes = worker["attributes"]
    return next((name for name in ("disabled", "paused") if attributes.get(name)), str(worker["status"]))


class _Names:
    """Labels for sets of modules, a bounded number of them."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, modules: Any) -> str:
        name = ",".join(sorted(modules)).encode("utf-8", "replace").decode()  # without lone surrogates
        if name not in self._known and len(self._known) >= MAX_MODULES:
            return "other"
        self._known.add(name)
        return name


def _gauge(name: str, text: str, labels: list[str], values: Any) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values.items():
        family.add_metric(label, value)
    return family


class CountedRequests:
    """Counts requests by the template of their route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it was answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500  # what the framework answers to an exception

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.count_request(route, scope["method"], status, time.perf_counter() - begun)
