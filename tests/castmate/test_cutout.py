"""A picture without background: sharp edges, the character's own colours, no fringe."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.errors import Incapable, InvalidRequest
from castmate.images import Reference
from castmate.pipeline.cutout import cut_out
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from castmate.storyboard import StoryboardRequest

SIDE = 64
BACKGROUND, OWN = np.array([250, 250, 250]), np.array([30, 60, 90])


class Disc:
    """Sees a disc in the middle of any picture, as blurred as a small view makes it."""

    side = SIDE

    def __init__(self, radius: float = 0.3) -> None:
        self.radius = radius

    def share(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """How much of each pixel is the disc's."""
        small = self._at(SIDE, SIDE)
        return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BILINEAR))

    def alpha(self, image: Image.Image) -> Image.Image:
        return Image.fromarray((255 * self.share(image.size)).round().astype(np.uint8))

    def _at(self, width: int, height: int) -> NDArray[np.float32]:
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        away = np.hypot(x / width - 0.5, y / height - 0.5) - self.radius
        return np.clip(0.5 - away * SIDE, 0, 1).astype(np.float32)


def painted(share: NDArray[np.float32]) -> NDArray[np.uint8]:
    mixed = share[..., None] * OWN + (1 - share[..., None]) * BACKGROUND
    return mixed.round().astype(np.uint8)


@pytest.mark.parametrize("size", [(512, 512), (1024, 640), (640, 1536)])
def test_on_a_dark_ground_nothing_of_the_light_background_is_left(size: tuple[int, int]) -> None:
    matte: Any = Disc()
    found = cut_out(painted(matte.share(size)), matte)
    assert found is not None
    alpha = found[..., 3:].astype(float) / 255
    on_black = found[..., :3] * alpha
    assert (on_black <= OWN + 2).all()  # a fringe would be lighter than the character
    assert (on_black[matte.share(size) > 0.99] >= OWN - 2).all()


def test_the_edge_is_sharper_than_what_the_matte_saw() -> None:
    matte: Any = Disc()
    share = matte.share((1024, 1024))
    found = cut_out(painted(share), matte)
    assert found is not None

    def blurred(alpha: NDArray[Any]) -> int:
        return int(((alpha > 0.02) & (alpha < 0.98)).sum())

    assert blurred(found[..., 3] / 255) < 0.6 * blurred(share)


def test_where_nobody_is_seen_nothing_is_cut_out() -> None:
    nobody: Any = Disc(radius=-1)
    assert cut_out(painted(np.zeros((512, 512), np.float32)), nobody) is None


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    bundle = Bundle.open("toon")
    return Pipeline(bundle, OnnxRuntime(bundle))


def alone(**changed: Any) -> dict[str, Any]:
    quick = {"prompt": "waving", "image": "x", "size": "512*640", "num_inference_steps": 2}
    return quick | {"background": "transparent"} | changed


@pytest.mark.slow
@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_the_demo_model_draws_a_character_alone(
    pipeline: Pipeline, character: Callable[[str], Reference], output_format: str
) -> None:
    request = GenerateRequest.parse(alone(output_format=output_format, seed=7))
    result = pipeline.generate(request, character("mira"), lambda step, total: None)
    with Image.open(io.BytesIO(result.images[0].data)) as drawn:
        assert (drawn.mode, drawn.size) == ("RGBA", (512, 640))
        alpha = np.asarray(drawn)[..., 3]
    assert alpha[0, 0] == 0
    assert 0.1 < (alpha == 255).mean() < 0.7
    assert result.timings_ms["matte"] > 0


def test_jpeg_is_refused_with_the_parameter_that_is_wrong() -> None:
    with pytest.raises(InvalidRequest, match="`output_format`: jpeg has no transparency"):
        GenerateRequest.parse(alone(output_format="jpeg"))
    series = {"scenes": ["a"], "image": "x", "background": "transparent", "output_format": "jpeg"}
    with pytest.raises(InvalidRequest, match="`output_format`: jpeg has no transparency"):
        StoryboardRequest.parse(series)


def test_a_bundle_without_a_matte_refuses(
    pipeline: Pipeline,
    character: Callable[[str], Reference],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(pipeline._network, "matte", None)
    request = GenerateRequest.parse(alone())
    with pytest.raises(Incapable, match="has no matte graph"):
        pipeline.generate(request, character("mira"), lambda step, total: None)
