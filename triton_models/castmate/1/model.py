"""The Triton model: passes requests to `castmate.triton` and sends its answers back."""

from __future__ import annotations

import json
import logging
from typing import Any

import triton_python_backend_utils as pb_utils

from castmate.errors import CastmateError
from castmate.triton import wire
from castmate.triton.loading import Instance, open_service
from castmate.triton.metrics import TritonMetrics

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonCall:
    """One request's response sender."""

    def __init__(self, request: Any) -> None:
        self._sender = request.get_response_sender()

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""
        return bool(self._sender.is_cancelled())

    def send(self, outputs: wire.Outputs, *, final: bool = False) -> None:
        """Send a response with some of the outputs."""
        tensors = [pb_utils.Tensor(name, value) for name, value in outputs.items()]
        self._sender.send(pb_utils.InferenceResponse(tensors), flags=FINAL if final else 0)

    def fail(self, error: CastmateError) -> None:
        """Fail only this request."""
        code = getattr(pb_utils.TritonError, wire.triton_code(error))
        failed = pb_utils.TritonError(wire.encode_error(error), code)
        self._sender.send(pb_utils.InferenceResponse(error=failed), flags=FINAL)


class TritonPythonModel:
    """The class that the python backend loads."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters and load the bundle.

        Raises:
            TritonModelException: Says what is wrong with the parameters or the bundle.
        """
        log = logging.getLogger("castmate")
        log.addHandler(_TritonLog())
        log.setLevel(logging.INFO)
        config = json.loads(args["model_config"])
        parameters = {
            name: value["string_value"] for name, value in config.get("parameters", {}).items()
        }
        metrics = TritonMetrics(pb_utils, args["model_instance_name"])
        try:
            self._service = open_service(parameters, metrics, Instance.of(args))
        except CastmateError as error:
            raise pb_utils.TritonModelException(f"{error.code}: {error}") from None

    def execute(self, requests: list[Any]) -> None:
        """Accept the requests and return at once: each is answered through its own sender."""
        for request in requests:
            call = TritonCall(request)
            try:
                parameters = json.loads(request.parameters() or "{}")
                prompt, image = (_bytes(request, name) for name in ("prompt", "image"))
            except Exception as error:  # a tensor that cannot be read must not fail its neighbours
                call.fail(CastmateError(f"The request cannot be read: {error}"))
            else:
                self._service.submit(call, prompt, image, parameters)

    def finalize(self) -> None:
        """Stop between two steps and end the threads."""
        self._service.close()


class _TritonLog(logging.Handler):
    """Forwards the library's log to the server's."""

    def emit(self, record: logging.LogRecord) -> None:
        say = {logging.INFO: pb_utils.Logger.log_info, logging.WARNING: pb_utils.Logger.log_warn}
        say.get(record.levelno, pb_utils.Logger.log_error)(self.format(record))


def _bytes(request: Any, name: str) -> bytes:
    """The one element of a text tensor; empty if the request has no such tensor."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return b"" if tensor is None else bytes(tensor.as_numpy().reshape(-1)[0])
