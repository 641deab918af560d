"""The errors say what to do, to people as a sentence and to programs as JSON."""

from __future__ import annotations

import json

import pytest

from castmate.errors import (
    BundleCorrupt,
    BundleError,
    CastmateError,
    ImageRejected,
    InvalidRequest,
    MaybeCharged,
    Overloaded,
    Problem,
    Unavailable,
    from_dict,
)


def test_a_problem_reads_as_parameter_then_fault_then_what_is_allowed_then_what_to_do() -> None:
    problem = Problem("seed", "-5 is not allowed", "a whole number from -1", "Leave it out.")
    assert str(problem) == (
        "`seed`: -5 is not allowed; allowed: a whole number from -1; Leave it out."
    )


def test_an_invalid_request_tells_every_problem_on_its_own_line_and_that_nothing_was_charged() -> (
    None
):
    error = InvalidRequest([Problem("size", "bad"), Problem("seed", "worse")])
    assert str(error) == "`size`: bad\n`seed`: worse"
    assert json.loads(json.dumps(error.as_dict())) == {
        "code": "invalid_request",
        "message": "`size`: bad\n`seed`: worse",
        "charged": False,
        "problems": [
            {"parameter": "size", "message": "bad", "allowed": "", "hint": ""},
            {"parameter": "seed", "message": "worse", "allowed": "", "hint": ""},
        ],
    }


def test_a_rejected_image_is_an_invalid_request_about_the_parameter_image() -> None:
    error = ImageRejected("x.png is a folder", allowed="a picture")
    assert isinstance(error, InvalidRequest)
    assert [problem.parameter for problem in error.problems] == ["image"]
    assert error.as_dict()["code"] == "image_rejected"


def test_an_overloaded_client_says_when_to_come_back() -> None:
    assert Overloaded("Busy.", retry_after_s=2.5).as_dict()["retry_after_s"] == 2.5


@pytest.mark.parametrize(
    ("leaf", "branch"),
    [(Overloaded("x", retry_after_s=1), Unavailable), (BundleCorrupt("x"), BundleError)],
)
def test_a_caller_can_catch_by_what_it_does_next(leaf: Exception, branch: type[Exception]) -> None:
    assert isinstance(leaf, branch)
    assert isinstance(leaf, CastmateError)


@pytest.mark.parametrize(
    "error",
    [
        ImageRejected("x.png is a folder", allowed="a picture", hint="Name a file."),
        Overloaded("Busy.", retry_after_s=2.5, causes={"local": BundleCorrupt("Cut off.")}),
        MaybeCharged("The reply was lost."),
        CastmateError("Something else."),
    ],
)
def test_an_error_comes_back_out_of_its_json_as_what_it_was(error: CastmateError) -> None:
    back = from_dict(json.loads(json.dumps(error.as_dict())))
    assert type(back) is type(error)
    assert (str(back), back.as_dict()) == (str(error), error.as_dict())
