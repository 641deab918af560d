"""The split projector equals InstantCharacter's unsplit one, written out from its equations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from export.families.instantcharacter.adapter import adapter_state_dict
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.projector import ImageFeatures

Weights = dict[str, Tensor]


def linear(w: Weights, key: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{key}.weight"], w.get(f"{key}.bias"))


def layer_norm(w: Weights, key: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{key}.weight"], w[f"{key}.bias"], eps)


def attend(q: Tensor, k: Tensor, v: Tensor, head_dim: int) -> Tensor:
    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1, head_dim).transpose(1, 2)

    weights = (split(q) @ split(k).transpose(-1, -2) / math.sqrt(head_dim)).softmax(-1)
    return (weights @ split(v)).transpose(1, 2).reshape(q.shape)


def transformer_block(w: Weights, key: str, x: Tensor, context: Tensor) -> Tensor:
    for number, source in ((1, None), (2, context)):
        normed = layer_norm(w, f"{key}.norm{number}", x, 1e-6)
        kv = normed if source is None else source
        attn = f"{key}.attn{number}"
        q, k, v = (
            linear(w, f"{attn}.{name}", y)
            for name, y in (("to_q", normed), ("to_k", kv), ("to_v", kv))
        )
        x = x + linear(w, f"{attn}.to_out.0", attend(q, k, v, 64))
    hidden, gate = linear(w, f"{key}.ff.net.0.proj", layer_norm(w, f"{key}.norm3", x, 1e-6)).chunk(
        2, dim=-1
    )
    return x + linear(w, f"{key}.ff.net.2", hidden * F.gelu(gate))


def mlp(w: Weights, key: str, x: Tensor) -> Tensor:
    return linear(w, f"{key}.fc2", F.gelu(linear(w, f"{key}.fc1", x), approximate="tanh"))


def sinusoid(t: Tensor, dim: int) -> Tensor:
    angles = t[:, None] * 10_000.0 ** (-torch.arange(dim // 2) / (dim // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def unsplit_projector(w: Weights, features: ImageFeatures, timestep: float) -> Tensor:
    """`image_proj` whole, as the published code runs it in every step, for one timestep."""
    low = features.low_res_deep
    by_layer = by_scale = low
    for key in sorted({k.split(".")[1] for k in w if k.startswith("cross_layer_blocks.")}):
        by_layer = transformer_block(
            w, f"cross_layer_blocks.{key}", by_layer, features.low_res_shallow
        )
        by_scale = transformer_block(
            w, f"cross_scale_blocks.{key}", by_scale, features.high_res_deep
        )
    x = torch.cat(
        [
            mlp(w, "proj", low) + mlp(w, "proj_cross_scale", by_scale),
            mlp(w, "proj_cross_layer", by_layer),
        ],
        dim=1,
    )

    dim = w["resampler.time_embedding.linear_1.weight"].shape[1]
    temb = linear(w, "resampler.time_embedding.linear_1", sinusoid(torch.tensor([timestep]), dim))
    temb = linear(w, "resampler.time_embedding.linear_2", F.silu(temb))
    x = linear(w, "resampler.proj_in", x) + temb[:, None]
    latents = w["resampler.latents"]
    for number in sorted(
        {k.split(".")[2] for k in w if k.startswith("resampler.layers.")}, key=int
    ):
        layer = f"resampler.layers.{number}"
        shift_a, scale_a, shift_f, scale_f = (
            part[:, None] for part in linear(w, f"{layer}.2.1", F.silu(temb)).chunk(4, dim=-1)
        )
        queries = layer_norm(w, f"{layer}.0.norm2", latents, 1e-5) * (1 + scale_a) + shift_a
        context = torch.cat([layer_norm(w, f"{layer}.0.norm1", x, 1e-5), queries], dim=1)
        k, v = linear(w, f"{layer}.0.to_kv", context).chunk(2, dim=-1)
        q = linear(w, f"{layer}.0.to_q", queries)
        weights = (heads(q) @ heads(k).transpose(-1, -2) / math.sqrt(HEAD)).softmax(-1)
        attended = (weights @ heads(v)).transpose(1, 2).flatten(2)
        latents = latents + linear(w, f"{layer}.0.to_out", attended)
        hidden = layer_norm(w, f"{layer}.1.0", latents, 1e-5) * (1 + scale_f) + shift_f
        latents = latents + linear(w, f"{layer}.1.3", F.gelu(linear(w, f"{layer}.1.1", hidden)))
    return layer_norm(w, "resampler.norm_out", linear(w, "resampler.proj_out", latents), 1e-5)


HEAD = 32  # `dim_head` of the demo's resampler


def heads(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:2], -1, HEAD).transpose(1, 2)


@pytest.fixture
def features(network: InstantCharacter) -> ImageFeatures:
    torch.manual_seed(1)
    crops = torch.randint(0, 256, (1, 5, 128, 128, 3), dtype=torch.uint8)
    first, second = network.crop_encoders
    with torch.no_grad():
        return first(crops) + second(crops)


def test_hoisted_projector_and_batched_resampler_equal_the_unsplit_projector_at_every_timestep(
    network: InstantCharacter, features: ImageFeatures
) -> None:
    timesteps = torch.tensor([1000.0, 961.3, 640.0, 217.5, 13.0, 0.0])
    with torch.no_grad():
        tokens = network.subject_resampler(network.subject_projector(features), timesteps)
        weights = adapter_state_dict(network)["image_proj"]
        expected = torch.cat([unsplit_projector(weights, features, t.item()) for t in timesteps])
    assert tokens.shape == (6, 16, 96)
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=2e-5)


def test_tokens_change_with_the_timestep_and_with_the_reference(
    network: InstantCharacter, features: ImageFeatures
) -> None:
    other = ImageFeatures(
        features.low_res_deep.flip(0) * 1.1, features.low_res_shallow, features.high_res_deep
    )
    with torch.no_grad():
        early, late = network.subject_resampler(
            network.subject_projector(features), torch.tensor([1000.0, 100.0])
        )
        (elsewhere,) = network.subject_resampler(
            network.subject_projector(other), torch.tensor([1000.0])
        )
    assert (early - late).abs().max() > 1e-3
    assert (early - elsewhere).abs().max() > 1e-3
