"""What each step of `export.all` takes, counted before anything is downloaded.

Bytes are counted from the sizes of the networks. Of times only those are named that somebody
measured, with what they were measured on.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from export.build import PLAN_FACTOR, available_memory, build_memory
from export.errors import NotEnough
from export.family import Config, family_of, published
from export.full_size import step_flops
from export.placement import ACTIVATIONS
from export.quantization.quantize import ranges_needed
from export.recipe import Recipe
from export.sizes import graph_sizes, meta_network

GB = 10**9
TERA = 10**12
GIB = 2**30
GIGABIT_S = 10**9 / 8
"""Bytes a second of the line that the download's time is given for."""


@dataclass(frozen=True)
class Step:
    """What one step takes.

    Attributes:
        name: What it does.
        disk: Bytes that it writes.
        host: Bytes of host memory; weights that are mapped from disk are not among them.
        gpu: Bytes of GPU memory, at least; None where none is used.
        time: How long, or what is known of it.
    """

    name: str
    disk: int
    host: int
    gpu: int | None
    time: str


def forecast(recipe: Recipe, config: Config) -> list[Step]:
    """Every step of a recipe, in order.

    Args:
        recipe: What is to be made.
        config: Sizes of the network.
    """
    family, scheme, precision = published(recipe.family), recipe.quantization, recipe.precision
    kept = family_of(recipe.family).kept(encoders=recipe.quantize_encoders)
    sensitive = family_of(recipe.family).sensitive
    network = meta_network(config, recipe.family)
    sizes = graph_sizes(network, scheme, kept, sensitive, step_caching=recipe.step_caching)
    num_bytes = [size.num_bytes(precision) for size in sizes.values()]
    narrow = sum(size.quantized_bytes for size in sizes.values())
    sources = family.downloads(config)
    fetched = sum(
        source.weights * source.weight_bytes
        for name, source in sources.items()
        if not Path(getattr(recipe.sources, name)).expanduser().exists()
    )
    converted = sum(
        source.weights * precision.num_bytes
        for source in sources.values()
        if source.weight_bytes != precision.num_bytes
    )
    steps = [
        Step("download", fetched, 0, None, f"{fetched / GIGABIT_S / 60:.0f} min at 1 Gbit/s"),
        Step("load", 0, converted, None, "not measured"),
    ]
    if ranges_needed(network, scheme, kept, sensitive) and not _is_calibrated(recipe):
        flops = step_flops(config, recipe.side, recipe.family)
        work = f"{recipe.samples * recipe.steps} steps of {flops / TERA:.3g} TFLOP: not measured"
        layers = (module.parameters(recurse=False) for module in network.modules())
        largest = max(sum(w.numel() for w in weights) for weights in layers) * precision.num_bytes
        steps.append(Step("calibrate", 0, converted, ACTIVATIONS + largest, work))
    steps.append(
        Step("record golden tensors", 0, converted, None, "on the CPU in fp32: not measured")
    )
    steps.append(
        Step(
            "export to ONNX",
            sum(num_bytes),
            converted + narrow,
            None,
            "the transformer without its weights: 2 min on two cores (measured)",
        )
    )
    if recipe.flavour is not None:
        steps.append(
            Step(
                "build engines",
                int(PLAN_FACTOR * sum(num_bytes)),
                build_memory(max(num_bytes), [str(recipe.quantization)]),
                None,
                "2.9 GB of weights in 19 s on two cores (measured); the rest is not",
            )
        )
    return steps


def _is_calibrated(recipe: Recipe) -> bool:
    """Whether a file is there; whether it fits is seen when the weights are."""
    shipped = published(recipe.family).calibration
    return recipe.calibration is not None or (shipped is not None and shipped.exists())


def check_room(steps: Sequence[Step], folder: Path) -> None:
    """Refuse to begin what this machine has no room for.

    Args:
        steps: From `forecast`.
        folder: Where graphs and plans go; what is downloaded goes to the hub's cache.

    Raises:
        NotEnough: Says of what, how much is needed and how much there is.
    """
    free = available_memory()
    for step in steps:
        if step.host > free:
            raise NotEnough(
                f"To {step.name} takes about {step.host / GIB:.0f} GiB of host memory, "
                f"{free / GIB:.0f} GiB are free. Use a larger machine, or narrower weights: "
                "--quantization."
            )
    disk = sum(step.disk for step in steps if step.name != "download")
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if disk > (free := shutil.disk_usage(parent).free):
        raise NotEnough(
            f"Graphs and plans take up to {disk / GIB:.0f} GiB, {free / GIB:.0f} GiB are free "
            f"on the disk of {parent}. Choose another --out."
        )


def show(steps: Sequence[Step], console: Console) -> None:
    """Print the steps and what this machine has."""
    table = Table("step", "disk, GB", "host memory, GB", "GPU memory, GB", "time")
    for step in steps:
        gpu = "" if step.gpu is None else f"at least {step.gpu / GB:.1f}"
        table.add_row(step.name, f"{step.disk / GB:.1f}", f"{step.host / GB:.1f}", gpu, step.time)
    table.add_row("in all", f"{sum(step.disk for step in steps) / GB:.1f}", "", "", "")
    console.print(table)
    console.print(
        "Disk is counted from the sizes of the networks, and so is host memory; weights that stay "
        "mapped from disk are not in it. What a build takes for each byte of weights was measured. "
        "When it calibrates, what does not fit on the GPU crosses the bus in every step.",
        f"Free here: {available_memory() / GB:.1f} GB of host memory{_gpu()}.",
        "Memory of the finished engines: castmate doctor --gpu-memory.",
        sep="\n",
    )


def _gpu() -> str:
    if not torch.cuda.is_available():
        return ", no GPU (calibrating on a CPU takes days at full size)"
    return f", {torch.cuda.mem_get_info()[0] / GB:.1f} GB of GPU memory"
