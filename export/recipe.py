"""Every choice on the way from weights to engines, checked before anything heavy is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from castmate.engines.plan import Flavour
from castmate.files import write_atomically
from export.build import HOST_MEMORY_FACTOR, PLAN_FACTOR, available_memory
from export.builder import load_tensorrt
from export.errors import ExportError, NotEnough
from export.family import DEFAULT, Config, family_of, published
from export.lora import Style
from export.precision import Precision
from export.quantization.fp8 import FP8_ATTENTION
from export.quantization.none import NONE
from export.quantization.quantize import is_within, quantizable
from export.quantization.scheme import Scheme
from export.targets import check_target

RECIPE = "recipe.json"
GIB = 2**30


@dataclass(frozen=True)
class Recipe:
    """What is made, and how.

    Attributes:
        sources: Where the weights are.
        precision: Of weights and arithmetic.
        quantization: How the transformer is quantized.
        styles: LoRAs, fused before it is quantized.
        step_caching: Write the transformer in three parts, so that steps may be skipped.
        samples: Trajectories to calibrate on.
        steps: Denoise steps of each.
        side: Pixels of their square pictures.
        flavour: Which TensorRT builds; None ends with the ONNX bundle.
        target: Compute capability of the GPU.
        family: Whose network it is.
    """

    sources: Any
    precision: Precision = Precision.BF16
    quantization: Scheme = FP8_ATTENTION
    styles: tuple[Style, ...] = ()
    step_caching: bool = False
    samples: int = 8
    steps: int = 28
    side: int = 1024
    flavour: Flavour | None = None
    target: str = ""
    family: str = DEFAULT

    def check(self, config: Config, folder: Path) -> None:
        """Refuse what cannot work, most of it in seconds instead of hours.

        Args:
            config: Sizes of the network.
            folder: Where everything goes.

        Raises:
            ExportError: Names the flag, what is allowed and what to do.
        """
        for name, low, high in (("samples", 1, 256), ("steps", 1, 50), ("side", 512, 1536)):
            if not low <= getattr(self, name) <= high:
                raise ExportError(f"--{name} {getattr(self, name)}: allowed are {low}..{high}.")
        if self.precision in config.overflows_in:
            raise ExportError(
                f"--precision {self.precision} overflows in {config.name}. Use "
                f"{Precision.BF16}, which it was trained in."
            )
        for style in self.styles:
            if not style.path.is_file():
                raise ExportError(f"--style {style.path}: there is no such file.")
        if self.flavour is not None:
            check_target(self.flavour, self.target, self.quantization.kernels)
            load_tensorrt(self.flavour)
            if self.precision.for_cpu:
                raise ExportError(
                    f"--precision {self.precision}: engines need bf16, or fp16 for small networks."
                )
        self._check_room(config, folder)

    def keep(self, folder: Path) -> None:
        """Write the recipe to a new folder, or compare it with the one that is there.

        Raises:
            ExportError: The folder was begun with other choices; names them.
        """
        path = folder / RECIPE
        mine = self._values()
        if path.exists():
            theirs: Mapping[str, object] = json.loads(path.read_text())
            changed = sorted(name for name in mine if theirs.get(name) != mine[name])
            if changed:
                raise ExportError(
                    f"{folder} was begun with other choices of {', '.join(changed)}. Repeat those "
                    "to go on, or choose another --out."
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{json.dumps(mine, indent=1)}\n".encode())

    def _values(self) -> dict[str, object]:
        """As JSON has them."""

        def plain(value: object) -> object:
            if is_dataclass(value) and not isinstance(value, type):
                return asdict(value)
            return str(value)

        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        values: dict[str, object] = json.loads(json.dumps(chosen, default=plain))
        return values

    def _check_room(self, config: Config, folder: Path) -> None:
        scheme, family = self.quantization, self.family
        kept = family_of(family).unquantized
        counted, per_weight = sizes(config, scheme, kept, family), self.precision.num_bytes
        quantized = counted.quantized * scheme.weight_bytes
        # Both stand side by side while one is made from the other.
        memory = counted.whole * per_weight + quantized
        if memory > (free := available_memory()):
            raise NotEnough(
                f"The weights take {memory / GIB:.0f} GiB of host memory, {free / GIB:.0f} GiB are "
                "free. Use a larger machine."
            )
        graphs = (counted.whole - counted.quantized) * per_weight + quantized
        disk = graphs * (1 + PLAN_FACTOR if self.flavour else 1)
        parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if disk > (free := shutil.disk_usage(parent).free):
            raise NotEnough(
                f"Graphs and plans take up to {disk / GIB:.0f} GiB, {free / GIB:.0f} GiB are free "
                f"on the disk of {parent}. Choose another --out."
            )
        transformer = (counted.denoiser - counted.quantized) * per_weight + quantized
        build = transformer * HOST_MEMORY_FACTOR
        if self.flavour and build > (free := available_memory()):
            raise NotEnough(
                f"Building the transformer takes about {build / GIB:.0f} GiB of host memory, "
                f"{free / GIB:.0f} GiB are free. Use a larger machine."
            )


class Sizes(NamedTuple):
    """Weights of a network.

    Attributes:
        whole: All of them.
        denoiser: Of what runs in every step.
        quantized: Of those, the ones that a scheme stores.
    """

    whole: int
    denoiser: int
    quantized: int


def sizes(
    config: Config,
    scheme: Scheme = NONE,
    unquantized: Collection[str] = (),
    family: str = DEFAULT,
) -> Sizes:
    """Count the weights of a network without making them.

    Args:
        config: Any size.
        scheme: What quantizes it.
        unquantized: See `export.quantization.quantize.quantizable`.
        family: Whose network it is.
    """
    with torch.device("meta"):
        network = published(family).new_network(config)
    denoiser = network.denoiser
    layers = [layer for _, layer in quantizable(denoiser, scheme, unquantized)]
    quantized = sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))

    hoisted = family_of(family).hoisted

    def count(module: nn.Module, without: Collection[str] = ()) -> int:
        weights = module.named_parameters()
        return sum(weight.numel() for name, weight in weights if not is_within(name, without))

    return Sizes(count(network), count(denoiser, hoisted), quantized)
