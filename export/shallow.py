"""The step of a published network in full width with few blocks, for builds that only measure.

Its weights are random and nothing but the denoiser has any, so nobody need have the real ones, or
memory for more than what is written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.family import Network, family_of, published
from export.precision import convert
from export.quantization.quantize import quantizable, quantize, scheme_of
from export.quantization.scheme import Scheme
from export.sizes import meta_network

SPREAD = 0.02
"""Standard deviation of the weights."""


def without_weights(family: str, blocks: int) -> Network:
    """The published network with few blocks, in bf16 and without weights.

    Raises:
        ExportError: The family does not say how to leave blocks out.
    """
    shape = published(family)
    if shape.shallow is None:
        raise ExportError(f"Family {family!r} does not say how to leave blocks out.")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        return meta_network(shape.shallow(shape.config, blocks), family)
    finally:
        torch.set_default_dtype(before)


def shallow_step(family: str, blocks: int, scheme: Scheme) -> Network:
    """The published network with few blocks, its denoiser quantized.

    Args:
        family: Whose network.
        blocks: How many, as the family counts them.
        scheme: What the denoiser's layers become, merged as they are in an export.

    Raises:
        ExportError: The family does not say how to leave blocks out.
    """
    network, found = without_weights(family, blocks), family_of(family)
    denoiser = network.denoiser
    randomize(denoiser)
    kept, sensitive = found.kept(encoders=False), found.sensitive
    ranges = of_ones(denoiser, scheme, kept, sensitive)
    quantize(denoiser, ranges, scheme, kept, found.merges(denoiser), sensitive)
    convert(denoiser, torch.bfloat16)
    return network


def randomize(module: nn.Module) -> None:
    """Give every weight random values, all of them out of one buffer.

    Each starts elsewhere in it, so that no two are equal, and all together take hardly more than
    the largest of them.
    """
    torch.manual_seed(0)
    weights = dict(module.named_parameters())
    largest = max(weight.numel() for weight in weights.values())
    values = torch.randn(largest + len(weights), dtype=torch.bfloat16) * SPREAD
    views = {
        name: values[start : start + weight.numel()].view(weight.shape)
        for start, (name, weight) in enumerate(weights.items())
    }
    module.load_state_dict(views, assign=True)


def of_ones(
    module: nn.Module, scheme: Scheme, unquantized: Sequence[str], sensitive: Sequence[str]
) -> dict[str, Tensor]:
    """What calibration would record of inputs that are all 1.

    Args:
        module: Not yet quantized.
        scheme: What will quantize it.
        unquantized: See `export.quantization.quantize.quantizable`.
        sensitive: Likewise.
    """
    ranges: dict[str, Tensor] = {}
    for name, layer in quantizable(module, scheme, unquantized, sensitive):
        ones = torch.ones(1, layer.in_features if isinstance(layer, nn.Linear) else 1)
        measures = scheme_of(name, scheme, sensitive).ranges(name, layer)
        ranges |= {key: measure((ones, ones, ones)) for key, measure in measures.items()}
    return ranges
