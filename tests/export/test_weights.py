"""A bundle gives torch its weights back, or says why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from castmate.engines.bundle import Bundle
from demo_model.checkpoint import NOT_IN_GRAPHS, load_shipped
from demo_model.config import TOON
from export.families.instantcharacter.network import InstantCharacter
from export.weights import WeightsMismatch, load_weights
from tests.export.conftest import MICRO, WIDE


@pytest.mark.slow
def test_the_weights_of_a_bundle_are_those_it_was_exported_from(
    network: InstantCharacter, bundle_folder: Path, cached_bundle: Bundle
) -> None:
    torch.manual_seed(1)
    for bundle in (Bundle.open(bundle_folder), cached_bundle):
        found = InstantCharacter(MICRO)
        load_weights(found, bundle, absent=NOT_IN_GRAPHS)
        expected = dict(network.named_parameters())
        for name, weight in found.named_parameters():
            assert name.startswith("vae.encoder.") or torch.equal(weight, expected[name]), name


@pytest.mark.slow
def test_a_bundle_of_another_network_or_of_fp8_weights_is_refused(
    bundle_folder: Path, fp8_bundle: Bundle
) -> None:
    other, wide = InstantCharacter(TOON), InstantCharacter(WIDE)
    with pytest.raises(WeightsMismatch, match=r"graph .*weight .* has shape .*configuration"):
        load_weights(other, Bundle.open(bundle_folder), absent=NOT_IN_GRAPHS)
    with pytest.raises(WeightsMismatch, match=r"does not hold \d+ weights.*not quantized"):
        load_weights(wide, fp8_bundle, absent=NOT_IN_GRAPHS)


def test_the_shipped_model_is_whole_and_knows_the_scale_of_its_latents() -> None:
    network = load_shipped(Bundle.open("toon"))
    assert network.vae.config["scaling_factor"] != TOON.vae["scaling_factor"]
    gains = network.transformer.proj_out.weight
    assert torch.equal(gains, gains.half().float()), "trained, and stored in fp16"
    assert gains.abs().max() > 0
