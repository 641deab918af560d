"""Weights from diffusers' layout: what fits loads, what does not is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from export.errors import ExportError
from export.families.instantcharacter.adapter import adapter_state_dict
from export.families.instantcharacter.load import load_network, locate
from export.families.instantcharacter.network import InstantCharacter
from tests.export.conftest import make_wide, sources


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_weight_arrives_in_the_dtype_asked_for(
    published: Path, network: InstantCharacter, dtype: torch.dtype
) -> None:
    loaded = load_network(sources(published), dtype, network.config).state_dict()
    saved = {
        name: weight
        for name, weight in network.state_dict().items()
        if not name.startswith(("matte.", "identity."))
    }
    assert loaded.keys() == saved.keys()  # neither a matte nor an identity graph was asked for
    for name, weight in saved.items():
        stored = weight.bfloat16() if name.startswith("subject") else weight
        expected = stored.to(dtype) if weight.is_floating_point() else weight
        assert torch.equal(loaded[name], expected), name


def test_a_loaded_network_draws_what_the_saved_one_draws(
    published: Path, network: InstantCharacter
) -> None:
    loaded = load_network(sources(published), torch.float32, network.config)
    ids = torch.tensor([[1, 70, 71, 3] + [0] * 36])
    crops = torch.randint(0, 256, (1, 5, 128, 128, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded.prompt_embeds(ids), network.prompt_embeds(ids))
        assert torch.equal(loaded.pooled_projections(ids), network.pooled_projections(ids))
        first, second = (encoder(crops) for encoder in loaded.crop_encoders)
        other, another = (encoder(crops) for encoder in network.crop_encoders)
    assert torch.equal(first.low_res_shallow, other.low_res_shallow)
    assert torch.equal(second.high_res_deep, another.high_res_deep)


def edit(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path, {"format": "pt"})


def test_every_key_that_does_not_fit_is_named(
    published: Path, network: InstantCharacter, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(published, folder)

    def spoil(state: dict[str, Tensor]) -> None:
        del state["x_embedder.bias"]
        state["extra.weight"] = torch.zeros(1)
        state["proj_out.bias"] = torch.zeros(3)

    (file,) = (folder / "flux/transformer").glob("*.safetensors")
    edit(file, spoil)
    with pytest.raises(ExportError) as caught:
        load_network(sources(folder), torch.float32, network.config)
    message = str(caught.value)
    assert "x_embedder.bias: missing" in message
    assert "extra.weight: unknown" in message
    assert "proj_out.bias: shape (3,), expected (64,)" in message


def test_a_text_encoder_without_a_key_is_refused(
    published: Path, network: InstantCharacter, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(published, folder)
    (file,) = (folder / "flux/text_encoder_2").glob("*.safetensors")
    edit(file, lambda state: state.__delitem__("encoder.final_layer_norm.weight"))
    with pytest.raises(ExportError, match=r"encoder\.final_layer_norm\.weight: missing"):
        load_network(sources(folder), torch.float32, network.config)


@pytest.mark.parametrize("damage", ["vae", "transformer", "image_encoder"])
def test_a_missing_or_cut_file_is_named(
    published: Path, network: InstantCharacter, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(published, folder)
    if damage == "vae":
        shutil.rmtree(folder / "flux/vae")
    else:
        (file,) = folder.rglob(f"{damage}/*.safetensors")
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ExportError, match=damage):
        load_network(sources(folder), torch.float32, network.config)


def test_an_adapter_of_another_network_is_refused(
    published: Path, network: InstantCharacter, tmp_path: Path
) -> None:
    torch.save(adapter_state_dict(make_wide()), tmp_path / "other.bin")
    wrong = replace(sources(published), adapter=str(tmp_path / "other.bin"))
    with pytest.raises(ExportError, match=r"does not fit 'micro'"):
        load_network(wrong, torch.float32, network.config)


def test_a_path_that_does_not_exist_is_not_asked_of_the_hub() -> None:
    with pytest.raises(ExportError, match=r"\./nowhere/at/all does not exist"):
        locate("./nowhere/at/all", ("*",))
