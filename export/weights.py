"""The way back: the weights of an ONNX bundle into the torch network that it was made from.

A bundle is therefore the one home of a network's weights: it can be quantized, exported anew or
compared with torch wherever the bundle is. Exported graphs name every weight as their module does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from castmate.engines.bundle import Bundle
from export.errors import ExportError, listed
from export.family import Network, bundle_graphs
from export.to_onnx import NARROW, TRANSPOSED

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


class WeightsMismatch(ExportError):
    """A bundle does not hold the weights that were asked for; says which."""


def load_weights(network: Network, bundle: Bundle, *, absent: tuple[str, ...]) -> None:
    """Fill `network` with the weights of a bundle, in place.

    Args:
        network: In fp32.
        bundle: With ONNX graphs that were not quantized.
        absent: Prefixes of the weights that no graph runs; they stay as they are.

    Raises:
        WeightsMismatch: A weight is missing or has another shape.
    """
    filled = set()
    graphs = bundle.manifest.graphs
    with torch.no_grad():
        for name, make in bundle_graphs(network, step_caching=bundle.has_step_caching).items():
            if name not in graphs:
                continue
            found = stored_weights(bundle.file(graphs[name].files[0]))
            for key, weight in make().module.named_parameters(remove_duplicate=False):
                if key not in found:
                    continue
                if found[key].shape != weight.shape:
                    raise WeightsMismatch(
                        f"{bundle.name}, graph {name}: weight {key} has shape "
                        f"{tuple(found[key].shape)}; this network has {tuple(weight.shape)}. Give "
                        "the configuration that the bundle was exported with."
                    )
                weight.copy_(found[key])
                filled.add(id(weight))
    missing = [
        key
        for key, weight in network.named_parameters()
        if id(weight) not in filled and not key.startswith(absent)
    ]
    if missing:
        raise WeightsMismatch(
            f"{bundle.name} does not hold {len(missing)} weights of this network in fp32 or fp16: "
            f"{listed(missing, 5, ', ')}. Give the configuration that the bundle was exported "
            "with, and a bundle that was not quantized."
        )


def stored_weights(path: Path) -> Mapping[str, Tensor]:
    """The fp32 and fp16 weights of a graph by their names in its module, as fp32."""
    found = {}
    for stored in onnx.load(path).graph.initializer:
        if stored.data_type in FLOATS:
            weight = torch.from_numpy(numpy_helper.to_array(stored).astype("float32"))
            name = stored.name.removesuffix(NARROW)
            if name.endswith(TRANSPOSED):
                name, weight = name.removesuffix(TRANSPOSED), weight.T
            found[name] = weight
    return found
