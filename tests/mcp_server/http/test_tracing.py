"""Traces: a caller's trace goes through the door and the ledger to the steps of its picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from castmate import tracing
from castmate.errors import SettingsError
from tests.doubles import FlatClient
from tests.mcp_server.running import MODEL, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tracing.recording(provider):
        yield exporter
    provider.shutdown()


def named(spans: tuple[ReadableSpan, ...], name: str) -> ReadableSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


async def test_the_steps_of_a_picture_belong_to_the_request_that_asked_for_it(
    exporter: InMemorySpanExporter, tmp_path: Path
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        exporter.clear()  # the upload
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        job = await api.ask("POST", MODEL, json=api.inputs(), headers=headers)
        await api.gateway.castmate.ledger.wait(job["id"])
        await api.http.get("/healthz")
    spans = exporter.get_finished_spans()
    (door,) = [span for span in spans if span.name.startswith("POST /api/v3/")]
    assert parent_of(door) == int(CALLER, 16)
    submit, attempt = named(spans, "submit"), named(spans, "attempt")
    drawing, store = named(spans, "draw on flat"), named(spans, "store")
    assert parent_of(submit) == parent_of(attempt) == door.context.span_id
    assert parent_of(drawing) == parent_of(store) == attempt.context.span_id
    assert {span.context.trace_id for span in spans} == {int(TRACE, 16)}, "nor of health checks"
    steps = [dict(event.attributes or {}) for event in drawing.events if event.name == "step"]
    assert steps == [{"done": step, "total": 2} for step in range(3)]
    for span in (submit, attempt):
        assert dict(span.attributes or {})["castmate.prediction"] == job["id"]
    assert all("waving" not in span.to_json() for span in spans), "a prompt is its owner's"


async def test_without_a_collector_nothing_is_kept(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        job = await api.ask("POST", MODEL, json=api.inputs(), headers=headers)
        assert (await api.gateway.castmate.ledger.wait(job["id"])).traceparent is None


def test_a_collector_without_the_packages_to_reach_it_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with (
        pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT.*castmate\[otel\]"),
        tracing.exporting("castmate", "1"),
    ):
        pass
