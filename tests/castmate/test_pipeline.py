"""The parts of the pipeline that a whole picture would not show: caches, framing, schedule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.families.instantcharacter.constants import SchedulerSpec
from castmate.families.instantcharacter.graphs import PARTS, WHOLE
from castmate.families.instantcharacter.schedule import flow_match_sigmas
from castmate.families.instantcharacter.subject import reference_crops
from castmate.images import Reference
from castmate.pipeline.cache import SizedCache
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import FramedReference, GenerateRequest
from tests.doubles import encoded

FLUX_SCHEDULER = SchedulerSpec(
    base_image_seq_len=256, max_image_seq_len=4096, base_shift=0.5, max_shift=1.15
)


def test_a_cache_forgets_the_least_recently_used_when_its_bytes_run_out() -> None:
    cache = SizedCache[str](10)
    made: list[str] = []

    def get(key: str, num_bytes: int = 4) -> str:
        def make() -> tuple[str, int]:
            made.append(key)
            return key.upper(), num_bytes

        return cache.get_or_make(key, make)

    assert [get("a"), get("b"), get("a"), get("c"), get("a"), get("b")] == list("ABACAB")
    assert made == ["a", "b", "c", "b"]
    assert get("huge", 11) == get("huge", 11) == "HUGE"
    assert made[-2:] == ["huge", "huge"]
    assert (cache.hits, cache.misses) == (2, 6)


class CountingRuntime(OnnxRuntime):
    """Counts how often each graph runs."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.runs: dict[str, int] = {}

    def load(self, graph: str):  # type: ignore[no-untyped-def]
        engine = super().load(graph)

        def run(**inputs: object) -> object:
            self.runs[graph] = self.runs.get(graph, 0) + 1
            return engine(**inputs)

        return run


def test_a_second_picture_of_a_character_encodes_nothing_again(
    make_request: Callable[..., GenerateRequest], character: Callable[[str], Reference]
) -> None:
    runtime = CountingRuntime(Bundle.open("toon"))
    pipeline = Pipeline(Bundle.open("toon"), runtime)

    def draw(name: str = "mira", **values: object) -> dict[str, int]:
        runtime.runs.clear()
        pipeline.generate(make_request(**values), character(name), lambda done, total: None)
        return dict(runtime.runs)

    parts = PARTS if pipeline.bundle.has_step_caching else (WHOLE,)
    steps: Callable[[int], dict[str, int]] = lambda count: dict.fromkeys(parts, count)  # noqa: E731
    judged = {"matte": 1, "identity": 1}
    picture = {**steps(3), "vae_decoder": 1, "safety_checker": 1, **judged}
    modulation = {"modulation": 1}
    text = {"text_encoder": 1, "text_encoder_2": 1, **modulation}
    subject = {
        "image_encoder": 1,
        "image_encoder_2": 1,
        "subject_projector": 1,
        "subject_resampler": 1,
        "identity": 2,  # of the reference, too
    }
    assert draw() == picture | text | subject
    assert draw(seed=99) == picture
    assert draw(prompt="running in the snow") == picture | text
    assert draw("rusty") == picture | subject
    longer = {"subject_resampler": 1, **modulation}
    assert draw(num_inference_steps=4) == picture | steps(4) | longer
    assert draw(guidance_scale=2.0) == picture | modulation
    assert draw(guidance_scale=2.0, num_inference_steps=4) == picture | steps(4) | modulation
    assert draw(negative_prompt="trees") == picture | text
    ignored = draw(negative_prompt="clouds", true_cfg_scale=1)
    assert ignored == picture, "a negative prompt without effect was encoded"
    assert draw(num_images=2) == {
        **steps(6),
        **dict.fromkeys(("vae_decoder", "safety_checker", *judged), 2),
    }


