"""Which parts of the denoiser become FP8, what ranges their inputs have, and what it costs them.

Does not know where the inputs come from: `export.calibrate` runs denoise trajectories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from export.attention import ScaledDotProduct
from export.fp8 import MODULATIONS, UNQUANTIZED, Fp8Attention, Fp8Linear
from export.precision import Quantization

OPERANDS = ("query", "key", "value")


class CalibrationError(Exception):
    """The recorded ranges are not those of this network; says which layers."""


def quantizable(
    module: nn.Module, quantization: Quantization, *, modulation: bool = False
) -> Iterator[tuple[str, nn.Module]]:
    """The layers that become FP8, by name.

    Args:
        module: The denoiser, or a part of it.
        quantization: What FP8 covers.
        modulation: Also the blocks' modulations.
    """
    if quantization is Quantization.NONE:
        return
    excluded = UNQUANTIZED if modulation else UNQUANTIZED + MODULATIONS
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            if not any(f"{part}." in f".{name}." for part in excluded):
                yield name, child
        elif isinstance(child, ScaledDotProduct) and quantization is Quantization.FP8_ATTENTION:
            yield name, child


@contextmanager
def recording(module: nn.Module) -> Iterator[dict[str, float]]:
    """Record the largest magnitude of every input that FP8 may round, while the module runs.

    Yields:
        Magnitudes by layer name, for attentions by `name.query`, `name.key` and `name.value`;
        complete when the block ends.
    """
    amax: dict[str, float] = {}

    def see(name: str, x: Tensor) -> None:
        amax[name] = max(amax.get(name, 0.0), x.detach().abs().max().item())

    def hook(name: str, layer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if isinstance(layer, nn.Linear):
                see(name, inputs[0])
                return
            for operand, x in zip(OPERANDS, inputs, strict=False):
                see(f"{name}.{operand}", x)

        return record

    handles = [
        layer.register_forward_pre_hook(hook(name, layer))
        for name, layer in quantizable(module, Quantization.FP8_ATTENTION, modulation=True)
    ]
    try:
        yield amax
    finally:
        for handle in handles:
            handle.remove()


def quantize(
    module: nn.Module,
    amax: Mapping[str, float],
    quantization: Quantization = Quantization.FP8,
    *,
    modulation: bool = False,
) -> list[str]:
    """Replace layers of `module` by their FP8 counterparts, in place.

    Args:
        module: What was recorded.
        amax: From `recording`.
        quantization: What FP8 covers.
        modulation: Also the blocks' modulations.

    Returns:
        Names of the replaced layers.

    Raises:
        CalibrationError: A layer was never run while recording, so its range is unknown; nothing
            is replaced.
    """
    layers = dict(quantizable(module, quantization, modulation=modulation))
    unseen = [name for name, layer in layers.items() if not set(_ranges(name, layer)) <= set(amax)]
    if unseen:
        raise CalibrationError(
            f"No range was recorded for {len(unseen)} of {len(layers)} layers: "
            f"{', '.join(unseen[:10])}{' ...' if len(unseen) > 10 else ''}. "
            "Calibrate this network: python -m export.calibrate."
        )
    for name, layer in layers.items():
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, _counterpart(module, name, layer, amax))
    return list(layers)


def errors(
    module: nn.Module,
    amax: Mapping[str, float],
    run: Callable[[], object],
    quantization: Quantization = Quantization.FP8,
    *,
    modulation: bool = False,
) -> dict[str, float]:
    """Relative L2 error of each layer's output when it alone is quantized, on the inputs of `run`.

    Args:
        module: Not yet quantized.
        amax: From `recording`.
        run: Runs the module on representative inputs.
        quantization: What FP8 would cover.
        modulation: Also the blocks' modulations.
    """
    squared: dict[str, tuple[float, float]] = {}

    def hook(name: str, quantized: nn.Module) -> Callable[..., None]:
        def compare(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            difference = (quantized(*inputs) - output).double().square().sum().item()
            error, total = squared.get(name, (0.0, 0.0))
            squared[name] = (error + difference, total + output.double().square().sum().item())

        return compare

    handles = [
        layer.register_forward_hook(hook(name, _counterpart(module, name, layer, amax)))
        for name, layer in quantizable(module, quantization, modulation=modulation)
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: (error / max(total, 1e-30)) ** 0.5 for name, (error, total) in squared.items()}


def _ranges(name: str, layer: nn.Module) -> list[str]:
    return [name] if isinstance(layer, nn.Linear) else [f"{name}.{x}" for x in OPERANDS]


def _counterpart(
    module: nn.Module, name: str, layer: nn.Module, amax: Mapping[str, float]
) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return Fp8Linear(layer, amax[name])
    query, key, value = (amax[operand] for operand in _ranges(name, layer))
    owner = module.get_submodule(name.rpartition(".")[0])
    like = next(weight for weight in module.parameters() if weight.dtype.is_floating_point)
    return Fp8Attention((query, key, value), int(str(owner.head_dim)), like)
