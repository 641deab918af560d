"""Several pictures of one character are one reference: all are looked at, and each stays known."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from PIL import Image

from castmate import several
from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.errors import ImageRejected
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import FramedReference, GenerateRequest, GenerateResult
from castmate.several import MAX_TOGETHER, together
from tests.castmate.test_pipeline import CountingRuntime
from tests.doubles import encoded, picture

Make = Callable[..., GenerateRequest]
Character = Callable[[str], Reference]


def flat(colour: str) -> Reference:
    return Reference.from_bytes(picture((64, 64), colour), colour)


def part_of(reference: Reference, box: tuple[int, int, int, int]) -> Reference:
    return Reference.from_bytes(encoded(reference.image.crop(box)), "a part")


def draw(pipeline: Pipeline, request: GenerateRequest, of: Reference) -> GenerateResult:
    return pipeline.generate(request, of, lambda done, total: None)


def test_the_same_pictures_are_the_same_reference_and_survive_as_one_file() -> None:
    one = together([flat("red"), flat("blue")])
    assert one == together([flat("red"), flat("blue"), flat("red")])
    assert one != together([flat("blue"), flat("red")])
    assert [again.sha256 for again in several.from_bytes(one.data, "it").pictures] == [
        picture.sha256 for picture in one.pictures
    ]
    assert several.from_bytes(one.data, "it") == one
    assert one.image.getpixel((0, 0)) == (255, 0, 0)


def test_one_picture_stays_what_it_is_and_no_more_than_four_are_taken() -> None:
    red = flat("red")
    assert together([red, red]) is red
    assert red.pictures == (red,)
    colours = ["red", "blue", "green", "white", "black", "yellow"]
    assert len(together([flat(colour) for colour in colours]).pictures) == MAX_TOGETHER


def zipped(parts: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as packed:
        for name, data in parts.items():
            packed.writestr(name, data)
    return stream.getvalue()


RED = picture((64, 64), "red")


@pytest.mark.parametrize(
    "data",
    [
        zipped({str(number): RED for number in range(9)}),
        zipped({"1": RED}),
        zipped({"1": RED, "2": b"no picture"}),
        zipped({"1": RED, "2": zipped({"1": RED, "2": RED})}),
        zipped({"1": RED, "2": bytes(2**20)}, zipfile.ZIP_DEFLATED),
        zipped({"1": RED, "2": RED})[:-30],
        b"PK\x03\x04",
    ],
    ids=["too many", "one", "no picture", "nested", "compressed", "cut off", "empty"],
)
def test_another_zip_is_refused(data: bytes) -> None:
    with pytest.raises(ImageRejected):
        several.from_bytes(data, "it")


def test_no_door_takes_such_a_file() -> None:
    with pytest.raises(ImageRejected):
        Reference.from_bytes(together([flat("red"), flat("blue")]).data, "it")


@pytest.mark.slow
def test_every_picture_of_a_character_changes_what_is_drawn_and_is_encoded_once(
    make_request: Make, character: Character
) -> None:
    bundle = Bundle.open("toon")
    runtime = CountingRuntime(bundle)
    pipeline = Pipeline(bundle, runtime)
    whole = character("mira")
    head = part_of(whole, (0, 0, whole.image.width, whole.image.height // 2))

    def encoders(of: Reference) -> tuple[int, int]:
        runtime.runs.clear()
        draw(pipeline, make_request(), of)
        return runtime.runs.get("image_encoder", 0), runtime.runs.get("subject_resampler", 0)

    assert encoders(head) == (1, 1)
    both = together([head, whole])
    assert encoders(both) == (1, 1), "what is known of a picture was made again"
    assert encoders(both) == (0, 0)
    assert encoders(whole) == (0, 1)
    pictures = [draw(pipeline, make_request(), of) for of in (head, whole, both)]
    assert len({one.images[0].data for one in pictures}) == 3
    others = [one.reference and len(one.reference.others) for one in pictures]
    assert others == [0, 0, 1]
    assert pictures[2].warnings == ()


@pytest.mark.slow
def test_a_picture_of_somebody_else_is_told_and_identity_is_that_to_the_closest(
    toon: Pipeline, make_request: Make, character: Character
) -> None:
    mira, rusty = character("mira"), character("rusty")
    head = part_of(mira, (0, 0, mira.image.width, 3 * mira.image.height // 4))
    for pictures, beginning in (
        ([mira, head, rusty], "The character's picture 3 may show somebody else"),
        ([mira, rusty], "The pictures of the character are not alike"),
    ):
        (warning,) = draw(toon, make_request(), together(pictures)).warnings
        assert warning.startswith(beginning)
    alone = draw(toon, make_request(), mira).images[0].identity
    turned = Reference.from_bytes(encoded(mira.image.transpose(Image.Transpose.ROTATE_180)), "it")
    assert alone is not None
    both = draw(toon, make_request(num_inference_steps=8), together([turned, mira]))
    assert both.images[0].identity is not None
    assert both.images[0].identity > 0.5


@pytest.mark.slow
def test_a_bundle_of_an_earlier_release_uses_the_first_picture_and_says_so(
    make_request: Make, character: Character
) -> None:
    bundle = Bundle.open("toon")
    spec = bundle.manifest.graphs["subject_resampler"]
    features = spec.inputs["subject_features"]
    once = features.model_copy(update={"shape": (1, *features.shape[1:])})
    older = spec.model_copy(update={"inputs": {**spec.inputs, "subject_features": once}})
    graphs = {**bundle.manifest.graphs, "subject_resampler": older}
    manifest = bundle.manifest.model_copy(update={"graphs": graphs})
    old = Bundle(bundle.path, manifest)
    old._check_graphs()
    pipeline = Pipeline(old, OnnxRuntime(old))
    mira = character("mira")
    head = part_of(mira, (0, 0, mira.image.width, mira.image.height // 2))
    one, two = (draw(pipeline, make_request(), of) for of in (mira, together([mira, head])))
    assert one.images[0].data == two.images[0].data
    (warning,) = two.warnings
    assert "the first of 2 was used" in warning


def test_how_each_was_framed_survives_the_ledger() -> None:
    values = {"framing": "matte", "box": [0, 0, 1, 1]}
    framed = FramedReference.parse({**values, "others": [values]})
    assert framed is not None
    assert framed.others == (FramedReference.parse(values),)
