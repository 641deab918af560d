"""A request is checked completely, once, and every refusal says what is allowed."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castmate.defaults import Defaults
from castmate.errors import InvalidRequest
from castmate.schema import MAX_SEED, GeneratedImage, GenerateRequest, GenerateResult, OutputFormat
from castmate.sizes import MAX_SIDE, MIN_SIDE

MINIMAL = {"prompt": "waving on a beach", "image": "fox.png"}


def refusal(**values: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        GenerateRequest.parse(MINIMAL | values)
    return str(caught.value)


def test_prompt_and_image_are_enough_and_the_rest_is_the_hosted_apis_or_the_models() -> None:
    assert GenerateRequest.parse(MINIMAL).model_dump() == {
        "prompt": "waving on a beach",
        "image": "fox.png",
        "size": "1024*1024",
        "negative_prompt": "",
        "seed": -1,
        "guidance_scale": None,
        "num_inference_steps": None,
        "num_images": 1,
        "enable_safety_checker": True,
        "subject_scale": None,
        "true_cfg_scale": None,
        "output_format": "png",
        "cache": "auto",
        "enable_matting": "auto",
        "background": "scene",
        "num_candidates": None,
        "min_identity": None,
        "style": "",
    }


@given(st.integers(MIN_SIDE, MAX_SIDE), st.integers(MIN_SIDE, MAX_SIDE))
def test_every_size_in_range_is_taken_exactly(width: int, height: int) -> None:
    request = GenerateRequest.parse(MINIMAL | {"size": f" {width}*{height} "})
    assert (request.size, request.width, request.height) == (f"{width}*{height}", width, height)


@pytest.mark.parametrize("size", ["512x640", "512X640", "512\u00d7640", " 512 x 640 "])
def test_a_size_is_understood_with_any_sign_between(size: str) -> None:
    assert GenerateRequest.parse(MINIMAL | {"size": size}).size == "512*640"


@pytest.mark.parametrize(
    "size",
    [
        "511*512",
        "512*1537",
        "1024",
        "axb",
        "1024+1024",
        "-512*512",
        "512.0*512",
        "5*" * 9,
        "",
        512,
        None,
    ],
)
def test_a_bad_size_is_refused_with_the_rule(size: Any) -> None:
    message = refusal(size=size)
    assert message.startswith(f"`size`: {size!r} is not allowed")
    assert "'W*H' in pixels, whole numbers, each 512..1536, such as 1024*1024" in message


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("seed", -1, MAX_SEED),
        ("guidance_scale", 0, 20),
        ("num_inference_steps", 1, 50),
        ("num_images", 1, 4),
        ("subject_scale", 0, 2),
        ("true_cfg_scale", 1, 20),
    ],
)
def test_a_number_is_taken_at_its_bounds_and_refused_beyond_them(
    name: str, low: int, high: int
) -> None:
    for value in (low, high):
        assert getattr(GenerateRequest.parse(MINIMAL | {name: value}), name) == value
    beyond: list[Any] = [low - 1, high + 1, float("nan"), float("inf"), True, "many"]
    beyond += [] if name in Defaults.model_fields else [None]
    for value in beyond:
        message = refusal(**{name: value})
        assert message.startswith(f"`{name}`: {value!r} is not allowed; allowed: ")
        assert f"from {low} to {high}" in message


@pytest.mark.parametrize(("given", "meant"), [(True, "true"), (False, "false"), ("auto", "auto")])
def test_whether_to_matte_is_a_word_or_a_truth_value(given: object, meant: str) -> None:
    assert GenerateRequest.parse(MINIMAL | {"enable_matting": given}).enable_matting == meant


@pytest.mark.parametrize("given", ["maybe", "", "True", 1, None, [True]])
def test_another_word_for_whether_to_matte_is_refused(given: object) -> None:
    message = refusal(enable_matting=given)
    assert message == f"`enable_matting`: {given!r} is not allowed; allowed: auto, true, false"


def test_text_instead_of_a_number_is_read_where_it_is_one() -> None:
    assert GenerateRequest.parse(MINIMAL | {"seed": "7"}).seed == 7


@pytest.mark.parametrize("prompt", ["", "   ", "a" * 10_000])
def test_an_empty_or_endless_prompt_is_refused_with_the_limit(prompt: str) -> None:
    message = refusal(prompt=prompt)
    assert message.startswith("`prompt`: '")
    assert message.endswith("is not allowed; allowed: text of 1..4096 characters")
    assert len(message) < 200


def test_a_value_that_is_cut_in_the_message_keeps_its_length() -> None:
    assert "(10000 characters)" in refusal(prompt="a" * 10_000)


def test_an_unknown_parameter_is_refused_with_the_one_that_was_meant() -> None:
    message = refusal(num_inferense_steps=5)
    assert message.startswith("`num_inferense_steps`: unknown parameter; allowed: prompt, image, ")
    assert message.endswith("did you mean `num_inference_steps`?")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerateRequest.parse({})
    assert [problem.parameter for problem in caught.value.problems] == ["prompt", "image"]
    assert all(problem.message == "is required" for problem in caught.value.problems)


def test_all_problems_are_told_at_once() -> None:
    assert refusal(size="axb", seed=-2, output_format="bmp").splitlines() == [
        "`size`: 'axb' is not allowed; allowed: 'W*H' in pixels, whole numbers, each 512..1536, "
        "such as 1024*1024",
        "`seed`: -2 is not allowed; allowed: a whole number from -1 to 9999999999",
        "`output_format`: 'bmp' is not allowed; allowed: png, jpeg, webp",
    ]


ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a1*- é") | st.just([1])
)


@given(st.dictionaries(st.sampled_from([*GenerateRequest.model_fields, "other"]), ANYTHING))
def test_whatever_is_sent_gives_a_request_or_an_invalid_request(values: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequest):
        assert GenerateRequest.parse(values).prompt


def test_a_result_as_json_has_everything_but_the_bytes() -> None:
    image = GeneratedImage(
        data=b"1234", output_format=OutputFormat.PNG, width=512, height=640, seed=7
    )
    result = GenerateResult((image,), "local", "toon", {"total": 1.5}, ("cut",))
    assert result.as_dict() == {
        "images": (
            {
                "output_format": "png",
                "width": 512,
                "height": 640,
                "seed": 7,
                "has_nsfw": False,
                "identity": None,
                "num_bytes": 4,
            },
        ),
        "client": "local",
        "model": "toon",
        "timings_ms": {"total": 1.5},
        "warnings": ("cut",),
        "cost_usd": 0.0,
        "computed_steps": None,
        "drawn_with": {},
        "reference": None,
        "no_identity": "",
        "selection": None,
        "model_hash": "",
    }
