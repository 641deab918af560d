"""Every choice on the way from weights to engines, checked before anything heavy is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from castmate.defaults import Defaults
from castmate.engines.manifest import StepCachingSpec
from castmate.engines.plan import Flavour
from castmate.files import write_atomically
from export.build import Options, built_profile
from export.builder import load_tensorrt
from export.errors import ExportError
from export.family import DEFAULT, Config, family_of, published
from export.lora.fuse import Lora
from export.lora.styles import Style
from export.precision import Precision
from export.presets.preset import Preset
from export.quantization.fp8 import FP8_ATTENTION
from export.quantization.scheme import Scheme
from export.targets import check_target

RECIPE = "recipe.json"
FEW_STEPS = 8
"""Of `toon` in 8 steps, `balanced` skips none and `fast` 3 %; see docs/step-caching.md."""


@dataclass(frozen=True)
class Recipe:
    """What is made, and how.

    Attributes:
        sources: Where the weights are.
        precision: Of weights and arithmetic.
        quantization: How the transformer is quantized.
        quantize_encoders: Quantize the encoders as well, where there is a scheme. It is the default
                because a card of 16 or 24 GB then loads 8.7 GB instead of 15.1 for a new prompt and
            character, and the demo model's pictures lose 0.6 dB of 29.7 (docs/flux.md).
        loras: Fused in this order, before it is quantized.
        styles: LoRAs that are not fused: requests choose them by name.
        step_caching: Write the transformer in three parts, so that steps may be skipped.
        calibration: A file of `export.calibrate` to use; None takes the family's, or records one.
        samples: Trajectories to calibrate on.
        steps: Denoise steps of each.
        side: Pixels of their square pictures.
        flavour: Which TensorRT builds; None ends with the ONNX bundle.
        target: Compute capability of the GPU.
        max_side: Pixels of a side that the engines accept at most; None takes the family's.
        family: Whose network it is.
        preset: What makes it draw in few steps; the trajectories are its own.
    """

    sources: Any
    precision: Precision = Precision.BF16
    quantization: Scheme = FP8_ATTENTION
    quantize_encoders: bool = True
    loras: tuple[Lora, ...] = ()
    styles: tuple[Style, ...] = ()
    step_caching: bool = False
    calibration: Path | None = None
    samples: int = 8
    steps: int = 28
    side: int = 1024
    flavour: Flavour | None = None
    target: str = ""
    max_side: int | None = None
    family: str = DEFAULT
    preset: Preset | None = None

    @property
    def defaults(self) -> Defaults:
        """What a request gets for what it leaves out.

        Raises:
            ExportError: The preset's make no sense.
        """
        usual = family_of(self.family).defaults
        return self.preset.over(usual) if self.preset else usual

    @property
    def caching(self) -> StepCachingSpec | None:
        """Thresholds of step caching; of few steps, next to none change little enough."""
        spec = published(self.family).step_caching if self.step_caching else None
        many = self.defaults.num_inference_steps > FEW_STEPS
        return spec and spec.model_copy(update={"by_default": many})

    def check(self, config: Config) -> None:
        """Refuse what cannot work, in seconds instead of hours.

        Args:
            config: Sizes of the network.

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
        if self.preset and self.steps != (few := self.defaults.num_inference_steps):
            raise ExportError(
                f"--steps {self.steps}: --steps-preset {self.preset.name} draws in {few}, and is "
                "calibrated on them. Leave --steps out."
            )
        for flag, lora in (
            *(("--lora", lora) for lora in self.loras),
            *((f"--style {style.name}=", style.lora) for style in self.styles),
        ):
            if not lora.path.is_file():
                raise ExportError(f"{flag} {lora.path}: there is no such file.")
        names = [style.name for style in self.styles]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ExportError(f"--style: {', '.join(twice)} is there twice; names differ.")
        if self.calibration is not None and not self.calibration.is_file():
            raise ExportError(f"--calibration {self.calibration}: there is no such file.")
        if self.max_side is not None and self.flavour is None:
            raise ExportError(
                f"--max-side {self.max_side} limits engines, and none are built. Name a --flavour, "
                "or leave --max-side out."
            )
        if self.flavour is not None:
            options = Options(self.flavour, self.target, max_side=self.max_side)
            built_profile(family_of(self.family).profile, options)
            check_target(self.flavour, self.target, self.quantization.kernels)
            load_tensorrt(self.flavour)
            if self.precision.for_cpu:
                raise ExportError(
                    f"--precision {self.precision}: engines need bf16, or fp16 for small networks."
                )

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
