"""What Prometheus reads: requests by route and answer, and the state of the queue."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from castmate.jobs.ledger import Ledger

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90)


class Metrics:
    """The metrics of one server; a process may have several, in tests."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
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
        self._unfinished = Gauge(
            "castmate_predictions",
            "Predictions that wait or are being made, of all processes.",
            ("state",),
            registry=self._registry,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one HTTP request."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)

    async def exposition(self) -> bytes:
        """All of it, in Prometheus' text format.

        Raises:
            Unavailable: The ledger cannot be reached.
        """
        for state, count in (await self._ledger.count_unfinished()).items():
            self._unfinished.labels(state.value).set(count)
        return generate_latest(self._registry)
