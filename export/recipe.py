"""Every choice on the way from weights to engines, checked before anything heavy is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from castmate.engines.plan import Flavour
from export.build import HOST_MEMORY_FACTOR, available_memory
from export.builder import check_target, load_tensorrt
from export.errors import ExportError, NotEnough
from export.family import DEFAULT, Config, published
from export.lora import Style
from export.precision import Precision, Quantization

RECIPE = "recipe.json"
GIB = 2**30


@dataclass(frozen=True)
class Recipe:
    """What is made, and how.

    Attributes:
        sources: Where the weights are.
        precision: Of weights and arithmetic.
        quantization: What of the transformer is FP8.
        fp8_modulation: The blocks' modulations, too; see `export.fp8.MODULATIONS`.
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
    quantization: Quantization = Quantization.FP8_ATTENTION
    fp8_modulation: bool = False
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
        if self.precision is Precision.FP16 and config.name == "flux":
            raise ExportError(
                "--precision fp16 overflows in FLUX's residual stream. Use bf16, which it was "
                "trained in."
            )
        for style in self.styles:
            if not style.path.is_file():
                raise ExportError(f"--style {style.path}: there is no such file.")
        if self.flavour is not None:
            fp8 = self.quantization is not Quantization.NONE
            check_target(self.flavour, self.target, fp8=fp8)
            load_tensorrt(self.flavour)
            if self.precision not in (Precision.BF16, Precision.FP16):
                raise ExportError(
                    f"--precision {self.precision}: engines need bf16, or fp16 for small networks."
                )
            if self.quantization is Quantization.FP8_ATTENTION and self.target == "9.0":
                raise ExportError(
                    "--quantization fp8-attention is not for Hopper (--target 9.0): TensorRT has "
                    "no FP8 attention kernel for it. Use --quantization fp8."
                )
        if self.fp8_modulation and self.quantization is Quantization.NONE:
            raise ExportError("--fp8-modulation needs --quantization fp8 or fp8-attention.")
        self._check_room(config, folder)

    def keep(self, folder: Path) -> None:
        """Write the recipe to a new folder, or compare it with the one that is there.

        Raises:
            ExportError: The folder was begun with other choices; names them.
        """
        path = folder / RECIPE
        mine = json.loads(json.dumps(self._values(), default=str))
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
        path.write_text(json.dumps(mine, indent=1) + "\n")

    def _values(self) -> dict[str, object]:
        values = asdict(self)
        del values["sources"]["token"]
        return values

    def _check_room(self, config: Config, folder: Path) -> None:
        weights, transformer = sizes(config, self.family)
        per_weight = self.precision.num_bytes
        memory = (weights + transformer * (self.quantization is not Quantization.NONE)) * per_weight
        if memory > (free := available_memory()):
            raise NotEnough(
                f"The weights take {memory / GIB:.0f} GiB of host memory, {free / GIB:.0f} GiB are "
                "free. Use a larger machine."
            )
        graphs = weights * per_weight
        disk = graphs * (2 if self.flavour else 1)
        parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if disk > (free := shutil.disk_usage(parent).free):
            raise NotEnough(
                f"Graphs and plans take up to {disk / GIB:.0f} GiB, {free / GIB:.0f} GiB are free "
                f"on the disk of {parent}. Choose another --out."
            )
        # A quarter of a quantized transformer, its modulations, keeps two bytes a weight.
        quantized = 1.0 if self.fp8_modulation else 1.25
        one = quantized if self.quantization is not Quantization.NONE else per_weight
        build = transformer * one * HOST_MEMORY_FACTOR
        if self.flavour and build > (free := available_memory()):
            raise NotEnough(
                f"Building the transformer takes about {build / GIB:.0f} GiB of host memory, "
                f"{free / GIB:.0f} GiB are free. Use a larger machine."
            )


def sizes(config: Config, family: str = DEFAULT) -> tuple[int, int]:
    """Parameters of the whole network, and of what runs in every step."""
    with torch.device("meta"):
        network = published(family).new_network(config)
    denoiser = sum(weight.numel() for weight in network.denoiser.parameters())
    return sum(weight.numel() for weight in network.parameters()), denoiser
