"""Two four-bit values in a byte: how torch holds them, and how they become typed in ONNX.

Torch computes with neither INT4 nor FP4. So a layer holds bytes, the even column in the low half of
each, and an operator of our own stands behind them until the exporter is done. Then it becomes one
typed initializer of the same bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript
import torch
from onnx import TensorProto
from torch import Tensor

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What FP4's three low bits say; the fourth is the sign."""
DOMAIN = "castmate"
TYPED = "TypedFourBits"
_SCHEMA = onnx.defs.OpSchema(
    TYPED,
    DOMAIN,
    1,
    inputs=[onnx.defs.OpSchema.FormalParameter("packed", "tensor(uint8)")],
    outputs=[onnx.defs.OpSchema.FormalParameter("values", "T")],
    type_constraints=[("T", ["tensor(int4)", "tensor(float4e2m1)", "tensor(int8)"], "")],
    attributes=[onnx.defs.OpSchema.Attribute("to", onnx.defs.OpSchema.AttrType.INT, required=True)],
)
_DOUBLED = np.array([2 * value for value in (*E2M1, *(-value for value in E2M1))], np.int8)


def pack(codes: Tensor) -> Tensor:
    """Codes of 0..15 `[..., n]` to bytes `[..., n / 2]`."""
    low, high = codes.to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
    return (low | high << 4).contiguous()


def unpack(packed: Tensor) -> Tensor:
    """Bytes `[..., n / 2]` to codes of 0..15 `[..., n]`."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)


def typed(packed: Any, to: int) -> Any:
    """In a translation: the four-bit values of a weight.

    Args:
        packed: The weight's bytes.
        to: ONNX's INT4 or FLOAT4E2M1; INT8 for FP4 values times two, which are whole numbers, where
            nothing computes with FP4.
    """
    opset = onnxscript.values.Opset(DOMAIN, 1)
    return onnxscript.values.Op(opset, TYPED, _SCHEMA)(packed, to=to)


def give_types(model: ir.Model) -> None:
    """Put a typed initializer in place of every packed one that `typed` has marked."""
    for node in [node for node in model.graph if node.op_type == TYPED]:
        packed, to = node.inputs[0], node.attributes["to"].as_int()
        assert packed is not None
        assert packed.name is not None
        assert packed.const_value is not None
        values = packed.const_value.numpy()
        shape = ir.Shape([*values.shape[:-1], 2 * values.shape[-1]])
        tensor: ir.TensorProtocol
        if to == TensorProto.INT8:
            codes = np.stack([values & 15, values >> 4], axis=-1).reshape(shape.numpy())
            tensor = ir.Tensor(_DOUBLED[codes], name=packed.name)
        else:
            tensor = ir.PackedTensor(values, ir.DataType(to), shape=shape, name=packed.name)
        weight = ir.Value(
            name=packed.name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        ir.convenience.replace_all_uses_with(node.outputs[0], weight)
        model.graph.remove(node, safe=True)
        if not packed.uses():
            del model.graph.initializers[packed.name]
        model.graph.register_initializer(weight)
