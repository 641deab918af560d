"""A network of any size with weights that take no memory: the full-size export without the weights.

Large weights are ranges of one sparse file, mapped; nothing reads them, so the file takes no disk
either. Small ones are real, because exporters look at them. The graphs that come out have every
name, shape and node of the real ones: `python -m export.full_size`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from castmate.engines.family import family_of as served_family
from export.family import (
    DEFAULT,
    Config,
    Network,
    bundle_graphs,
    family_names,
    family_of,
    published,
)
from export.graphs import empty_inputs
from export.to_onnx import ir_model

SMALLEST_FAKE = 2**14
"""Elements of a weight that is mapped; smaller ones are real."""
WEIGHTS = "weights.sparse"


def fake_network(
    config: Config, folder: Path, dtype: torch.dtype, family: str = DEFAULT
) -> Network:
    """A network whose large weights are zeros in `folder / WEIGHTS`; small ones are random.

    Args:
        config: Any size.
        folder: Where the sparse file is made.
        dtype: Of every weight.
        family: Whose network it is.
    """
    with torch.device("meta"):
        network = published(family).new_network(config)
    named = [
        *network.named_parameters(remove_duplicate=False),  # T5's embeddings have two names
        *network.named_buffers(remove_duplicate=False),
    ]
    large = {id(t): t.numel() for _, t in named if t.numel() >= SMALLEST_FAKE}
    total = sum(large.values()) * dtype.itemsize
    path = folder / WEIGHTS
    with path.open("wb") as stream:
        stream.truncate(total)
    storage: Any = torch.UntypedStorage.from_file(str(path), shared=True, nbytes=total)
    offset = 0
    replaced: dict[int, Tensor] = {}
    for name, tensor in named:
        if id(tensor) in replaced:
            made = replaced[id(tensor)]
        elif tensor.numel() >= SMALLEST_FAKE:
            made = torch.empty(0, dtype=dtype).set_(storage, offset, tensor.shape, tensor.stride())
            offset += tensor.numel()
        elif name.endswith("position_ids"):
            made = torch.arange(tensor.shape[-1]).expand(tensor.shape)
        else:
            made = torch.randn(tensor.shape).to(dtype)
        if isinstance(tensor, nn.Parameter) and not isinstance(made, nn.Parameter):
            made = nn.Parameter(made, requires_grad=False)
        replaced[id(tensor)] = made
        _put(network, name, made)
    return network.eval()


def export_structure(network: Network, name: str, folder: Path) -> Path:
    """Export one graph of a fake network; its large weights stay in the sparse file.

    Args:
        network: From `fake_network`, with the same folder.
        name: Of the graph.
        folder: Where it is written, beside the sparse file.

    Returns:
        The graph's file, checked.
    """
    storage = next(
        tensor.untyped_storage()
        for tensor in network.parameters()
        if tensor.numel() >= SMALLEST_FAKE
    )
    offsets = {
        f"{tensor.data_ptr()}": (tensor.data_ptr() - storage.data_ptr())
        for tensor in network.parameters()
        if tensor.numel() >= SMALLEST_FAKE
    }
    model = ir_model(bundle_graphs(network, step_caching=False)[name](), fold_weights=False)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        raw = getattr(tensor, "raw", None)
        if isinstance(raw, Tensor) and (offset := offsets.get(f"{raw.data_ptr()}")) is not None:
            assert value.shape is not None
            assert tensor is not None
            value.const_value = ir.ExternalTensor(
                WEIGHTS,
                offset,
                tensor.nbytes,
                tensor.dtype,
                shape=value.shape,
                name=str(value.name),
                base_dir=folder,
            )
    path = folder / f"{name}.onnx"
    ir.save(model, path)
    onnx.checker.check_model(str(path))
    return path


def weights_of(path: Path) -> Mapping[str, tuple[int, ...]]:
    """Shapes of a graph's weights by name."""
    model = onnx.load(path, load_external_data=False)
    return {weight.name: tuple(weight.dims) for weight in model.graph.initializer}


def step_flops(config: Config, side: int, family: str = DEFAULT) -> int:
    """Floating point operations of one denoise step, a multiply and an add being two.

    Args:
        config: Any size.
        side: Pixels of a square picture.
        family: Whose network it is.
    """
    with torch.device("meta"), torch.no_grad():
        network = published(family).new_network(config).eval()
        graph = bundle_graphs(network, step_caching=False)["transformer"]()
        table, dims = served_family(family).table, family_of(family).dims(config, side)
        inputs = empty_inputs(table, "transformer", dims, torch.float32)
        with FlopCounterMode(display=False) as counter:
            graph.module(*inputs.values())
    return int(counter.get_total_flops())


def _put(network: nn.Module, name: str, tensor: Tensor) -> None:
    parent, _, attribute = name.rpartition(".")
    owner = network.get_submodule(parent)
    if isinstance(tensor, nn.Parameter):
        setattr(owner, attribute, tensor)
    else:
        owner._buffers[attribute] = tensor


def main() -> None:
    """Export the structure of a published network in bf16."""
    parser = argparse.ArgumentParser(prog="python -m export.full_size", description=__doc__)
    parser.add_argument("--family", choices=family_names(), default=DEFAULT)
    parser.add_argument("graphs", nargs="*", default=["transformer"])
    parser.add_argument("--out", type=Path, required=True, help="an empty folder")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = published(arguments.family).config
    network = fake_network(config, arguments.out, torch.bfloat16, arguments.family)
    for name in arguments.graphs:
        path = export_structure(network, name, arguments.out)
        print(
            f"{path}: {len(weights_of(path))} weights, {path.stat().st_size / 1e6:.0f} MB of graph"
        )


if __name__ == "__main__":
    main()
