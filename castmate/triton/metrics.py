"""The model's own metrics on Triton's /metrics page."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

STAGE_BUCKETS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0),
)


class Metrics(Protocol):
    """The metrics that the model reports."""

    def stages(self, timings_ms: Mapping[str, float]) -> None:
        """A finished request took this long in each stage."""
        ...

    def step(self, seconds: float) -> None:
        """A denoise step took this long."""
        ...

    def caches(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """Hits and misses of each cache since the start."""
        ...

    def ended(self, outcome: str) -> None:
        """A request ended: `ok`, or the code of its error."""
        ...

    def load(self, waiting: int, running: int) -> None:
        """How many requests wait and run now."""
        ...


class TritonMetrics:
    """Metrics through Triton's python backend.

    One lock guards every call: the backend releases the GIL and then reuses one record per metric,
    so two threads at once would crash the whole server.
    """

    def __init__(self, pb_utils: Any, instance: str) -> None:
        """Register the families.

        Args:
            pb_utils: The module `triton_python_backend_utils`, which only a server has.
            instance: Name of this instance of the model, the label of its load.
        """
        self._lock = threading.Lock()
        self._metrics: dict[tuple[str, str], Any] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._instance = instance
        kinds = pb_utils.MetricFamily
        self._families = {
            name: kinds(name=f"castmate_{name}", description=description, kind=kind)
            for name, description, kind in (
                ("stage_seconds", "Time in each stage of a request", kinds.HISTOGRAM),
                ("step_seconds", "Time of one denoise step", kinds.HISTOGRAM),
                ("cache_hits_total", "Encoded before and remembered", kinds.COUNTER),
                ("cache_misses_total", "Encoded for the first time, or forgotten", kinds.COUNTER),
                ("requests_total", "Requests by how they ended", kinds.COUNTER),
                ("waiting", "Requests that wait", kinds.GAUGE),
                ("running", "Requests that are being made", kinds.GAUGE),
            )
        }

    def stages(self, timings_ms: Mapping[str, float]) -> None:
        """A finished request took this long in each stage."""
        with self._lock:
            for stage, milliseconds in timings_ms.items():
                self._metric("stage_seconds", "stage", stage).observe(milliseconds / 1000)

    def step(self, seconds: float) -> None:
        """A denoise step took this long."""
        with self._lock:
            self._metric("step_seconds").observe(seconds)

    def caches(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """Hits and misses of each cache since the start."""
        with self._lock:
            for cache, pair in counts.items():
                for name, count in zip(
                    ("cache_hits_total", "cache_misses_total"), pair, strict=True
                ):
                    self._metric(name, "cache", cache).increment(
                        count - self._counts.get((name, cache), 0)
                    )
                    self._counts[name, cache] = count

    def ended(self, outcome: str) -> None:
        """A request ended: `ok`, or the code of its error."""
        with self._lock:
            self._metric("requests_total", "outcome", outcome).increment(1)

    def load(self, waiting: int, running: int) -> None:
        """How many requests wait and run now."""
        with self._lock:
            self._metric("waiting", "instance", self._instance).set(waiting)
            self._metric("running", "instance", self._instance).set(running)

    def _metric(self, family: str, label: str = "", value: str = "") -> Any:
        if (family, value) not in self._metrics:
            extra = {"buckets": list(STAGE_BUCKETS_S)} if family.endswith("_seconds") else {}
            labels = {label: value} if label else {}
            self._metrics[family, value] = self._families[family].Metric(labels=labels, **extra)
        return self._metrics[family, value]
