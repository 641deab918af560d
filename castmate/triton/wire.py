"""The wire format between `TritonClient` and the Triton model; both ends import it.

A request is two tensors, `prompt` and `image` (the encoded bytes of the reference; of several
pictures as `castmate.several` packs them), and, as request parameters of the same name, all other
fields of `GenerateRequest` that it does not leave to the model. Responses hold the outputs below.
The message of a Triton error is one JSON document with an error of `castmate/errors.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from castmate.errors import (
    BundleError,
    CastmateError,
    InvalidRequest,
    Problem,
    SettingsError,
    from_dict,
)
from castmate.schema import GeneratedImage, GenerateRequest

MODEL: Final = "castmate"

# Outputs. Each response holds some of them:
PROGRESS: Final = "progress"  # int32 [2]: denoise steps done, denoise steps in all
AHEAD: Final = "ahead"  # int32 [1]: requests before this one; also a sign of life
PICTURE: Final = "picture"  # one encoded picture, with its ...
SEED: Final = "seed"  # int64 [1]
HAS_NSFW: Final = "has_nsfw"  # bool [1]
IDENTITY: Final = "identity"  # float64 [1], if it was judged
REPORT: Final = "report"  # JSON, in the last response: GenerateResult.as_dict() or the state

PROBE: Final = "probe"  # answer with the state, draw nothing

# gRPC sends an error's text in a header, and headers are limited to 8 KiB.
MAX_ERROR_BYTES: Final = 4000

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """A request as it arrived, with checked parameters and a reference not yet decoded.

    Attributes:
        request: What to draw.
        image: The reference's bytes; waiting requests must not hold decoded pictures.
    """

    request: GenerateRequest
    image: bytes


def encode_parameters(request: GenerateRequest) -> dict[str, str | int | bool | float]:
    """The request parameters of `request`."""
    values = request.model_dump(mode="json", exclude={"prompt", "image"}, exclude_none=True)
    return {name: value for name, value in values.items() if value != ""}


def decode_request(prompt: bytes, image: bytes, parameters: Mapping[str, Any]) -> Job:
    """Validate a client's request.

    Raises:
        InvalidRequest: Names every bad parameter.
    """
    values = {name: value for name, value in parameters.items() if not name.startswith("triton_")}
    try:
        text = prompt.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest([Problem("prompt", f"is not UTF-8 ({error})")]) from None
    if "image" in values:
        raise InvalidRequest(
            [Problem("image", "is a tensor, not a parameter", "the bytes of one picture")]
        )
    # The schema requires the name of a reference; here its bytes came with the request.
    named = {"image": "the tensor"} if image else {}
    return Job(GenerateRequest.parse(values | {"prompt": text} | named), image)


def ahead(number: int) -> Outputs:
    """How many requests are ahead."""
    return {AHEAD: np.array([number], np.int32)}


def progress(done: int, total: int) -> Outputs:
    """How far the denoise loop is."""
    return {PROGRESS: np.array([done, total], np.int32)}


def picture(image: GeneratedImage) -> Outputs:
    """One finished picture."""
    outputs: dict[str, NDArray[Any]] = {
        PICTURE: np.array([image.data], dtype=object),
        SEED: np.array([image.seed], np.int64),
        HAS_NSFW: np.array([image.has_nsfw], np.bool_),
    }
    if image.identity is not None:
        outputs[IDENTITY] = np.array([image.identity], np.float64)
    return outputs


def report(values: Mapping[str, Any]) -> Outputs:
    """The end of a request."""
    return {REPORT: np.array([json.dumps(values).encode()], dtype=object)}


def decode_report(text: bytes) -> dict[str, Any]:
    """What `report` wrote."""
    values: dict[str, Any] = json.loads(text)
    return values


def encode_error(error: CastmateError) -> str:
    """An error as one JSON document of at most `MAX_ERROR_BYTES` ASCII characters."""
    values = error.as_dict()
    text = json.dumps(values)
    while len(text) > MAX_ERROR_BYTES:
        values.pop("problems", None)
        message = values["message"].removesuffix("...")
        values["message"] = message[: len(message) * 3 // 4] + "..."
        text = json.dumps(values)
    return text


def decode_error(text: str) -> CastmateError | None:
    """The error that `encode_error` wrote; None for any other text."""
    try:
        values = json.loads(text)
        error = from_dict(values)
    except (ValueError, TypeError, KeyError):
        return None
    return error if error.code == values["code"] else None


def triton_code(error: CastmateError) -> str:
    """The name of Triton's error code for an error of Castmate's."""
    if isinstance(error, InvalidRequest):
        return "INVALID_ARG"
    if isinstance(error, BundleError | SettingsError):
        return "INTERNAL"
    return {"cancelled": "CANCELLED", "error": "INTERNAL"}.get(error.code, "UNAVAILABLE")
