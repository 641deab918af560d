"""The step of a published network in full width with few blocks, for builds that only measure.

Its weights are random and nothing but the denoiser has any, so nobody need have the real ones, or
memory for more than what is written.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.family import Network, family_of, published
from export.precision import convert
from export.quantization.quantize import quantizable, quantize, scheme_of
from export.quantization.scheme import Measure, Ranges, Scheme
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
    once = Once(scheme)
    quantize(denoiser, ranges, once, kept, found.merges(denoiser), sensitive)
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


class Once(Scheme):
    """A scheme that quantizes one layer of each shape: it takes minutes to find all scales.

    Others get the same values, moved along by a row for each, so that again no two are equal.
    """

    def __init__(self, scheme: Scheme) -> None:
        self.name, self._scheme = scheme.name, scheme
        self._made: dict[tuple[object, ...], nn.Module] = {}
        self._wider = self if scheme.wider is scheme else Once(scheme.wider)
        self._copies = 0

    @property
    def wider(self) -> Scheme:
        """Of the scheme, likewise."""
        return self._wider

    def replaces(self, layer: nn.Module) -> bool:
        """As the scheme does."""
        return self._scheme.replaces(layer)

    def ranges(self, name: str, layer: nn.Module) -> Mapping[str, Measure]:
        """As the scheme does."""
        return self._scheme.ranges(name, layer)

    def counterpart(self, module: nn.Module, name: str, ranges: Ranges) -> nn.Module:
        """The scheme's, or a copy of one that it made before."""
        layer = module.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            return self._scheme.counterpart(module, name, ranges)
        shape = (layer.in_features, layer.out_features, layer.bias is None)
        if (first := self._made.get(shape)) is None:
            self._made[shape] = self._scheme.counterpart(module, name, ranges)
            return self._made[shape]
        self._copies += 1
        made = copy.deepcopy(first)
        for key, tensor in made.named_buffers():
            if tensor.ndim > 1:
                moved = tensor.view(torch.uint8).roll(self._copies, 0).view(tensor.dtype)
                made.register_buffer(key, moved)
        return made


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
