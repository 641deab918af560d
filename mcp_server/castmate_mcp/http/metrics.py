"""What Prometheus reads: this gateway's requests and attempts, and the ledger that all share.

Every gateway of a fleet shows the same `castmate_ledger_*`: take the maximum over them, never the
sum. Everything else is of one process, and is summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from castmate.errors import Unavailable
from castmate.jobs.backlog import Backlog
from castmate.jobs.predictions import State
from castmate.service import Castmate
from castmate_mcp.settings import ServerSettings

_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90)
Families = Iterator[GaugeMetricFamily | CounterMetricFamily]


class Metrics:
    """The metrics of one server; a process may have several, in tests."""

    def __init__(self, castmate: Castmate[ServerSettings]) -> None:
        self._ledger = castmate.ledger
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._requests = Counter(
            "castmate_http_requests",
            "Answered HTTP requests.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "castmate_http_request_seconds",
            "From the request to the end of its answer.",
            ("method", "route"),
            registry=self._registry,
            buckets=_BUCKETS_S,
        )
        self.submitted = Counter(
            "castmate_predictions_submitted",
            "Predictions taken.",
            ("door",),
            registry=self._registry,
        )
        self.webhooks = Counter(
            "castmate_webhooks",
            "Webhook deliveries that were tried.",
            ("outcome",),
            registry=self._registry,
        )
        self._state = _State(castmate)
        self._registry.register(self._state)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one HTTP request."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)

    async def exposition(self) -> bytes:
        """All of it, in Prometheus' text format; without the ledger's numbers while it is away."""
        try:
            self._state.backlog = await self._ledger.backlog()
        except Unavailable:
            self._state.backlog = None
        return generate_latest(self._registry)


class _State(Collector):
    """What is so at the moment of the question; nothing is kept that could grow old."""

    def __init__(self, castmate: Castmate[ServerSettings]) -> None:
        self._castmate = castmate
        self.backlog: Backlog | None = None

    def collect(self) -> Families:
        """See `Collector`."""
        yield from self._of_the_ledger()
        yield from self._of_the_worker()
        yield from self._of_the_servers()

    def _of_the_ledger(self) -> Families:
        backlog = self.backlog
        reached = "Whether the ledger answered."
        yield GaugeMetricFamily("castmate_ledger_up", reached, float(backlog is not None))
        unfinished = GaugeMetricFamily(
            "castmate_ledger_predictions",
            "Predictions that wait or are being made, of all gateways: take the maximum.",
            labels=("state",),
        )
        oldest = GaugeMetricFamily(
            "castmate_ledger_oldest_wait_seconds",
            "How long the first of those that wait has waited, of all gateways: take the maximum.",
        )
        work = GaugeMetricFamily(
            "castmate_ledger_work_seconds",
            "About how long one instance would draw all that is unfinished, of all gateways: take "
            "the maximum.",
        )
        if backlog is not None:
            unfinished.add_metric((State.CREATED.value,), backlog.waiting)
            unfinished.add_metric((State.PROCESSING.value,), backlog.running)
            oldest.add_metric((), backlog.oldest_wait_s)
            work.add_metric((), backlog.work_s)
        yield from (unfinished, oldest, work)

    def _of_the_worker(self) -> Families:
        worker = self._castmate.worker
        slots = worker.slots if worker else 0
        yield GaugeMetricFamily(
            "castmate_worker_slots", "Predictions that this gateway makes at a time.", slots
        )
        yield GaugeMetricFamily(
            "castmate_worker_running",
            "Predictions that this gateway makes now.",
            worker.running if worker else 0,
        )
        attempts = CounterMetricFamily(
            "castmate_attempts",
            "Attempts at predictions that ended at this gateway.",
            labels=("outcome", "client"),
        )
        for (outcome, client), count in (worker.attempts if worker else {}).items():
            attempts.add_metric((outcome.value, client), count)
        yield attempts

    def _of_the_servers(self) -> Families:
        servers = GaugeMetricFamily(
            "castmate_client_servers",
            "Servers that this gateway knows.",
            labels=("client", "state"),
        )
        ahead = GaugeMetricFamily(
            "castmate_client_ahead",
            "Requests of anybody that those servers had when this gateway asked them last.",
            labels=("client",),
        )
        for client, known in self._castmate.router.servers.items():
            servers.add_metric((client, "usable"), known.usable)
            servers.add_metric((client, "resting"), known.resting)
            ahead.add_metric((client,), known.ahead)
        yield from (servers, ahead)
