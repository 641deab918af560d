"""OpenTelemetry traces: from the door through the ledger and the worker to the steps.

Nothing is traced or imported unless OTEL_EXPORTER_OTLP_ENDPOINT names a collector; OpenTelemetry's
own variables configure the rest. A prediction outlives the request that submitted it, so the ledger
keeps the request's `traceparent`, and the worker continues that trace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

from castmate.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_tracer: Tracer | None = None


class Span(Protocol):
    """One part of a trace."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Add an attribute."""
        ...

    def update_name(self, name: str) -> None:
        """Replace the name, once a better one is known."""
        ...


class Untraced:
    """A span that records nothing, for when tracing is off."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Nobody reads it."""

    def update_name(self, name: str) -> None:
        """Nobody reads it."""


UNTRACED: Final = Untraced()


@contextlib.contextmanager
def span(name: str, traceparent: str | None = None) -> Iterator[Span]:
    """A span that lasts as long as the block and records an exception that ends it.

    Args:
        name: What is done.
        traceparent: The parent span, in W3C's notation; by default the current one.
    """
    if _tracer is None:
        yield UNTRACED
        return
    from opentelemetry.propagate import extract

    context = extract({"traceparent": traceparent}) if traceparent else None
    with _tracer.start_as_current_span(name, context) as begun:
        yield begun


def event(name: str, **attributes: int | str) -> None:
    """Record an event in the current span."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().add_event(name, attributes)


def current() -> str | None:
    """The current span in W3C's notation; None if nothing is traced."""
    if _tracer is None:
        return None
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent")


@contextlib.contextmanager
def recording(provider: TracerProvider) -> Iterator[None]:
    """Send this process's spans to a provider during the block."""
    global _tracer
    before, _tracer = _tracer, provider.get_tracer("castmate")
    try:
        yield
    finally:
        _tracer = before


@contextlib.contextmanager
def exporting(service: str, version: str) -> Iterator[None]:
    """Send spans to the collector that the environment names, if it names one.

    Args:
        service: The name of this program, unless OTEL_SERVICE_NAME sets another.
        version: Its version.

    Raises:
        SettingsError: A collector is named, but the packages that send to it are not installed.
    """
    if not any(map(os.environ.get, ENDPOINTS)):
        yield
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            f"{ENDPOINTS[0]}: traces need packages that are not installed; run `pip install "
            f"'castmate[otel]'`, or unset it ({error})."
        ) from None
    named = os.environ.get("OTEL_SERVICE_NAME", service)
    resource = Resource.create({SERVICE_NAME: named, SERVICE_VERSION: version})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)  # for the spans of libraries that Castmate uses
    try:
        with recording(provider):
            yield
    finally:
        provider.shutdown()
