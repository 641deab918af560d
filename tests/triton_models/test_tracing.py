"""The caller's trace goes through Triton to the collector."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import pytest
from opentelemetry import context, trace

from castmate.clients.triton.client import TritonClient
from castmate.serve import trace_options
from castmate.triton.server import TritonServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("one_loop")]


@pytest.fixture
def collector() -> Iterator[tuple[str, Queue[Any]]]:
    """An OpenTelemetry collector's door for traces, and what came through it."""
    received: Queue[Any] = Queue()

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
        server.shutdown()


async def test_a_request_becomes_a_span_of_the_callers_trace(
    collector: tuple[str, Queue[Any]], start_server: Callable[..., TritonServer]
) -> None:
    url, received = collector
    server = start_server(options=trace_options(url))
    trace_id = 0xCA57
    span = trace.NonRecordingSpan(
        trace.SpanContext(trace_id, 1, is_remote=False, trace_flags=trace.TraceFlags(1))
    )
    token = context.attach(trace.set_span_in_context(span))
    client = TritonClient((server.url,))
    try:
        await client.probe(server.url)
    finally:
        context.detach(token)
        await client.aclose()
    spans = [
        span
        for resource in received.get(timeout=30)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert "InferRequest" in {span["name"] for span in spans}
    assert {span["traceId"].lower() for span in spans} == {f"{trace_id:032x}"}
