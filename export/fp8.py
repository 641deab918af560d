"""FP8 (E4M3) linear layers whose quantization survives export as standard Q/DQ.

ModelOpt quantizes this network on a CPU but cannot export it: the dynamo exporter refuses its fake
tensors, and its TorchScript route writes operators that ONNX Runtime does not know. Two custom
operators do: in eager torch they round as FP8 hardware does, so accuracy is measured before
anything is exported, and in ONNX they become QuantizeLinear and DequantizeLinear, which ONNX
Runtime executes and TensorRT fuses into FP8 GEMMs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx
import onnxscript
import torch
from torch import Tensor, nn

E4M3_MAX = 448.0
"""Largest finite value of float8_e4m3fn."""

UNQUANTIZED = (
    ".x_embedder",
    ".context_embedder",
    ".time_text_embed",
    ".norm_out",
    "transformer.proj_out",
    ".norm.linear",
    ".norm1.linear",
    ".norm1_context.linear",
)
"""Parts of the denoiser that stay as they are: few FLOPs, and an error in them reaches every token.

Embedders and the end of the network as in NVIDIA's FLUX recipe; the modulations beyond it, because
they run on one row, where FP8 saves no time, and others saw them break pictures (vllm-omni #2728).
A single block's own `proj_out` is quantized.
"""


@torch.library.custom_op("castmate::quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: Tensor) -> Tensor:
    """Round `x` to E4M3 with one scale for the tensor, and back."""
    wide = (x.float() / scale.float()).clamp(-E4M3_MAX, E4M3_MAX)
    return (wide.to(torch.float8_e4m3fn).float() * scale.float()).to(x.dtype)


@torch.library.custom_op("castmate::dequantize", mutates_args=())
def dequantize(weight: Tensor, scale: Tensor) -> Tensor:
    """An E4M3 tensor times its scale, in the dtype of the scale."""
    return (weight.float() * scale.float()).to(scale.dtype)


@quantize_dequantize.register_fake
def _(x: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(x)


@dequantize.register_fake
def _(weight: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(weight, dtype=scale.dtype)


# The exporter calls with its own symbolic values, for which the operators' types have no name.
op: Any = onnxscript.opset23
_ZERO = onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0])


def _export_quantize_dequantize(x: Any, scale: Any) -> Any:
    zero = op.Constant(value=_ZERO)
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero), scale, zero)


def _export_dequantize(weight: Any, scale: Any) -> Any:
    return op.DequantizeLinear(weight, scale, op.Constant(value=_ZERO))


TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.castmate.quantize_dequantize.default: _export_quantize_dequantize,
    torch.ops.castmate.dequantize.default: _export_dequantize,
}
"""For `torch.onnx.export(custom_translation_table=...)`."""


class Fp8Linear(nn.Module):
    """`y = x W + b` with E4M3 inputs and weights and one scale each.

    The weight is stored `[in, out]`, one byte a value: so it stays one named initializer, where the
    exporter would otherwise fold a transposition into an unnamed copy.
    """

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
        weight = linear.weight.detach().float()
        scale = (weight.abs().max() / E4M3_MAX).clamp(min=1e-12)
        quantized = (weight.T / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
        dtype = linear.weight.dtype
        self.register_buffer("weight", quantized.contiguous())
        self.register_buffer("weight_scale", scale.to(dtype))
        input_scale = max(input_amax, 1e-12) / E4M3_MAX
        self.register_buffer("input_scale", torch.tensor(input_scale, dtype=dtype))
        self.bias: Tensor | None = linear.bias  # torch's stubs know no layer without

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        x = quantize_dequantize(x, self.input_scale)
        y = x @ dequantize(self.weight, self.weight_scale)
        return y if self.bias is None else y + self.bias


def quantizable(module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers that FP8 is for, by name."""
    for name, child in module.named_modules():
        excluded = any(f"{part}." in f".{name}." for part in UNQUANTIZED)
        if isinstance(child, nn.Linear) and not excluded:
            yield name, child


@contextmanager
def recording(module: nn.Module) -> Iterator[dict[str, float]]:
    """Record the largest magnitude at the input of every quantizable layer while it runs.

    Yields:
        Magnitudes by layer name, complete when the block ends.
    """
    amax: dict[str, float] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            amax[name] = max(amax.get(name, 0.0), inputs[0].detach().abs().max().item())

        return record

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in quantizable(module)]
    try:
        yield amax
    finally:
        for handle in handles:
            handle.remove()


def quantize(module: nn.Module, amax: Mapping[str, float]) -> list[str]:
    """Replace the linear layers of `module` by `Fp8Linear` in place.

    Args:
        module: What was recorded.
        amax: From `recording`.

    Returns:
        Names of the replaced layers.

    Raises:
        ValueError: A layer was never run while recording, so its range is unknown.
    """
    layers = dict(quantizable(module))
    if unseen := sorted(set(layers) - set(amax)):
        raise ValueError(f"never run while recording: {', '.join(unseen)}")
    for name, layer in layers.items():
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, Fp8Linear(layer, amax[name]))
    return list(layers)


def errors(
    module: nn.Module, amax: Mapping[str, float], run: Callable[[], object]
) -> dict[str, float]:
    """Relative L2 error of each layer's output when it alone is quantized, on the inputs of `run`.

    Args:
        module: Not yet quantized.
        amax: From `recording`.
        run: Runs the module on representative inputs.
    """
    squared: dict[str, tuple[float, float]] = {}

    def hook(name: str, quantized: Fp8Linear) -> Callable[..., None]:
        def compare(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            difference = (quantized(inputs[0]) - output).double().square().sum().item()
            error, total = squared.get(name, (0.0, 0.0))
            squared[name] = (error + difference, total + output.double().square().sum().item())

        return compare

    handles = [
        layer.register_forward_hook(hook(name, Fp8Linear(layer, amax[name])))
        for name, layer in quantizable(module)
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: (error / max(total, 1e-30)) ** 0.5 for name, (error, total) in squared.items()}
