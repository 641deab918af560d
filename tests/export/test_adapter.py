"""The published adapter's layout, and the subject branch in FLUX's blocks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.families.instantcharacter.adapter import AdapterError, adapter_state_dict, load_adapter
from export.families.instantcharacter.config import FLUX
from export.families.instantcharacter.network import InstantCharacter, rotary_embedding
from export.families.instantcharacter.subject_attention import SubjectAttention


@pytest.fixture(scope="module")
def flux() -> InstantCharacter:
    with torch.device("meta"):
        return InstantCharacter(FLUX)


def parameters(*modules: nn.Module) -> float:
    """Billions."""
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e9


def test_full_size_adapter_has_the_published_keys_and_shapes(flux: InstantCharacter) -> None:
    layout = {
        part: {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        for part, tensors in adapter_state_dict(flux).items()
    }
    assert {part: len(keys) for part, keys in layout.items()} == {
        "ip_adapter": 342,
        "image_proj": 235,
    }
    branch = {
        "norm_ip_q.scale": (128,),
        "to_k_ip.weight": (3072, 4096),
        "to_k_ip.bias": (3072,),
        "norm_ip_k.scale": (128,),
        "to_v_ip.weight": (3072, 4096),
        "to_v_ip.bias": (3072,),
    }
    assert layout["ip_adapter"] == {
        f"{i}.{key}": shape for i in range(57) for key, shape in branch.items()
    }
    projector = layout["image_proj"]
    for key, shape in {
        "cross_layer_blocks.3.attn1.to_q.weight": (2688, 2688),
        "cross_layer_blocks.3.attn2.to_out.0.bias": (2688,),
        "cross_scale_blocks.0.ff.net.0.proj.weight": (21504, 2688),
        "cross_scale_blocks.0.ff.net.2.weight": (2688, 10752),
        "proj_cross_scale.fc1.weight": (5376, 2688),
        "resampler.latents": (1, 1024, 1280),
        "resampler.proj_in.weight": (1280, 2688),
        "resampler.proj_out.weight": (4096, 1280),
        "resampler.layers.3.0.to_kv.weight": (2560, 1280),
        "resampler.layers.3.1.1.weight": (5120, 1280),
        "resampler.layers.3.2.1.bias": (5120,),
        "resampler.time_embedding.linear_1.weight": (1280, 320),
    }.items():
        assert projector[key] == shape
    assert "resampler.layers.0.1.1.bias" not in projector


def test_full_size_parameter_counts_are_the_published_ones(flux: InstantCharacter) -> None:
    assert parameters(flux.transformer) == pytest.approx(11.901, abs=1e-3)
    assert parameters(flux.subject_attention) == pytest.approx(1.435, abs=1e-3)
    assert parameters(flux.subject_projector, flux.subject_resampler) == pytest.approx(
        1.360, abs=1e-3
    )
    assert parameters(flux.image_encoder) == pytest.approx(0.41, abs=0.02)
    assert parameters(flux.image_encoder_2) == pytest.approx(1.14, abs=0.01)
    assert FLUX.pixels_per_token == 16


def random_adapter(network: InstantCharacter) -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(5)
    return {
        part: {key: torch.randn_like(tensor) for key, tensor in tensors.items()}
        for part, tensors in adapter_state_dict(network).items()
    }


@pytest.fixture
def fresh(network: InstantCharacter) -> InstantCharacter:
    return InstantCharacter(network.config).eval()


def test_a_file_in_the_published_layout_loads_without_renaming(
    fresh: InstantCharacter, tmp_path: Path
) -> None:
    state = random_adapter(fresh)
    torch.save(state, tmp_path / "adapter.bin")
    load_adapter(fresh, tmp_path / "adapter.bin")
    for part, tensors in adapter_state_dict(fresh).items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, state[part][key]), key


def test_every_missing_unknown_and_misshapen_key_is_named_and_nothing_is_loaded(
    fresh: InstantCharacter, tmp_path: Path
) -> None:
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    state = random_adapter(fresh)
    del state["ip_adapter"]["1.to_k_ip.bias"]
    state["image_proj"]["resampler.extra"] = torch.zeros(1)
    state["image_proj"]["proj.fc1.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "adapter.bin")
    with pytest.raises(AdapterError) as caught:
        load_adapter(fresh, tmp_path / "adapter.bin")
    message = str(caught.value)
    assert "ip_adapter.1.to_k_ip.bias: missing" in message
    assert "image_proj.resampler.extra: unknown" in message
    assert "image_proj.proj.fc1.bias: shape (7,), expected (384,)" in message
    assert all(torch.equal(before[k], v) for k, v in fresh.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"cos\nsystem\n(S'true'\ntR."])
def test_a_file_that_is_no_weights_is_refused_and_never_executed(
    fresh: InstantCharacter, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "adapter.bin").write_bytes(content)
    with pytest.raises(AdapterError, match="cannot be read as weights"):
        load_adapter(fresh, tmp_path / "adapter.bin")


def published_norm(x: Tensor, scale: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + 1e-6) * scale


def published_branch(branch: nn.Module, query: Tensor, tokens: Tensor) -> Tensor:
    """The subject branch from its equations, head by head."""
    assert isinstance(branch, SubjectAttention)
    k, v = branch.to_k_ip(tokens), branch.to_v_ip(tokens)
    d = branch.head_dim
    out = []
    for start in range(0, query.shape[-1], d):
        cut = slice(start, start + d)
        q_h = published_norm(query[..., cut], branch.norm_ip_q.scale)
        k_h = published_norm(k[..., cut], branch.norm_ip_k.scale)
        out.append((q_h @ k_h.transpose(1, 2) / math.sqrt(d)).softmax(-1) @ v[..., cut])
    return torch.cat(out, dim=-1)


def inputs(network: InstantCharacter, rows: int = 4, columns: int = 6) -> dict[str, Tensor]:
    torch.manual_seed(2)
    length = network.config.max_sequence_length
    cos, sin = rotary_embedding((4, 14, 14), length, rows, columns)
    return {
        "hidden_states": torch.randn(2, rows * columns, 64),
        "encoder_hidden_states": torch.randn(2, length, 96),
        "pooled_projections": torch.randn(2, 64),
        "timestep": torch.tensor([0.9, 0.3]),
        "guidance": torch.tensor([3.5, 1.0]),
        "rotary_emb_cos": cos,
        "rotary_emb_sin": sin,
    }


def velocity(
    network: InstantCharacter, values: dict[str, Tensor], **subject: Tensor | float
) -> Tensor:
    """Of our denoiser, on the inputs of diffusers' transformer."""
    hidden_states, encoder_hidden_states, pooled, timestep, guidance, cos, sin = values.values()
    modulation = network.modulation(pooled, guidance, timestep * 1000)
    found: Tensor = network.denoiser(
        hidden_states, encoder_hidden_states, modulation, cos, sin, **subject
    )
    return found


