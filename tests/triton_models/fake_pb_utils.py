"""The part of Triton's `triton_python_backend_utils` that the model uses, without a server."""

from __future__ import annotations

import threading
from typing import Any

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1


class TritonModelException(Exception):
    pass


class TritonError:
    INTERNAL, INVALID_ARG, UNAVAILABLE, CANCELLED = "INTERNAL", "INVALID_ARG", "UNAVAILABLE", "C"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class Tensor:
    def __init__(self, name: str, value: Any) -> None:
        self.name, self._value = name, value

    def as_numpy(self) -> Any:
        return self._value


class InferenceResponse:
    def __init__(self, output_tensors: Any = (), error: TritonError | None = None) -> None:
        self.outputs = {tensor.name: tensor.as_numpy() for tensor in output_tensors}
        self.error = error


class Sender:
    """Keeps the responses; `final` is set by the one that is the last."""

    def __init__(self) -> None:
        self.responses: list[InferenceResponse] = []
        self.final = threading.Event()
        self.cancelled = False

    def is_cancelled(self) -> bool:
        return self.cancelled

    def send(self, response: InferenceResponse, flags: int = 0) -> None:
        assert not self.final.is_set(), "a response after the final one"
        self.responses.append(response)
        if flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL:
            self.final.set()


class Request:
    def __init__(self, tensors: dict[str, Any], parameters: str = "") -> None:
        self.tensors = {name: Tensor(name, value) for name, value in tensors.items()}
        self.sender = Sender()
        self._parameters = parameters

    def get_response_sender(self) -> Sender:
        return self.sender

    def parameters(self) -> str:
        return self._parameters


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    return request.tensors.get(name)


class Logger:
    errors: list[str] = []  # noqa: RUF012  (the backend's logger is one for the process, too)

    infos: list[str] = []  # noqa: RUF012

    @classmethod
    def log_error(cls, message: str) -> None:
        cls.errors.append(message)

    @classmethod
    def log_info(cls, message: str) -> None:
        cls.infos.append(message)

    log_warn = log_info


class Metric:
    """Like the real one it must not be called from two threads at once."""

    _one_at_a_time = threading.Lock()

    def __init__(self) -> None:
        self.values: list[float] = []

    def _record(self, value: float) -> None:
        assert self._one_at_a_time.acquire(blocking=False), "two threads: the server would crash"
        self.values.append(value)
        self._one_at_a_time.release()

    increment = observe = set = _record


class MetricFamily:
    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
    all: dict[str, MetricFamily] = {}  # noqa: RUF012

    def __init__(self, name: str, description: str, kind: str) -> None:
        self.kind = kind
        self.metrics: dict[tuple[tuple[str, str], ...], Metric] = {}
        self.all[name] = self

    def Metric(self, labels: dict[str, str], buckets: list[float] | None = None) -> Metric:
        assert (buckets is not None) == (self.kind == self.HISTOGRAM)
        return self.metrics.setdefault(tuple(labels.items()), Metric())
