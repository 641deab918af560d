"""What the decoder learns from when it is repaired."""

from __future__ import annotations

from random import Random

import pytest
import torch
import torch.nn.functional as F

from castmate.engines.bundle import Bundle
from demo_model import repair
from demo_model.autoencoder import encode_half, new_autoencoder
from demo_model.trajectories import Requests
from demo_model.warm import BUNDLE
from export.families.instantcharacter.network import InstantCharacter
from export.samples import Prompts

GRID = (8, 8)


@pytest.fixture
def requests(network: InstantCharacter, monkeypatch: pytest.MonkeyPatch) -> Requests:
    """One character, one picture at a time."""
    monkeypatch.setattr(repair, "GRIDS", ((GRID, 1),))
    return Requests(network, Prompts.of(Bundle.open(BUNDLE)), count=1)


def test_without_noise_the_decoder_gets_the_latents_of_what_it_should_draw(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "NOISE", (0.0, 0.0))
    monkeypatch.setattr(repair, "CUT", GRID[0])
    vae = new_autoencoder()
    latents, target = repair.redrawn(vae, requests, Random(1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mean = encode_half(vae, F.avg_pool2d(target, 2))[0]
    torch.testing.assert_close(latents, mean, rtol=0, atol=1e-4)


def test_with_noise_the_transformer_draws_a_part_of_the_same_picture_again(
    requests: Requests,
) -> None:
    vae = new_autoencoder()
    latents, target = repair.redrawn(vae, requests, Random(1))
    side = repair.CUT * repair.PX_PER_TOKEN
    assert target.shape == (1, 3, side, side)
    assert latents.shape == (1, vae.config["latent_channels"], side // 32, side // 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mean = encode_half(vae, F.avg_pool2d(target, 2))[0]
    assert not torch.allclose(latents, mean, atol=0.1)
