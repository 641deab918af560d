"""The matte's networks: the demo's small one, and IS-Net as it is published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from export.errors import ExportError
from export.families.instantcharacter.isnet import IsNet, folded, load_isnet
from export.families.instantcharacter.matte import MatteGraph, MatteNet


def published() -> dict[str, Tensor]:
    """Random weights with the names of the published file, normalisations and all."""
    random, state = torch.Generator().manual_seed(0), dict[str, Tensor]()
    for key, weight in IsNet().state_dict().items():
        name, kind = key.rsplit(".", 1)
        if ".rebnconv" not in key:
            state[key] = weight
            continue
        state[f"{name}.conv_s1.{kind}"] = weight
        for part in ("weight", "bias", "running_mean", "running_var"):
            values = torch.rand(weight.shape[0], generator=random)
            state[f"{name}.bn_s1.{part}"] = values + 0.5
        state[f"{name}.bn_s1.num_batches_tracked"] = torch.tensor(7)
    for number, channels in zip(range(2, 7), (64, 128, 256, 512, 512), strict=True):
        state[f"side{number}.weight"] = torch.zeros(1, channels, 3, 3)
        state[f"side{number}.bias"] = torch.zeros(1)
    return state


def test_a_folded_normalisation_computes_what_it_did() -> None:
    state = published()
    name = "stage1.rebnconv7"
    conv, norm = f"{name}.conv_s1.", f"{name}.bn_s1."
    x = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = F.conv2d(x, state[conv + "weight"], state[conv + "bias"], padding=2, dilation=2)
    mean, variance = state[norm + "running_mean"], state[norm + "running_var"]
    expected = F.batch_norm(
        plain, mean, variance, state[norm + "weight"], state[norm + "bias"], eps=1e-5
    )
    own = folded(state)
    found = F.conv2d(x, own[f"{name}.weight"], own[f"{name}.bias"], padding=2, dilation=2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_isnet_is_read_whole_and_gives_an_alpha_of_the_pictures_size(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "isnet.pth")
    graph = MatteGraph(load_isnet(tmp_path / "isnet.pth")).eval()
    with torch.no_grad():
        alpha = graph(torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8))
    assert (alpha.shape, alpha.dtype) == ((2, 64, 64), torch.float32)
    assert 0 <= alpha.min() <= alpha.max() <= 1


@pytest.mark.slow
def test_every_key_that_does_not_fit_is_named(tmp_path: Path) -> None:
    state, path = published(), tmp_path / "isnet.pth"
    del state["stage3d.rebnconv2.conv_s1.bias"]
    state["side1.bias"] = torch.zeros(2)
    state["head.weight"] = torch.zeros(1)
    torch.save(state, path)
    with pytest.raises(ExportError) as caught:
        load_isnet(path)
    message = str(caught.value)
    assert "stage3d.rebnconv2.bias: missing" in message
    assert "side1.bias: shape (2,), expected (1,)" in message
    assert "head.weight: unknown" in message


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04"])
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "isnet.pth"
    path.write_bytes(content)
    with pytest.raises(ExportError, match="cannot be read as weights"):
        load_isnet(path)


def test_the_small_network_sees_pictures_as_they_are_normalised_for_it() -> None:
    torch.manual_seed(0)
    matte = MatteNet((4, 8))
    image = torch.full((1, 16, 16, 3), 255, dtype=torch.uint8)
    with torch.no_grad():
        alpha = MatteGraph(matte).eval()(image)
        pixels = (torch.ones(3) - torch.tensor(matte.mean_std[0])) / torch.tensor(matte.mean_std[1])
        expected = matte(pixels.view(1, 3, 1, 1).expand(1, 3, 16, 16)).sigmoid()
    torch.testing.assert_close(alpha, expected[:, 0])
