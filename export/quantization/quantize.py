"""A scheme applied to a network: which layers it replaces, what it has to know, what it costs.

Does not know where the inputs come from: `export.calibrate` runs denoise trajectories. What
`unquantized` and `sensitive` name, parts of layer names, is for the network's family to say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from export.errors import ExportError, listed
from export.quantization.merge import Group, merge
from export.quantization.registry import SCHEMES
from export.quantization.scheme import Measure, Ranges, Scheme


class CalibrationError(ExportError):
    """The recorded ranges are not those of this network; says which layers."""


def quantizable(
    module: nn.Module,
    scheme: Scheme,
    unquantized: Collection[str],
    sensitive: Collection[str] = (),
) -> Iterator[tuple[str, nn.Module]]:
    """The layers that a scheme replaces, by name.

    Args:
        module: A network, or part of one.
        scheme: The scheme.
        unquantized: Parts of names; layers below them stay as they are.
        sensitive: Parts of names; layers below them are left to the wider scheme that goes with
            this one.
    """
    for name, layer in module.named_modules():
        own = scheme_of(name, scheme, sensitive)
        if own.replaces(layer) and not is_within(name, unquantized):
            yield name, layer


def scheme_of(name: str, scheme: Scheme, sensitive: Collection[str]) -> Scheme:
    """The scheme of one layer: a sensitive one is left to the wider scheme."""
    return scheme.wider if is_within(name, sensitive) else scheme


def is_within(name: str, parts: Collection[str]) -> bool:
    """Whether a layer or weight is one of those, or lies below one, by a part of its name."""
    return any(f"{part}." in f".{name}." for part in parts)


def ranges_needed(
    module: nn.Module,
    scheme: Scheme,
    unquantized: Collection[str],
    sensitive: Collection[str] = (),
) -> frozenset[str]:
    """Keys of what has to be recorded first; empty for a scheme that needs no calibration."""
    return frozenset(
        key
        for name, layer in quantizable(module, scheme, unquantized, sensitive)
        for key in scheme_of(name, scheme, sensitive).ranges(name, layer)
    )


@contextmanager
def recording(module: nn.Module, unquantized: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Record the largest magnitudes of all inputs that any scheme asks for, as the module runs.

    Yields:
        Magnitudes by key; complete when the block ends.
    """
    amax: dict[str, Tensor] = {}

    def hook(
        measures: Mapping[str, Measure],
    ) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            for key, measure in measures.items():
                seen = measure(inputs).float()
                amax[key] = torch.maximum(amax[key], seen) if key in amax else seen

        return record

    wanted: dict[str, dict[str, Measure]] = {}
    for scheme in SCHEMES.values():
        for name, layer in quantizable(module, scheme, unquantized):
            wanted.setdefault(name, {}).update(scheme.ranges(name, layer))
    handles = [
        module.get_submodule(name).register_forward_pre_hook(hook(measures))
        for name, measures in wanted.items()
    ]
    try:
        yield amax
    finally:
        for handle in handles:
            handle.remove()


def quantize(
    module: nn.Module,
    ranges: Ranges,
    scheme: Scheme,
    unquantized: Collection[str],
    merges: Iterable[Group] = (),
    sensitive: Collection[str] = (),
) -> list[str]:
    """Replace layers of `module` by their quantized counterparts, in place.

    Args:
        module: What was recorded, in the dtype of the export.
        ranges: From `recording`, before any layers were merged.
        scheme: The scheme.
        unquantized: As for `quantizable`.
        merges: Layers that become one where one scheme replaces all of them.
        sensitive: As for `quantizable`.

    Returns:
        Names of the replaced layers.

    Raises:
        CalibrationError: A layer was never run while recording, so its range is unknown; nothing
            is replaced.
    """
    layers = dict(quantizable(module, scheme, unquantized, sensitive))
    schemes = {name: scheme_of(name, scheme, sensitive) for name in layers}
    unseen = [
        name
        for name, layer in layers.items()
        if not set(schemes[name].ranges(name, layer)) <= set(ranges)
    ]
    if unseen:
        raise CalibrationError(
            f"No range was recorded for {len(unseen)} of {len(layers)} layers: "
            f"{listed(unseen, 10, ', ')}. Calibrate this network: python -m export.calibrate."
        )

    def replace(name: str, own: Scheme, ranges: Ranges) -> None:
        parent, _, attribute = name.rpartition(".")
        made = own.counterpart(module, name, ranges)
        setattr(module.get_submodule(parent), attribute, made)

    replaced = []
    for group in list(merges):
        own = {schemes.get(part) for part in group.parts}
        if len(own) > 1 or (one := own.pop()) is None:
            continue
        parts = [one.ranges(part, layers.pop(part)) for part in group.parts]
        name = merge(module, group)
        keys = one.ranges(name, module.get_submodule(name))
        # The parts read the same input, so their ranges are the same.
        replace(name, one, {key: ranges[old] for key, old in zip(keys, parts[0], strict=True)})
        replaced.append(name)
    for name in layers:
        replace(name, schemes[name], ranges)
    return replaced + list(layers)


def errors(
    module: nn.Module,
    ranges: Ranges,
    run: Callable[[], object],
    scheme: Scheme,
    unquantized: Collection[str],
) -> dict[str, float]:
    """Relative L2 error of each layer's output when it alone is quantized, on the inputs of `run`.

    Args:
        module: Not yet quantized.
        ranges: From `recording`.
        run: Runs the module on representative inputs.
        scheme: The scheme.
        unquantized: As for `quantizable`.
    """
    squared: dict[str, tuple[float, float]] = {}

    def hook(name: str, quantized: nn.Module) -> Callable[..., None]:
        def compare(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            difference = (quantized(*inputs) - output).double().square().sum().item()
            error, total = squared.get(name, (0.0, 0.0))
            squared[name] = (error + difference, total + output.double().square().sum().item())

        return compare

    handles = [
        layer.register_forward_hook(hook(name, scheme.counterpart(module, name, ranges)))
        for name, layer in quantizable(module, scheme, unquantized)
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: (error / max(total, 1e-30)) ** 0.5 for name, (error, total) in squared.items()}
