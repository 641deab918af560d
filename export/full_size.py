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

from export.families.instantcharacter.config import FLUX, ModelConfig
from export.families.instantcharacter.graphs import TransformerGraph, export_graphs
from export.families.instantcharacter.network import InstantCharacter, rotary_embedding
from export.to_onnx import ir_model

SMALLEST_FAKE = 2**14
"""Elements of a weight that is mapped; smaller ones are real."""
WEIGHTS = "weights.sparse"


def fake_network(config: ModelConfig, folder: Path, dtype: torch.dtype) -> InstantCharacter:
    """A network whose large weights are zeros in `folder / WEIGHTS`; small ones are random.

    Args:
        config: Any size.
        folder: Where the sparse file is made.
        dtype: Of every weight.
    """
    with torch.device("meta"):
        network = InstantCharacter(config)
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


def export_structure(network: InstantCharacter, name: str, folder: Path) -> Path:
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
    model = ir_model(export_graphs(network)[name](), fold_weights=False)
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


def step_flops(config: ModelConfig, side: int) -> int:
    """Floating point operations of one denoise step, a multiply and an add being two.

    Args:
        config: Any size.
        side: Pixels of a square picture.
    """
    cell = side // config.pixels_per_token
    with torch.device("meta"):
        network = InstantCharacter(config).eval()
        transformer, length = network.transformer.config, config.max_sequence_length
        inputs = (
            torch.empty(1, cell, cell, transformer.in_channels),
            torch.zeros(1, dtype=torch.int64),
            torch.empty(2),
            torch.empty(1),
            torch.empty(1),
            torch.empty(1, length, transformer.joint_attention_dim),
            torch.empty(1, transformer.pooled_projection_dim),
            torch.empty(1, config.resampler.num_queries, config.resampler.output_dim),
            torch.empty(1),
        )
    tables = rotary_embedding(tuple(transformer.axes_dims_rope), length, cell, cell)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        TransformerGraph(network.denoiser)(*inputs, *(table.to("meta") for table in tables))
    return int(counter.get_total_flops())


def _put(network: nn.Module, name: str, tensor: Tensor) -> None:
    parent, _, attribute = name.rpartition(".")
    owner = network.get_submodule(parent)
    if isinstance(tensor, nn.Parameter):
        setattr(owner, attribute, tensor)
    else:
        owner._buffers[attribute] = tensor


def main() -> None:
    """Export the structure of FLUX.1-dev with InstantCharacter in bf16."""
    parser = argparse.ArgumentParser(prog="python -m export.full_size", description=__doc__)
    parser.add_argument("graphs", nargs="*", default=["transformer"])
    parser.add_argument("--out", type=Path, required=True, help="an empty folder")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    network = fake_network(FLUX, arguments.out, torch.bfloat16)
    for name in arguments.graphs:
        path = export_structure(network, name, arguments.out)
        print(
            f"{path}: {len(weights_of(path))} weights, {path.stat().st_size / 1e6:.0f} MB of graph"
        )


if __name__ == "__main__":
    main()
