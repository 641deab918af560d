"""FP8 (E4M3) linear layers whose quantization survives export as standard Q/DQ.

ModelOpt quantizes this network on a CPU but cannot export it: the dynamo exporter refuses its fake
tensors, and its TorchScript route writes operators that ONNX Runtime does not know. Two custom
operators do: in eager torch they round as FP8 hardware does, so accuracy is measured before
anything is exported, and in ONNX they become QuantizeLinear and DequantizeLinear, which ONNX
Runtime executes and TensorRT fuses into FP8 GEMMs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import onnxscript
import torch
from onnx import TensorProto
from torch import Tensor, nn

from castmate.engines.manifest import ScaleLayout
from castmate.engines.plan import Flavour
from export.attention import ScaledDotProduct
from export.precision import Precision, QuantizedLayer
from export.quantization import per_output
from export.quantization.per_output import dequantize, stored_scale
from export.quantization.scheme import Kernel, Measure, Ranges, Scheme

E4M3_MAX = 448.0
"""Largest finite value of float8_e4m3fn."""
FEWEST_KEYS = 32
"""Of an attention in FP8. Over fewer, TensorRT-RTX 1.7 runs two products and a softmax instead of
one kernel, with any width of heads, for SM89 and SM120; in bf16 it fuses them."""

_TARGETS: Mapping[Flavour, tuple[str, ...]] = {
    Flavour.TENSORRT: ("8.9", "9.0", "10.0", "10.3", "12.0", "12.1"),
    Flavour.TENSORRT_RTX: ("8.9", "12.0", "12.1"),
}
PRODUCTS = Kernel(
    name="FP8 arithmetic",
    attention=False,
    stored=TensorProto.FLOAT8E4M3FN,
    datatype="FP8",
    targets=_TARGETS,
)
ATTENTION = Kernel(
    name="FP8 attention",
    attention=True,
    stored=TensorProto.FLOAT8E4M3FN,
    datatype="FP8",
    # NVIDIA's own FLUX recipe leaves it off on Hopper.
    targets={
        flavour: tuple(target for target in targets if target != "9.0")
        for flavour, targets in _TARGETS.items()
    },
)


@torch.library.custom_op("castmate::quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: Tensor) -> Tensor:
    """Round `x` to E4M3 with one scale for the tensor, and back."""
    wide = (x.float() / scale.float()).clamp(-E4M3_MAX, E4M3_MAX)
    return (wide.to(torch.float8_e4m3fn).float() * scale.float()).to(x.dtype)


@quantize_dequantize.register_fake
def _(x: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(x)


# The exporter calls with its own symbolic values, for which the operators' types have no name.
op: Any = onnxscript.opset23
_ZERO = onnx.helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0])


def _export_quantize_dequantize(x: Any, scale: Any) -> Any:
    zero = op.Constant(value=_ZERO)
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero), scale, zero)


_TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.castmate.quantize_dequantize.default: _export_quantize_dequantize,
    **per_output.TRANSLATIONS,
}


class Fp8Linear(QuantizedLayer):
    """`y = x W + b` with E4M3 inputs of one scale, and E4M3 weights with one for each output."""

    keeps_dtype = ("weight",)

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor

    def __init__(self, linear: nn.Linear, input_amax: float) -> None:
        """Quantize a layer.

        Args:
            linear: The layer; its weight is read, not kept.
            input_amax: Largest magnitude seen at its input.
        """
        super().__init__()
        weight = linear.weight.detach()
        scale = stored_scale(weight.abs().amax(1), E4M3_MAX, weight)
        quantized = (weight.T.float() / scale.float()).clamp(-E4M3_MAX, E4M3_MAX)
        self.register_buffer("weight", quantized.to(torch.float8_e4m3fn).contiguous())
        self.register_buffer("weight_scale", scale)
        self.register_buffer("input_scale", stored_scale(input_amax, E4M3_MAX, weight))
        self.bias: Tensor | None = linear.bias  # torch's stubs know no layer without

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        x = quantize_dequantize(x, self.input_scale)
        y = x @ dequantize(self.weight, self.weight_scale)
        return y if self.bias is None else y + self.bias


class Fp8Attention(nn.Module):
    """`softmax(q k^T / sqrt(d)) v` with both products on E4M3 operands.

    Written out instead of one Attention operator, and with the softmax scaled to E4M3's range,
    because that is the pattern which TensorRT fuses into one FP8 kernel; around its Attention
    operator it would execute the rounding and compute in the wide type.
    """

    query_scale: Tensor
    key_scale: Tensor
    value_scale: Tensor
    weights_scale: Tensor

    def __init__(self, amax: tuple[float, float, float], head_dim: int, like: Tensor) -> None:
        """Quantize an attention.

        Args:
            amax: Largest magnitudes seen of query, key and value.
            head_dim: d.
            like: A tensor of the dtype and on the device of the network.
        """
        super().__init__()
        self.factor = head_dim**-0.5
        query, key, value = amax
        self.register_buffer("query_scale", stored_scale(query * self.factor, E4M3_MAX, like))
        self.register_buffer("key_scale", stored_scale(key, E4M3_MAX, like))
        self.register_buffer("value_scale", stored_scale(value, E4M3_MAX, like))
        self.register_buffer("weights_scale", stored_scale(1.0, E4M3_MAX, like))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: None = None) -> Tensor:
        """As `ScaledDotProduct`, without a mask."""
        query = quantize_dequantize(query * self.factor, self.query_scale)
        key = quantize_dequantize(key.transpose(-1, -2), self.key_scale)
        weights = quantize_dequantize((query @ key).softmax(-1), self.weights_scale)
        return weights @ quantize_dequantize(value, self.value_scale)


class Fp8(Scheme):
    """Linear layers in FP8 and, if wanted, every attention of theirs."""

    weight_bytes = 1.0
    psnr_db: Mapping[Precision, float] = {Precision.FP32: 20, Precision.BF16: 18}
    translations = _TRANSLATIONS
    layout = ScaleLayout(
        weights="float8e4m3fn",
        scales="one for each output",
        inputs="float8e4m3fn",
        input_scales="one, calibrated",
    )
    gains = _TARGETS[Flavour.TENSORRT]

    def __init__(self, name: str, *, attention: bool) -> None:
        self.name = name
        self.attention = attention
        self.kernels = (PRODUCTS, ATTENTION) if attention else (PRODUCTS,)

    @property
    def title(self) -> str:
        """Attention has no weights, so both schemes store the same."""
        return "FP8"

    def replaces(self, layer: nn.Module) -> bool:
        """Linear layers and, in the scheme that has them, attentions that become one kernel."""
        if isinstance(layer, ScaledDotProduct):
            return self.attention and (layer.num_keys or FEWEST_KEYS) >= FEWEST_KEYS
        return isinstance(layer, nn.Linear)

    def ranges(self, name: str, layer: nn.Module) -> Mapping[str, Measure]:
        """The largest magnitude of each input: of an attention `name.query`, `.key`, `.value`."""
        if isinstance(layer, nn.Linear):
            return {name: lambda inputs: _amax(inputs[0])}
        return {
            f"{name}.query": lambda inputs: _amax(inputs[0]),
            f"{name}.key": lambda inputs: _amax(inputs[1]),
            f"{name}.value": lambda inputs: _amax(inputs[2]),
        }

    def counterpart(self, module: nn.Module, name: str, ranges: Ranges) -> nn.Module:
        """`Fp8Linear` or `Fp8Attention`."""
        layer = module.get_submodule(name)
        amax = [ranges[key].item() for key in self.ranges(name, layer)]
        if isinstance(layer, nn.Linear):
            return Fp8Linear(layer, amax[0])
        query, key, value = amax
        owner = module.get_submodule(name.rpartition(".")[0])
        like = next(weight for weight in module.parameters() if weight.dtype.is_floating_point)
        return Fp8Attention((query, key, value), int(str(owner.head_dim)), like)


FP8 = Fp8("fp8", attention=False)
FP8_ATTENTION = Fp8("fp8-attention", attention=True)


def _amax(x: Tensor) -> Tensor:
    return x.detach().abs().max()