def test_the_subject_is_added_before_the_output_projection_to_image_tokens_only(
    network: InstantCharacter,
) -> None:
    """Each block's attention against FLUX's own attention plus the published branch."""
    torch.manual_seed(3)
    dim, length, tokens = network.transformer.inner_dim, 5, torch.randn(1, 16, 96)
    image, text = torch.randn(2, 24, dim), torch.randn(2, length, dim)
    double, single = network.transformer.transformer_blocks[0], None
    with torch.no_grad():
        attn, branch = double.attn, network.subject_attention[0]
        with_subject, text_out = attn(
            image, text, subject_embeds=tokens.expand(2, -1, -1), subject_scale=0.7
        )
        without, plain_text_out = attn(image, text)
        added = 0.7 * published_branch(branch, attn.to_q(image), tokens.expand(2, -1, -1))
        torch.testing.assert_close(
            with_subject - without, F.linear(added, attn.to_out[0].weight), rtol=1e-4, atol=1e-5
        )
        assert torch.equal(text_out, plain_text_out)

        single = network.transformer.single_transformer_blocks[-1]
        attn, branch = single.attn, network.subject_attention[-1]
        joint = torch.cat([text, image], dim=1)
        with_subject = attn(joint, subject_embeds=tokens, subject_scale=0.7, num_text_tokens=length)
        without = attn(joint)
        added = 0.7 * published_branch(branch, attn.to_q(image), tokens.expand(2, -1, -1))
        torch.testing.assert_close(
            with_subject[:, length:] - without[:, length:], added, rtol=1e-4, atol=1e-5
        )
        assert torch.equal(with_subject[:, :length], without[:, :length])


def test_scale_zero_equals_flux_without_an_adapter(network: InstantCharacter) -> None:
    tokens = torch.randn(2, 16, 96)
    with torch.no_grad():
        plain = velocity(network, inputs(network))
        zero = velocity(network, inputs(network), subject_embeds=tokens, subject_scale=0.0)
        some = velocity(network, inputs(network), subject_embeds=tokens, subject_scale=0.8)
    assert torch.equal(plain, zero)
    assert (plain - some).abs().max() > 1e-3


def test_the_denoiser_equals_diffusers_own_forward_with_the_subject_processors(
    network: InstantCharacter,
) -> None:
    rows, columns, values = 4, 6, inputs(network)
    tokens = torch.randn(2, 16, 96)
    ids = torch.zeros(rows, columns, 3)
    ids[..., 1] += torch.arange(rows)[:, None]
    ids[..., 2] += torch.arange(columns)
    length = network.config.max_sequence_length
    with torch.no_grad():
        ours = velocity(network, values, subject_embeds=tokens, subject_scale=0.8)
        (theirs,) = network.transformer(
            **{name: values[name] for name in list(values)[:5]},
            img_ids=ids.flatten(0, 1),
            txt_ids=torch.zeros(length, 3),
            joint_attention_kwargs={
                "subject_embeds": tokens,
                "subject_scale": 0.8,
                "num_text_tokens": length,
            },
            return_dict=False,
        )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
