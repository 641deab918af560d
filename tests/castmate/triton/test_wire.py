"""What crosses between the client and the Triton model arrives as it was sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from castmate.errors import (
    CastmateError,
    ImageRejected,
    InvalidRequest,
    Overloaded,
    Problem,
    Unavailable,
)
from castmate.schema import GenerateRequest, Matting, OutputFormat
from castmate.triton.wire import (
    MAX_ERROR_BYTES,
    decode_error,
    decode_request,
    encode_error,
    encode_parameters,
    triton_code,
)


def leaves(kind: type[CastmateError] = CastmateError) -> Iterator[type[CastmateError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == kind.__module__:  # doors have their own, which no server sends
            yield from leaves(child)


def an_error(kind: type[CastmateError]) -> CastmateError:
    if kind is InvalidRequest:
        two = [
            Problem("size", "'1*1' is out of range", "512..1536"),
            Problem("seed", "no", "", "x"),
        ]
        return InvalidRequest(two)
    if kind is ImageRejected:
        return ImageRejected("the image is a PDF", allowed="a PNG", hint="Convert it.")
    if kind is Overloaded:
        return Overloaded("full", retry_after_s=2.5)
    return kind("something happened: \N{SNOWMAN}")


@pytest.mark.parametrize("kind", list(leaves()), ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_arrives_as_it_was_sent(kind: type[CastmateError]) -> None:
    sent = an_error(kind)
    received = decode_error(encode_error(sent))
    assert type(received) is kind
    assert received.as_dict() == sent.as_dict()
    assert str(received) == str(sent)


@pytest.mark.parametrize("text", ["", "Stub process is not healthy", "{}", "[1]", '{"code": "?"}'])
def test_a_text_that_is_not_one_of_our_errors_is_none(text: str) -> None:
    assert decode_error(text) is None


def test_an_error_of_a_newer_version_is_none() -> None:
    assert decode_error('{"code": "not_known_yet", "message": "x"}') is None


@pytest.mark.parametrize("character", ["x", "\N{PILE OF POO}"])
def test_a_long_error_still_fits_into_a_grpc_header(character: str) -> None:
    problems = [Problem(f"p{number}", character * 5000) for number in range(3)]
    text = encode_error(InvalidRequest(problems))
    assert len(text.encode()) <= MAX_ERROR_BYTES
    received = decode_error(text)
    assert isinstance(received, InvalidRequest)
    assert character * 100 in str(received)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("InvalidRequest", "INVALID_ARG"),
        ("ImageRejected", "INVALID_ARG"),
        ("Overloaded", "UNAVAILABLE"),
        ("DeadlineExceeded", "UNAVAILABLE"),
        ("Cancelled", "CANCELLED"),
        ("CastmateError", "INTERNAL"),
        ("BundleCorrupt", "INTERNAL"),
    ],
)
def test_each_error_has_the_triton_code_that_tells_plain_triton_clients_what_to_do(
    kind: str, code: str
) -> None:
    (error,) = [an_error(leaf) for leaf in leaves() if leaf.__name__ == kind]
    assert triton_code(error) == code


def test_a_request_arrives_with_every_parameter() -> None:
    sent = GenerateRequest(
        prompt="läuft",
        image="a path that stays here",
        size="640*512",
        negative_prompt="trees",
        seed=9_999_999_999,
        guidance_scale=2.5,
        num_inference_steps=7,
        num_images=3,
        enable_safety_checker=False,
        subject_scale=0.25,
        true_cfg_scale=1.0,
        output_format=OutputFormat.WEBP,
        enable_matting=Matting.FALSE,
    )
    job = decode_request(sent.prompt.encode(), b"bytes", encode_parameters(sent))
    assert job.request.model_copy(update={"image": sent.image}) == sent
    assert job.image == b"bytes"


def test_only_the_prompt_and_the_image_are_needed() -> None:
    job = decode_request(b"waving", b"bytes", {})
    assert job.request == GenerateRequest(prompt="waving", image=job.request.image)


@pytest.mark.parametrize(
    ("prompt", "image", "parameters", "said"),
    [
        (b"", b"x", {}, "`prompt`"),
        (b"waving", b"", {}, "`image`: is required"),
        (b"\xff", b"x", {}, "`prompt`: is not UTF-8"),
        (b"waving", b"x", {"size": "9000*9000"}, "`size`: '9000*9000' is not allowed"),
        (b"waving", b"x", {"stepz": 3}, "`stepz`: unknown parameter"),
        (b"waving", b"x", {"enable_matting": "no"}, "`enable_matting`: 'no' is not allowed"),
        (b"waving", b"x", {"return_pixels": True}, "`return_pixels`: unknown parameter"),
        (b"waving", b"x", {"image": "/etc/passwd"}, "`image`: is a tensor, not a parameter"),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_its_parameter(
    prompt: bytes, image: bytes, parameters: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=r"^`") as caught:
        decode_request(prompt, image, parameters)
    assert said in str(caught.value)


def test_tritons_own_parameters_are_passed_over() -> None:
    decode_request(b"waving", b"x", {"triton_enable_empty_final_response": True})


def test_unavailable_is_not_mistaken_for_its_leaves() -> None:
    assert type(decode_error(encode_error(Unavailable("x")))) is Unavailable