@pytest.mark.slow
def test_how_a_character_is_cut_out_is_decided_once_and_told_every_time(
    make_request: Callable[..., GenerateRequest], character: Callable[[str], Reference]
) -> None:
    runtime = CountingRuntime(Bundle.open("toon"))
    pipeline = Pipeline(Bundle.open("toon"), runtime)
    large = Image.new("RGB", (1200, 900), "white")
    large.paste(character("mira").image.resize((300, 300)), (850, 60))
    small = Reference.from_bytes(encoded(large), "small")

    def draw(**values: object) -> tuple[bytes, str, int]:
        runtime.runs.clear()
        result = pipeline.generate(make_request(**values), small, lambda done, total: None)
        assert result.reference
        return result.images[0].data, result.reference.framing, runtime.runs.get("image_encoder", 0)

    pipeline.remember(small)
    cut, *report = draw()
    assert report == ["background", 0]
    assert draw() == (cut, "background", 0)
    assert draw(num_inference_steps=4)[1:] == ("background", 0)
    whole, *report = draw(enable_matting=False)
    assert report == ["none", 1]
    assert draw(enable_matting=False) == (whole, "none", 0)
    assert whole != cut


@pytest.mark.slow
@pytest.mark.parametrize("at", [(40, 500), (800, 80)])
def test_a_character_in_front_of_a_landscape_is_found_by_the_bundles_matte(
    toon: Pipeline,
    make_request: Callable[..., GenerateRequest],
    character: Callable[[str], Reference],
    at: tuple[int, int],
) -> None:
    landscape = Image.linear_gradient("L").resize((1200, 900)).convert("RGB")
    landscape.paste("darkgreen", (0, 600, 1200, 900))
    image = character("rusty").image.resize((320, 320))
    mask = Image.fromarray(np.uint8(255) * (np.asarray(image) < 250).any(-1))
    landscape.paste(image, at, mask)
    given = Reference.from_bytes(encoded(landscape), "landscape")

    def framed(**values: object) -> FramedReference:
        request = make_request(num_inference_steps=1, **values)
        result = toon.generate(request, given, lambda done, total: None)
        assert result.warnings == ()
        assert result.reference
        return result.reference

    found = framed()
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    x, y = at
    expected = ((x + left) / 1200, (y + top) / 900, (x + right) / 1200, (y + bottom) / 900)
    assert found.framing == "matte"
    assert np.abs(np.subtract(found.box, expected)).max() < 0.03
    assert framed(enable_matting="true") == found
    assert framed(enable_matting="false").framing == "none"


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (64, 64)])
def test_a_reference_is_framed_whole_on_a_white_square(size: tuple[int, int]) -> None:
    (crops,) = reference_crops(Image.new("RGB", size, "red"), 32)
    assert crops.shape == (5, 32, 32, 3)
    whole = crops[0]
    red = (whole[..., 0] > 200) & (whole[..., 1] < 60)
    share = min(size) / max(size)
    assert abs(red.mean() - share) < 0.04
    white = (whole > 250).all(-1)
    assert white[0, 0] == (share < 1)
    assert red[16, 16]


def test_quarters_are_the_picture_at_twice_the_resolution() -> None:
    colors = ["red", "green", "blue", "black"]
    image = Image.new("RGB", (64, 64))
    for index, color in enumerate(colors):
        image.paste(color, (32 * (index % 2), 32 * (index // 2), 32 + 32 * (index % 2), 64))
    (crops,) = reference_crops(image, 32)
    for crop, color in zip(crops[1:], ["red", "green", "blue", "black"], strict=True):
        expected = np.asarray(Image.new("RGB", (1, 1), color))[0, 0]
        np.testing.assert_array_equal(crop[16, 16], expected)


@pytest.mark.parametrize("steps", [1, 28, 50])
def test_a_schedule_falls_from_pure_noise_to_none_and_larger_pictures_keep_more_noise(
    steps: int,
) -> None:
    small, large = (flow_match_sigmas(steps, tokens, FLUX_SCHEDULER) for tokens in (1024, 9216))
    assert small[0] == large[0] == 1
    assert small[-1] == large[-1] == 0
    assert (np.diff(small) < 0).all()
    assert (large[1:-1] > small[1:-1]).all()
