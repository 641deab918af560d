"""The demo model's matte finds characters that it was not trained on, in front of scenes."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch

from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.framing import by_alpha
from castmate.pipeline.matte import Matte
from demo_model.config import TOON
from demo_model.matte import iou, load_matte, new_matte, random_sample
from export.families.instantcharacter.matte import MatteGraph


@pytest.fixture(scope="module")
def matte() -> Matte:
    return Matte(OnnxRuntime(Bundle.open("toon")), TOON.matte["image_size"])


def overlap(found: tuple[int, int, int, int], truth: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes."""

    def area(box: tuple[int, int, int, int]) -> int:
        return max(0, box[2] - box[0]) * max(0, box[3] - box[1])

    left, top = max(found[0], truth[0]), max(found[1], truth[1])
    right, bottom = min(found[2], truth[2]), min(found[3], truth[3])
    both = area((left, top, right, bottom))
    return both / (area(found) + area(truth) - both)


@pytest.mark.slow
def test_held_out_characters_of_any_size_are_found_in_scenes(matte: Matte) -> None:
    rng = Random("judged")
    masks, boxes = [], []
    for _ in range(60):
        image, alpha = random_sample(rng, held_out=True, scale=4)
        found, truth = matte.alpha(image), alpha >= 0.5
        masks.append(
            float(iou(*(torch.tensor(m)[None] for m in (np.asarray(found) >= 128, truth))))
        )
        rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        cutout = by_alpha(image, found)
        boxes.append(overlap(cutout.box, box) if cutout else 0.0)
    assert np.mean(masks) > 0.9
    assert np.mean(boxes) > 0.92
    assert min(boxes) > 0.4, "a character was lost"


def test_the_shipped_graph_has_the_shipped_weights(matte: Matte) -> None:
    image, _ = random_sample(Random(0), held_out=True, scale=2)
    size = (TOON.matte["image_size"],) * 2
    view = np.asarray(image.resize(size))
    runtime = OnnxRuntime(Bundle.open("toon"))
    alpha = runtime.download(runtime.load("matte")(images=runtime.upload(view[None]))["alpha"])
    with torch.no_grad():
        expected = MatteGraph(load_matte()).eval()(torch.tensor(view)[None]).numpy()
        untrained = MatteGraph(new_matte()).eval()(torch.tensor(view)[None]).numpy()
    np.testing.assert_allclose(alpha, expected, atol=1e-3)
    assert np.abs(alpha - untrained).max() > 0.1


def test_a_picture_and_its_alpha_fit_and_depend_on_nothing_but_the_seed() -> None:
    image, alpha = random_sample(Random(5), held_out=False)
    again, same = random_sample(Random(5), held_out=False)
    assert image.tobytes() == again.tobytes()
    assert np.array_equal(alpha, same)
    assert alpha.shape == (image.height, image.width)
    assert alpha.min() == 0
    assert alpha.max() == 1
