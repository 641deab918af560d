"""How large a network's graphs become, counted without making a weight."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from export.family import DEFAULT, Config, Network, bundle_graphs, family_of, published
from export.precision import Precision
from export.quantization.none import NONE
from export.quantization.quantize import is_within, quantizable, scheme_of
from export.quantization.scheme import Scheme


@dataclass(frozen=True)
class GraphSize:
    """Weights of one graph.

    Attributes:
        weights: All of them.
        quantized: Of those, the ones that a scheme stores.
        quantized_bytes: What these take.
    """

    weights: int
    quantized: int
    quantized_bytes: int

    def num_bytes(self, precision: Precision) -> int:
        """Bytes of its file, which are those of its plan and of the weights on the GPU."""
        return (self.weights - self.quantized) * precision.num_bytes + self.quantized_bytes


def meta_network(config: Config, family: str = DEFAULT) -> Network:
    """A network of any size without weights: they have shapes and types and take no memory."""
    with torch.device("meta"):
        return published(family).new_network(config).eval()


def graph_sizes(
    network: Network,
    scheme: Scheme = NONE,
    unquantized: Collection[str] = (),
    sensitive: Collection[str] = (),
    *,
    step_caching: bool = False,
) -> dict[str, GraphSize]:
    """Count the weights of every graph of a network.

    Args:
        network: Not quantized; `meta_network` does.
        scheme: What will quantize it.
        unquantized: See `export.quantization.quantize.quantizable`.
        sensitive: Likewise.
        step_caching: Whether the transformer is in parts.
    """
    stored = {
        id(layer.weight): scheme_of(name, scheme, sensitive).stored_bytes(layer)
        for name, layer in quantizable(network, scheme, unquantized, sensitive)
        if isinstance(layer, nn.Linear)
    }
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
        quantized = stored.keys() & found.keys()
        return GraphSize(
            sum(found.values()),
            sum(found[key] for key in quantized),
            sum(stored[key] for key in quantized),
        )

    makers = bundle_graphs(network, step_caching=step_caching)
    return {name: size(make().module) for name, make in makers.items()}
