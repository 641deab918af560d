"""How far a graph may be from its golden tensors: what its rounding costs in torch, and a half.

An engine differs from the record, which is in fp32 and not quantized, by the rounding that its
types prescribe and by the order in which it computes. The first is most of it and depends on the
graph: in NVFP4 the first block of the demo model has 0.09, the others 0.23, and a whole step, which
is judged by what it changes and whose guidance multiplies errors, 0.61; in FP8 with attention these
are 0.05, 0.08 and 0.26. Torch rounds as the hardware does, so the export measures it. Between fp32
and bf16 the figures of the parts differ by less than 5 %; the half is for what no CPU can tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from castmate.engines.golden import Call, Difference
from export.errors import ExportError
from export.graphs import ExportGraph, Makers
from export.precision import Precision

MARGIN = 1.5
LEAST = {
    Precision.FP32: 1e-4,
    Precision.FP16_WEIGHTS: 5e-3,
    Precision.FP16: 1e-2,
    Precision.BF16: 4e-2,
}
"""Relative L2 that any graph may have, however little its rounding costs."""
SENSELESS = 1.0
"""Relative L2 of something else altogether."""


def golden_limits(
    calls: Mapping[str, Call], precision: Precision, makers: Makers
) -> dict[str, float]:
    """The most that each graph may differ, as a relative L2.

    Args:
        calls: Recorded in fp32, before the network was quantized.
        precision: Of the graphs.
        makers: What the graphs are exported from.

    Raises:
        ExportError: A graph's rounding costs so much that no limit could tell a wrong engine.
    """
    limits = {}
    for name, call in calls.items():
        found = error(makers[name](), call)
        if not found < SENSELESS:
            raise ExportError(
                f"In this precision {name!r} computes something else than in fp32 (relative L2 "
                f"{found:.2f}), so nobody could tell whether its engine is right. Calibrate on "
                "more pictures, or choose a wider --quantization."
            )
        allowed = min(MARGIN * found, (found + SENSELESS) / 2)
        limits[name] = max(LEAST[precision], allowed)
    return limits


@torch.no_grad()
def error(graph: ExportGraph, call: Call) -> float:
    """How far a graph's module, in its own types, is from a recorded call.

    Returns:
        The relative L2 difference of the output that is furthest; of what an output changes, where
        the record is of that.
    """
    given = {name: torch.from_numpy(call.inputs[name]) for name in graph.inputs}
    found = graph.module(*(given[name].to(like.dtype) for name, like in graph.inputs.items()))
    tensors = (found,) if isinstance(found, Tensor) else found
    differences = []
    for name, tensor in zip(graph.outputs, tensors, strict=True):
        base = call.graph.outputs[name].changes
        start = 0.0 if base is None else call.inputs[base]
        values = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        between = Difference.between(name, values - start, call.outputs[name] - start, math.inf)
        differences.append(between.relative_l2)
    return max(differences)
