"""What ONNX Runtime computes slowly on a CPU, said in operators that it has fast kernels for.

It runs GroupNormalization as the specification is written, in ten passes over the tensor, and it
convolves four times as many pixels after a nearest upsampling as there is to know. What attention
is written in has a file of its own. For graphs in fp32 only: those that become plans stay in the
words that a TensorRT builder knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

from export.cpu_attention import ATTENTION_RULES

PHASES = (
    np.array([[1, 0, 0], [0, 1, 1]], np.float32),
    np.array([[1, 1, 0], [0, 0, 1]], np.float32),
)
"""Which rows of a 3*3 kernel meet one row of pixels before a doubling, for the even and the odd
rows after it."""


def group_norm(op: Any, x: Any, scale: Any, bias: Any) -> Any:
    """What becomes `scale_and_shift`."""
    return op.GroupNormalization(x, scale, bias, _outputs=["normed"])


def scale_and_shift(op: Any, x: ir.Value, scale: ir.Value, bias: ir.Value, normed: ir.Value) -> Any:
    """One product and one sum for each channel: four passes."""
    node = normed.producer()
    assert node is not None
    assert x.shape is not None
    pixels = range(2, len(x.shape))
    groups = node.attributes["num_groups"].as_int()
    epsilon = op.Constant(value_float=node.attributes["epsilon"].as_float())
    grouped = op.Constant(value_ints=[0, groups, -1])

    def mean_of(values: ir.Value) -> ir.Value:
        # First of each channel: one row a thread.
        of_channels = op.ReduceMean(values, op.Constant(value_ints=[*pixels]), keepdims=1)
        of_groups: ir.Value = op.ReduceMean(
            op.Reshape(of_channels, grouped), op.Constant(value_ints=[2]), keepdims=1
        )
        return of_groups

    mean = mean_of(x)
    variance = op.Sub(mean_of(op.Mul(x, x)), op.Mul(mean, mean))
    rows = op.Constant(value_ints=[1, groups, -1])
    factor = op.Div(op.Reshape(scale, rows), op.Sqrt(op.Add(variance, epsilon)))
    shift = op.Sub(op.Reshape(bias, rows), op.Mul(mean, factor))
    each = op.Constant(value_ints=[0, -1, *(1 for _ in pixels)])
    return op.Add(op.Mul(x, op.Reshape(factor, each)), op.Reshape(shift, each))


def has_rank(_: Any, x: ir.Value, **others: ir.Value) -> bool:
    """Whether the number of axes is known."""
    return x.shape is not None


def doubled_and_convolved(op: Any, x: Any, scales: Any, weight: Any, bias: Any) -> Any:
    """What becomes `convolved_and_doubled`, where `doubles` says so."""
    asymmetric = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    doubled = op.Resize(x, None, scales, mode="nearest", **asymmetric)
    return op.Conv(doubled, weight, bias, group=1, strides=[1, 1], pads=[1, 1, 1, 1])


def doubles(_: Any, scales: ir.Value, weight: ir.Value, **others: ir.Value) -> bool:
    """Whether it is a doubling of both sides before a kernel of 3*3."""
    known, shape = scales.const_value, weight.shape
    if known is None or shape is None:
        return False
    return known.numpy().tolist() == [1, 1, 2, 2] and tuple(shape)[2:] == (3, 3)


def convolved_and_doubled(
    op: Any, x: ir.Value, weight: ir.Value, bias: ir.Value, **_: ir.Value
) -> Any:
    """Four convolutions of 2*2, one for each pixel of a doubled one."""

    def phase(row: int, column: int) -> ir.Value:
        rows, columns = (op.Constant(value=ir.tensor(m)) for m in (PHASES[row], PHASES[column].T))
        kernel = op.MatMul(rows, op.MatMul(weight, columns))  # the engine folds it
        pads = [1 - row, 1 - column, row, column]
        convolved: ir.Value = op.Conv(x, kernel, bias, kernel_shape=[2, 2], pads=pads)
        return convolved

    def in_turn(first: ir.Value, second: ir.Value, axis: int) -> ir.Value:
        new_axis = op.Constant(value_ints=[axis])
        both: ir.Value = op.Concat(
            op.Unsqueeze(first, new_axis), op.Unsqueeze(second, new_axis), axis=axis
        )
        return both

    # DepthToSpace would do the same on one thread, and slowly.
    wide = [
        op.Reshape(in_turn(phase(row, 0), phase(row, 1), 4), op.Constant(value_ints=[0, 0, 0, -1]))
        for row in (0, 1)
    ]
    same, rest = op.Constant(value_ints=[0, 0]), op.Constant(value_ints=[-1])
    size = op.Concat(same, rest, op.Shape(wide[0], start=3), axis=0)
    return op.Reshape(in_turn(wide[0], wide[1], 3), size)


RULES = (
    RewriteRule(group_norm, scale_and_shift, has_rank),
    RewriteRule(doubled_and_convolved, convolved_and_doubled, doubles),
    *ATTENTION_RULES,
)
