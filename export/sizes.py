"""How large a network's graphs become, counted without making a weight."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from export.family import DEFAULT, Config, Network, bundle_graphs, family_of, published
from export.precision import Precision
from export.quantization.none import NONE
from export.quantization.quantize import is_within, quantizable
from export.quantization.scheme import Scheme


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


def meta_network(config: Config, family: str = DEFAULT) -> Network:
    """A network of any size without weights: they have shapes and types and take no memory."""
    with torch.device("meta"):
        return published(family).new_network(config).eval()


def graph_sizes(
    network: Network,
    scheme: Scheme = NONE,
    unquantized: Collection[str] = (),
    *,
    step_caching: bool = False,
) -> dict[str, GraphSize]:
    """Count the weights of every graph of a network.

    Args:
        network: Not quantized; `meta_network` does.
        scheme: What will quantize it.
        unquantized: See `export.quantization.quantize.quantizable`.
        step_caching: Whether the transformer is in parts.
    """
    layers = (layer for _, layer in quantizable(network, scheme, unquantized))
    stored = {id(layer.weight) for layer in layers if isinstance(layer, nn.Linear)}
    hoisted: set[int] = set()
    stepped: set[int] = set()
    for name, weight in network.denoiser.named_parameters():
        (hoisted if is_within(name, family_of(network.family).hoisted) else stepped).add(id(weight))

    def size(module: nn.Module) -> GraphSize:
        unread: tuple[str, ...] = getattr(module, "unread", ())
        found = {
            id(weight): weight.numel()
            for name, weight in module.named_parameters()
            if not name.startswith(unread)
        }
        if not stepped.isdisjoint(found):  # its module holds what another graph runs before it
            found = {key: count for key, count in found.items() if key not in hoisted}
        quantized = sum(count for key, count in found.items() if key in stored)
        return GraphSize(sum(found.values()), quantized)

    makers = bundle_graphs(network, step_caching=step_caching)
    return {name: size(make().module) for name, make in makers.items()}
