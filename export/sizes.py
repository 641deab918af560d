"""How large a network's graphs become, counted without making a weight."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from export.family import DEFAULT, Config, bundle_graphs, family_of, published
from export.precision import Precision
from export.quantization.none import NONE
from export.quantization.quantize import is_within, quantizable
from export.quantization.scheme import Scheme

GB = 10**9


@dataclass(frozen=True)
class GraphSize:
    """Weights of one graph.

    Attributes:
        weights: All of them.
        quantized: Of those, the ones that a scheme stores.
    """

    weights: int
    quantized: int

    def num_bytes(self, precision: Precision, scheme: Scheme) -> int:
        """Bytes of its file, which are those of its plan and of the weights on the GPU."""
        wide = (self.weights - self.quantized) * precision.num_bytes
        return wide + int(self.quantized * scheme.weight_bytes)


def graph_sizes(
    config: Config,
    scheme: Scheme = NONE,
    unquantized: Collection[str] = (),
    family: str = DEFAULT,
    *,
    step_caching: bool = False,
) -> dict[str, GraphSize]:
    """Count the weights of every graph of a network.

    Args:
        config: Any size.
        scheme: What quantizes it.
        unquantized: See `export.quantization.quantize.quantizable`.
        family: Whose network it is.
        step_caching: Whether the transformer is in parts.
    """
    with torch.device("meta"):
        network = published(family).new_network(config)
    layers = (layer for _, layer in quantizable(network, scheme, unquantized))
    stored = {id(layer.weight) for layer in layers if isinstance(layer, nn.Linear)}
    hoisted, stepped = set(), set()
    for name, weight in network.denoiser.named_parameters():
        (hoisted if is_within(name, family_of(family).hoisted) else stepped).add(id(weight))

    def size(module: nn.Module) -> GraphSize:
        found = {id(weight): weight.numel() for weight in module.parameters()}
        if not stepped.isdisjoint(found):  # its module holds what another graph runs before it
            found = {key: count for key, count in found.items() if key not in hoisted}
        quantized = sum(count for key, count in found.items() if key in stored)
        return GraphSize(sum(found.values()), quantized)

    makers = bundle_graphs(network, step_caching=step_caching)
    return {name: size(make().module) for name, make in makers.items()}
