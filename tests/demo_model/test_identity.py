"""The demo model's identity graph knows characters that it was not trained on."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch

from castmate.engines.bundle import Bundle
from castmate.pipeline.identity import Identity
from castmate.settings import Settings
from demo_model.calibration import rendered
from demo_model.config import TOON
from demo_model.identity import pixels_of, random_group, random_view, twin_of
from demo_model.identity_weights import load_identity
from export.families.instantcharacter.identity import IdentityGraph
from export.identity import uncalibrated


@pytest.fixture(scope="module")
def identity() -> Identity:
    return uncalibrated(Bundle.open("toon"), Settings.load(bundle="toon"))


@pytest.mark.slow
def test_held_out_characters_in_scenes_are_closer_to_their_references_than_to_others(
    identity: Identity,
) -> None:
    alike = rendered(identity, 24)
    own = np.eye(24, dtype=np.bool_)
    assert (alike[own][:, None] > alike[~own]).mean() > 0.98


def test_the_shipped_graph_has_the_shipped_weights(identity: Identity) -> None:
    rng = Random(0)
    (spec, _) = random_group(rng, 1, held_out=True)
    image, _ = random_view(spec, rng)
    runtime = identity._runtime  # the graph alone, without a matte before it
    out = runtime.load("identity")(images=runtime.upload(np.asarray(image)[None]))
    with torch.no_grad():
        expected = IdentityGraph(load_identity()).eval()(pixels_of([image])).numpy()
    np.testing.assert_allclose(runtime.download(out["identity_embeds"]), expected, atol=2e-3)


def test_a_twin_differs_in_one_attribute_that_can_be_seen() -> None:
    rng = Random(1)
    for spec in random_group(rng, 8, held_out=False)[::2]:
        twin = twin_of(spec, rng)
        assert sum(a != b for a, b in zip(spec.look, twin.look, strict=True)) >= 1
        assert sum(vars(spec)[name] != vars(twin)[name] for name in vars(spec)) == 1


def test_a_view_depends_on_nothing_but_the_seed() -> None:
    (spec, _) = random_group(Random(2), 1, held_out=False)
    for number in range(6):
        image, labels = random_view(spec, Random(number))
        again, same = random_view(spec, Random(number))
        assert image.tobytes() == again.tobytes()
        assert labels == same
        assert image.size == (TOON.identity["image_size"],) * 2
