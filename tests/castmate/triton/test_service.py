"""The queue inside the Triton model: order, limits, cancellation, signs of life, the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from castmate.defaults import CompleteRequest
from castmate.errors import CastmateError, InvalidRequest, Overloaded, Unavailable
from castmate.images import Reference
from castmate.pipeline.pipeline import OnImage, OnStep
from castmate.schema import GeneratedImage, GenerateRequest, GenerateResult
from castmate.several import together
from castmate.triton import wire
from castmate.triton.service import Service
from tests.doubles import DEFAULTS, picture

WAIT_S = 10.0
REFERENCE = picture()


class GatedPipeline:
    """Each step waits until the test opens the gate, once for all or step by step."""

    def __init__(self) -> None:
        self.bundle = SimpleNamespace(
            name="gated",
            manifest=SimpleNamespace(engine="onnxruntime", defaults=DEFAULTS, style_names=()),
        )
        self.gate = threading.Semaphore(0)
        self.drawn: list[str] = []
        self.references: list[Reference] = []
        self.error: Exception | None = None

    def open(self) -> None:
        self.gate.release(1000)

    def generate(
        self, request: GenerateRequest, reference: Reference, on_step: OnStep, on_image: OnImage
    ) -> GenerateResult:
        self.drawn.append(request.prompt)
        self.references.append(reference)
        total = CompleteRequest.of(request, DEFAULTS).num_inference_steps
        for step in range(total):
            on_step(step, total)
            assert self.gate.acquire(timeout=WAIT_S)
        if self.error:
            raise self.error
        image = GeneratedImage(
            data=b"png", output_format=request.output_format, width=2, height=1, seed=request.seed
        )
        on_image(image)
        on_step(total, total)
        return GenerateResult(
            (image,), "local", "gated", {"denoise": 1.0, "total": 2.0}, ("hm",), 0.0, 1
        )

    def cache_counts(self) -> dict[str, tuple[int, int]]:
        return {}


class RecordingCall:
    """Keeps what was sent; the test waits for what it expects."""

    def __init__(self, broken: bool = False) -> None:
        self.sent: list[dict[str, Any]] = []
        self.error: CastmateError | None = None
        self.ended = threading.Event()
        self.cancelled = False
        self._broken = broken
        self._changed = threading.Condition()

    def is_cancelled(self) -> bool:
        return self.cancelled

    def send(self, outputs: wire.Outputs, *, final: bool = False) -> None:
        if self._broken:
            raise RuntimeError("Failed to increase the shared memory pool size")
        assert not self.ended.is_set(), "nothing may follow the end"
        with self._changed:
            self.sent.append({name: value.tolist() for name, value in outputs.items()})
            self._changed.notify_all()
        if final:
            self.ended.set()

    def fail(self, error: CastmateError) -> None:
        self.error = error
        self.ended.set()

    def wait_for(self, outputs: Mapping[str, Any]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: outputs in self.sent, WAIT_S), self.sent

    def wait_for_end(self) -> CastmateError | None:
        assert self.ended.wait(WAIT_S)
        return self.error


class CountingMetrics:
    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.loads: list[tuple[int, int]] = []
        self.stage_names: list[str] = []
        self.num_steps = 0

    def stages(self, timings_ms: Mapping[str, float]) -> None:
        self.stage_names = list(timings_ms)

    def step(self, seconds: float) -> None:
        self.num_steps += 1

    def caches(self, counts: Mapping[str, tuple[int, int]]) -> None:
        pass

    def ended(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    def load(self, waiting: int, running: int) -> None:
        self.loads.append((waiting, running))


@pytest.fixture
def pipeline() -> GatedPipeline:
    return GatedPipeline()


@pytest.fixture
def metrics() -> CountingMetrics:
    return CountingMetrics()


Serve = Callable[..., Service]


@pytest.fixture
def serve(pipeline: GatedPipeline, metrics: CountingMetrics) -> Iterator[Serve]:
    services: list[Service] = []

    def start(**options: Any) -> Service:
        services.append(Service(pipeline, metrics, **{"pulse_s": 60.0} | options))  # type: ignore[arg-type]
        return services[-1]

    yield start
    pipeline.open()
    for service in services:
        service.close(WAIT_S)


def ask(
    service: Service, prompt: str = "waving", image: bytes = REFERENCE, **parameters: Any
) -> RecordingCall:
    call = RecordingCall()
    service.submit(call, prompt.encode(), image, {"num_inference_steps": 2} | parameters)
    return call


@contextmanager
def busy(service: Service) -> Iterator[RecordingCall]:
    """A request that runs and waits at its first step."""
    call = ask(service, "first")
    call.wait_for({"progress": [0, 2]})
    yield call


def test_several_pictures_of_a_character_arrive_as_several(
    serve: Serve, pipeline: GatedPipeline
) -> None:
    pipeline.open()
    views = [Reference.from_bytes(picture(colour=colour), colour) for colour in ("red", "blue")]
    assert ask(serve(), image=together(views).data).wait_for_end() is None
    (drawn,) = pipeline.references
    assert [one.sha256 for one in drawn.pictures] == [view.sha256 for view in views]


def test_a_request_hears_its_place_every_step_its_picture_and_a_report(
    serve: Serve, pipeline: GatedPipeline, metrics: CountingMetrics
) -> None:
    pipeline.open()
    call = ask(serve(), seed=5)
    assert call.wait_for_end() is None
    sent = [each for each in call.sent if "ahead" not in each]
    assert sent[:4] == [
        {"progress": [0, 2]},
        {"progress": [1, 2]},
        {"picture": [b"png"], "seed": [5], "has_nsfw": [False]},
        {"progress": [2, 2]},
    ]
    report = wire.decode_report(sent[4]["report"][0])
    assert (report["model"], report["warnings"]) == ("gated", ["hm"])
    assert report["computed_steps"] == 1
    assert list(report["timings_ms"]) == ["queue", "denoise", "total"]
    assert metrics.outcomes == ["ok"]
    assert metrics.num_steps == 1  # the last one ends in the decoder


def test_requests_are_made_in_the_order_in_which_they_came(
    serve: Serve, pipeline: GatedPipeline
) -> None:
    service = serve()
    with busy(service):
        calls = [ask(service, prompt) for prompt in ("second", "third")]
        calls[1].wait_for({"ahead": [2]})
        pipeline.open()
        assert [call.wait_for_end() for call in calls] == [None, None]
    assert pipeline.drawn == ["first", "second", "third"]


def test_a_bad_request_is_refused_at_once_while_another_runs(serve: Serve) -> None:
    service = serve()
    with busy(service) as first:
        error = ask(service, size="1*1").wait_for_end()
        assert isinstance(error, InvalidRequest)
        assert not first.ended.is_set()


def test_a_reference_that_is_no_picture_fails_alone(serve: Serve, pipeline: GatedPipeline) -> None:
    pipeline.open()
    service, call = serve(), RecordingCall()
    service.submit(call, b"waving", b"no picture", {})
    assert isinstance(call.wait_for_end(), InvalidRequest)
    assert ask(service).wait_for_end() is None


def test_a_full_queue_refuses_the_next_request_and_says_when_to_come_back(serve: Serve) -> None:
    service = serve(max_waiting=1)
    with busy(service):
        ask(service)
        error = ask(service).wait_for_end()
        assert isinstance(error, Overloaded)
        assert error.retry_after_s >= 1
        assert "1 requests wait, it takes 1" in str(error)


def test_a_cancelled_request_gives_its_place_in_a_full_queue_away(serve: Serve) -> None:
    service = serve(max_waiting=1)
    with busy(service):
        left = ask(service)
        left.cancelled = True
        ask(service).wait_for({"ahead": [1]})
        assert left.wait_for_end().code == "cancelled"  # type: ignore[union-attr]


def test_a_cancelled_request_stops_before_its_next_step_and_frees_the_slot(
    serve: Serve, pipeline: GatedPipeline
) -> None:
    service = serve()
    with busy(service) as first:
        second = ask(service, "second")
        first.cancelled = True
        pipeline.gate.release()
        error = first.wait_for_end()
        assert error is not None
        assert str(error) == "Stopped after 1 of 2 steps."
        second.wait_for({"progress": [0, 2]})


def test_everybody_gets_signs_of_life_and_those_who_left_are_noticed(serve: Serve) -> None:
    service = serve(pulse_s=0.01)
    with busy(service) as first:
        second, third = ask(service, "second"), ask(service, "third")
        third.wait_for({"ahead": [2]})
        second.cancelled = True
        assert second.wait_for_end().code == "cancelled"  # type: ignore[union-attr]
        third.wait_for({"ahead": [1]})
        first.wait_for({"ahead": [0]})


def test_an_unexpected_failure_ends_one_request_and_not_the_service(
    serve: Serve, pipeline: GatedPipeline, metrics: CountingMetrics
) -> None:
    pipeline.open()
    service = serve()
    pipeline.error = ZeroDivisionError("oh")
    error = ask(service).wait_for_end()
    assert type(error) is CastmateError
    assert str(error) == "The model failed: ZeroDivisionError: oh"
    pipeline.error = None
    assert ask(service).wait_for_end() is None
    assert metrics.outcomes == ["error", "ok"]


def test_a_connection_that_takes_no_response_does_not_stop_the_service(
    serve: Serve, pipeline: GatedPipeline
) -> None:
    service = serve(pulse_s=0.01)
    with busy(service):
        broken = RecordingCall(broken=True)
        service.submit(broken, b"waving", REFERENCE, {"num_inference_steps": 2})
        third = ask(service)
        third.wait_for({"ahead": [2]})
        pipeline.open()
        assert third.wait_for_end() is None
        assert isinstance(broken.wait_for_end(), CastmateError)


def test_a_probe_answers_at_once_and_draws_nothing(serve: Serve, pipeline: GatedPipeline) -> None:
    service = serve()
    with busy(service):
        probe = RecordingCall()
        service.submit(probe, b"", b"", {"probe": True})
        assert probe.wait_for_end() is None
        state = wire.decode_report(probe.sent[0]["report"][0])
        assert (state["model"], state["waiting"], state["running"]) == ("gated", 0, 1)


def test_closing_stops_what_runs_and_refuses_what_waits_and_what_comes(
    serve: Serve, pipeline: GatedPipeline
) -> None:
    service = serve()
    with busy(service) as first:
        second = ask(service)
        closing = threading.Thread(target=service.close)
        closing.start()
        assert str(second.wait_for_end()) == "The server is stopping."
        pipeline.gate.release()
        error = first.wait_for_end()
        assert isinstance(error, Unavailable)
        assert "1 of 2 steps" in str(error)
        closing.join(WAIT_S)
        assert isinstance(ask(service).wait_for_end(), Unavailable)


def test_the_load_is_counted_up_and_down(
    serve: Serve, pipeline: GatedPipeline, metrics: CountingMetrics
) -> None:
    service = serve()
    with busy(service):
        second = ask(service)
        assert (1, 1) in metrics.loads
        pipeline.open()
        second.wait_for_end()
    assert metrics.loads[-1] == (0, 0)
