"""NVFP4 with a branch of rank 32 beside every product (SVDQuant, arXiv 2411.05007).

Wide channels of the inputs move into the weights, the largest singular directions of these into two
thin matrices in the precision of the export, and only what remains is rounded to four bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from castmate.engines.manifest import ScaleLayout
from export.quantization.fp8 import FP8_ATTENTION
from export.quantization.int8 import channel_amax
from export.quantization.nvfp4 import NvFp4, NvFp4Linear
from export.quantization.scheme import Measure, Ranges

RANK = 32
STRENGTH = 0.25
"""How much of a channel's width moves into the weights. Blocks have scales of their own, so less
helps than SVDQuant's usual 0.5: of two of the demo model's pictures, one was nearer and one as far
with it."""
ITERATIONS = 4
"""Of the subspace that finds the largest directions; a whole decomposition of a large layer takes
minutes."""


class SvdQuantLinear(NvFp4Linear):
    """`y = (x / s) R + (x / s) D U + b` with R in FP4, where `R + D U` is `s W`."""

    smoothing: Tensor
    down: Tensor
    up: Tensor

    def __init__(self, linear: nn.Linear, channels: Tensor) -> None:
        """Quantize a layer.

        Args:
            linear: The layer; its weight is read, not kept.
            channels: Largest magnitude seen of each of its inputs.
        """
        like = linear.weight.detach()
        channels = channels.to(like.device).float()
        inputs = channels.clamp(min=float(channels.max()) * 1e-4).clamp(min=1e-6)
        widest = like.float().abs().amax(0).clamp(min=1e-6)
        inverse = (widest ** (1 - STRENGTH) / inputs**STRENGTH).to(like.dtype)
        wide = like.float() / inverse.float()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)  # where the subspace starts: the same weights, the same file
            left, sizes, right = torch.svd_lowrank(wide, min(RANK, *wide.shape), ITERATIONS)
        up, down = (left * sizes).T.to(like.dtype), right.to(like.dtype)
        rest = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
        rest.weight = nn.Parameter(wide - (down.float() @ up.float()).T, requires_grad=False)
        super().__init__(rest, float((channels * inverse.float()).max()))
        self.bias = linear.bias
        self.register_buffer("smoothing", inverse)
        self.register_buffer("down", down.contiguous())
        self.register_buffer("up", up.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        x = x * self.smoothing
        return super().forward(x) + x @ self.down @ self.up


class SvdQuant(NvFp4):
    """NVFP4, each product with a branch of low rank beside it."""

    name = "nvfp4-svdquant"
    layout = ScaleLayout(
        weights="float4e2m1",
        scales="float8e4m3fn for each block, times one in float32",
        block=16,
        inputs="float4e2m1",
        input_scales="float8e4m3fn for each block, found as it runs, times one, calibrated",
        rank=RANK,
    )

    @property
    def title(self) -> str:
        """With the rank, which takes memory."""
        return f"NVFP4 + rank {RANK}"

    def stored_bytes(self, layer: nn.Linear) -> int:
        """NVFP4's, and those of the two thin matrices in bf16."""
        return super().stored_bytes(layer) + 2 * RANK * (layer.in_features + layer.out_features)

    def ranges(self, name: str, layer: nn.Module) -> Mapping[str, Measure]:
        """The largest magnitude of each channel, as `name.channels`; of attentions, FP8's."""
        if isinstance(layer, nn.Linear):
            return {f"{name}.channels": channel_amax}
        return FP8_ATTENTION.ranges(name, layer)

    def counterpart(self, module: nn.Module, name: str, ranges: Ranges) -> nn.Module:
        """`SvdQuantLinear`, or FP8's attention."""
        layer = module.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            return FP8_ATTENTION.counterpart(module, name, ranges)
        (key,) = self.ranges(name, layer)
        return SvdQuantLinear(layer, ranges[key])


SVDQUANT = SvdQuant()
